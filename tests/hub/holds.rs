//! Holds over a restart: counts do not drop while visitors reconnect after a deploy or a crash. Several hubs run on the
//! same database, one after the other.

use std::time::{Duration, Instant};

use breathing_room::Config;
use breathing_room::config::Clock;
use serde_json::json;
use sqlx::Connection;
use tempfile::TempDir;

use crate::support::client::Disconnect;
use crate::support::{Client, Hub, Program, eventually, manual_clock, open_database, rows};

const LONG: Duration = Duration::from_hours(1);

fn with_hold(seat_hold: Duration, clock: &Clock) -> impl FnOnce(&mut Config) + use<> {
    let clock = clock.clone();
    move |config| {
        config.clock = clock;
        config.presence.seat_hold = seat_hold;
    }
}

/// Stops a hub with Ann (calm) and Bob in the lobby and Carol in the garden. Returns its folder.
async fn stop_with_three_visitors(seat_hold: Duration, clock: &Clock) -> TempDir {
    let hub = Hub::with(with_hold(seat_hold, clock)).await;
    let mut clients = vec![
        hub.join_with_mood("lobby", "ann", "calm").await,
        hub.join("lobby", "bob").await,
        hub.join_with_mood("garden", "carol", "joy").await,
    ];
    let closed = async {
        for client in &mut clients {
            assert_eq!(client.expect_disconnect().await, Disconnect::Closed(1012));
        }
    };
    let (folder, ()) = tokio::join!(hub.stop(), closed);
    folder
}

#[tokio::test]
async fn restart_keeps_counts_and_moods() {
    let clock = manual_clock();
    let folder = stop_with_three_visitors(LONG, &clock).await;
    let hub = Hub::in_folder(folder, with_hold(LONG, &clock)).await;
    let garden = hub.get("/rooms/garden").send().await.expect(200);
    assert_eq!((&garden["present"], &garden["moods"]), (&json!(1), &json!({ "joy": 1 })), "Carol is held");
    assert_eq!(hub.debug("liveUsers").await, 3);

    // A client that watches from the start sees no leave.
    let mut watcher = hub.join("lobby", "max").await;
    assert_eq!((watcher.present, &watcher.moods), (3, &json!({ "calm": 1 })));
    let ann = hub.join("lobby", "ann").await;
    let bob = hub.join_with_mood("lobby", "bob", "hope").await;
    assert_eq!((ann.present, &ann.moods), (3, &json!({ "calm": 1 })));
    assert_eq!((bob.present, &bob.moods), (3, &json!({ "calm": 1, "hope": 1 })));
    let _carol = hub.join_with_mood("garden", "carol", "sad").await;
    watcher.expect_moods(json!({ "calm": 1, "hope": 1 })).await;
    assert_eq!((watcher.presence_frames, watcher.present), (1, 3), "Bob's mood is the only change");
    let garden = hub.get("/rooms/garden").send().await.expect(200);
    assert_eq!((&garden["present"], &garden["moods"]), (&json!(1), &json!({ "sad": 1 })));

    // A visitor who returned counts once, and leaves with the socket.
    ann.leave().await;
    watcher.expect_present(2).await.expect_moods(json!({ "hope": 1 })).await;
    hub.expect_held(0).await;
    let left = async || rows(&hub.file(), "SELECT count(*) FROM seats").await == [0];
    eventually(left, "the next flush interval deletes all holds").await;
}

#[tokio::test]
async fn hold_expires_when_the_visitor_does_not_return() {
    let clock = manual_clock();
    let folder = stop_with_three_visitors(Duration::from_secs(2), &clock).await;
    clock.advance(Duration::from_mins(4));
    let started = Instant::now();
    let hub = Hub::in_folder(folder, with_hold(Duration::from_secs(2), &clock)).await;
    let mut ann = hub.join("lobby", "ann").await;
    assert_eq!(ann.present, 2);
    ann.expect_present(1).await.expect_moods(json!({ "calm": 1 })).await;
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(1_900),
        "the time in which the hub was away does not count: {took:?}"
    );
    hub.expect_debug("roomCount", 1).await;
}

#[tokio::test]
async fn expired_and_disabled_holds_are_discarded() {
    for (at_stop, at_start, later) in [
        (Duration::from_secs(15), Duration::from_secs(15), Duration::from_mins(6)), // expired
        (LONG, Duration::ZERO, Duration::ZERO),                                     // disabled at the start
        (Duration::ZERO, LONG, Duration::ZERO),                                     // disabled at the stop
    ] {
        let clock = manual_clock();
        let folder = stop_with_three_visitors(at_stop, &clock).await;
        clock.advance(later);
        let hub = Hub::in_folder(folder, with_hold(at_start, &clock)).await;
        assert_eq!((hub.debug("liveUsers").await, hub.debug("roomCount").await), (0, 0));
        let is_empty = async || rows(&hub.file(), "SELECT count(*) FROM seats").await == [0];
        eventually(is_empty, "the holds are deleted").await;
    }
}

