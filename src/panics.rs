//! Panics: whom one may take along, and where they are counted.
//!
//! One session or one request that panics ends, and nothing else does. Any other task is a part of the hub: where
//! one panics, the hub stops in order, as at a signal, and whoever looks after the process starts it again. A part
//! that was only missing would be found out by the people.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt;
use metrics::{Counter, counter, describe_counter};
use strum::{IntoStaticStr, VariantArray};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// What a panic ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Scope {
    /// One socket.
    Session,
    /// One request, or one answer that was being made for many.
    Request,
    /// The hub.
    Task,
}

/// The panics of one hub. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Panics {
    counters: Arc<[(Scope, Counter)]>,
    stop: CancellationToken,
}

impl Panics {
    /// Registers the counters with the recorder that is current.
    #[must_use]
    pub fn register() -> Self {
        const PANICS: &str = "breathing_room_panics_total";
        describe_counter!(PANICS, "Panics, by what they ended");
        let counters = Scope::VARIANTS.iter();
        let counters = counters.map(|scope| (*scope, counter!(PANICS, "scope" => <&str>::from(scope))));
        Self { counters: counters.collect(), stop: CancellationToken::new() }
    }

    /// A panic was caught.
    pub(crate) fn count(&self, scope: Scope) {
        self.counters
            .iter()
            .filter(|(counted, _)| *counted == scope)
            .for_each(|(_, counter)| counter.increment(1));
    }

    /// What `work` comes to, or none where it panicked. Not an `async fn`, which would hold `work` more than once.
    pub(crate) fn catch<F: Future>(
        &self,
        scope: Scope,
        work: F,
    ) -> impl Future<Output = Option<F::Output>> + use<F> {
        let panics = self.clone();
        // What it has left behind is looked at through locks only, which are blind to poison.
        let caught = AssertUnwindSafe(work).catch_unwind();
        caught.map(move |result| result.inspect_err(|_| panics.count(scope)).ok())
    }

    /// The same of work that does not wait.
    pub(crate) fn catch_sync<T>(&self, scope: Scope, work: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(work)).inspect_err(|_| self.count(scope)).ok()
    }

    /// Spawns a task that the hub cannot do without.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let stop = self.stop.clone();
        tokio::spawn(self.catch(Scope::Task, task).map(move |done| {
            if done.is_none() {
                stop.cancel();
            }
        }))
    }

    /// Ready when such a task has panicked.
    pub(crate) async fn task_panicked(&self) {
        self.stop.cancelled().await;
    }
}

/// Writes every panic of the process to the log, with its place. For programs; a library leaves that to them.
pub(crate) fn log_all() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("without words");
    let place = panic.location().map(ToString::to_string);
    // Only where RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(message, place, backtrace, "a panic: please report it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_caught_stops_nothing() {
        let panics = Panics::register();
        assert_eq!(panics.catch(Scope::Request, async { 1 }).await, Some(1));
        assert_eq!(panics.catch(Scope::Request, async { panic!("a test") }).await, None::<()>);
        assert!(!panics.stop.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_panics_stops_the_hub() {
        let panics = Panics::register();
        panics.spawn(async {}).await.unwrap();
        assert!(!panics.stop.is_cancelled(), "it has ended well");
        panics.spawn(async { panic!("a test") }).await.unwrap();
        panics.task_panicked().await;
    }
}
