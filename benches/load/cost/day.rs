//! One run for the cost page: a number of visitors acts for some seconds, at five times the speed.
//!
//! All visitors are present all day, in rooms of up to 50. Flushes and pings of the hub are five times as
//! frequent too, and a day is computed from the run. Only the publish window keeps its 100 ms, so a run
//! coalesces more than a real day, and a higher speed would coalesce even more. At the end every member
//! must have the right state, and every event must be in SQLite.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::Outcome;
use crate::http::Http;
use crate::process::{Server, Subject};
use crate::scenarios::events::query;
use crate::snapshot::Snapshot;
use crate::swarm::{Join, Swarm};

pub(super) const VISITORS: [usize; 4] = [10, 100, 1_000, 10_000];
pub(super) const IN_A_ROOM: usize = 50;

/// How many times faster than real time.
pub(super) const SPEED: u32 = 5;
/// The time of a run: seven flushes.
pub(super) const LENGTH: Duration = Duration::from_secs(42);
/// The hub's defaults of 30 s and 25 s, at this speed.
const SETTINGS: [(&str, &str); 2] = [("FLUSH_INTERVAL", "6s"), ("PING_INTERVAL", "5s")];

/// The intervals of the acts, in real time. Every third visitor watches.
const PAGE_VIEW: Duration = Duration::from_mins(1);
const MOOD: Duration = Duration::from_mins(5);
/// The time between two states of a watch session: playing, paused, playing, ended.
const WATCH: Duration = Duration::from_mins(5);
const WATCHERS: usize = 3;

const MOODS: [&str; 8] = ["calm", "gratitude", "presence", "joy", "love", "peace", "hope", "tired"];
const STATES: [&str; 4] = ["playing", "paused", "playing", "ended"];

/// The figures of a day, computed from a run.
pub(super) struct Day {
    pub(super) visitors: usize,
    /// WebSocket messages and bytes, from the clients and from the hub, pings included.
    pub(super) messages_in: f64,
    pub(super) messages_out: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) transactions: f64,
    pub(super) rows: f64,
    /// Growth of the database in bytes.
    pub(super) database: f64,
    /// Percent of a core.
    pub(super) cpu: f64,
    /// Resident memory at the end of the run in bytes; not per day.
    pub(super) rss: f64,
}

/// The golden ratio: the fractions of its multiples are spread evenly, for any number of them.
const GOLDEN: f64 = 0.618_034;

#[derive(Debug, Clone, Copy)]
enum Act {
    PageView,
    Mood,
    Watch,
}

/// The acts so far, to check the hub against.
#[derive(Default)]
struct Done {
    messages: usize,
    page_views: usize,
    /// By visitor.
    references: Vec<u32>,
    moods: Vec<usize>,
    watch: Vec<(Uuid, usize)>,
    watch_sessions: usize,
}

/// Runs a part of a day.
pub(super) fn run(hub: &Subject, visitors: usize) -> Outcome<Day> {
    let server = hub.start(&SETTINGS)?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(visitors, |visitor| Join {
        room: format!("room-{}", room_of(visitor)),
        visitor: format!("v{visitor}"),
        mood: Some(MOODS[visitor % MOODS.len()]),
    })?;
    swarm.run_until(Instant::now() + Duration::from_secs(1))?;
    let (counters, before, database) = (swarm.counters, server.cpu()?, size(&server)?);
    let flushes = counter(&server, "breathing_room_flush_duration_seconds_count")?;

    let began = Instant::now();
    let mut done = Done {
        references: vec![0; visitors],
        moods: (0..visitors).collect(),
        watch: vec![(Uuid::nil(), 0); visitors],
        ..Done::default()
    };
    for (index, (at, visitor, act)) in acts(visitors).into_iter().enumerate() {
        let message = done.act(visitor, act);
        swarm.run_until(began + at)?;
        swarm.send(visitor, &message)?;
        if index.is_multiple_of(32) {
            swarm.turn(Duration::ZERO, &mut |_, _| {})?;
        }
    }
    swarm.run_until(began + LENGTH)?;
    let (took, cpu, now) = (began.elapsed(), server.cpu()?.saturating_sub(before), swarm.counters);
    let flushes = counter(&server, "breathing_room_flush_duration_seconds_count")? - flushes;
    check(&server, &mut swarm, &done)?;

    let times = 86_400.0 / (took.as_secs_f64() * f64::from(SPEED));
    let pings = now.pings - counters.pings;
    let a_day = |number: usize| number as f64 * times;
    Ok(Day {
        visitors,
        messages_in: a_day(done.messages + pings),
        messages_out: a_day(now.texts - counters.texts + pings),
        bytes_in: a_day(now.bytes_out - counters.bytes_out),
        bytes_out: a_day(now.bytes_in - counters.bytes_in),
        transactions: flushes * times,
        rows: a_day(done.page_views + done.watch_sessions),
        database: (size(&server)? - database) * times,
        cpu: cpu.as_secs_f64() / took.as_secs_f64() / f64::from(SPEED) * 100.0,
        rss: server.memory()?.rss,
    })
}