#[tokio::test]
async fn close_1000_during_shutdown_leaves_no_hold() {
    let clock = manual_clock();
    let mut hub = Hub::with(with_hold(LONG, &clock)).await;
    let (ann, bob) = (hub.join("lobby", "ann").await, hub.join("lobby", "bob").await);
    let _stubborn = hub.join("lobby", "eve").await; // does not answer the close, which keeps the hub draining for a moment
    hub.signal();
    bob.disconnect();
    // The hub may close Ann's socket first. Then she has not left.
    let left = ann.close(1000).await == Disconnect::Closed(1000);
    let folder = hub.wait().await;
    let hub = Hub::in_folder(folder, with_hold(LONG, &clock)).await;
    assert_eq!(hub.debug("liveUsers").await, if left { 2 } else { 3 });
}

#[tokio::test]
async fn sigterm_saves_holds_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let hub = Program::start(folder.path(), &[]).await;
    let (mut ann, mut bob) = (hub.join("lobby", "ann").await, hub.join("lobby", "bob").await);
    hub.signal("TERM").await;
    tokio::join!(ann.expect_disconnect(), bob.expect_disconnect());
    drop((ann, bob));
    assert_eq!(hub.wait().await.code(), Some(0));
    let hub = Program::start(folder.path(), &[]).await;
    assert_eq!(hub.get("/rooms/lobby").send().await.expect(200)["present"], 2);
    // A crash keeps holds, but not sockets that have joined since.
    let _carol = hub.join("lobby", "carol").await;
    hub.signal("KILL").await;
    hub.wait().await;
    let hub = Program::start(folder.path(), &[]).await;
    let lobby = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&lobby["present"], &lobby["held"]), (&json!(2), &json!(2)));
}

/// Regression: a hub that took longer than `SEAT_HOLD` to start began with empty rooms.
#[tokio::test]
async fn time_between_stop_and_start_does_not_shorten_holds() {
    let clock = manual_clock();
    let hold = Duration::from_secs(15);
    let folder = stop_with_three_visitors(hold, &clock).await;
    clock.advance(Duration::from_mins(5));
    let hub = Hub::in_folder(folder, with_hold(hold, &clock)).await;
    assert_eq!(hub.debug("liveUsers").await, 3);
    let saved = "SELECT count(*) FROM seats WHERE stopped_at IS NULL";
    eventually(async || rows(&hub.file(), saved).await == [3], "while the hub runs, the time counts").await;
}

/// Regression: each restart renewed the hold, so that restarts within `SEAT_HOLD` of each other held a visitor for ever.
#[tokio::test]
async fn restarts_hold_visitors_up_to_a_limit() {
    let clock = manual_clock();
    let hold = Duration::from_mins(1);
    let mut folder = stop_with_three_visitors(hold, &clock).await;
    // The limit is a minute, and five more.
    for (passed, present) in [(150, 3), (150, 3), (60, 0)] {
        clock.advance(Duration::from_secs(passed));
        let hub = Hub::in_folder(folder, with_hold(hold, &clock)).await;
        assert_eq!(hub.debug("liveUsers").await, present, "after {passed} s more");
        folder = hub.stop().await;
    }
}

#[tokio::test]
async fn kill_9_does_not_extend_holds() {
    let clock = manual_clock();
    let hold = Duration::from_mins(1);
    let folder = stop_with_three_visitors(hold, &clock).await;
    // As the last flush interval before a crash leaves them.
    let mut database = open_database(&folder.path().join("hub.db")).await;
    sqlx::query("UPDATE seats SET stopped_at = NULL").execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    clock.advance(hold);
    let hub = Hub::in_folder(folder, with_hold(hold, &clock)).await;
    assert_eq!(hub.debug("liveUsers").await, 0);
}

