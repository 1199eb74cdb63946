//! Small rooms beside a room of ten thousand: alone, and while people come to and leave the large one.
//!
//! What counts is the hub, so the members of the large room read nothing while the others are looked
//! at; their kernel takes in what they are told. In the end all of them must have heard the last count.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, millis, quantile};
use crate::process::Subject;
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Newcomer, Swarm};

const CROWD: usize = 10_000;
const ROOMS: usize = 20;
const IN_A_ROOM: usize = 10;
/// One of the small rooms is looked at this often. Each has had its pause before its turn comes again.
const EVERY: Duration = Duration::from_millis(20);
/// In each of these times, so many join the large room, and as many leave it.
const COME_AND_GO: usize = 2;

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "other-rooms",
    has_floor: false,
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

/// The sockets of the scenario, by what is done with them.
struct House {
    /// The large room, which reads only when nothing is measured.
    crowd: Swarm,
    /// Those who come to the large room and leave it again, in the order in which they came.
    passers: Swarm,
    inside: VecDeque<usize>,
    /// The small rooms.
    others: Swarm,
    probes: usize,
}

fn run(subject: &Subject, scale: Scale) -> Outcome<Vec<Sample>> {
    let probes = scale.of(200, 100);
    let server = subject.start(&[])?;
    let mut house = House {
        crowd: Swarm::new(server.address)?,
        passers: Swarm::new(server.address)?,
        inside: VecDeque::new(),
        others: Swarm::new(server.address)?,
        probes: 0,
    };
    let large = |visitor| Newcomer { room: "hall".to_owned(), visitor, mood: None };
    house.crowd.join_all(CROWD, |index| large(format!("v{index}")))?;
    house.others.join_all(ROOMS * IN_A_ROOM, |index| Newcomer {
        room: format!("room-{}", index % ROOMS),
        visitor: format!("o{index}"),
        mood: None,
    })?;
    house.crowd.agree(u32::try_from(CROWD)?)?;
    house.others.agree(u32::try_from(IN_A_ROOM)?)?;
    house.crowd.run_until(Instant::now() + Duration::from_secs(1))?;

    let mut alone = house.probe(probes, 0)?;
    let beside = house.probe(probes, COME_AND_GO)?;
    house.everybody_leaves()?;
    alone.extend(house.probe(probes, 0)?);
    let (Some(p99), Some(p99_alone)) = (quantile(&beside, 0.99), quantile(&alone, 0.99)) else {
        return Err("nothing was measured".into());
    };
    Ok(vec![TIMES.is(p99 / p99_alone), BESIDE.are(&beside), ALONE.are(&alone)])
}

impl House {
    /// Changes a mood in one small room after the other, while so many come and go each time.
    fn probe(&mut self, probes: usize, come_and_go: usize) -> Outcome<Vec<f64>> {
        let mut latencies = Vec::with_capacity(probes);
        self.others.run_until(Instant::now() + Duration::from_millis(300))?;
        for _ in 0..probes {
            let next = Instant::now() + EVERY;
            self.probes += 1;
            let mood = if (self.probes / ROOMS).is_multiple_of(2) { "calm" } else { "joy" };
            let told = self.others.tally.texts + IN_A_ROOM;
            let began = Instant::now();
            self.others.say(self.probes % ROOMS, &format!(r#"{{"type":"mood","mood":"{mood}"}}"#))?;
            self.others.until("a small room is told", |tally| tally.texts >= told)?;
            latencies.push(millis(began.elapsed()));
            for _ in 0..come_and_go {
                let name = format!("p{}-{}", self.probes, self.inside.len());
                self.inside.push_back(self.passers.join("hall", &name, None)?);
                if self.inside.len() > 50
                    && let Some(first) = self.inside.pop_front()
                {
                    self.passers.leave(first)?;
                }
            }
            self.passers.run_until(next)?;
        }
        Ok(latencies)
    }

    /// Those who are still passing leave too, and everybody hears it.
    fn everybody_leaves(&mut self) -> Outcome {
        for who in self.inside.drain(..) {
            self.passers.leave(who)?;
        }
        self.passers.run_until(Instant::now() + Duration::from_millis(100))?;
        self.crowd.agree(u32::try_from(CROWD)?)?;
        match self.crowd.common_state()?.present as usize {
            CROWD => Ok(()),
            other => Err(format!("{other} are present in a room of {CROWD}").into()),
        }
    }
}
