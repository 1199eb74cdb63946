//! Two nodes with a real file each, and a log in memory: every file gets all events, also after the log was away, was lost,
//! or does not reach back.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::breaker::BreakerState;
use super::command::ErasureKey;
use super::erasure_request::ErasureSender;
use super::erasures::Erasures;
use super::follow::LogParts;
use super::memory::MemoryLog;
use super::message::{Body, decode};
use super::metrics::LogMetrics;
use super::replica::Replica;
use super::status::{LogMonitor, LogProblem, LogReading, LogStatus};
use crate::address::Address;
use crate::history::archive::Archives;
use crate::history::capacity::JournalLimits;
use crate::history::event::{Actor, Batch, Event, Mergeable, PageViewEvent};
use crate::history::lifecycle::{self, Lifecycle, LoggedErasures, MaintenanceWorker, Retention};
use crate::history::metrics::{HistoryMetrics, LifecycleMetrics};
use crate::history::store::Store;
use crate::history::{Journal, flush, journal};
use crate::panics::Panics;
use crate::quota::Sharing;
use crate::time::Clock;

mod erasure;

/// The journal, the flush task, the maintenance worker and the file of a node.
struct Node {
    journal: Journal,
    flush: JoinHandle<()>,
    lifecycle: Lifecycle,
    maintenance: JoinHandle<()>,
    store: Store,
    log: LogMonitor,
    erasures: ErasureSender,
    folder: TempDir,
}

impl Node {
    async fn start(log: &MemoryLog) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), log).await
    }

    async fn start_in(folder: TempDir, log: &MemoryLog) -> Self {
        Self::start_maintained_after(std::future::ready(()), folder, log).await
    }

    /// Starts a node whose maintenance worker begins later, as on a slow machine.
    async fn start_maintained_after(
        begin: impl Future<Output = ()> + Send + 'static,
        folder: TempDir,
        log: &MemoryLog,
    ) -> Self {
        let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
        let (clock, panics) = (Clock::system(), Panics::register());
        let limits =
            JournalLimits { events: 50_000, bytes: 64 * 1024 * 1024, sharing: Sharing::Fair, rate: None };
        let (journal, receiver) = journal::open(limits, clock.clone(), HistoryMetrics::register(&panics));
        let [finished, unfinished] = store.logged_erasures().await.unwrap();
        let erasures = Erasures::new(ErasureKey::derive("token", "c"), finished, unfinished);
        let parts = LogParts {
            log: Arc::new(log.clone()),
            store: store.clone(),
            clock: clock.clone(),
            panics,
            metrics: LogMetrics::register(),
            erasures: erasures.clone(),
        };
        let (replica, log, sender) = Replica::open(parts).await.unwrap();
        let (lifecycle, commands) = lifecycle::open();
        let archives = Archives::new(Some(folder.path().join("archive")), &store.path());
        let worker = MaintenanceWorker {
            store: store.clone(),
            archives,
            retention: Retention::default(),
            clock,
            metrics: LifecycleMetrics::register(),
            logged: Some(LoggedErasures { erasures, release: Arc::new(|_| {}) }),
        };
        let maintenance = tokio::spawn(async {
            begin.await;
            lifecycle::run(commands, worker).await;
        });
        let interval = Duration::from_millis(200);
        let flush = tokio::spawn(flush::run(receiver, store.clone(), interval, Some(replica)));
        let erasures = sender;
        Self { journal, flush, lifecycle, maintenance, store, log, erasures, folder }
    }

    /// Stops as a hub does: commits what is pending.
    async fn stop(self) -> TempDir {
        drop((self.journal, self.lifecycle));
        self.flush.await.unwrap();
        self.maintenance.await.unwrap();
        self.store.close().await;
        self.folder
    }

    /// Appends a page view, and waits for its commit.
    async fn view(&self, id: u128) {
        self.append(id);
        self.journal.flush().await.unwrap();
    }

    fn append(&self, id: u128) {
        self.append_view(view(id));
    }

    fn append_view(&self, view: PageViewEvent) {
        let address: Address = Ipv4Addr::LOCALHOST.into();
        self.journal.append(address, Event::PageView(view)).unwrap();
    }

    /// The ids of all page views in the file.
    async fn ids(&self) -> Vec<u128> {
        let mut ids = Vec::new();
        for month in self.store.live_months().await.unwrap() {
            let mut pages = self.store.events(month);
            while let Some(page) = pages.next().await.unwrap() {
                ids.extend(page.page_views.iter().map(|view| view.id().as_u128()));
            }
        }
        ids.sort_unstable();
        ids
    }
}

fn view(id: u128) -> PageViewEvent {
    PageViewEvent {
        actor: Actor { room: "r".try_into().unwrap(), visitor: "v".try_into().unwrap(), is_bot: false },
        id: Uuid::from_u128(id),
        path: "/".to_owned().try_into().unwrap(),
        title: None,
        referrer: None,
        at: Clock::system().wall(),
        props: None,
    }
}

/// The ids of the page views in all messages of a log.
fn logged(log: &MemoryLog) -> Vec<u128> {
    let events = |message: &bytes::Bytes| match decode(message).unwrap() {
        Body::Events(batch) => batch,
        Body::Command(_) => Batch::default(),
    };
    let batches: Batch = log.messages().iter().map(events).collect();
    batches.page_views.iter().map(|view| view.id().as_u128()).collect()
}

#[tokio::test]
async fn each_file_gets_the_events_of_all_nodes() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    a.view(1).await;
    b.view(2).await;
    a.view(3).await;
    for node in [&a, &b] {
        node.log.until(|status| status.position == 3).await;
        assert_eq!(node.ids().await, [1, 2, 3]);
        assert_eq!(node.log.status().problem(), None);
    }
    assert_eq!(logged(&log), [1, 2, 3], "each once");
}

