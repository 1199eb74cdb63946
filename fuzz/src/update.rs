//! Messages between the nodes of a cluster: accepted and the same after it is written and read again, or rejected.

use breathing_room::internals::rewrite_update;

pub fn check(bytes: &[u8]) {
    // None is a rejection. What is rejected is not written.
    if let Some((once, twice)) = rewrite_update(bytes) {
        assert_eq!(once, twice);
    }
}
