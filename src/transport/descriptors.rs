//! Open files: how many the process may have, who gets them, and what to do when there are none.
//!
//! Every connection is one. Some are kept for the database, so that history is written however many
//! people come, and some for requests, so that whoever finds the hub full is told so.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use metrics::Counter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};
use tracing::warn;

/// Kept for the database, the runtime and the listener.
const RESERVED_FOR_FILES: usize = 48;

/// Kept for plain requests.
const RESERVED_FOR_REQUESTS: usize = 80;

/// How long accepting pauses after an error that may come again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// How often errors are logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What a connection gets for which there is no descriptor.
pub(crate) const FULL_RESPONSE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 75\r\n\
    Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\nRetry-After: 5\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"full\",\"message\":\"the hub is full: come back in a while\"}}";

/// What a connection gets from whose address there are too many.
pub(crate) const TOO_MANY_RESPONSE: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: 89\r\n\
    Access-Control-Allow-Origin: *\r\nAccess-Control-Expose-Headers: Retry-After\r\nRetry-After: 10\r\nConnection: close\r\n\r\n\
    {\"error\":{\"code\":\"too-many\",\"message\":\"too many connections are open from your address\"}}";

/// How many files the process may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors(usize);

impl Descriptors {
    /// So many.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(limit)
    }

    /// Raises the process's limit as far as it may.
    #[must_use]
    pub fn raise() -> Self {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
        let limit = match raised {
            Ok(()) => maximum,
            Err(error) => {
                warn!(%error, "cannot raise the limit of open files");
                current
            }
        };
        Self(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX))
    }

    /// How many there may be.
    #[must_use]
    pub fn files(self) -> usize {
        self.0
    }

    /// How many connections fit, with sockets.
    #[must_use]
    pub fn connections(self) -> usize {
        self.0 - RESERVED_FOR_FILES.min(self.0 / 2)
    }

    /// How many sockets fit.
    #[must_use]
    pub fn sockets(self) -> usize {
        self.connections() - RESERVED_FOR_REQUESTS.min(self.0 / 4)
    }
}

/// Tells a connection why there is no place for it, as far as that goes without waiting.
pub(crate) fn reject(stream: TcpStream, answer: &[u8]) {
    let Ok(mut stream) = stream.into_std() else { return };
    // With the request unread, the answer would be lost to a reset.
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(answer);
}

/// Errors of accepting, which are waited out.
#[derive(Debug)]
pub(crate) struct AcceptErrors {
    counter: Counter,
    logged: Option<Instant>,
}

impl AcceptErrors {
    /// None yet.
    #[must_use]
    pub(crate) fn new(counter: Counter) -> Self {
        Self { counter, logged: None }
    }

    /// One more: returns when it makes sense to try again.
    pub(crate) async fn back_off(&mut self, error: &io::Error) {
        self.counter.increment(1);
        let is_due = self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY);
        if is_due {
            self.logged = Some(Instant::now());
            warn!(%error, "cannot accept a connection: going on");
        }
        match error.kind() {
            // That one connection is gone; the next may be good.
            ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted => {
                yield_now().await;
            }
            // Mostly too many open files, which others have to close.
            _ => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_for_files_and_requests_however_few_there_are() {
        let shares = |limit| {
            let descriptors = Descriptors::new(limit);
            (descriptors.connections(), descriptors.sockets())
        };
        assert_eq!(shares(20_000), (19_952, 19_872));
        assert_eq!(shares(1_024), (976, 896));
        assert_eq!(shares(64), (32, 16));
        assert_eq!(shares(0), (0, 0));
    }

    #[test]
    fn the_answers_are_as_long_as_they_say() {
        for (answer, code) in [(FULL_RESPONSE, "full"), (TOO_MANY_RESPONSE, "too-many")] {
            let answer = str::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{}", body.len());
            assert!(head.contains("\r\nAccess-Control-Allow-Origin: *\r\n"), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"], code);
        }
    }

    #[tokio::test]
    async fn errors_are_waited_out_and_only_those_that_may_come_again_take_time() {
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
