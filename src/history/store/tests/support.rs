//! Helpers of these tests: maintenance at a given time, crashes, and the rows in tables and archives.
//!
//! A crash is a future that is dropped together with its runtime.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Runtime;

use super::*;
use crate::history::archive::{Archives, LINES, Source, checksum, parse_line};
use crate::history::calendar::Month;
use crate::history::lifecycle::{MaintenanceReport, MaintenanceWorker, Retention};
use crate::history::metrics::LifecycleMetrics;
use crate::history::store::read::Pages;
use crate::time::Clock;

pub(super) fn month(name: &str) -> Month {
    name.parse().unwrap()
}

pub(super) fn archives(folder: &TempDir) -> Archives {
    Archives::new(Some(folder.path().join("archive")), Path::new(""))
}

/// Runs maintenance at `now` with a retention of one month.
pub(super) async fn maintain(store: &Store, archives: &Archives, now: &str) -> MaintenanceReport {
    worker(store, archives, now).maintain().await
}

pub(super) fn worker(store: &Store, archives: &Archives, now: &str) -> MaintenanceWorker {
    MaintenanceWorker {
        store: store.clone(),
        archives: archives.clone(),
        retention: Retention::Months(1),
        clock: Clock::manual(at(now)),
        metrics: LifecycleMetrics::register(),
        logged: None,
    }
}

/// A page view with these properties.
pub(super) fn view(
    id: u128,
    visitor: &str,
    path: &str,
    seen: &str,
    props: &serde_json::Value,
) -> PageViewEvent {
    let message = serde_json::json!({
        "id": Uuid::from_u128(id), "path": path, "title": path, "at": at(seen), "props": props,
    });
    let actor = Actor {
        room: RoomId::try_from("lobby").unwrap(),
        visitor: VisitorId::try_from(visitor).unwrap(),
        is_bot: false,
    };
    PageViewEvent::new(actor, serde_json::from_value(message).unwrap(), at(seen)).unwrap()
}

pub(super) fn views(views: impl IntoIterator<Item = PageViewEvent>) -> Batch {
    Batch { page_views: views.into_iter().collect(), ..Batch::default() }
}

impl File {
    /// All events of all months, in the order of an export.
    pub(super) async fn events(&self) -> Batch {
        let mut all = Batch::default();
        for month in self.store.live_months().await.unwrap() {
            let mut pages = Pages::new(month, 3);
            while let Some(events) = pages.read(&self.store).await.unwrap() {
                all.append(events);
            }
        }
        all
    }

    pub(super) fn archives(&self) -> Archives {
        archives(&self.folder)
    }

    /// Counts the writer's transactions from now on.
    pub(super) async fn count_commits(&self) -> Arc<AtomicU64> {
        let commits = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&commits);
        let mut writer = self.store.connection().await.unwrap();
        writer.lock_handle().await.unwrap().set_commit_hook(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            true
        });
        commits
    }

    pub(super) async fn numbers(&self, query: &'static str) -> Vec<i64> {
        sqlx::query_scalar(query).fetch_all(&mut *self.store.read().await.unwrap()).await.unwrap()
    }

    /// All rollups, byte for byte.
    pub(super) async fn rollups(&self) -> Vec<String> {
        const EVERYTHING: &str = "
            SELECT json_array(level, room, at, page_views, watch_sessions, watched_ms, visitors, hex(visitor_set))
            FROM activity_rollups
            UNION ALL
            SELECT json_array(level, at, room, dimension, value, count, watched_ms) FROM dimension_rollups
            UNION ALL
            SELECT json_array(level, room, at, joins, peak, present_ms, moods_ms, held_ms, sits_begun, sits_completed,
                              sat_ms)
            FROM presence_rollups
            ORDER BY 1";
        sqlx::query_scalar(EVERYTHING).fetch_all(&mut *self.store.read().await.unwrap()).await.unwrap()
    }

    /// All rows of the tables and of the archives, whose checksums are checked, as one store has them.
    pub(super) async fn everything(&self) -> Vec<String> {
        let archives = self.archives();
        self.store.recover_archives(&archives).await.unwrap();
        let together = Self::new().await;
        for state in self.store.months().await.unwrap() {
            if let Some(archive) = state.archive {
                let path = archives.path(&archive.name);
                assert_eq!(checksum(path.clone()).await.unwrap(), archive.checksum);
                together.store.commit(&events_in(path).await).await.unwrap();
            }
            if state.is_live {
                let mut pages = Pages::new(state.month, 1_000);
                while let Some(events) = pages.read(&self.store).await.unwrap() {
                    together.store.commit(&events).await.unwrap();
                }
            }
        }
        together.rows().await
    }

    pub(super) async fn restore_all(&self) {
        for month in self.store.archived_months().await.unwrap() {
            self.store.restore_from(month, &self.archives()).await.unwrap();
        }
        assert!(self.store.recount().await.unwrap().archived.is_empty());
    }
}

pub(super) async fn events_in(path: PathBuf) -> Batch {
    let (mut events, mut source) = (Batch::default(), Source::open(path).await.unwrap());
    loop {
        let (rest, slice) = source.next(LINES, parse_line).await.unwrap();
        source = rest;
        if slice.is_empty() {
            return events;
        }
        events.append(slice.into_iter().collect());
    }
}

/// Opens the store, starts `work`, and crashes it after `waits` polls.
pub(super) fn run_and_crash<T>(
    folder: &TempDir,
    waits: usize,
    work: impl AsyncFnOnce(&Store, &Archives) -> Result<T, LifecycleError>,
) {
    // Dropping the runtime ends work on other threads.
    Runtime::new().unwrap().block_on(async {
        let store = Store::open(&url(folder)).await.unwrap();
        if let Some(done) = crash_after(waits, work(&store, &archives(folder))).await {
            done.unwrap();
        }
    });
}

/// Polls `run` until it was pending `waits` times, and then both futures.
pub(super) async fn run_during<T>(
    waits: usize,
    run: impl Future<Output = ()>,
    other: impl Future<Output = T>,
) -> T {
    let mut run = pin!(run);
    let is_over = crash_after(waits, run.as_mut()).await.is_some();
    let rest = async {
        if !is_over {
            run.await;
        }
    };
    tokio::join!(rest, other).1
}

pub(super) fn in_folder<T>(folder: TempDir, check: impl AsyncFnOnce(&mut File) -> T) -> (TempDir, T) {
    block_on(async {
        let store = Store::open(&url(&folder)).await.unwrap();
        let mut file = File { folder, store };
        let result = check(&mut file).await;
        file.store.close().await;
        (file.folder, result)
    })
}
