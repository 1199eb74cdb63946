//! Storm: 4,000 clients join one empty room at once, as after a restart.
//!
//! The floor accepts the same sockets, answers each with one frame, and sends one broadcast when all are
//! open: as many frames as the hub sends where it coalesces all joins into one publish.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, micros, millis};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::Swarm;

const CLIENTS: usize = 4_000;

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "storm",
    has_floor: true,
    has_peers: true,
    rounds: (3, 1),
    run: |subject, scale| run(subject, scale),
};

static CPU: Figure = Figure {
    scenario: "storm",
    name: "CPU per join",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::FloorTimes(2.5),
};
static FRAMES: Figure = Figure {
    scenario: "storm",
    name: "frames per client",
    unit: Unit::Frames,
    quantile: 0.5,
    bar: Bar::None,
};
static ALL_JOINED: Figure = Figure {
    scenario: "storm",
    name: "first connect until the last welcome",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::None,
};
static AGREE: Figure = Figure {
    scenario: "storm",
    name: "last welcome until all clients agree",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::None,
};

/// The server decides how long a storm takes, so the quick form is the same.
fn run(subject: &Subject, _: Scale) -> Outcome<Vec<Sample>> {
    let server = subject.start(&[])?;
    let mut swarm = Swarm::new(server.address)?;
    let before = server.cpu()?;
    let began = Instant::now();
    for index in 0..CLIENTS {
        swarm.join("hall", &format!("v{index}"), None)?;
        // A connected client sends its request at once and does not wait for the other connects.
        if index % 64 == 63 {
            swarm.turn(Duration::ZERO, &mut |_, _| {})?;
        }
    }
    swarm.until("the last client is welcomed", |counters| counters.welcomed == CLIENTS)?;
    let all_joined = Instant::now();
    let mut samples = vec![ALL_JOINED.value(millis(all_joined.duration_since(began)))];
    if subject.has_rooms() {
        let agreed = swarm.agree(u32::try_from(CLIENTS)?)?;
        samples.push(AGREE.value(millis(agreed.duration_since(all_joined))));
    } else {
        swarm.send(0, "broadcast")?;
        swarm.until("all clients have the broadcast", |counters| counters.texts == 2 * CLIENTS)?;
    }
    let cpu = server.cpu()?.saturating_sub(before);
    if subject.has_rooms() {
        swarm.common_snapshot()?;
    }
    samples.insert(0, FRAMES.value(swarm.counters.texts as f64 / CLIENTS as f64));
    samples.insert(0, CPU.value(micros(cpu) / CLIENTS as f64));
    Ok(samples)
}
