//! A day with so many people, lived faster: what they do, and what the hub had to do for it.
//!
//! Everybody is there all day, in rooms of up to fifty. Time runs five times as fast, the hub's flushes
//! and pings included, and a day is computed from some minutes. Only the 100 ms in which a room merges
//! its changes stay what they are; a faster time would merge more than a real day does. In the end
//! everybody's room must be as the people made it, and all they did must be in SQLite.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::Outcome;
use crate::http::Http;
use crate::process::{Server, Subject};
use crate::scenarios::events::query;
use crate::snapshot::State;
use crate::swarm::{Newcomer, Swarm};

pub(super) const PEOPLE: [usize; 4] = [10, 100, 1_000, 10_000];
pub(super) const IN_A_ROOM: usize = 50;

/// How much faster time runs.
pub(super) const SPEED: u32 = 5;
/// How long a run takes: seven flushes.
pub(super) const LENGTH: Duration = Duration::from_secs(42);
/// The hub's defaults, 30 s and 25 s, at this speed.
const SETTINGS: [(&str, &str); 2] = [("FLUSH_INTERVAL", "6s"), ("PING_INTERVAL", "5s")];

/// What people do, and how often in real time. Every third person watches.
const PAGE_VIEW: Duration = Duration::from_mins(1);
const MOOD: Duration = Duration::from_mins(5);
/// A session goes playing, paused, playing, ended, with so much time between.
const WATCH: Duration = Duration::from_mins(5);
const WATCHERS: usize = 3;

const MOODS: [&str; 8] = ["calm", "gratitude", "presence", "joy", "love", "peace", "hope", "tired"];
const STATES: [&str; 4] = ["playing", "paused", "playing", "ended"];

/// What a day has, computed from the run.
pub(super) struct Day {
    pub(super) people: usize,
    /// WebSocket messages and bytes, to and from the hub, pings included.
    pub(super) messages_in: f64,
    pub(super) messages_out: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    pub(super) transactions: f64,
    pub(super) rows: f64,
    /// Bytes by which the database grows.
    pub(super) database: f64,
    /// Percent of a core.
    pub(super) cpu: f64,
    /// Bytes of the process at the end of the run; not per day.
    pub(super) rss: f64,
}

/// Its multiples are spread evenly after the point, however many they are.
const GOLDEN: f64 = 0.618_034;

#[derive(Debug, Clone, Copy)]
enum Act {
    PageView,
    Mood,
    Watch,
}

/// What the people have done so far.
#[derive(Default)]
struct Done {
    messages: usize,
    page_views: usize,
    /// By person.
    references: Vec<u32>,
    moods: Vec<usize>,
    watch: Vec<(Uuid, usize)>,
    watch_sessions: usize,
}

/// Lives a part of a day.
pub(super) fn live(hub: &Subject, people: usize) -> Outcome<Day> {
    let server = hub.start(&SETTINGS)?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(people, |person| Newcomer {
        room: format!("room-{}", room_of(person)),
        visitor: format!("v{person}"),
        mood: Some(MOODS[person % MOODS.len()]),
    })?;
    swarm.run_until(Instant::now() + Duration::from_secs(1))?;
    let (tally, before, database) = (swarm.tally, server.cpu()?, size(&server)?);
    let flushes = counter(&server, "breathing_room_flush_duration_seconds_count")?;

    let began = Instant::now();
    let mut done = Done {
        references: vec![0; people],
        moods: (0..people).collect(),
        watch: vec![(Uuid::nil(), 0); people],
        ..Done::default()
    };
    for (index, (at, person, act)) in acts(people).into_iter().enumerate() {
        let message = done.act(person, act);
        swarm.run_until(began + at)?;
        swarm.say(person, &message)?;
        if index.is_multiple_of(32) {
            swarm.turn(Duration::ZERO, &mut |_, _| {})?;
        }
    }
    swarm.run_until(began + LENGTH)?;
    let (took, cpu, now) = (began.elapsed(), server.cpu()?.saturating_sub(before), swarm.tally);
    let flushes = counter(&server, "breathing_room_flush_duration_seconds_count")? - flushes;
    check(&server, &mut swarm, &done)?;

    let times = 86_400.0 / (took.as_secs_f64() * f64::from(SPEED));
    let pings = now.pings - tally.pings;
    let a_day = |number: usize| number as f64 * times;
    Ok(Day {
        people,
        messages_in: a_day(done.messages + pings),
        messages_out: a_day(now.texts - tally.texts + pings),
        bytes_in: a_day(now.bytes_out - tally.bytes_out),
        bytes_out: a_day(now.bytes_in - tally.bytes_in),
        transactions: flushes * times,
        rows: a_day(done.page_views + done.watch_sessions),
        database: (size(&server)? - database) * times,
        cpu: cpu.as_secs_f64() / took.as_secs_f64() / f64::from(SPEED) * 100.0,
        rss: server.memory()?.rss,
    })
}