#[tokio::test]
async fn files_have_one_sum_at_one_position_unless_one_has_what_the_log_has_not() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    a.view(1).await;
    b.view(2).await;
    let is_whole = |status: &LogStatus| status.records.as_ref().is_some_and(|records| records.position == 2);
    for node in [&a, &b] {
        node.log.until(is_whole).await;
    }
    let records = a.log.status().records;
    assert_eq!(b.log.status().records, records);
    b.store.commit(&Batch { page_views: vec![view(3)], ..Batch::default() }).await.unwrap();
    b.log.until(|status| is_whole(status) && status.records != records).await;
}

#[tokio::test]
async fn node_that_was_away_reads_on_after_its_position() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    b.view(1).await;
    a.log.until(|status| status.position == 1).await;
    let folder = a.stop().await;
    b.view(2).await;
    // What it has read before is not needed any more.
    log.forget(1);
    let a = Node::start_in(folder, &log).await;
    a.log.until(|status| status.position == 2).await;
    assert_eq!(a.ids().await, [1, 2]);
}

#[tokio::test]
async fn events_are_acked_while_the_log_is_away_and_reach_it_in_order_later() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    a.view(1).await;
    log.set_away(true);
    for id in 2..=4 {
        a.view(id).await;
    }
    assert_eq!(a.ids().await, [1, 2, 3, 4]);
    assert_eq!(a.store.outbox_len().await.unwrap(), 3);
    assert_eq!(a.log.status().problem(), Some(LogProblem::LogAway));
    assert_eq!(logged(&log), [1]);
    // A hub that is restarted meanwhile keeps its outbox.
    let a = Node::start_in(a.stop().await, &log).await;
    assert_eq!(a.log.status().outbox, 3);
    log.set_away(false);
    a.log.until(|status| status.outbox == 0).await;
    assert_eq!(logged(&log), [1, 2, 3, 4]);
    for node in [&a, &b] {
        node.log.until(|status| status.position == 4).await;
        assert_eq!(node.ids().await, [1, 2, 3, 4]);
    }
    assert_eq!(a.store.outbox_len().await.unwrap(), 0);
    a.view(5).await;
    assert_eq!(logged(&log), [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn message_that_cannot_be_removed_from_the_outbox_is_not_sent_again() {
    let log = MemoryLog::new();
    let a = Node::start(&log).await;
    a.log.until(|status| status.is_log_known).await;
    log.set_away(true);
    for id in 1..=2 {
        a.view(id).await;
    }
    a.store.keep_outbox(true).await;
    log.set_away(false);
    a.log.until(|status| status.breaker == BreakerState::Closed).await;
    for id in 3..=5 {
        a.view(id).await;
    }
    assert_eq!((log.asked(), logged(&log)), (4, vec![1, 3, 4, 5]));
    assert_eq!(a.log.status().outbox, 2);
    a.store.keep_outbox(false).await;
    a.log.until(|status| status.outbox == 0).await;
    assert_eq!((log.asked(), logged(&log)), (5, vec![1, 3, 4, 5, 2]));
    assert_eq!(a.store.outbox_len().await.unwrap(), 0);
}

#[tokio::test]
async fn nodes_publish_their_last_days_again_when_the_log_is_lost() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    a.view(1).await;
    b.log.until(|status| status.position == 1).await;
    let folder = b.stop().await;
    a.view(2).await;
    log.delete();
    let b = Node::start_in(folder, &log).await;
    b.view(3).await;
    for node in [&a, &b] {
        node.log.until(|status| status.position >= 3 && !status.is_resending).await;
        node.journal.flush().await.unwrap();
        assert_eq!(node.ids().await, [1, 2, 3]);
        assert_eq!(node.log.status().problem(), None);
        assert_eq!(node.store.log_row().await.unwrap().unwrap().resend_from, None);
    }
}

#[tokio::test]
async fn node_does_not_read_a_log_that_does_not_reach_back() {
    let log = MemoryLog::new();
    let a = Node::start(&log).await;
    a.view(1).await;
    a.view(2).await;
    log.forget(1);
    let b = Node::start(&log).await;
    b.log.until(|status| status.reading == LogReading::Gone).await;
    assert_eq!(b.log.status().problem(), Some(LogProblem::LogGone));
    // Its own events are in its file, and in the log for the others.
    b.view(3).await;
    assert_eq!(b.ids().await, [3]);
    a.log.until(|status| status.position == 3).await;
    assert_eq!(a.ids().await, [1, 2, 3]);
}

#[tokio::test]
async fn message_that_cannot_be_read_is_skipped() {
    let log = MemoryLog::new();
    let a = Node::start(&log).await;
    log.push(b"no message");
    log.push(&[2; 100]);
    let b = Node::start(&log).await;
    b.view(1).await;
    for node in [&a, &b] {
        node.log.until(|status| status.position == 3).await;
        assert_eq!(node.ids().await, [1]);
    }
}

#[tokio::test]
async fn file_that_was_replaced_by_an_older_copy_gets_what_it_lacks() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    a.view(1).await;
    a.log.until(|status| status.position == 1).await;
    let mut older = a.store.log_row().await.unwrap().unwrap();
    older.position = 0;
    // As a restored file would have it.
    a.store.set_log_row(&older).await.unwrap();
    b.view(2).await;
    a.log.until(|status| status.position == 2).await;
    assert_eq!(a.store.log_row().await.unwrap().unwrap().position, 2);
    assert_eq!(a.ids().await, [1, 2]);
}
