//! Presence samples: one per minute and room, exact to the millisecond; lost samples are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use breathing_room::config::{Clock, Time};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::client::Disconnect;
use crate::support::{Client, Hub, START, eventually, manual_clock, rows};

const MINUTE: u64 = 60_000;

const SAMPLES: &str = "SELECT json_array(at, room, present_ms, peak, joins, json(moods_ms)) FROM presence \
    ORDER BY at, room";

fn pass(clock: &Clock, millis: u64) {
    clock.advance(Duration::from_millis(millis));
}

/// Returns the number of samples that wait for a flush.
async fn pending(hub: &Hub) -> u64 {
    let debug = hub.get("/debug").admin().send().await.expect(200);
    debug["journal"]["pendingPresence"].as_u64().unwrap()
}

/// Advances the clock to the end of the minute, and waits for its samples. There must be some.
async fn end_minute(hub: &Hub, clock: &Clock) {
    let before = pending(hub).await;
    pass(clock, MINUTE - clock.wall().millis() % MINUTE);
    eventually(async || pending(hub).await > before, "the minute is sampled").await;
}

async fn stored(hub: &Hub) -> Vec<Value> {
    hub.flush().await;
    hub.rows(SAMPLES).await
}

#[tokio::test]
async fn sample_of_a_minute_is_exact_to_the_millisecond() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let mut ann = hub.join_with_mood("lobby", "ann", "calm").await;
    pass(&clock, 10_007);
    let bob = hub.join("lobby", "bob").await;
    pass(&clock, 5_000);
    ann.set_mood(Some("joy")).await;
    ann.round_trip().await;
    pass(&clock, 4_993);
    bob.leave().await;
    end_minute(&hub, &clock).await;
    let moods = json!({ "calm": 15_007, "joy": 44_993 });
    let first = [
        json!([START, null, MINUTE + 9_993, 2, 2, moods]),
        json!([START, "lobby", MINUTE + 9_993, 2, 2, moods]),
    ];
    assert_eq!(stored(&hub).await, first);
    // A visitor who stays is not a new join.
    end_minute(&hub, &clock).await;
    let next = START + MINUTE;
    let second = [
        json!([next, null, MINUTE, 1, 0, { "joy": MINUTE }]),
        json!([next, "lobby", MINUTE, 1, 0, { "joy": MINUTE }]),
    ];
    assert_eq!(stored(&hub).await, [first, second].concat());
}

#[tokio::test]
async fn samples_count_visitors_not_tabs_or_rooms() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let tab_1 = hub.join_with_mood("lobby", "ann", "calm").await;
    pass(&clock, 1_000);
    let tab_2 = hub.join("lobby", "ann").await;
    let garden = hub.join_with_mood("garden", "ann", "hope").await;
    pass(&clock, 2_000);
    tab_1.leave().await;
    pass(&clock, 4_000);
    tab_2.leave().await; // Ann leaves the lobby and is still in the garden
    pass(&clock, 8_000);
    let _bob = hub.join("garden", "bob").await;
    garden.leave().await;
    end_minute(&hub, &clock).await;
    assert_eq!(
        stored(&hub).await,
        [
            json!([START, null, 15_000 + 45_000, 2, 2, { "calm": 7_000, "hope": 14_000 }]),
            json!([START, "garden", 14_000 + 45_000, 2, 2, { "hope": 14_000 }]),
            json!([START, "lobby", 7_000, 1, 1, { "calm": 7_000 }]),
        ]
    );
}

#[tokio::test]
async fn room_closed_within_the_minute_is_sampled() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    for millis in [300, 20] {
        let ann = hub.join_with_mood("lobby", "ann", "calm").await;
        pass(&clock, millis);
        ann.leave().await;
        assert_eq!(hub.debug("roomCount").await, 0);
        pass(&clock, 1_000);
    }
    hub.join("garden", "bob").await.leave().await; // present for 0 ms
    let _ann = hub.join("lobby", "ann").await; // opened a third time, and open at the end of the minute
    pass(&clock, 7);
    end_minute(&hub, &clock).await;
    let rest = MINUTE - 2_320;
    let expected = [
        json!([START, null, 320 + rest, 1, 4, { "calm": 320 }]),
        json!([START, "garden", 0, 1, 1, {}]),
        json!([START, "lobby", 320 + rest, 1, 3, { "calm": 320 }]),
    ];
    assert_eq!(stored(&hub).await, expected);
}