fn room_of(person: usize) -> usize {
    person / IN_A_ROOM
}

/// Who does what, in order of time. Everybody has their own beginning, spread evenly.
fn acts(people: usize) -> Vec<(Duration, usize, Act)> {
    let mut acts = Vec::new();
    for person in 0..people {
        for (act, every) in [(Act::PageView, PAGE_VIEW), (Act::Mood, MOOD), (Act::Watch, WATCH)] {
            if matches!(act, Act::Watch) && !person.is_multiple_of(WATCHERS) {
                continue;
            }
            let every = every / SPEED;
            let mut at = every.mul_f64((person as f64 * GOLDEN).fract());
            while at < LENGTH {
                acts.push((at, person, act));
                at += every;
            }
        }
    }
    acts.sort_by_key(|(at, ..)| *at);
    acts
}

impl Done {
    /// The message with which somebody does something.
    fn act(&mut self, person: usize, act: Act) -> String {
        self.messages += 1;
        match act {
            Act::Mood => {
                self.moods[person] += 1;
                format!(r#"{{"type":"mood","mood":"{}"}}"#, MOODS[self.moods[person] % MOODS.len()])
            }
            Act::PageView => {
                self.page_views += 1;
                self.references[person] += 1;
                let (reference, id) = (self.references[person], Uuid::new_v4());
                format!(
                    r#"{{"type":"page-view","ref":{reference},"id":"{id}","path":"/rooms/river/{}","title":"By the river"}}"#,
                    reference % 20
                )
            }
            Act::Watch => {
                self.references[person] += 1;
                let (id, step) = &mut self.watch[person];
                if *step == 0 {
                    *id = Uuid::new_v4();
                    self.watch_sessions += 1;
                }
                let (reference, state, watched) = (self.references[person], STATES[*step], *step * 100);
                *step = (*step + 1) % STATES.len();
                format!(
                    r#"{{"type":"watch","ref":{reference},"id":"{id}","content":"morning-sit","state":"{state}","watchedMs":{watched}}}"#
                )
            }
        }
    }
}

/// Every room is as its people made it, everybody there was told so, and all they did is on disk.
fn check(server: &Server, swarm: &mut Swarm, done: &Done) -> Outcome {
    // The last flush has to come.
    swarm.run_until(Instant::now() + Duration::from_millis(6_500))?;
    let people = done.moods.len();
    let mut rooms: BTreeMap<usize, (u32, BTreeMap<String, u32>)> = BTreeMap::new();
    for (person, mood) in done.moods.iter().enumerate() {
        let (present, moods) = rooms.entry(room_of(person)).or_default();
        *present += 1;
        *moods.entry(MOODS[mood % MOODS.len()].to_owned()).or_default() += 1;
    }
    for (person, member) in swarm.here() {
        let state = State::parse(&member.last)?;
        let (present, moods) = &rooms[&room_of(person)];
        if state.present != *present || state.moods != *moods {
            return Err(format!("person {person} was told {state:?}, where {moods:?} are").into());
        }
    }
    let (page_views, watched): (i64, i64) =
        query(server, "SELECT (SELECT count(*) FROM page_views), (SELECT count(*) FROM watch_sessions)")?;
    let expected = (i64::try_from(done.page_views)?, i64::try_from(done.watch_sessions)?);
    if swarm.here().count() != people || (page_views, watched) != expected {
        return Err(format!("{page_views} page views and {watched} sessions, where {expected:?} were").into());
    }
    Ok(())
}

/// Bytes of the database and of its log.
fn size(server: &Server) -> Outcome<f64> {
    let (pages, bytes): (i64, i64) =
        query(server, "SELECT page_count, page_size FROM pragma_page_count(), pragma_page_size()")?;
    Ok((pages * bytes) as f64)
}

/// One of the hub's own counters, or 0 before it has counted.
fn counter(server: &Server, name: &str) -> Outcome<f64> {
    let metrics = Http::connect(server.address)?.get("/metrics")?;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.map_or(Ok(0.0), str::parse)?)
}
