//! Panics, including those in the hub's tasks, which tokio catches: each is a failure of the scenario.
//!
//! A scenario has its own thread, so that each panic on that thread belongs to it.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static IS_SIMULATING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Takes the last panic on this thread, if there was one since the last call.
pub fn take_last() -> Option<String> {
    LAST.take()
}

/// Runs the function and returns its panic, if it panicked. Panics are not printed meanwhile.
pub fn catch(simulate: impl FnOnce()) -> Option<String> {
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
    result.err().and_then(|_| take_last())
}
