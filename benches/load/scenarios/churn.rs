//! A room of a thousand in which people come and go all the time.
//!
//! Whoever has been there longest leaves, and somebody new joins. In the end two more leave, so that
//! the last count is one that was never told before, and the time until everybody has it is taken.
//!
//! The floor counts nobody: it takes the same sockets in and lets them go, and tells everybody once a second, when
//! one of them says so.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, micros, millis};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Newcomer, Swarm};

const MEMBERS: usize = 1_000;
/// So many join each second, and as many leave.
const RATE: u32 = 200;

pub(crate) static SCENARIO: Scenario =
    Scenario { name: "churn", has_floor: true, rounds: (3, 1), run: |subject, scale| run(subject, scale) };

static CPU: Figure = Figure {
    scenario: "churn",
    name: "CPU per join or leave",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::AtMost(60.0),
};
static AGREE: Figure = Figure {
    scenario: "churn",
    name: "last change until all members are right",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::AtMost(300.0),
};
static FRAMES: Figure = Figure {
    scenario: "churn",
    name: "frames per member and second",
    unit: Unit::Frames,
    quantile: 0.5,
    bar: Bar::None,
};

fn newcomer(index: usize) -> Newcomer {
    Newcomer { room: "hall".to_owned(), visitor: format!("v{index}"), mood: None }
}

fn run(subject: &Subject, scale: Scale) -> Outcome<Vec<Sample>> {
    let seconds = scale.of(8, 4);
    let server = subject.start(&[])?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(MEMBERS, newcomer)?;
    let is_hub = matches!(subject, Subject::Hub(_));
    if is_hub {
        swarm.agree(u32::try_from(MEMBERS)?)?;
    }
    swarm.run_until(Instant::now() + Duration::from_millis(500))?;

    let mut members: VecDeque<usize> = (0..MEMBERS).collect();
    let leave = |swarm: &mut Swarm, members: &mut VecDeque<usize>| {
        swarm.leave(members.pop_front().ok_or("nobody is left to leave")?)
    };
    let (before, texts) = (server.cpu()?, swarm.tally.texts);
    let began = Instant::now();
    for round in 0..RATE * seconds {
        swarm.run_until(began + Duration::from_secs(1) * round / RATE)?;
        let Newcomer { room, visitor, mood } = newcomer(MEMBERS + round as usize);
        members.push_back(swarm.join(&room, &visitor, mood)?);
        swarm.run_until(began + Duration::from_secs(1) * (2 * round + 1) / (2 * RATE))?;
        leave(&mut swarm, &mut members)?;
        if !is_hub && round % RATE == 0 {
            swarm.say(members[0], "now")?;
        }
    }
    let took = began.elapsed();
    let frames = (swarm.tally.texts - texts) as f64 / MEMBERS as f64 / took.as_secs_f64();
    leave(&mut swarm, &mut members)?;
    leave(&mut swarm, &mut members)?;
    let last_change = Instant::now();
    let mut figures = vec![FRAMES.is(frames)];
    if is_hub {
        let present = u32::try_from(MEMBERS - 2)?;
        figures.push(AGREE.is(millis(swarm.agree(present)?.duration_since(last_change))));
        let state = swarm.common_state()?;
        if state.present != present || swarm.here().count() != MEMBERS - 2 {
            return Err(format!("{state:?}, where {present} are here").into());
        }
    } else {
        swarm.say(members[0], "now")?;
        swarm.run_until(last_change + Duration::from_millis(100))?;
    }
    let cpu = server.cpu()?.saturating_sub(before);
    let changes = f64::from(2 * RATE * seconds + 2);
    figures.insert(0, CPU.is(micros(cpu) / changes));
    Ok(figures)
}
