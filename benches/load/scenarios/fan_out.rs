//! Fan-out: one member of a room of 2,000 changes mood again and again, and all members get the state.
//!
//! The other members have eight moods, so that a frame has the size of frames in practice. The floor's
//! frames have the same size.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, micros, millis};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Join, Swarm};

pub(crate) const MEMBERS: usize = 2_000;
/// The size of this room's state as a frame, in bytes.
pub(crate) const FRAME: usize = 154;
const EVERY: Duration = Duration::from_millis(200);
const MOODS: [&str; 8] = ["calm", "gratitude", "presence", "joy", "love", "peace", "hope", "tired"];

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "fan-out",
    has_floor: true,
    has_peers: true,
    rounds: (16, 3),
    run: |subject, scale| run(subject, scale),
};

static CPU: Figure = Figure {
    scenario: "fan-out",
    name: "CPU per delivery",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::FloorTimesAndBun(1.1),
};
static LAST: Figure = Figure {
    scenario: "fan-out",
    name: "change to last member, p99",
    unit: Unit::Millis,
    quantile: 0.99,
    bar: Bar::FloorTimes(1.15),
};
static LAST_MEDIAN: Figure = Figure {
    scenario: "fan-out",
    name: "change to last member, median",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::None,
};

fn run(subject: &Subject, scale: Scale) -> Outcome<Vec<Sample>> {
    let flips = scale.of(12, 15);
    let server = subject.start(&[])?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(MEMBERS, |index| Join {
        room: "hall".to_owned(),
        visitor: format!("v{index}"),
        mood: Some(MOODS[index % MOODS.len()]),
    })?;
    // The last publish of the joins must not count as a publish of a flip.
    swarm.run_until(Instant::now() + Duration::from_millis(500))?;

    let before = server.cpu()?;
    let mut latencies = Vec::with_capacity(flips);
    for flip in 0..flips {
        let began = Instant::now();
        let expected = swarm.counters.texts + MEMBERS;
        swarm.send(0, &format!(r#"{{"type":"mood","mood":"{}"}}"#, mood_after(flip)))?;
        swarm.until("all members have the new mood", |counters| counters.texts >= expected)?;
        latencies.push(millis(began.elapsed()));
        swarm.run_until(began + EVERY)?;
        if swarm.counters.texts > expected {
            return Err("a change was published more than once".into());
        }
    }
    let cpu = server.cpu()?.saturating_sub(before);
    if subject.has_rooms() {
        check(&swarm, flips)?;
    }
    let per_delivery = micros(cpu) / (flips * MEMBERS) as f64;
    Ok(vec![CPU.value(per_delivery), LAST.values(&latencies), LAST_MEDIAN.values(&latencies)])
}

/// The mood of a flip. It differs from the mood before, also in the first flip.
fn mood_after(flip: usize) -> &'static str {
    MOODS[1 + flip % 2]
}

/// Checks that all members have the same state, that it is right, and that its frame has the floor's size.
fn check(swarm: &Swarm, flips: usize) -> Outcome {
    let snapshot = swarm.common_snapshot()?;
    let mut moods: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
    for index in 0..MEMBERS {
        let mood = if index == 0 { mood_after(flips - 1) } else { MOODS[index % MOODS.len()] };
        *moods.entry(mood.to_owned()).or_default() += 1;
    }
    if snapshot.present as usize != MEMBERS || snapshot.moods != moods {
        return Err(format!("all members have {snapshot:?}, expected the moods {moods:?}").into());
    }
    let frame = swarm.open_clients().map(|(_, client)| client.last.len() + 4).max().unwrap_or_default();
    if frame.abs_diff(FRAME) > 8 {
        return Err(format!("a frame has {frame} B, the floor's has {FRAME} B").into());
    }
    Ok(())
}
