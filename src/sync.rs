//! Locking, in the one way the house locks: short, never over an await, and blind to poison.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks `mutex`. A panic in another holder is that holder's: every critical section here leaves
/// its data whole at each step, so the next one may go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
