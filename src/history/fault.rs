//! Faults: what is wrong with the database, in the words of `/health`.
//!
//! A closed list, so that the operator's handbook (docs/operations.md) can say of each what to do.

use serde::Serialize;
use utoipa::ToSchema;

/// Why the database does not take what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Another process holds its lock.
    Locked,
    /// The disk has no room.
    DiskFull,
    /// The volume or the file takes no writes.
    ReadOnly,
    /// The system could not read or write the file.
    DiskError,
    /// The file is damaged.
    Damaged,
    /// There is no file at its path.
    FileGone,
    /// The file at its path is not the hub's.
    Foreign,
    /// Anything else: the log has it.
    DatabaseError,
}