#[tokio::test]
async fn held_visitor_counts_as_present_in_samples() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.presence.leave_grace = Duration::from_hours(1);
    })
    .await;
    hub.join("lobby", "ann").await.disconnect();
    hub.expect_debug("sessions", 0).await;
    pass(&clock, 500);
    let _back = hub.join("lobby", "ann").await;
    pass(&clock, 500);
    assert_eq!(stored(&hub).await[1], json!([START, "lobby", 1_000, 1, 1, {}]));
}

#[tokio::test]
async fn flush_splits_the_sample_of_a_minute() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let _ann = hub.join("lobby", "ann").await;
    pass(&clock, 21_500);
    assert_eq!(stored(&hub).await[1], json!([START, "lobby", 21_500, 1, 1, {}]));
    assert_eq!(stored(&hub).await.len(), 2); // no time has passed, so that there is no sample
    end_minute(&hub, &clock).await;
    let rest = json!([START + 21_500, "lobby", 38_500, 1, 0, {}]);
    assert_eq!(stored(&hub).await[3], rest);
}

#[tokio::test]
async fn samples_are_aligned_to_wall_clock_minutes() {
    let clock = Clock::manual(Time::from_millis(START + 59_000));
    let hub = Hub::with_clock(&clock).await;
    let _ann = hub.join("lobby", "ann").await;
    end_minute(&hub, &clock).await;
    end_minute(&hub, &clock).await;
    let lobby: Vec<Value> = stored(&hub).await.into_iter().filter(|sample| sample[1] == "lobby").collect();
    let expected = [
        json!([START + 59_000, "lobby", 1_000, 1, 1, {}]),
        json!([START + MINUTE, "lobby", MINUTE, 1, 0, {}]),
    ];
    assert_eq!(lobby, expected);
}

#[tokio::test]
async fn shutdown_stores_a_last_sample() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let mut ann = hub.join_with_mood("lobby", "ann", "peace").await;
    hub.join("garden", "bob").await.leave().await;
    pass(&clock, 31_234);
    let (folder, ending) = tokio::join!(hub.stop(), ann.expect_disconnect());
    assert_eq!(ending, Disconnect::Closed(1012));
    // Bob was present for 0 ms, together with Ann.
    let expected = [
        json!([START, null, 31_234, 2, 2, { "peace": 31_234 }]),
        json!([START, "garden", 0, 1, 1, {}]),
        json!([START, "lobby", 31_234, 1, 1, { "peace": 31_234 }]),
    ];
    assert_eq!(rows(&folder.path().join("hub.db"), SAMPLES).await, expected);
}

#[tokio::test]
async fn samples_lost_to_a_full_journal_are_counted() {
    let clock = manual_clock();
    let hub = Hub::with(|config| {
        config.clock = clock.clone();
        config.history.queue_limit = 1;
    })
    .await;
    let lost = async || hub.metric("breathing_room_presence_samples_lost_total").await;
    assert_eq!(lost().await, 0.0);
    let _ann = hub.join("lobby", "ann").await;
    pass(&clock, MINUTE);
    eventually(async || lost().await == 2.0, "the samples of the lobby and of the hub are lost").await;
    assert_eq!(stored(&hub).await.len(), 0);
}

#[tokio::test]
async fn empty_hub_stores_no_samples() {
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    pass(&clock, 5 * MINUTE);
    hub.flush().await;
    let ann = hub.join("lobby", "ann").await;
    assert_eq!(pending(&hub).await, 0);
    ann.leave().await;
    end_minute(&hub, &clock).await;
    pass(&clock, 3 * MINUTE);
    assert_eq!(stored(&hub).await.len(), 2);
}

/// The expected sample of one minute, of one room or of the hub.
#[derive(Default)]
struct Minute {
    present_ms: u64,
    peak: usize,
    joins: u64,
    moods_ms: BTreeMap<&'static str, u64>,
}

/// A simple model of all rooms: the tabs and moods of each visitor in each room.
#[derive(Default)]
struct Model {
    now: u64,
    tabs: Vec<(usize, usize)>,
    moods: BTreeMap<(usize, usize), &'static str>,
    /// By minute and room. `None` is the whole hub.
    minutes: BTreeMap<(u64, Option<usize>), Minute>,
}

impl Model {
    fn visitors(&self, room: Option<usize>) -> BTreeSet<usize> {
        let here = self.tabs.iter().filter(|(_, at)| room.is_none_or(|room| *at == room));
        here.map(|(visitor, _)| *visitor).collect()
    }

    fn scopes() -> impl Iterator<Item = Option<usize>> {
        [None, Some(0), Some(1), Some(2)].into_iter()
    }

    fn minute(&mut self, room: Option<usize>) -> &mut Minute {
        self.minutes.entry((self.now / MINUTE, room)).or_default()
    }

