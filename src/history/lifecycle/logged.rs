//! The erasures of the log: the worker finds the visitors by their hashes, and erases them from this node's file.
//!
//! An erasure that fails stays unfinished, and the next run tries it again.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tracing::{info, warn};

use super::MaintenanceWorker;
use crate::history::log::erasures::{Erasures, KEEP_MS, LoggedErasure, MOST};
use crate::history::store::{Erasure, LifecycleError};
use crate::protocol::VisitorId;

/// What the worker needs of the log and of presence.
#[derive(Clone)]
pub(crate) struct LoggedErasures {
    /// The erasures of the log.
    pub erasures: Erasures,
    /// Ends the holds of a visitor, which would be saved once more.
    pub release: Arc<dyn Fn(&VisitorId) + Send + Sync>,
}

impl fmt::Debug for LoggedErasures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoggedErasures").field("erasures", &self.erasures).finish_non_exhaustive()
    }
}

impl MaintenanceWorker {
    /// Erases the visitors that the log has erased.
    pub(super) async fn erase_logged(&self) {
        if let Err(error) = self.finish_logged().await {
            warn!(%error, "cannot finish an erasure of the log: maintenance tries it again");
        }
    }

    /// Finishes the erasures of the log, and forgets old ones. Returns how many visitors were found.
    /// Errors: of the first erasure that failed, and the others are finished; or the copies cannot be overwritten, and none is.
    pub(super) async fn finish_logged(&self) -> Result<Option<u64>, LifecycleError> {
        let Some(logged) = &self.logged else { return Ok(None) };
        let erasures = &logged.erasures;
        let unfinished = erasures.unfinished();
        let (mut count, mut result) = (0, Ok(()));
        if !unfinished.is_empty() {
            let hashes: BTreeSet<_> = unfinished.iter().map(|erasure| erasure.visitor).collect();
            let found = self.store.visitors_with(&hashes, |visitor| erasures.key().hash(visitor)).await?;
            let mut deleted = Vec::new();
            for erasure in unfinished {
                let visitor = found.get(&erasure.visitor);
                count += u64::from(visitor.is_some());
                match self.delete_logged(logged, &erasure, visitor).await {
                    Ok(()) => deleted.push(erasure),
                    Err(error) => result = result.and(Err(error)),
                }
            }
            // Once for all of them.
            if count > 0 {
                self.store.overwrite_erased().await?;
            }
            for erasure in &deleted {
                self.store.finish_logged_erasure(erasure).await?;
                erasures.finish(erasure);
            }
        }
        let before = self.clock.wall().minus(KEEP_MS);
        erasures.forget(before);
        self.store.forget_logged_erasures(before, MOST).await?;
        result.map(|()| Some(count))
    }

    async fn delete_logged(
        &self,
        LoggedErasures { erasures, release }: &LoggedErasures,
        logged: &LoggedErasure,
        visitor: Option<&VisitorId>,
    ) -> Result<(), LifecycleError> {
        if let Some(visitor) = visitor {
            release(visitor);
            let id = erasures.key().erasure(logged.visitor, logged.until).seal;
            let erasure = Erasure { id, at: self.clock.wall(), until: Some(logged.until) };
            let erased = self.store.delete_visitor(visitor, &self.archives, erasure).await?;
            if !erased.is_nothing() {
                info!(?erased, "erased a visitor that the log has erased");
            }
        }
        Ok(())
    }
}
