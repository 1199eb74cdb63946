//! The cluster: three hubs that NATS connects, all on this machine, and what presence over them costs.
//!
//! Each figure has the bar of docs/cluster.md. The result of every step is checked: all members have the same counts.

mod crowd;
mod log;
mod nodes;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use crowd::run as run_crowd;

use self::crowd::{Crowd, ROOM, now_micros};
use self::nodes::Nodes;
use crate::figure::{median, micros, millis, quantile};
use crate::process::Subject;
use crate::swarm::{Join, Swarm, TIMEOUT};
use crate::{Outcome, print_error, print_line};

/// Members of each node in each of the rooms of `agree`.
const MEMBERS: usize = 60;
const ROOMS: usize = 5;
/// Changes a second, beside the measured ones.
const RATE: u32 = 200;
const AGREE_FOR: Duration = Duration::from_mins(1);
/// Visitors of one node whose changes and memory are measured on another.
const REMOTE: usize = 15_000;
const REMOTE_ROOMS: usize = 150;
/// The first of them, after whom the node has its buffers: its memory is measured from there on.
const FIRST_REMOTE: usize = 3_000;
/// The allocator has returned unused pages after this time.
const DECAY: Duration = Duration::from_secs(12);
/// Members of one room over all nodes.
const HALL: usize = 39_999;
const FLIPS: usize = 15;
/// A pause that is longer than the publish window of the largest room.
const PAUSE: Duration = Duration::from_millis(2_500);
/// The mood of the measured changes.
const MEASURED: &str = "tired";
const MOODS: [&str; 6] = ["calm", "gratitude", "joy", "love", "peace", "hope"];

/// A row of the table.
pub(crate) struct Line {
    figure: &'static str,
    value: String,
    bar: &'static str,
    is_met: bool,
}

/// Measures one part.
type Part = fn(&Path) -> Outcome<Vec<Line>>;

/// All parts, by name.
pub(crate) const PARTS: [(&str, Part); 4] =
    [("agree", agree), ("remote", remote), ("hall", hall), ("log", log::log)];

/// Measures these parts, or all if there are none, and prints them as a table. Returns whether all bars are met.
pub(crate) fn run(hub: &Path, parts: &[String]) -> Outcome<bool> {
    let mut lines = Vec::new();
    for (_, part) in
        PARTS.iter().filter(|(name, _)| parts.is_empty() || parts.iter().any(|part| part == name))
    {
        lines.extend(part(hub)?);
    }
    print_line("| figure | value | bar | |\n| --- | --- | --- | --- |");
    for Line { figure, value, bar, is_met } in &lines {
        let verdict = if *is_met { "ok" } else { "MISSED" };
        print_line(format_args!("| {figure} | {value} | {bar} | {verdict} |"));
    }
    Ok(lines.iter().all(|line| line.is_met))
}

