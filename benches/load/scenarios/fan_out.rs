//! One member of a large room changes mood, again and again, and everybody is told.
//!
//! The moods of the others are spread so that a frame has the size that frames have in practice, which
//! is also the size of the floor's.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, micros, millis};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Newcomer, Swarm};

pub(crate) const MEMBERS: usize = 2_000;
/// What a state of this room takes on the wire.
pub(crate) const FRAME: usize = 154;
const EVERY: Duration = Duration::from_millis(200);
const MOODS: [&str; 8] = ["calm", "gratitude", "presence", "joy", "love", "peace", "hope", "tired"];

pub(crate) static SCENARIO: Scenario =
    Scenario { name: "fan-out", has_floor: true, rounds: (16, 3), run: |subject, scale| run(subject, scale) };

static CPU: Figure = Figure {
    scenario: "fan-out",
    name: "CPU per delivery",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::FloorTimes(1.05),
};
static LAST: Figure = Figure {
    scenario: "fan-out",
    name: "change to last member, p99",
    unit: Unit::Millis,
    quantile: 0.99,
    bar: Bar::FloorTimes(1.1),
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
    swarm.join_all(MEMBERS, |index| Newcomer {
        room: "hall".to_owned(),
        visitor: format!("v{index}"),
        mood: Some(MOODS[index % MOODS.len()]),
    })?;
    // The last publish of the joins must not be taken for an answer.
    swarm.run_until(Instant::now() + Duration::from_millis(500))?;

    let before = server.cpu()?;
    let mut latencies = Vec::with_capacity(flips);
    for flip in 0..flips {
        let began = Instant::now();
        let told = swarm.tally.texts + MEMBERS;
        swarm.say(0, &format!(r#"{{"type":"mood","mood":"{}"}}"#, mood_after(flip)))?;
        swarm.until("everybody is told of a mood", |tally| tally.texts >= told)?;
        latencies.push(millis(began.elapsed()));
        swarm.run_until(began + EVERY)?;
        if swarm.tally.texts > told {
            return Err("a change was told more than once".into());
        }
    }
    let cpu = server.cpu()?.saturating_sub(before);
    if matches!(subject, Subject::Hub(_)) {
        check(&swarm, flips)?;
    }
    let per_delivery = micros(cpu) / (flips * MEMBERS) as f64;
    Ok(vec![CPU.is(per_delivery), LAST.are(&latencies), LAST_MEDIAN.are(&latencies)])
}

/// Every flip is to another mood, and the first one is too.
fn mood_after(flip: usize) -> &'static str {
    MOODS[1 + flip % 2]
}

/// Everybody was told the same state, and it is the right one, of the size that the floor sends.
fn check(swarm: &Swarm, flips: usize) -> Outcome {
    let state = swarm.common_state()?;
    let mut moods: std::collections::BTreeMap<String, u32> = std::collections::BTreeMap::new();
    for index in 0..MEMBERS {
        let mood = if index == 0 { mood_after(flips - 1) } else { MOODS[index % MOODS.len()] };
        *moods.entry(mood.to_owned()).or_default() += 1;
    }
    if state.present as usize != MEMBERS || state.moods != moods {
        return Err(format!("everybody was told {state:?}, where the moods are {moods:?}").into());
    }
    let frame = swarm.here().map(|(_, member)| member.last.len() + 4).max().unwrap_or_default();
    if frame.abs_diff(FRAME) > 8 {
        return Err(format!("a frame has {frame} B, where the floor sends {FRAME} B").into());
    }
    Ok(())
}