fn room_of(visitor: usize) -> usize {
    visitor / IN_A_ROOM
}

/// All acts in the order of time. The visitors start at different times, spread evenly.
fn acts(visitors: usize) -> Vec<(Duration, usize, Act)> {
    let mut acts = Vec::new();
    for visitor in 0..visitors {
        for (act, every) in [(Act::PageView, PAGE_VIEW), (Act::Mood, MOOD), (Act::Watch, WATCH)] {
            if matches!(act, Act::Watch) && !visitor.is_multiple_of(WATCHERS) {
                continue;
            }
            let every = every / SPEED;
            let mut at = every.mul_f64((visitor as f64 * GOLDEN).fract());
            while at < LENGTH {
                acts.push((at, visitor, act));
                at += every;
            }
        }
    }
    acts.sort_by_key(|(at, ..)| *at);
    acts
}

impl Done {
    /// Records an act and returns its message.
    fn act(&mut self, visitor: usize, act: Act) -> String {
        self.messages += 1;
        match act {
            Act::Mood => {
                self.moods[visitor] += 1;
                format!(r#"{{"type":"mood","mood":"{}"}}"#, MOODS[self.moods[visitor] % MOODS.len()])
            }
            Act::PageView => {
                self.page_views += 1;
                self.references[visitor] += 1;
                let (reference, id) = (self.references[visitor], Uuid::new_v4());
                format!(
                    r#"{{"type":"page-view","ref":{reference},"id":"{id}","path":"/rooms/river/{}","title":"By the river"}}"#,
                    reference % 20
                )
            }
            Act::Watch => {
                self.references[visitor] += 1;
                let (id, step) = &mut self.watch[visitor];
                if *step == 0 {
                    *id = Uuid::new_v4();
                    self.watch_sessions += 1;
                }
                let (reference, state, watched) = (self.references[visitor], STATES[*step], *step * 100);
                *step = (*step + 1) % STATES.len();
                format!(
                    r#"{{"type":"watch","ref":{reference},"id":"{id}","content":"morning-sit","state":"{state}","watchedMs":{watched}}}"#
                )
            }
        }
    }
}

/// Checks that every member has the right state of its room, and that all events are in SQLite.
fn check(server: &Server, swarm: &mut Swarm, done: &Done) -> Outcome {
    // Waits for the last flush.
    swarm.run_until(Instant::now() + Duration::from_millis(6_500))?;
    let visitors = done.moods.len();
    let mut rooms: BTreeMap<usize, (u32, BTreeMap<String, u32>)> = BTreeMap::new();
    for (visitor, mood) in done.moods.iter().enumerate() {
        let (present, moods) = rooms.entry(room_of(visitor)).or_default();
        *present += 1;
        *moods.entry(MOODS[mood % MOODS.len()].to_owned()).or_default() += 1;
    }
    for (visitor, client) in swarm.open_clients() {
        let snapshot = Snapshot::parse(&client.last)?;
        let (present, moods) = &rooms[&room_of(visitor)];
        if snapshot.present != *present || snapshot.moods != *moods {
            return Err(format!("visitor {visitor} has {snapshot:?}, expected {moods:?}").into());
        }
    }
    let (page_views, watched): (i64, i64) =
        query(server, "SELECT (SELECT count(*) FROM page_views), (SELECT count(*) FROM watch_sessions)")?;
    let expected = (i64::try_from(done.page_views)?, i64::try_from(done.watch_sessions)?);
    if swarm.open_clients().count() != visitors || (page_views, watched) != expected {
        return Err(format!(
            "{page_views} page views and {watched} watch sessions in SQLite, expected {expected:?}"
        )
        .into());
    }
    Ok(())
}

/// The size of the database in bytes.
fn size(server: &Server) -> Outcome<f64> {
    let (pages, bytes): (i64, i64) =
        query(server, "SELECT page_count, page_size FROM pragma_page_count(), pragma_page_size()")?;
    Ok((pages * bytes) as f64)
}

/// A counter of the hub's metrics; 0 before its first count.
fn counter(server: &Server, name: &str) -> Outcome<f64> {
    let metrics = Http::connect(server.address)?.get("/metrics")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.map_or(Ok(0.0), str::parse)?)
}
