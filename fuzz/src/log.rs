//! Messages of the log: the same events after they are written and read again, or rejected.
//!
//! The input is checked twice: as a whole message, and as the lines of one, since a mutated zlib stream is hardly ever one.

use breathing_room::internals::{log_message_of, rewrite_log_message};

pub fn check(bytes: &[u8]) {
    for message in [bytes, &log_message_of(bytes)] {
        // None is a rejection. What is rejected is not written.
        if let Some((once, again)) = rewrite_log_message(message) {
            assert_eq!(once, again);
        }
    }
}
