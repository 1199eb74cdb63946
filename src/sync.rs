//! The one way to lock a mutex: for a short time, never over an await, and ignoring poison.
//!
//! Each lock says at its field how long it is held.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. Ignores poison: every critical section leaves its data consistent at each step, so that a panic of one
/// holder does not affect the next.
#[expect(clippy::disallowed_methods, reason = "the only call")]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
