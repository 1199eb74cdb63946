//! Seats: neither a deploy nor a crash is seen in the counts of those who are held. Hubs, one after the other, on the
//! same file.

use std::time::{Duration, Instant};

use breathing_room::Config;
use breathing_room::config::Clock;
use serde_json::json;
use tempfile::TempDir;

use crate::support::client::Disconnect;
use crate::support::{Client, Hub, Program, eventually, manual_clock, rows};

const LONG: Duration = Duration::from_hours(1);

fn held(seat_hold: Duration, clock: &Clock) -> impl FnOnce(&mut Config) + use<> {
    let clock = clock.clone();
    move |config| {
        config.clock = clock;
        config.presence.seat_hold = seat_hold;
    }
}

/// Ann, calm, and Bob in the lobby, and Carol in the garden, until the hub stops.
async fn stopped(seat_hold: Duration, clock: &Clock) -> TempDir {
    let hub = Hub::with(held(seat_hold, clock)).await;
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
    let folder = stopped(LONG, &clock).await;
    let hub = Hub::in_folder(folder, held(LONG, &clock)).await;
    let garden = hub.get("/rooms/garden").send().await.expect(200);
    assert_eq!(
        (&garden["present"], &garden["moods"]),
        (&json!(1), &json!({ "joy": 1 })),
        "she is held there"
    );
    assert_eq!(hub.debug("liveUsers").await, 3);

    // Somebody who watches from the first moment on sees nobody leave.
    let mut watcher = hub.join("lobby", "max").await;
    assert_eq!((watcher.present, &watcher.moods), (3, &json!({ "calm": 1 })));
    let ann = hub.join("lobby", "ann").await;
    let bob = hub.join_with_mood("lobby", "bob", "hope").await;
    assert_eq!((ann.present, &ann.moods), (3, &json!({ "calm": 1 })));
    assert_eq!((bob.present, &bob.moods), (3, &json!({ "calm": 1, "hope": 1 })));
    let _carol = hub.join_with_mood("garden", "carol", "sad").await;
    watcher.expect_moods(json!({ "calm": 1, "hope": 1 })).await;
    assert_eq!((watcher.presence_frames, watcher.present), (1, 3), "Bob's mood was the only news");
    let garden = hub.get("/rooms/garden").send().await.expect(200);
    assert_eq!((&garden["present"], &garden["moods"]), (&json!(1), &json!({ "sad": 1 })));

    // Whoever is back is counted once, and leaves when they leave.
    ann.leave().await;
    watcher.expect_present(2).await.expect_moods(json!({ "hope": 1 })).await;
    hub.expect_held(0).await;
    let left = async || rows(&hub.file(), "SELECT count(*) FROM seats").await == [0];
    eventually(left, "nobody is held, and the next flush interval says so").await;
}

#[tokio::test]
async fn hold_expires_when_the_visitor_does_not_return() {
    let clock = manual_clock();
    let folder = stopped(Duration::from_secs(2), &clock).await;
    clock.advance(Duration::from_millis(500));
    let started = Instant::now();
    let hub = Hub::in_folder(folder, held(Duration::from_secs(2), &clock)).await;
    let mut ann = hub.join("lobby", "ann").await;
    assert_eq!(ann.present, 2);
    ann.expect_present(1).await.expect_moods(json!({ "calm": 1 })).await;
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1_400), "1.5 s of the 2 s were left: {took:?}");
    hub.expect_debug("roomCount", 1).await;
}

#[tokio::test]
async fn expired_and_disabled_holds_are_discarded() {
    for (at_stop, at_start, later) in [
        (Duration::from_secs(15), Duration::from_secs(15), Duration::from_secs(15)), // too old
        (LONG, Duration::ZERO, Duration::ZERO),                                      // turned off now
        (Duration::ZERO, LONG, Duration::ZERO),                                      // turned off then
    ] {
        let clock = manual_clock();
        let folder = stopped(at_stop, &clock).await;
        clock.advance(later);
        let hub = Hub::in_folder(folder, held(at_start, &clock)).await;
        assert_eq!((hub.debug("liveUsers").await, hub.debug("roomCount").await), (0, 0));
        assert_eq!(rows(&hub.file(), "SELECT count(*) FROM seats").await, [0]);
    }
}

