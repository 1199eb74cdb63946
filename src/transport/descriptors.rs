//! Open files: the process's limit, how it is divided, and what happens when it is reached.
//!
//! Every connection is an open file. Some are reserved for the database, so that any number of connections cannot stop
//! the history, and some for requests, so that the hub can answer with 503 when its sockets are full.

use std::io::{self, ErrorKind};
use std::time::Duration;

use metrics::Counter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tracing::warn;

/// Reserved for the database, the runtime and the listener.
const RESERVED_FOR_FILES: usize = 48;

/// Reserved for plain requests.
const RESERVED_FOR_REQUESTS: usize = 80;

/// The pause of accepting after an error that may recur at once.
const PAUSE: Duration = Duration::from_millis(50);

/// The shortest time between two log lines about errors.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The process's limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors(usize);

impl Descriptors {
    /// A limit of so many files.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(limit)
    }

    /// Raises the soft limit to the hard limit, and returns the result.
    #[must_use]
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = match raised {
            Ok(()) => maximum,
            Err(error) => {
                warn!(%error, "cannot raise the limit of open files: the soft limit applies");
                current
            }
        };
        Self(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX))
    }

    /// The number of files.
    #[must_use]
    pub fn files(self) -> usize {
        self.0
    }

    /// The number of connections that fit, sockets included.
    #[must_use]
    pub fn connections(self) -> usize {
        self.0 - RESERVED_FOR_FILES.min(self.0 / 2)
    }

    /// The number of sockets that fit.
    #[must_use]
    pub fn sockets(self) -> usize {
        self.connections() - RESERVED_FOR_REQUESTS.min(self.0 / 4)
    }
}

/// The errors of accepting: counts them, logs them, and pauses after them.
#[derive(Debug)]
pub(crate) struct AcceptErrors {
    counter: Counter,
    logged: Option<Instant>,
}

impl AcceptErrors {
    /// No errors yet.
    pub(crate) fn new(counter: Counter) -> Self {
        Self { counter, logged: None }
    }

    /// Counts an error, and returns when accepting may be tried again.
    pub(crate) async fn back_off(&mut self, error: &io::Error) {
        self.counter.increment(1);
        let is_due = self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY);
        if is_due {
            self.logged = Some(Instant::now());
            warn!(%error, "cannot accept a connection: the hub retries");
        }
        match error.kind() {
            // This connection is gone; the next one may be good.
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted => {
                yield_now().await;
            }
            // Mostly too many open files, until some are closed.
            _ => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_reserved_for_files_and_requests_at_any_limit() {
        let split = |limit| {
            let descriptors = Descriptors::new(limit);
            (descriptors.connections(), descriptors.sockets())
        };
        assert_eq!(split(20_000), (19_952, 19_872));
        assert_eq!(split(1_024), (976, 896));
        assert_eq!(split(64), (32, 16));
        assert_eq!(split(0), (0, 0));
    }

    #[tokio::test]
    async fn accept_pauses_only_after_errors_that_may_recur() {
        let mut errors = AcceptErrors::new(Counter::noop());
        let started = Instant::now();
        for _ in 0..1_000 {
            errors.back_off(&ErrorKind::ConnectionAborted.into()).await;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "a pause for each would be 50 s");
        let started = Instant::now();
        for _ in 0..3 {
            errors.back_off(&rustix::io::Errno::MFILE.into()).await;
        }
        assert!(started.elapsed() >= 3 * PAUSE);
    }
}
