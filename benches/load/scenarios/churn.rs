//! Churn: a room of 1,000 members, with 200 joins and 200 leaves each second.
//!
//! The oldest member leaves, and a new one joins. At the end two more leave, so that the last count is
//! new; the scenario measures the time until all members have it.
//!
//! The floor counts no members: it accepts and closes the same sockets, and sends one broadcast a second, when a
//! member asks for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, micros, millis};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Join, Swarm};

const MEMBERS: usize = 1_000;
/// Joins a second, and leaves a second.
const RATE: u32 = 200;

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "churn",
    has_floor: true,
    has_peers: true,
    rounds: (3, 1),
    run: |subject, scale| run(subject, scale),
};

static CPU: Figure = Figure {
    scenario: "churn",
    name: "CPU per join or leave",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::FloorTimes(2.5),
};
static AGREE: Figure = Figure {
    scenario: "churn",
    name: "last change until all members have it",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::None,
};
static FRAMES: Figure = Figure {
    scenario: "churn",
    name: "frames per member and second",
    unit: Unit::Frames,
    quantile: 0.5,
    bar: Bar::None,
};

fn join(index: usize) -> Join {
    Join { room: "hall".to_owned(), visitor: format!("v{index}"), mood: None }
}

fn run(subject: &Subject, scale: Scale) -> Outcome<Vec<Sample>> {
    let seconds = scale.of(8, 4);
    let server = subject.start(&[])?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(MEMBERS, join)?;
    let has_rooms = subject.has_rooms();
    if has_rooms {
        swarm.agree(u32::try_from(MEMBERS)?)?;
    }
    swarm.run_until(Instant::now() + Duration::from_millis(500))?;

    let mut members: VecDeque<usize> = (0..MEMBERS).collect();
    let leave = |swarm: &mut Swarm, members: &mut VecDeque<usize>| {
        swarm.leave(members.pop_front().ok_or("no member is left")?)
    };
    let (before, texts) = (server.cpu()?, swarm.counters.texts);
    let began = Instant::now();
    for round in 0..RATE * seconds {
        swarm.run_until(began + Duration::from_secs(1) * round / RATE)?;
        let Join { room, visitor, mood } = join(MEMBERS + round as usize);
        members.push_back(swarm.join(&room, &visitor, mood)?);
        swarm.run_until(began + Duration::from_secs(1) * (2 * round + 1) / (2 * RATE))?;
        leave(&mut swarm, &mut members)?;
        if !has_rooms && round % RATE == 0 {
            swarm.send(members[0], "broadcast")?;
        }
    }
    let took = began.elapsed();
    let frames = (swarm.counters.texts - texts) as f64 / MEMBERS as f64 / took.as_secs_f64();
    leave(&mut swarm, &mut members)?;
    leave(&mut swarm, &mut members)?;
    let last_change = Instant::now();
    let mut figures = vec![FRAMES.value(frames)];
    if has_rooms {
        let present = u32::try_from(MEMBERS - 2)?;
        figures.push(AGREE.value(millis(swarm.agree(present)?.duration_since(last_change))));
        let snapshot = swarm.common_snapshot()?;
        if snapshot.present != present || swarm.open_clients().count() != MEMBERS - 2 {
            return Err(format!("{snapshot:?}, expected {present} present").into());
        }
    } else {
        swarm.send(members[0], "broadcast")?;
        swarm.run_until(last_change + Duration::from_millis(100))?;
    }
    let cpu = server.cpu()?.saturating_sub(before);
    let changes = f64::from(2 * RATE * seconds + 2);
    figures.insert(0, CPU.value(micros(cpu) / changes));
    Ok(figures)
}