#[tokio::test]
async fn close_1000_during_shutdown_leaves_no_hold() {
    let clock = manual_clock();
    let mut hub = Hub::with(held(LONG, &clock)).await;
    let (ann, bob) = (hub.join("lobby", "ann").await, hub.join("lobby", "bob").await);
    let _stubborn = hub.join("lobby", "eve").await; // answers no close: keeps the hub busy for a moment
    hub.signal();
    bob.disconnect();
    // She may be told to go before she says so; then she has not left.
    let left = ann.close(1000).await == Disconnect::Closed(1000);
    let folder = hub.wait().await;
    let hub = Hub::in_folder(folder, held(LONG, &clock)).await;
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
    // A crash keeps those who are held, but nobody who has come since.
    let _carol = hub.join("lobby", "carol").await;
    hub.signal("KILL").await;
    hub.wait().await;
    let hub = Program::start(folder.path(), &[]).await;
    let lobby = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&lobby["present"], &lobby["held"]), (&json!(2), &json!(2)));
}

/// Before, each restart began the hold anew: restarts closer together than `SEAT_HOLD` kept a gone visitor for ever.
#[tokio::test]
async fn restart_keeps_first_deadline_of_held_visitors() {
    let clock = manual_clock();
    let hold = Duration::from_mins(1);
    let mut folder = stopped(hold, &clock).await;
    for (passed, present) in [(25, 3), (25, 3), (25, 0)] {
        clock.advance(Duration::from_secs(passed));
        let hub = Hub::in_folder(folder, held(hold, &clock)).await;
        assert_eq!(hub.debug("liveUsers").await, present, "after {passed} s more");
        folder = hub.stop().await;
    }
}

#[tokio::test]
async fn kill_9_keeps_lost_visitors_with_reason_and_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let settings = [("LEAVE_GRACE", "1h"), ("FLUSH_INTERVAL", "20ms")];
    let hub = Program::start(folder.path(), &settings).await;
    Client::join(&hub.address, "lobby", "visitor=ann&mood=calm").await.disconnect();
    let _bob = hub.join("lobby", "bob").await; // has a socket: is nowhere but in memory
    let file = folder.path().join("hub.db");
    let saved = "SELECT json_array(room, visitor, mood, reason) FROM seats";
    let expected = [json!(["lobby", "ann", "calm", "grace"])];
    eventually(async || rows(&file, saved).await == expected, "the next flush interval saves her").await;
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
    // Another hold is saved, and with it hers: as it was, but for the rounding of two clocks.
    hub.join("lobby", "carol").await.disconnect();
    let count = "SELECT count(*) FROM seats";
    eventually(async || rows(&file, count).await == [2], "both are saved").await;
    let hers = "SELECT held_until FROM seats WHERE visitor = 'ann' AND reason = 'grace'";
    let still = rows(&file, hers).await[0].as_u64().unwrap();
    assert!((until.saturating_sub(1_000)..=until + 1_000).contains(&still), "{still}, and was {until}");
    // Whoever is back is not held any more.
    let ann = hub.join("lobby", "ann").await;
    assert_eq!((ann.present, &ann.moods), (2, &json!({ "calm": 1 })));
    eventually(async || rows(&file, count).await == [1], "she is back").await;
}

#[tokio::test]
async fn held_counts_are_in_responses_and_metrics() {
    let clock = manual_clock();
    let folder = stopped(LONG, &clock).await;
    let hub = Hub::in_folder(folder, |config| {
        held(LONG, &clock)(config);
        config.presence.leave_grace = LONG;
    });
    let hub = hub.await;
    let mut ann = hub.join("lobby", "ann").await;
    hub.join("lobby", "max").await.disconnect();
    hub.expect_debug("sessions", 1).await;
    let lobby = hub.get("/rooms/lobby").send().await.expect(200);
    assert_eq!((&lobby["present"], &lobby["held"]), (&json!(3), &json!(2)), "Bob since before, and Max");
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
    // Rooms are told what they were told before: no more, and no more often.
    let seq = ann.seq;
    let _max = hub.join("lobby", "max").await;
    hub.expect_held(2).await;
    let _eve = hub.join("lobby", "eve").await;
    ann.expect_present(4).await;
    assert_eq!(ann.seq, seq + 2, "Max came once, and Eve");
    assert!(ann.welcome.get("held").is_none());
    // An empty room holds nobody.
    assert_eq!(hub.get("/rooms/nowhere").send().await.expect(200)["held"], 0);
}

#[tokio::test]
async fn erasure_removes_the_hold() {
    let clock = manual_clock();
    let folder = stopped(LONG, &clock).await;
    let hub = Hub::in_folder(folder, held(LONG, &clock)).await;
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
    assert!(ends[10] - ends[0] >= spread / 4, "evenly: {ends:?}");
}
