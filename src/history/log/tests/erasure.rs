//! An erasure on one node is one on all nodes and in the log, also of nodes that were away, of late events, and after a
//! crash.

use std::fs;

use tokio::sync::oneshot;

use super::*;
use crate::history::lifecycle::MaintenanceStep;
use crate::history::log::Log;
use crate::history::log::command::Command;
use crate::history::log::erasures::LoggedErasure;
use crate::history::log::message::{Encoder, Origin};
use crate::history::store::{Erasure, LogChange, backup};
use crate::protocol::Time;

/// A time after all others.
const LATER_MS: u64 = 60_000;

fn view_of(visitor: &str, id: u128, at: Time) -> PageViewEvent {
    let mut view = view(id);
    view.actor.visitor = visitor.try_into().unwrap();
    view.at = at;
    view
}

fn now() -> Time {
    Clock::system().wall()
}

/// The message of another program.
fn message_of(views: Vec<PageViewEvent>) -> (String, bytes::Bytes) {
    let batch = Batch { page_views: views, ..Batch::default() };
    let encoded = Encoder::new(Origin::new()).encode(batch).remove(0);
    (encoded.id.to_string(), encoded.message)
}

impl Node {
    async fn view_of(&self, visitor: &str, id: u128, at: Time) {
        self.append_view(view_of(visitor, id, at));
        self.journal.flush().await.unwrap();
    }

    /// Erases as a request does. Returns the position of the command.
    async fn erase(&self, visitor: &str, until: Time) -> Option<u64> {
        let key = self.erasures.erasures.key();
        let erasure = key.erasure(key.hash(visitor), until);
        let own = Erasure { id: erasure.seal, at: until, until: Some(until) };
        self.lifecycle.erase(visitor.try_into().unwrap(), own).await.unwrap();
        let position = self.erasures.publish(erasure).await.unwrap();
        self.erasures.erasures.until_finished(erasure.visitor, until).await;
        position
    }

    /// Waits until this node has finished all erasures up to a position.
    async fn until_erased(&self, position: u64) {
        until(async || self.log.status().erased >= position, &format!("erased up to {position}")).await;
    }
}

/// Waits for a condition, but not for long.
async fn until(mut condition: impl AsyncFnMut() -> bool, what: &str) {
    for _ in 0..2_000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("still false: {what}");
}

/// Waits until the log has these events.
async fn until_logged(log: &MemoryLog, ids: &[u128]) {
    let has_them = async || {
        let mut found = logged(log);
        found.sort_unstable();
        found.dedup();
        found == ids
    };
    until(has_them, &format!("the log has {ids:?}")).await;
}

#[tokio::test]
async fn erasure_on_one_node_is_one_on_all_nodes_and_in_the_log() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    let at = now();
    // Ann and Bob are in one message.
    b.append_view(view_of("ann", 1, at));
    b.view_of("bob", 2, at).await;
    a.view_of("ann", 3, at).await;
    b.log.until(|status| status.position == 2).await;
    assert_eq!(b.ids().await, [1, 2, 3]);

    let position = a.erase("ann", at).await.unwrap();
    assert_eq!(a.ids().await, [2]);
    b.until_erased(position).await;
    assert_eq!(b.ids().await, [2]);
    until_logged(&log, &[2]).await;
    let bytes = log.messages().concat();
    assert!(!bytes.windows(3).any(|part| part == b"ann"), "no id");

    // Late events are dropped, and are not published. Later ones are those of a visitor who has returned.
    for node in [&a, &b] {
        node.view_of("ann", 4, at).await;
        node.view_of("ann", 5, at.plus(LATER_MS)).await;
    }
    for node in [&a, &b] {
        node.log.until(|status| status.position >= position + 3).await;
        assert_eq!(node.ids().await, [2, 5]);
    }
    until_logged(&log, &[2, 5]).await;
    // A node that joins gets the same.
    let c = Node::start(&log).await;
    c.log.until(|status| status.position >= position + 3).await;
    assert_eq!(c.ids().await, [2, 5]);
}

#[tokio::test]
async fn late_message_of_another_node_is_dropped_everywhere_and_removed_from_the_log() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    let at = now();
    a.view_of("ann", 1, at).await;
    let position = a.erase("ann", at).await.unwrap();
    b.until_erased(position).await;
    // A node without the erasure was away, and empties its outbox.
    let (id, late) = message_of(vec![view_of("ann", 2, at), view_of("bob", 3, at)]);
    log.append(id, late).await.unwrap();
    for node in [&a, &b] {
        node.log.until(|status| status.position > position + 1).await;
        assert_eq!(node.ids().await, [3]);
    }
    until_logged(&log, &[3]).await;
}