#[tokio::test]
async fn kill_9_keeps_lost_visitors_with_reason_and_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("LEAVE_GRACE", "1h"), ("FLUSH_INTERVAL", "20ms")];
    let hub = Program::start(folder.path(), &settings).await;
    Client::join(&hub.address, "lobby", "visitor=ann&mood=calm").await.disconnect();
    let _bob = hub.join("lobby", "bob").await; // has a socket, so that no hold is saved
    let file = folder.path().join("hub.db");
    let saved = "SELECT json_array(room, visitor, mood, reason) FROM seats";
    let expected = [json!(["lobby", "ann", "calm", "grace"])];
    eventually(async || rows(&file, saved).await == expected, "the next flush interval saves Ann's hold")
        .await;
    let until = rows(&file, "SELECT held_until FROM seats").await[0].as_u64().unwrap();
    let mut hub = hub;
    for _ in 0..2 {
        hub.signal("KILL").await;
        hub.wait().await;
        hub = Program::start(folder.path(), &settings).await;
        let lobby = hub.get("/rooms/lobby").send().await.expect(200);
        assert_eq!((&lobby["present"], &lobby["held"]), (&json!(1), &json!(1)));
        assert_eq!(lobby["moods"], json!({ "calm": 1 }));
    }
    // Another hold is saved, and Ann's with it, unchanged except for the rounding of two clocks.
    hub.join("lobby", "carol").await.disconnect();
    let count = "SELECT count(*) FROM seats";
    eventually(async || rows(&file, count).await == [2], "both holds are saved").await;
    let hers = "SELECT held_until FROM seats WHERE visitor = 'ann' AND reason = 'grace'";
    let still = rows(&file, hers).await[0].as_u64().unwrap();
    assert!((until.saturating_sub(1_000)..=until + 1_000).contains(&still), "{still}, was {until}");
    // A visitor who returned is not held any more.
    let ann = hub.join("lobby", "ann").await;
    assert_eq!((ann.present, &ann.moods), (2, &json!({ "calm": 1 })));
    eventually(async || rows(&file, count).await == [1], "Ann's hold is deleted").await;
}

#[tokio::test]
async fn held_counts_are_in_responses_and_metrics() {
    let clock = manual_clock();
    let folder = stop_with_three_visitors(LONG, &clock).await;
    let hub = Hub::in_folder(folder, |config| {
        with_hold(LONG, &clock)(config);
        config.presence.leave_grace = LONG;
    });
    let hub = hub.await;
    let mut ann = hub.join("lobby", "ann").await;
    hub.join("lobby", "max").await.disconnect();
    hub.expect_debug("sessions", 1).await;
    let lobby = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&lobby["present"], &lobby["held"]), (&json!(3), &json!(2)), "Bob since the restart, and Max");
    let rooms = hub.get("/live-activity").send().await.expect(200)["rooms"].clone();
    let listed = json!([
        { "room": "lobby", "present": 3, "held": 2, "moods": { "calm": 1 } },
        { "room": "garden", "present": 1, "held": 1, "moods": { "joy": 1 } },
    ]);
    assert_eq!(rooms, listed);
    let page = hub.get("/metrics").admin().send().await.text;
    for line in ["breathing_room_held{reason=\"grace\"} 1", "breathing_room_held{reason=\"restart\"} 2"] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    // Presence messages have no field for holds, and holds cause no additional messages.
    let seq = ann.seq;
    let _max = hub.join("lobby", "max").await;
    hub.expect_held(2).await;
    let _eve = hub.join("lobby", "eve").await;
    ann.expect_present(4).await;
    assert_eq!(ann.seq, seq + 2, "one join of Max, one of Eve");
    assert!(ann.welcome.get("held").is_none());
    // An empty room has no holds.
    assert_eq!(hub.get("/rooms/nowhere").send().await.expect(200)["held"], 0);
}

#[tokio::test]
async fn erasure_removes_the_hold() {
    let clock = manual_clock();
    let folder = stop_with_three_visitors(LONG, &clock).await;
    let hub = Hub::in_folder(folder, with_hold(LONG, &clock)).await;
    hub.expect_held(3).await;
    hub.delete("/visitors/carol/data").admin().send().await.expect(200);
    hub.expect_held(2).await;
    let theirs = "SELECT count(*) FROM seats WHERE visitor = 'carol'";
    assert_eq!(rows(&hub.file(), theirs).await, [0]);
    let folder = hub.stop().await;
    assert_eq!(rows(&folder.path().join("hub.db"), theirs).await, [0]);
}

#[tokio::test]
async fn shutdown_spreads_closes_over_time() {
    let hub = Hub::start().await;
    let mut clients: Vec<Client> = Vec::new();
    for n in 0..20 {
        clients.push(hub.join("lobby", &format!("v{n}")).await);
    }
    let ends = clients.into_iter().map(|mut client| async move {
        assert_eq!(client.expect_disconnect().await, Disconnect::Closed(1012));
        Instant::now()
    });
    let (_folder, mut ends) = tokio::join!(hub.stop(), futures_util::future::join_all(ends));
    ends.sort();
    let spread = ends[19] - ends[0];
    assert!(spread >= Duration::from_millis(1_500), "{spread:?} of 1.9 s");
    assert!(ends[10] - ends[0] >= spread / 4, "closes are not spread evenly: {ends:?}");
}
