//! Panics, also those in the hub's tasks, which tokio catches: in a simulation each of them is a failure.
//!
//! A simulation has a thread for itself, so that whatever panics on it is its own.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static IS_SIMULATING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The last panic on this thread, if there was one since it was last asked for.
pub fn taken() -> Option<String> {
    LAST.take()
}

/// Does it, and returns with what it panicked, if it did. Nothing is printed meanwhile.
pub fn caught(simulate: impl FnOnce()) -> Option<String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if IS_SIMULATING.get() { LAST.set(Some(panic.to_string())) } else { usual(panic) }
        }));
    });
    IS_SIMULATING.set(true);
    let result = catch_unwind(AssertUnwindSafe(simulate));
    IS_SIMULATING.set(false);
    result.err().and_then(|_| taken())
}
