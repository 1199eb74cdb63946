//! Messages of the log: what they say is the same after it is written and read again, or they are rejected.
//!
//! The input is checked twice: as a whole message, and as the lines of one, since a mutated zlib stream is hardly ever one.

use breathing_room::internals::{is_same_when_rewritten, log_message_of};

pub fn check(bytes: &[u8]) {
    for message in [bytes, &log_message_of(bytes)] {
        // None is a rejection. What is rejected is not written.
        assert_ne!(is_same_when_rewritten(message), Some(false));
    }
}