fn mood(mood: &str) -> String {
    format!(r#"{{"type":"mood","mood":"{mood}"}}"#)
}

/// A change on one node to the last socket of the room on all nodes, beside many other changes.
fn agree(hub: &Path) -> Outcome<Vec<Line>> {
    print_error("agree");
    let nodes = Nodes::start(hub)?;
    let mut swarms = nodes.hubs.iter().map(|hub| Swarm::new(hub.address)).collect::<Outcome<Vec<_>>>()?;
    for (n, swarm) in swarms.iter_mut().enumerate() {
        swarm.join_all(MEMBERS * ROOMS, |index| Join {
            room: format!("room-{}", index % ROOMS),
            visitor: format!("v{n}-{index}"),
            mood: None,
        })?;
    }
    for swarm in &mut swarms {
        swarm.agree(u32::try_from(MEMBERS * 3)?)?;
    }
    let mut latencies = Vec::new();
    let (began, mut changes, mut probe) = (Instant::now(), 0_u32, Probe::none());
    while began.elapsed() < AGREE_FOR || probe.left > 0 {
        if probe.left == 0 && latencies.len() < began.elapsed().as_millis() as usize / 150 {
            let number = probe.next;
            // Member 0 to 4 of a node in turn: one for each room.
            let (node, room) = (number % 3, number / 3 % ROOMS);
            probe = Probe::of(number, room, probe.wanted(room));
            swarms[node].send(room, &mood_or_none(probe.count > 0))?;
        }
        while changes < RATE * u32::try_from(began.elapsed().as_millis())? / 1_000 {
            changes += 1;
            let (node, member) =
                (changes as usize % 3, ROOMS + changes as usize * 7 % (MEMBERS * ROOMS - ROOMS));
            swarms[node].send(member, &mood(MOODS[changes as usize % MOODS.len()]))?;
        }
        for (node, swarm) in swarms.iter_mut().enumerate() {
            swarm.turn(Duration::from_millis(1), &mut |index, text| probe.see(node, index, text))?;
        }
        if probe.left == 0 && probe.is_open() {
            latencies.push(probe.end());
        }
        if probe.began.is_some_and(|began| began.elapsed() > TIMEOUT) {
            return Err(format!("{} members did not get a change", probe.left).into());
        }
    }
    let settled = Instant::now() + TIMEOUT;
    while let Some(room) = differing_room(&swarms)? {
        if Instant::now() > settled {
            return Err(format!("room {room} has two states at the end").into());
        }
        for swarm in &mut swarms {
            swarm.turn(Duration::from_millis(1), &mut |_, _| {})?;
        }
    }
    let (p99, middle) =
        (quantile(&latencies, 0.99).unwrap_or(f64::NAN), median(&latencies).unwrap_or(f64::NAN));
    Ok(vec![Line {
        figure: "agree: change to the last socket on all nodes, 900 people, 200 changes/s",
        value: format!("p99 {p99:.0} ms, median {middle:.0} ms ({} changes)", latencies.len()),
        bar: "p99 ≤ 250 ms",
        is_met: p99 <= 250.0,
    }])
}

/// A room of which two members have different states.
fn differing_room(swarms: &[Swarm]) -> Outcome<Option<usize>> {
    let mut states: [Option<(Value, Value)>; ROOMS] = Default::default();
    for (index, client) in swarms.iter().flat_map(Swarm::open_clients) {
        let room = index % ROOMS;
        let mut state: Value = serde_json::from_slice(&client.last)?;
        let counts = (state["present"].take(), state["moods"].take());
        if *states[room].get_or_insert_with(|| counts.clone()) != counts {
            return Ok(Some(room));
        }
    }
    Ok(None)
}

/// A measured change: all members of a room get a state with the new count of the mood.
struct Probe {
    /// The number of the next one.
    next: usize,
    room: usize,
    count: u32,
    counts: [u32; ROOMS],
    began: Option<Instant>,
    seen: Vec<[bool; 3]>,
    left: usize,
    last: Duration,
}

impl Probe {
    fn none() -> Self {
        Self {
            next: 0,
            room: 0,
            count: 0,
            counts: [0; ROOMS],
            began: None,
            seen: Vec::new(),
            left: 0,
            last: Duration::ZERO,
        }
    }

    /// The counts of the mood by room, with the next one of this room: members of three nodes set it and clear it.
    fn wanted(&self, room: usize) -> [u32; ROOMS] {
        let mut counts = self.counts;
        // A room is probed by node 0, 1 and 2 in turn: each sets the mood, and the next time clears it.
        counts[room] =
            if (self.next / (3 * ROOMS)).is_multiple_of(2) { counts[room] + 1 } else { counts[room] - 1 };
        counts
    }

    fn of(number: usize, room: usize, counts: [u32; ROOMS]) -> Self {
        Self {
            next: number + 1,
            room,
            count: u32::from((number / (3 * ROOMS)).is_multiple_of(2)),
            counts,
            began: Some(Instant::now()),
            seen: vec![[false; 3]; MEMBERS * ROOMS],
            left: MEMBERS * 3,
            last: Duration::ZERO,
        }
    }

    fn is_open(&self) -> bool {
        self.began.is_some()
    }

    fn see(&mut self, node: usize, index: usize, text: &[u8]) {
        let Some(began) = self.began else { return };
        if index % ROOMS != self.room || self.seen[index][node] {
            return;
        }
        if crate::snapshot::number(text, br#""tired":"#).unwrap_or_default() == self.counts[self.room] {
            self.seen[index][node] = true;
            self.left -= 1;
            self.last = began.elapsed();
        }
    }

    fn end(&mut self) -> f64 {
        self.began = None;
        millis(self.last)
    }
}

fn mood_or_none(is_set: bool) -> String {
    if is_set { mood(MEASURED) } else { r#"{"type":"mood","mood":null}"#.to_owned() }
}

/// CPU and memory of a node for the visitors of another one.
fn remote(hub: &Path) -> Outcome<Vec<Line>> {
    print_error("remote visitors");
    let nodes = Nodes::start(hub)?;
    let [here, there, ..] = nodes.hubs.as_slice() else { return Err("three nodes".into()) };
    let (began, before) = (Instant::now(), there.cpu()?);
    std::thread::park_timeout(Duration::from_secs(5));
    let idle = there.cpu()?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64();
    let mut swarm = Swarm::new(here.address)?;
    join_rooms(&mut swarm, FIRST_REMOTE)?;
    let first = there.memory()?.rss;
    join_rooms(&mut swarm, REMOTE - FIRST_REMOTE)?;
    let bytes = (there.memory()?.rss - first) / (REMOTE - FIRST_REMOTE) as f64;
    let (began, before) = (Instant::now(), there.cpu()?);
    for step in 0..2 * REMOTE {
        swarm.send(step % REMOTE, &mood(MOODS[step / REMOTE + step % 3]))?;
        if step % 100 == 0 {
            // 2,000 changes a second.
            swarm.run_until(began + Duration::from_millis(step as u64 / 2))?;
        }
    }
    swarm.run_until(Instant::now() + Duration::from_secs(1))?;
    let took = began.elapsed().mul_f64(idle);
    let change = micros(there.cpu()?.saturating_sub(before + took)) / (2 * REMOTE) as f64;
    Ok(vec![
        Line {
            figure: "CPU of a hub for remote changes, per change",
            value: format!("{change:.1} µs"),
            bar: "≤ 20 µs",
            is_met: change <= 20.0,
        },
        Line {
            figure: "memory per remote person",
            value: format!("{bytes:.0} B"),
            bar: "≤ 120 B",
            is_met: bytes <= 120.0,
        },
    ])
}

/// So many more visitors join the rooms in turn. Returns when all have the right count and the node's memory rests.
fn join_rooms(swarm: &mut Swarm, count: usize) -> Outcome {
    let before = swarm.counters.welcomed;
    swarm.join_all(count, |index| Join {
        room: format!("room-{}", (before + index) % REMOTE_ROOMS),
        visitor: format!("v{}", before + index),
        mood: None,
    })?;
    swarm.agree(u32::try_from((before + count) / REMOTE_ROOMS)?)?;
    swarm.run_until(Instant::now() + DECAY)
}

/// One room over all nodes, and the same number of members of one node on a hub of its own.
fn hall(hub: &Path) -> Outcome<Vec<Line>> {
    print_error("hall: one node");
    let single = Subject::Hub(hub.to_owned()).start(&[])?;
    let mut crowds = vec![Crowd::join(single.address, "c", HALL / 3)?];
    let (_, one) = flip(&mut crowds, &[single.address], || single.cpu())?;
    drop((crowds, single));
    print_error("hall: three nodes");
    let nodes = Nodes::start(hub)?;
    let addresses: Vec<_> = nodes.hubs.iter().map(|hub| hub.address).collect();
    let mut crowds = Vec::new();
    for (n, hub) in addresses.iter().enumerate() {
        crowds.push(Crowd::join(*hub, &format!("c{n}"), HALL / 3)?);
    }
    let (latencies, three) = flip(&mut crowds, &addresses, || nodes.cpu())?;
    let (worst, ratio) = (quantile(&latencies, 1.0).unwrap_or(f64::NAN), three / one);
    Ok(vec![
        Line {
            figure: "a room of 40,000 over three hubs: change to the last member",
            value: format!("{worst:.0} ms, median {:.0} ms", median(&latencies).unwrap_or(f64::NAN)),
            bar: "≤ 1,500 ms",
            is_met: worst <= 1_500.0,
        },
        Line {
            figure: "the same, CPU per delivery against one node with a third of it",
            value: format!("{three:.2} µs, {one:.2} µs: {ratio:.2}"),
            bar: "≤ 1.10",
            is_met: ratio <= 1.10,
        },
    ])
}

/// A further member at each hub changes mood in turn. Returns the times to the last member, in milliseconds, and the CPU
/// per delivery, in microseconds.
fn flip(
    crowds: &mut [Crowd],
    hubs: &[std::net::SocketAddr],
    cpu: impl Fn() -> Outcome<Duration>,
) -> Outcome<(Vec<f64>, f64)> {
    let mut swarms = hubs.iter().map(|hub| Swarm::new(*hub)).collect::<Outcome<Vec<_>>>()?;
    for (n, swarm) in swarms.iter_mut().enumerate() {
        swarm.join(ROOM, &format!("flipper-{n}"), None)?;
        swarm.until("a welcome", |counters| counters.welcomed == 1)?;
    }
    let settle = |swarms: &mut Vec<Swarm>| -> Outcome {
        let end = Instant::now() + PAUSE;
        while Instant::now() < end {
            for swarm in swarms.iter_mut() {
                swarm.turn(Duration::from_millis(5), &mut |_, _| {})?;
            }
        }
        Ok(())
    };
    settle(&mut swarms)?;
    let before = cpu()?;
    let (mut latencies, mut count) = (Vec::new(), 0);
    for step in 0..FLIPS {
        let flipper = step % swarms.len();
        let is_set = step / swarms.len() % 2 == 0;
        count = if is_set { count + 1 } else { count - 1 };
        let wanted = if count == 0 { None } else { Some(count) };
        let Some(wanted) = wanted else {
            // A count of 0 is not in the state: nothing can be waited for.
            swarms[flipper].send(0, &mood_or_none(false))?;
            settle(&mut swarms)?;
            continue;
        };
        for crowd in crowds.iter_mut() {
            crowd.expect(MEASURED, wanted)?;
        }
        std::thread::park_timeout(Duration::from_millis(50));
        let began = now_micros();
        swarms[flipper].send(0, &mood_or_none(is_set))?;
        let mut last = 0;
        for crowd in crowds.iter_mut() {
            last = last.max(crowd.read()?);
        }
        latencies.push((last - began) as f64 / 1_000.0);
        settle(&mut swarms)?;
    }
    let deliveries = (FLIPS * (HALL / 3 * crowds.len() + swarms.len())) as f64;
    Ok((latencies, micros(cpu()?.saturating_sub(before)) / deliveries))
}
