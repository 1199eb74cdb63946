//! Four thousand people join one empty room at once, as after a restart.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, micros, millis};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::Swarm;

const PEOPLE: usize = 4_000;

pub(crate) static SCENARIO: Scenario =
    Scenario { name: "storm", has_floor: false, rounds: (3, 1), run: |subject, scale| run(subject, scale) };

static FRAMES: Figure = Figure {
    scenario: "storm",
    name: "frames per client",
    unit: Unit::Frames,
    quantile: 0.5,
    bar: Bar::AtMost(30.0),
};
static CPU: Figure = Figure {
    scenario: "storm",
    name: "CPU per join",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::AtMost(80.0),
};
static AGREE: Figure = Figure {
    scenario: "storm",
    name: "last one in until all agree",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::AtMost(300.0),
};
static ALL_IN: Figure = Figure {
    scenario: "storm",
    name: "first connect until the last one is in",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::None,
};

/// A storm is as long as the hub makes it, so the quick form is the same.
fn run(subject: &Subject, _: Scale) -> Outcome<Vec<Sample>> {
    let server = subject.start(&[])?;
    let mut swarm = Swarm::new(server.address)?;
    let before = server.cpu()?;
    let began = Instant::now();
    for index in 0..PEOPLE {
        swarm.join("hall", &format!("v{index}"), None)?;
        // Whoever is connected goes on at once; nobody waits for anybody.
        if index % 64 == 63 {
            swarm.turn(Duration::ZERO, &mut |_, _| {})?;
        }
    }
    swarm.until("the last one is in", |tally| tally.welcomed == PEOPLE)?;
    let last_in = Instant::now();
    let agreed = swarm.agree(u32::try_from(PEOPLE)?)?;
    let cpu = server.cpu()?.saturating_sub(before);
    swarm.common_state()?;
    Ok(vec![
        FRAMES.is(swarm.tally.texts as f64 / PEOPLE as f64),
        CPU.is(micros(cpu) / PEOPLE as f64),
        AGREE.is(millis(agreed.duration_since(last_in))),
        ALL_IN.is(millis(last_in.duration_since(began))),
    ])
}
