//! Erasures on request: the rows at once, and the copies in the file once for all erasures before.
//!
//! To overwrite the copies of deleted rows takes time by the size of the month, not of the visitor. So the worker rests
//! after it, and an erasure meanwhile does not wait for the next time. Its answer says that it is not finished yet.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::MaintenanceWorker;
use crate::history::store::{Erased, Erasure, LifecycleError};
use crate::protocol::VisitorId;

/// How long the worker rests, for each unit of time that it overwrote: it uses a tenth of the time at most.
const REST: u32 = 9;

/// An erasure waits for the end of a rest that is not longer.
const PATIENCE: Duration = Duration::from_secs(3);

/// When copies of deleted rows are overwritten.
#[derive(Debug)]
pub(super) struct Overwriting {
    /// Whether an erasure did not wait for it.
    is_due: bool,
    rests_until: Instant,
}

impl Overwriting {
    /// Nothing is due.
    pub(super) fn new() -> Self {
        Self { is_due: false, rests_until: Instant::now() }
    }

    /// Completes when it is due and the rest is over.
    pub(super) async fn due(&self) {
        if self.is_due { sleep_until(self.rests_until).await } else { pending().await }
    }

    /// Starts a rest after this much work.
    fn rest_after(&mut self, took: Duration) {
        self.rests_until = Instant::now() + took * REST;
    }
}

impl MaintenanceWorker {
    /// Deletes a visitor, and overwrites the copies, unless it has to rest for long.
    /// Errors: a step failed. A retry continues.
    pub(super) async fn erase(
        &self,
        visitor: &VisitorId,
        erasure: Erasure,
        overwriting: &mut Overwriting,
    ) -> Result<Erased, LifecycleError> {
        let erased = self.try_erase(visitor, erasure, overwriting).await;
        match &erased {
            // Debug level, so that erasures of unknown ids do not fill the log.
            Ok(erased) if erased.is_nothing() => debug!("erased a visitor without stored data"),
            Ok(erased) => info!(?erased, "erased a visitor"),
            Err(error) => warn!(%error, "cannot erase a visitor: send the request again"),
        }
        erased
    }

    async fn try_erase(
        &self,
        visitor: &VisitorId,
        erasure: Erasure,
        overwriting: &mut Overwriting,
    ) -> Result<Erased, LifecycleError> {
        let mut erased = self.store.delete_visitor(visitor, &self.archives, erasure).await?;
        if overwriting.rests_until <= Instant::now() + PATIENCE {
            sleep_until(overwriting.rests_until).await;
            erased.wal_truncated = self.overwrite(overwriting).await?;
        } else {
            overwriting.is_due = true;
        }
        Ok(erased)
    }

    /// Overwrites the copies that erasures have left, which did not wait for it.
    pub(super) async fn overwrite_due(&self, overwriting: &mut Overwriting) {
        match self.overwrite(overwriting).await {
            Ok(wal_truncated) => info!(wal_truncated, "overwrote what erasures have left"),
            Err(error) => {
                warn!(%error, "cannot overwrite what erasures have left: maintenance tries it again");
            }
        }
    }

    async fn overwrite(&self, overwriting: &mut Overwriting) -> Result<bool, LifecycleError> {
        let began = Instant::now();
        let overwritten = self.store.overwrite_erased().await;
        overwriting.is_due = false;
        overwriting.rest_after(began.elapsed());
        overwritten
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use futures_util::FutureExt;
    use futures_util::poll;
    use serde_json::json;
    use tokio::time::advance;
    use uuid::Uuid;

    use super::super::Retention;
    use super::*;
    use crate::history::archive::Archives;
    use crate::history::event::{Actor, Batch, PageViewEvent};
    use crate::history::metrics::LifecycleMetrics;
    use crate::history::store::Store;
    use crate::protocol::{RoomId, Time};
    use crate::time::Clock;

    const SECRET: &str = "secret-5d1f0c7e";

    fn visitor() -> VisitorId {
        VisitorId::try_from("ann").unwrap()
    }

    /// A worker on a database in this folder, which has a page view with a secret property.
    async fn worker(folder: &Path) -> MaintenanceWorker {
        let store = Store::open(&format!("sqlite://{}", folder.join("a.db").display())).await.unwrap();
        let now = Time::from_millis(1_717_977_600_000);
        let room = RoomId::try_from("lobby").unwrap();
        let actor = Actor { room, visitor: visitor(), is_bot: false };
        let message = json!({ "id": Uuid::now_v7(), "path": "/", "at": now, "props": { "note": SECRET } });
        let view = PageViewEvent::new(actor, serde_json::from_value(message).unwrap(), now).unwrap();
        store.commit(&Batch { page_views: vec![view], ..Batch::default() }).await.unwrap();
        MaintenanceWorker {
            store,
            archives: Archives::new(Some(folder.join("archive")), folder),
            retention: Retention::Forever,
            clock: Clock::manual(now),
            metrics: LifecycleMetrics::register(),
            logged: None,
        }
    }

    fn has_secret(folder: &Path) -> bool {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let texts = files.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap());
        texts.into_iter().any(|bytes| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()))
    }

    #[tokio::test]
    async fn erasure_leaves_no_copy_and_within_a_long_rest_none_after_the_rest() {
        for rests in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let worker = worker(folder.path()).await;
            let mut overwriting = Overwriting::new();
            if rests {
                overwriting.rests_until += 2 * PATIENCE;
            }
            let erasure = Erasure::of_all(worker.clock.wall());
            let erased = worker.erase(&visitor(), erasure, &mut overwriting).await.unwrap();
            assert_eq!((erased.page_views, erased.wal_truncated), (1, !rests));
            assert_eq!(has_secret(folder.path()), rests);
            assert_eq!(overwriting.due().now_or_never(), None);
            if rests {
                overwriting.rests_until = Instant::now();
                overwriting.due().await;
                worker.overwrite_due(&mut overwriting).await;
                assert!(!has_secret(folder.path()));
            }
            assert!(!overwriting.is_due);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rest_is_nine_times_as_long_as_the_work() {
        let mut overwriting = Overwriting { is_due: true, rests_until: Instant::now() };
        overwriting.rest_after(Duration::from_millis(10));
        let mut due = Box::pin(overwriting.due());
        for (after, is_due) in [(0, false), (89, false), (1, true)] {
            advance(Duration::from_millis(after)).await;
            assert_eq!(poll!(&mut due).is_ready(), is_due);
        }
    }
}
