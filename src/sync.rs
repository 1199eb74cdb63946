//! Locking, in the one way the house locks: short, never over an await, and blind to poison.
//!
//! Knows nothing of what is locked; each lock says at its field why it is one.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. A panic in another holder is that holder's: every critical section here leaves
/// its data whole at each step, so the next one may go on.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
