//! The log: the events of all nodes of a cluster, in one order, so that each node's file gets all of them.
//!
//! [`Log`] is the interface to what stores it, [`message`] and [`command`] what it has, [`follow`] the task that reads it,
//! [`replica`] what the flush task does with it, [`own`] and [`received`] which messages it has not committed yet,
//! [`breaker`] whether it is used now, [`resend`] what is published again when the log has lost it, [`erasures`] who is
//! erased, [`erasure_request`] how HTTP erases, [`clean`] the task that removes erased events from the log, and
//! [`status`] what HTTP reads. A hub without a log has none of this.

pub(crate) mod breaker;
mod clean;
pub(crate) mod command;
pub(crate) mod erasure_request;
pub(crate) mod erasures;
pub(crate) mod follow;
#[cfg(test)]
mod memory;
pub(crate) mod message;
pub(crate) mod metrics;
mod own;
mod received;
pub(crate) mod replica;
mod resend;
#[cfg(test)]
mod simulation;
pub(crate) mod start;
pub(crate) mod status;
mod sums;

use std::fmt;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Serialize, Serializer};

use crate::protocol::Time;

/// Why the log did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    /// There is no connection, or no server stores messages of the log now.
    #[error("the log cannot be reached")]
    Unreachable,
    /// No server answers requests of JetStream.
    #[error("no NATS server has JetStream: start the servers with --jetstream")]
    NoJetStream,
    /// It did not answer in time.
    #[error("the log did not answer in time")]
    TimedOut,
    /// It refused.
    #[error("the log refused: {0}")]
    Refused(String),
    /// An answer cannot be read.
    #[error("an answer of the log cannot be read")]
    BadAnswer,
    /// Messages are missing between two that were read, or nothing was heard for too long.
    #[error("reading the log was interrupted")]
    Interrupted,
}

/// As its text.
impl Serialize for LogError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the log has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogState {
    /// Which log it is. One that was deleted and made again has another name.
    pub name: String,
    /// The position of the first message that it still has, or would have.
    pub first: u64,
    /// The position of the last message; 0 before the first one.
    pub last: u64,
}

/// A message that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogEntry {
    /// Its position: positions rise, and are never used twice.
    pub position: u64,
    /// How many messages followed it when it was read.
    pub behind: u64,
    /// When it was stored, by the clock of the log.
    pub stored: Time,
    /// Its bytes.
    pub message: Bytes,
}

/// A log that keeps messages in one order, on several disks. It does not know what they say.
pub(crate) trait Log: fmt::Debug + Send + Sync {
    /// Appends a message, and returns its position once most of the disks have it. One id is stored once, for some
    /// minutes at least. Without an answer in 2 s it is an error, and the message may be stored.
    fn append(&self, id: String, message: Bytes) -> BoxFuture<'static, Result<u64, LogError>>;

    /// Returns what the log has. Makes the log if there is none.
    fn state(&self) -> BoxFuture<'static, Result<LogState, LogError>>;

    /// Begins to read after a position.
    fn read(&self, after: u64) -> BoxFuture<'static, Result<Box<dyn LogReader>, LogError>>;

    /// Deletes a message, and overwrites it on the disks. One that is deleted already is no error.
    fn delete(&self, position: u64) -> BoxFuture<'static, Result<(), LogError>>;
}

/// Reads messages in their order, without a gap.
pub(crate) trait LogReader: Send {
    /// Waits for the next message. Errors: a message may be missing from now on; read again from the last position.
    fn next(&mut self) -> BoxFuture<'_, Result<LogEntry, LogError>>;
}

#[cfg(test)]
mod tests;