#[tokio::test]
async fn erasure_while_the_log_is_away_waits_in_the_outbox_in_order() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    let at = now();
    a.view_of("ann", 1, at).await;
    b.log.until(|status| status.position == 1).await;
    log.set_away(true);
    a.view_of("ann", 2, at).await;
    a.view_of("bob", 3, at).await;
    assert_eq!(a.erase("ann", at).await, None, "the command is not in the log");
    assert_eq!((a.ids().await, b.ids().await), (vec![3], vec![1]));
    // A restart keeps it.
    let a = Node::start_in(a.stop().await, &log).await;
    log.set_away(false);
    a.log.until(|status| status.outbox == 0).await;
    b.log.until(|status| status.position >= 4).await;
    b.until_erased(4).await;
    assert_eq!((a.ids().await, b.ids().await), (vec![3], vec![3]));
    until_logged(&log, &[3]).await;
}

#[tokio::test]
async fn node_that_was_away_erases_although_the_beginning_of_the_log_is_deleted() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    let at = now();
    a.view_of("ann", 1, at).await;
    b.log.until(|status| status.position == 1).await;
    let folder = b.stop().await;
    a.view_of("ann", 2, at).await;
    a.append_view(view_of("ann", 3, at));
    a.view_of("bob", 4, at).await;
    a.erase("ann", at).await.unwrap();
    until_logged(&log, &[4]).await;
    assert!(log.state().await.unwrap().first > 3, "all messages with Ann are deleted");
    let b = Node::start_in(folder, &log).await;
    b.log.until(|status| status.position >= 7).await;
    b.until_erased(7).await;
    assert_eq!(b.ids().await, [4]);
    assert_eq!(b.log.status().problem(), None);
    // It is gone if other messages are missing too.
    let c = Node::start(&log).await;
    c.log.until(|status| status.position >= 7).await;
    log.forget(4);
    let d = Node::start(&log).await;
    d.log.until(|status| status.reading == LogReading::Gone).await;
}

#[tokio::test]
async fn erasure_that_a_crash_interrupted_is_finished_at_the_next_start() {
    let log = MemoryLog::new();
    let a = Node::start(&log).await;
    let at = now();
    a.view_of("ann", 1, at).await;
    a.view_of("bob", 2, at).await;
    let (visitor, store) = (a.erasures.erasures.key().hash("ann"), a.store.clone());
    // The position is in the file, and the worker has not begun.
    let erasures = vec![LoggedErasure { visitor, until: at, position: Some(3) }];
    store.commit_logged(&Batch::default(), &LogChange { erasures, ..LogChange::default() }).await.unwrap();
    assert_eq!(a.ids().await, [1, 2]);
    let a = Node::start_in(a.stop().await, &log).await;
    a.erasures.erasures.until_finished(visitor, at).await;
    assert_eq!(a.ids().await, [2]);
    a.view_of("ann", 3, at).await;
    assert_eq!(a.ids().await, [2], "late");
}

#[tokio::test]
async fn erasure_of_a_lost_log_is_published_again() {
    let log = MemoryLog::new();
    let (a, b) = (Node::start(&log).await, Node::start(&log).await);
    let at = now();
    a.view_of("ann", 1, at).await;
    a.view_of("bob", 2, at).await;
    b.log.until(|status| status.position == 2).await;
    let folder = b.stop().await;
    a.erase("ann", at).await.unwrap();
    log.delete();
    a.log.until(|status| status.is_resending).await;
    let b = Node::start_in(folder, &log).await;
    for node in [&a, &b] {
        node.log.until(|status| status.position > 0 && !status.is_resending).await;
    }
    // What it had is published too, and is removed again.
    let visitor = b.erasures.erasures.key().hash("ann");
    let ann = "ann".try_into().unwrap();
    until(async || b.erasures.erasures.covers(&ann, at), "b knows the erasure").await;
    b.erasures.erasures.until_finished(visitor, at).await;
    until(async || b.ids().await == [2], "b has erased Ann").await;
    until_logged(&log, &[2]).await;
    assert_eq!(a.ids().await, [2]);
}

/// A folder as after a restore: an erasure is in the ledger, and the file is of before it. The outbox has an event of
/// the erased Ann, and one of Bob.
async fn restored(log: &MemoryLog, at: Time) -> TempDir {
    let a = Node::start(log).await;
    a.view_of("cid", 1, at).await;
    a.log.until(|status| status.position == 1).await;
    log.set_away(true);
    a.view_of("ann", 2, at).await;
    a.view_of("bob", 3, at).await;
    let copy = a.folder.path().join("backup.db");
    let url = format!("sqlite://{}/a.db", a.folder.path().display());
    backup::backup(&url, &copy).await.unwrap();
    assert_eq!(a.erase("ann", at).await, None);
    let folder = a.stop().await;
    backup::restore(&url, &copy, "replaced").await.unwrap();
    log.set_away(false);
    folder
}

