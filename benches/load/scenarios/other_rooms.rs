//! Other rooms: the latency of small rooms, alone and while visitors join and leave a room of 10,000.
//!
//! The clients of the large room do not read while the small rooms are measured, so that the figure is the
//! hub's and not the tool's; the kernel buffers what they get. At the end all of them must have the last count.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, millis, quantile};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Join, Swarm};

const LARGE_ROOM: usize = 10_000;
const SMALL_ROOMS: usize = 20;
const IN_SMALL_ROOM: usize = 10;
/// The interval of the probes. A room's publish window is over before its next probe.
const EVERY: Duration = Duration::from_millis(20);
/// Joins in each interval to the large room, and leaves from it.
const CHURN: usize = 2;
/// Visitors who stay in the large room for some time, and then leave.
const STAYING: usize = 50;

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "other-rooms",
    has_floor: false,
    has_peers: false,
    rounds: (3, 1),
    run: |subject, scale| run(subject, scale),
};

static TIMES: Figure = Figure {
    scenario: "other-rooms",
    name: "p99 beside churn in a room of 10,000, to alone",
    unit: Unit::Times,
    quantile: 0.5,
    bar: Bar::AtMost(2.0),
};
static BESIDE: Figure = Figure {
    scenario: "other-rooms",
    name: "change to last member, beside the churn, p99",
    unit: Unit::Millis,
    quantile: 0.99,
    bar: Bar::None,
};
static ALONE: Figure = Figure {
    scenario: "other-rooms",
    name: "change to last member, alone, p99",
    unit: Unit::Millis,
    quantile: 0.99,
    bar: Bar::None,
};

/// The clients of the scenario.
struct Clients {
    /// The large room. It reads only while nothing is measured.
    large: Swarm,
    /// Clients that join the large room and leave it again, and those who are in it, oldest first.
    churn: Swarm,
    inside: VecDeque<usize>,
    small: Swarm,
    /// Probes so far.
    probes: usize,
}

fn run(subject: &Subject, scale: Scale) -> Outcome<Vec<Sample>> {
    let probes = scale.of(200, 100);
    let server = subject.start(&[])?;
    let mut clients = Clients {
        large: Swarm::new(server.address)?,
        churn: Swarm::new(server.address)?,
        inside: VecDeque::new(),
        small: Swarm::new(server.address)?,
        probes: 0,
    };
    clients.large.join_all(LARGE_ROOM, |index| Join {
        room: "hall".to_owned(),
        visitor: format!("v{index}"),
        mood: None,
    })?;
    clients.small.join_all(SMALL_ROOMS * IN_SMALL_ROOM, |index| Join {
        room: format!("room-{}", index % SMALL_ROOMS),
        visitor: format!("o{index}"),
        mood: None,
    })?;
    clients.large.agree(u32::try_from(LARGE_ROOM)?)?;
    clients.small.agree(u32::try_from(IN_SMALL_ROOM)?)?;
    clients.large.run_until(Instant::now() + Duration::from_secs(1))?;

    let mut alone = clients.probe(probes, 0)?;
    let beside = clients.probe(probes, CHURN)?;
    clients.end_churn()?;
    alone.extend(clients.probe(probes, 0)?);
    let (Some(p99), Some(p99_alone)) = (quantile(&beside, 0.99), quantile(&alone, 0.99)) else {
        return Err("no probe was measured".into());
    };
    Ok(vec![TIMES.value(p99 / p99_alone), BESIDE.values(&beside), ALONE.values(&alone)])
}

impl Clients {
    /// Changes a mood in one small room after the other, with `churn` joins and leaves of the large room in each
    /// interval. Returns the latencies in milliseconds.
    fn probe(&mut self, probes: usize, churn: usize) -> Outcome<Vec<f64>> {
        let mut latencies = Vec::with_capacity(probes);
        self.small.run_until(Instant::now() + Duration::from_millis(300))?;
        for _ in 0..probes {
            let next = Instant::now() + EVERY;
            self.probes += 1;
            let mood = if (self.probes / SMALL_ROOMS).is_multiple_of(2) { "calm" } else { "joy" };
            let expected = self.small.counters.texts + IN_SMALL_ROOM;
            let began = Instant::now();
            self.small.send(self.probes % SMALL_ROOMS, &format!(r#"{{"type":"mood","mood":"{mood}"}}"#))?;
            self.small.until("a small room has the new mood", |counters| counters.texts >= expected)?;
            latencies.push(millis(began.elapsed()));
            for _ in 0..churn {
                let name = format!("p{}-{}", self.probes, self.inside.len());
                self.inside.push_back(self.churn.join("hall", &name, None)?);
                if self.inside.len() > STAYING
                    && let Some(oldest) = self.inside.pop_front()
                {
                    self.churn.leave(oldest)?;
                }
            }
            self.churn.run_until(next)?;
        }
        Ok(latencies)
    }

    /// The clients of the churn leave, and the large room must get the right count.
    fn end_churn(&mut self) -> Outcome {
        for index in self.inside.drain(..) {
            self.churn.leave(index)?;
        }
        self.churn.run_until(Instant::now() + Duration::from_millis(100))?;
        self.large.agree(u32::try_from(LARGE_ROOM)?)?;
        match self.large.common_snapshot()?.present as usize {
            LARGE_ROOM => Ok(()),
            other => Err(format!("{other} are present in a room of {LARGE_ROOM}").into()),
        }
    }
}
