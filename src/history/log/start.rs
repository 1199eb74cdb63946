//! Where a node goes on in the log, from the position in its file and what the log has.
//!
//! Pure.

use super::LogState;

/// The position that a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredPosition {
    /// The [name](LogState::name) of the log.
    pub log: String,
    /// The last message of that log that is in the file.
    pub position: u64,
}

/// What a node does with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// It reads after this position.
    After(u64),
    /// The log is another one, or has lost its end: the node publishes again what the log may have lost, and reads
    /// from the beginning.
    Reset,
    /// The log does not reach back to this position, which the file has: the file would miss events, unless erasures have
    /// deleted the messages.
    Gone(u64),
}

/// Decides where to go on.
pub(crate) fn start(stored: Option<&StoredPosition>, log: &LogState) -> Start {
    let position = match stored {
        None => 0,
        Some(stored) if stored.log != log.name || stored.position > log.last => return Start::Reset,
        Some(stored) => stored.position,
    };
    if position + 1 < log.first { Start::Gone(position) } else { Start::After(position) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str, first: u64, last: u64) -> LogState {
        LogState { name: name.to_owned(), first, last }
    }

    fn at(position: u64) -> StoredPosition {
        StoredPosition { log: "a".to_owned(), position }
    }

    #[test]
    fn node_goes_on_after_its_position() {
        assert_eq!(start(None, &log("a", 1, 0)), Start::After(0));
        assert_eq!(start(None, &log("a", 1, 9)), Start::After(0));
        assert_eq!(start(Some(&at(5)), &log("a", 1, 9)), Start::After(5));
        assert_eq!(start(Some(&at(5)), &log("a", 6, 9)), Start::After(5));
        // A log whose messages are all too old is empty, and goes on with the next position.
        assert_eq!(start(Some(&at(9)), &log("a", 10, 9)), Start::After(9));
    }

    #[test]
    fn log_that_is_new_or_shorter_is_reset() {
        assert_eq!(start(Some(&at(5)), &log("b", 1, 9)), Start::Reset);
        assert_eq!(start(Some(&at(5)), &log("a", 1, 4)), Start::Reset);
        assert_eq!(start(Some(&at(0)), &log("b", 7, 9)), Start::Reset);
    }

    #[test]
    fn log_that_does_not_reach_back_is_gone() {
        assert_eq!(start(Some(&at(5)), &log("a", 7, 9)), Start::Gone(5));
        assert_eq!(start(None, &log("a", 2, 9)), Start::Gone(0));
    }
}
