//! A throttle for log lines: each text, such as a rejected origin, is logged at most once an hour.
//!
//! Clients send these texts, so the throttle bounds their number and length, and escapes all but printable ASCII.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::sync::lock;

/// The minimum time between two log lines with the same text.
const INTERVAL: Duration = Duration::from_hours(1);

/// The maximum number of texts in memory. At the maximum, no new text is logged until one is older than [`INTERVAL`].
const MAX_TEXTS: usize = 64;

/// The maximum length of a text, in bytes before escaping; the rest is cut off.
const MAX_BYTES: usize = 128;

/// The time of the last log line with each text, by the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<HashMap<String, Duration>>);

/// A text that the caller should log now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// The escaped text, cut off at its maximum length.
    pub text: String,
    /// Whether the throttle is full: no new text is logged until the oldest one is an hour old.
    pub is_last: bool,
}

impl LogThrottle {
    /// Returns the text if it should be logged at `now`, a time of the monotonic clock.
    pub(crate) fn due(&self, text: &[u8], now: Duration) -> Option<Due> {
        let text = text.get(..MAX_BYTES).unwrap_or(text).escape_ascii().to_string();
        let mut logged = lock(&self.0);
        if logged.len() >= MAX_TEXTS {
            logged.retain(|_, at| now < *at + INTERVAL);
        }
        let is_recent = logged.get(&text).is_some_and(|at| now < *at + INTERVAL);
        if is_recent || (logged.len() >= MAX_TEXTS && !logged.contains_key(&text)) {
            return None;
        }
        logged.insert(text.clone(), now);
        Some(Due { text, is_last: logged.len() >= MAX_TEXTS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_logged_once_an_hour() {
        let throttle = LogThrottle::default();
        let due = |text: &str, minutes| throttle.due(text.as_bytes(), Duration::from_mins(minutes)).is_some();
        assert_eq!(
            [due("a", 0), due("a", 59), due("b", 59), due("a", 60), due("a", 61)],
            [true, false, true, true, false]
        );
    }

    #[test]
    fn number_and_length_of_texts_are_bounded_and_texts_are_escaped() {
        let throttle = LogThrottle::default();
        let long = [0x1b; 1000];
        let due = throttle.due(&long, Duration::ZERO).unwrap();
        assert_eq!(due, Due { text: "\\x1b".repeat(MAX_BYTES), is_last: false });
        for n in 1..1000 {
            let due = throttle.due(format!("{n}").as_bytes(), Duration::ZERO);
            assert_eq!(due.map(|due| due.is_last), (n < MAX_TEXTS).then_some(n == MAX_TEXTS - 1));
        }
        assert_eq!(lock(&throttle.0).len(), MAX_TEXTS);
        assert!(throttle.due(b"later", INTERVAL).is_some());
        assert_eq!(lock(&throttle.0).len(), 1);
    }
}
