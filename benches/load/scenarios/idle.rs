//! Ten thousand sockets in a thousand rooms, and nothing happens but the hub's pings.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit};
use crate::process::{Memory, Server, Subject};
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Newcomer, Swarm};

pub(crate) const SOCKETS: usize = 10_000;
pub(crate) const ROOMS: usize = 1_000;
/// After the last join, until memory is read.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) static SCENARIO: Scenario =
    Scenario { name: "idle", has_floor: false, rounds: (2, 1), run: |subject, scale| run(subject, scale) };

static RSS: Figure = Figure {
    scenario: "idle",
    name: "resident memory per socket",
    unit: Unit::Bytes,
    quantile: 0.5,
    bar: Bar::AtMost(1_500.0),
};
static PSS: Figure =
    Figure { scenario: "idle", name: "the same as PSS", unit: Unit::Bytes, quantile: 0.5, bar: Bar::None };
static CPU: Figure = Figure {
    scenario: "idle",
    name: "CPU while nothing happens, of a core",
    unit: Unit::Percent,
    quantile: 0.5,
    bar: Bar::AtMost(0.5),
};

static CPU_QUICK: Figure = Figure {
    scenario: "idle",
    name: "CPU, pinged every 5 s instead of 25 s",
    unit: Unit::Percent,
    quantile: 0.5,
    bar: Bar::None,
};

fn run(subject: &Subject, scale: Scale) -> Outcome<Vec<Sample>> {
    let (ping, quiet) = scale.of(("25s", 30), ("5s", 6));
    let server = subject.start(&[("PING_INTERVAL", ping)])?;
    let empty = server.memory()?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(SOCKETS, |index| Newcomer {
        room: format!("room-{}", index % ROOMS),
        visitor: format!("v{index}"),
        mood: None,
    })?;
    let Idle { rss, pss, cpu } = watch(&server, &mut swarm, empty, Duration::from_secs(quiet))?;
    swarm.agree(u32::try_from(SOCKETS / ROOMS)?)?;
    Ok(vec![RSS.is(rss), PSS.is(pss), scale.of(&CPU, &CPU_QUICK).is(cpu)])
}

/// What idle sockets cost: bytes for each, and percent of a core for all.
pub(crate) struct Idle {
    pub(crate) rss: f64,
    pub(crate) pss: f64,
    pub(crate) cpu: f64,
}

/// Lets a full hub settle, and watches it for as long as `quiet`, in which everybody has to be pinged.
/// `empty` is what it took before anybody came.
pub(crate) fn watch(server: &Server, swarm: &mut Swarm, empty: Memory, quiet: Duration) -> Outcome<Idle> {
    swarm.run_until(Instant::now() + SETTLE)?;
    let full = server.memory()?;
    let (before, began, pings) = (server.cpu()?, Instant::now(), swarm.tally.pings);
    swarm.run_until(began + quiet)?;
    let cpu = server.cpu()?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let (sockets, pings) = (swarm.here().count(), swarm.tally.pings - pings);
    if pings < sockets {
        return Err(format!("{pings} pings to {sockets} sockets in {quiet:?}: not a whole round").into());
    }
    let each = |full: f64, empty: f64| (full - empty) / sockets as f64;
    Ok(Idle { rss: each(full.rss, empty.rss), pss: each(full.pss, empty.pss), cpu })
}