/// Events of now go to the log meanwhile, one after the other. Returns their ids.
async fn go_on(node: &Node) -> Vec<u128> {
    let ids: Vec<u128> = (10..20).collect();
    for id in &ids {
        node.view_of("dan", *id, now()).await;
    }
    ids
}

/// No message was removed from the log afterwards: none had an event of Ann.
async fn expect_no_deletion(log: &MemoryLog) {
    assert_eq!(log.messages().len() as u64, log.state().await.unwrap().last);
}

#[tokio::test]
async fn restored_node_repeats_the_erasures_of_its_ledger_before_it_empties_its_outbox() {
    let (log, at) = (MemoryLog::new(), now());
    let folder = restored(&log, at).await;
    let (start, started) = oneshot::channel::<()>();
    let a = Node::start_maintained_after(async { drop(started.await) }, folder, &log).await;
    let own = go_on(&a).await;
    assert_eq!((logged(&log), a.log.status().outbox), ([&[1], &own[..]].concat(), 2), "it waits");
    start.send(()).unwrap();
    a.log.until(|status| status.outbox == 0).await;
    assert_eq!(logged(&log), [&[1], &own[..], &[3]].concat());
    expect_no_deletion(&log).await;
    assert_eq!(a.ids().await, [&[1, 3], &own[..]].concat());
}

#[tokio::test]
async fn restored_node_whose_ledger_cannot_be_read_keeps_its_outbox_until_maintenance_repeats_it() {
    let (log, at) = (MemoryLog::new(), now());
    let folder = restored(&log, at).await;
    let ledger = folder.path().join("archive/erasures.jsonl");
    let aside = folder.path().join("aside");
    fs::rename(&ledger, &aside).unwrap();
    fs::create_dir(&ledger).unwrap();
    let a = Node::start_in(folder, &log).await;
    let report = a.lifecycle.maintain().await.unwrap();
    assert_eq!(report.steps[&MaintenanceStep::Erase].failures.len(), 1, "{report:?}");
    let own = go_on(&a).await;
    assert_eq!((logged(&log), a.log.status().outbox), ([&[1], &own[..]].concat(), 2), "it waits");
    fs::remove_dir(&ledger).unwrap();
    fs::rename(&aside, &ledger).unwrap();
    a.lifecycle.maintain().await.unwrap();
    a.log.until(|status| status.outbox == 0).await;
    assert_eq!(logged(&log), [&[1], &own[..], &[3]].concat());
    expect_no_deletion(&log).await;
}

#[tokio::test]
async fn restored_node_repeats_the_erasures_of_its_ledger_before_it_publishes_its_last_days_again() {
    let (log, at) = (MemoryLog::new(), now());
    let folder = restored(&log, at).await;
    log.delete();
    let (start, started) = oneshot::channel::<()>();
    let a = Node::start_maintained_after(async { drop(started.await) }, folder, &log).await;
    a.log.until(|status| status.is_resending).await;
    let own = go_on(&a).await;
    assert!(a.log.status().is_resending, "it waits");
    assert_eq!(logged(&log), own);
    start.send(()).unwrap();
    a.log.until(|status| !status.is_resending && status.outbox == 0).await;
    until_logged(&log, &[&[1, 3], &own[..]].concat()).await;
    expect_no_deletion(&log).await;
}

#[tokio::test]
async fn erasure_of_another_admin_token_and_commands_of_later_versions_are_skipped() {
    let log = MemoryLog::new();
    let a = Node::start(&log).await;
    let at = now();
    a.view_of("ann", 1, at).await;
    let key = ErasureKey::derive("another token", "c");
    let mut own = key.erasure(a.erasures.erasures.key().hash("ann"), at);
    own.until = at.plus(1);
    let mut run = Encoder::new(Origin::new());
    for erasure in [key.erasure(key.hash("ann"), at), own] {
        let encoded = run.command(&Command::Erase { visitors: vec![erasure] });
        log.append(encoded.id.to_string(), encoded.message).await.unwrap();
    }
    a.view_of("bob", 2, at).await;
    a.log.until(|status| status.position == 4).await;
    assert_eq!((a.ids().await, a.log.status().erased), (vec![1, 2], 4));
}
