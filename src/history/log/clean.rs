//! Removes the events of erased visitors from the messages of the log, on the node that was asked to erase them.
//!
//! A message with such events is published once more without them, and then deleted: nodes that have not read it get the rest.
//! Events merge, so that a repeat after a crash changes nothing. How far this is, is in the file. A message that another
//! node publishes late is looked at when this node reads it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::erasures::Erasures;
use super::follow::NEXT_LIMIT;
use super::message::replacement;
use super::status::LogStatus;
use super::{Log, LogEntry, LogError};
use crate::history::store::{CommitError, Store};

/// The pause before another try after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// The messages after which the position is written.
const SLICE: u64 = 1_000;

/// The file or the log failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What cleans the log.
#[derive(Debug)]
pub(super) struct Cleaner {
    pub(super) log: Arc<dyn Log>,
    pub(super) store: Store,
    pub(super) erasures: Erasures,
    pub(super) status: watch::Receiver<LogStatus>,
}

impl Cleaner {
    /// Cleans the log whenever that is needed, until it is dropped.
    pub(super) async fn run(mut self) {
        loop {
            match self.clean().await {
                Ok(()) => self.erasures.to_clean().await,
                Err(error) => {
                    warn!(%error, "cannot remove the events of erased visitors from the log: trying again");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Removes all events of erased visitors that the log has now.
    async fn clean(&mut self) -> Result<(), Failed> {
        while let Some(after) = self.store.begin_cleaning().await? {
            // What waits in the outbox is in the log soon. The sender ends with the hub.
            let _ = self.status.wait_for(|status| status.outbox == 0).await;
            let removed = self.clean_after(after).await?;
            self.store.cleaned(None).await?;
            info!(messages = removed, "removed the events of erased visitors from the log");
        }
        Ok(())
    }

    /// Removes the events from the messages after a position. Returns how many messages had any.
    async fn clean_after(&self, after: u64) -> Result<u64, Failed> {
        let (state, mut removed, mut saved) = (self.log.state().await?, 0, after);
        if state.last <= after || state.first > state.last {
            return Ok(0);
        }
        let mut reader = self.log.read(after).await?;
        // If the last messages are deleted, the next one may never come.
        while let Ok(entry) = timeout(NEXT_LIMIT, reader.next()).await {
            let LogEntry { position, behind, message, .. } = entry?;
            let is_kept = |visitor: &_, time| !self.erasures.covers(visitor, time);
            if let Some((id, rest)) = replacement(position, &message, is_kept) {
                // The log must not take it for a repeat of the original.
                self.log.append(format!("{id}-without-{position}"), rest).await?;
                self.log.delete(position).await?;
                removed += 1;
            }
            if position >= state.last || behind == 0 {
                break;
            }
            if position >= saved + SLICE {
                saved = position;
                self.store.cleaned(Some(saved)).await?;
            }
        }
        Ok(removed)
    }
}
