//! What is logged at most once an hour for each text, such as a refused origin.
//!
//! The texts come from outside, so that their number and length are bounded, and only printable ASCII is logged.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::sync::lock;

/// How long nothing more is logged of a text.
const HOUR: Duration = Duration::from_hours(1);

/// The most texts that are remembered at once. Until one of them is an hour old, no other is logged.
const TEXTS: usize = 64;

/// The most bytes of a text that are logged, before they are escaped.
const BYTES: usize = 128;

/// When which text was logged.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle(Mutex<HashMap<String, Duration>>);

/// A text that is to be logged now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its beginning, escaped.
    pub text: String,
    /// Whether as many are remembered as can be: nothing else is due until the oldest is an hour old.
    pub is_last: bool,
}

impl LogThrottle {
    /// Whether this text is to be logged `now`, by the monotonic clock.
    pub(crate) fn due(&self, text: &[u8], now: Duration) -> Option<Due> {
        let text = text.get(..BYTES).unwrap_or(text).escape_ascii().to_string();
        let mut logged = lock(&self.0);
        if logged.len() >= TEXTS {
            logged.retain(|_, at| now < *at + HOUR);
        }
        let is_fresh = logged.get(&text).is_some_and(|at| now < *at + HOUR);
        if is_fresh || (logged.len() >= TEXTS && !logged.contains_key(&text)) {
            return None;
        }
        logged.insert(text.clone(), now);
        Some(Due { text, is_last: logged.len() >= TEXTS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_due_once_an_hour() {
        let hourly = LogThrottle::default();
        let due = |text: &str, minutes| hourly.due(text.as_bytes(), Duration::from_mins(minutes)).is_some();
        assert_eq!(
            [due("a", 0), due("a", 59), due("b", 59), due("a", 60), due("a", 61)],
            [true, false, true, true, false]
        );
    }

    #[test]
    fn texts_are_bounded_in_number_and_length_and_escaped() {
        let hourly = LogThrottle::default();
        let long = [0x1b; 1000];
        let due = hourly.due(&long, Duration::ZERO).unwrap();
        assert_eq!(due, Due { text: "\\x1b".repeat(BYTES), is_last: false });
        for n in 1..1000 {
            let due = hourly.due(format!("{n}").as_bytes(), Duration::ZERO);
            assert_eq!(due.map(|due| due.is_last), (n < TEXTS).then_some(n == TEXTS - 1));
        }
        assert_eq!(lock(&hourly.0).len(), TEXTS);
        assert!(hourly.due(b"later", HOUR).is_some());
        assert_eq!(lock(&hourly.0).len(), 1);
    }
}