    fn advance(&mut self, millis: u64) {
        for room in Self::scopes() {
            let visitors = self.visitors(room).len() as u64;
            let here = self.moods.iter().filter(|((_, at), _)| room.is_none_or(|room| *at == room));
            let moods: Vec<_> = here.map(|(_, mood)| *mood).collect();
            let minute = self.minute(room);
            minute.present_ms += visitors * millis;
            for mood in moods {
                *minute.moods_ms.entry(mood).or_default() += millis;
            }
        }
        self.now += millis;
        self.note_peaks();
    }

    fn note_peaks(&mut self) {
        for room in Self::scopes() {
            let visitors = self.visitors(room).len();
            let minute = self.minute(room);
            minute.peak = minute.peak.max(visitors);
        }
    }

    fn join(&mut self, visitor: usize, room: usize) {
        for scope in [None, Some(room)] {
            let is_new = !self.visitors(scope).contains(&visitor);
            self.minute(scope).joins += u64::from(is_new);
        }
        self.tabs.push((visitor, room));
        self.note_peaks();
    }

    fn leave(&mut self, visitor: usize, room: usize) {
        let tab = self.tabs.iter().position(|tab| *tab == (visitor, room)).unwrap();
        self.tabs.swap_remove(tab);
        if !self.visitors(Some(room)).contains(&visitor) {
            self.moods.remove(&(visitor, room));
        }
    }

    fn rows(&self) -> Vec<Value> {
        let expected = self.minutes.iter().filter(|(_, minute)| minute.joins + minute.present_ms > 0);
        expected
            .map(|((minute, room), expected)| {
                let Minute { present_ms, peak, joins, moods_ms } = expected;
                let room = room.map(|room| format!("room-{room}"));
                let moods: BTreeMap<_, _> = moods_ms.iter().filter(|(_, millis)| **millis > 0).collect();
                json!([START + minute * MINUTE, room, present_ms, peak, joins, moods])
            })
            .collect()
    }
}

/// After random joins, leaves, moods and flushes, the samples of each minute add up to the model's.
#[tokio::test]
async fn samples_of_random_activity_match_a_model() {
    const SUMS: &str = "
        WITH minutes AS (
            SELECT at / 60000 * 60000 AS at, room, present_ms, peak, joins, moods_ms FROM presence)
        SELECT json_array(at, room, sum(present_ms), max(peak), sum(joins), json((
            SELECT json_group_object(mood, millis) FROM (
                SELECT key AS mood, sum(value) AS millis FROM minutes AS m, json_each(m.moods_ms)
                WHERE m.at = minutes.at AND m.room IS minutes.room GROUP BY key))))
        FROM minutes GROUP BY at, room ORDER BY at, room";
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let clock = manual_clock();
    let hub = Hub::with_clock(&clock).await;
    let mut model = Model::default();
    let mut clients: Vec<(usize, usize, Client)> = Vec::new();
    for step in 0..150 {
        // The first client stays, so that each minute has samples to wait for.
        let (visitor, room) =
            if step == 0 { (0, 0) } else { (random.random_range(0..6), random.random_range(0..3)) };
        match random.random_range(0..6) {
            _ if step == 0 || clients.len() < 3 => {
                clients.push((
                    visitor,
                    room,
                    hub.join(&format!("room-{room}"), &format!("v{visitor}")).await,
                ));
                model.join(visitor, room);
            }
            0 | 1 => {
                clients.push((
                    visitor,
                    room,
                    hub.join(&format!("room-{room}"), &format!("v{visitor}")).await,
                ));
                model.join(visitor, room);
            }
            2 | 3 => {
                let (visitor, room, client) = clients.swap_remove(random.random_range(1..clients.len()));
                client.leave().await;
                model.leave(visitor, room);
            }
            4 => {
                let index = random.random_range(0..clients.len());
                let (visitor, room, client) = &mut clients[index];
                let mood = ["calm", "joy", "hope"][random.random_range(0..3)];
                client.set_mood(Some(mood)).await;
                client.round_trip().await;
                model.moods.insert((*visitor, *room), mood);
            }
            _ => hub.flush().await,
        }
        let mut millis = random.random_range(0..8_000);
        let left = MINUTE - model.now % MINUTE;
        if millis >= left {
            model.advance(left);
            end_minute(&hub, &clock).await;
            millis -= left;
        }
        model.advance(millis);
        pass(&clock, millis);
    }
    hub.flush().await;
    assert_eq!(hub.rows(SUMS).await, model.rows());
}
