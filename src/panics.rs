//! Panics: what one of them ends, and how they are counted.
//!
//! A panic of a session or of a request ends only that. Any other task is a part of the hub: after its panic the hub
//! shuts down gracefully, and the process supervisor restarts it, because a hub without one of its parts would look
//! healthy and be wrong.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Arc;

use futures_util::FutureExt;
use metrics::{Counter, counter, describe_counter};
use strum::{IntoStaticStr, VariantArray};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// What a panic ends: the label `scope` of `breathing_room_panics_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum PanicScope {
    /// One socket.
    Session,
    /// One request, or one response that is computed for several requests.
    Request,
    /// The hub.
    Task,
}

/// The counters of panics of one hub. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Panics {
    counters: Arc<[(PanicScope, Counter)]>,
    stop: CancellationToken,
}

impl Panics {
    /// Registers the counters with the current recorder.
    #[must_use]
    pub fn register() -> Self {
        const PANICS: &str = "breathing_room_panics_total";
        describe_counter!(PANICS, "Panics, by what they ended");
        let counters = PanicScope::VARIANTS.iter();
        let counters = counters.map(|scope| (*scope, counter!(PANICS, "scope" => <&str>::from(scope))));
        Self { counters: counters.collect(), stop: CancellationToken::new() }
    }

    /// Counts a panic that was caught.
    pub(crate) fn count(&self, scope: PanicScope) {
        self.counters
            .iter()
            .filter(|(counted, _)| *counted == scope)
            .for_each(|(_, counter)| counter.increment(1));
    }

    /// Returns the output of `work`, or none if it panicked. Not an `async fn`, whose future would have `work` twice.
    pub(crate) fn catch<F: Future>(
        &self,
        scope: PanicScope,
        work: F,
    ) -> impl Future<Output = Option<F::Output>> + use<F> {
        let panics = self.clone();
        // Other tasks see the state of `work` only through locks, which ignore poison.
        let caught = AssertUnwindSafe(work).catch_unwind();
        caught.map(move |result| result.inspect_err(|_| panics.count(scope)).ok())
    }

    /// Spawns a task whose panic shuts the hub down.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let stop = self.stop.clone();
        tokio::spawn(self.catch(PanicScope::Task, task).map(move |done| {
            if done.is_none() {
                stop.cancel();
            }
        }))
    }

    /// Ready when a [spawned](Self::spawn) task has panicked.
    pub(crate) async fn task_panicked(&self) {
        self.stop.cancelled().await;
    }
}

/// Logs every panic of the process with its location. Only for the program: an embedder has its own panic hook.
pub(crate) fn log_all() {
    std::panic::set_hook(Box::new(log));
}

fn log(panic: &PanicHookInfo<'_>) {
    let message = panic.payload_as_str().unwrap_or("no message");
    let location = panic.location().map(ToString::to_string);
    // Captured only if RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(message, location, backtrace, "panic in the hub: please report it with this line");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn caught_panic_does_not_stop_the_hub() {
        let panics = Panics::register();
        assert_eq!(panics.catch(PanicScope::Request, async { 1 }).await, Some(1));
        assert_eq!(panics.catch(PanicScope::Request, async { panic!("a test") }).await, None::<()>);
        assert!(!panics.stop.is_cancelled());
    }

    #[tokio::test]
    async fn panic_of_a_spawned_task_stops_the_hub() {
        let panics = Panics::register();
        panics.spawn(async {}).await.unwrap();
        assert!(!panics.stop.is_cancelled(), "the task has ended without a panic");
        panics.spawn(async { panic!("a test") }).await.unwrap();
        panics.task_panicked().await;
    }
}
