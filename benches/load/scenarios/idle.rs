//! Idle: 10,000 sockets in 1,000 rooms, without traffic but the server's pings and keepalives, and the pings of pages that
//! are seen, which ask for a sign of life or for the hub's time.
//!
//! Memory per socket is the growth of the process's resident memory (RSS delta) from before the joins. It
//! contains what the allocator or the garbage collector has not returned.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit};
use crate::process::{Memory, Server, Subject};
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Join, Swarm};

pub(crate) const SOCKETS: usize = 10_000;
pub(crate) const ROOMS: usize = 1_000;
/// The pause between the last join and the first look at memory.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "idle",
    has_floor: false,
    has_peers: true,
    rounds: (2, 1),
    run: |subject, scale| run(subject, scale),
};

static RSS: Figure = Figure {
    scenario: "idle",
    name: "memory per socket (RSS delta)",
    unit: Unit::Bytes,
    quantile: 0.5,
    bar: Bar::AtMost(1_500.0),
};
static PSS: Figure = Figure {
    scenario: "idle",
    name: "memory per socket (PSS delta)",
    unit: Unit::Bytes,
    quantile: 0.5,
    bar: Bar::None,
};
static CPU: Figure = Figure {
    scenario: "idle",
    name: "CPU, of a core, one ping per 25 s",
    unit: Unit::Percent,
    quantile: 0.5,
    bar: Bar::AtMost(0.6),
};

static CPU_QUICK: Figure = Figure {
    scenario: "idle",
    name: "CPU, of a core, one ping per 5 s",
    unit: Unit::Percent,
    quantile: 0.5,
    bar: Bar::None,
};

fn run(subject: &Subject, scale: Scale) -> Outcome<Vec<Sample>> {
    let (ping, quiet) = scale.of(("25s", 30), ("5s", 6));
    let server = subject.start(&[("PING_INTERVAL", ping)])?;
    let empty = server.memory()?;
    let mut swarm = pages(&server)?;
    swarm.join_all(SOCKETS, |index| Join {
        room: format!("room-{}", index % ROOMS),
        visitor: format!("v{index}"),
        mood: None,
    })?;
    let Idle { rss, pss, cpu } =
        watch(&server, &mut swarm, empty, Duration::from_secs(quiet), subject.page_ping_interval())?;
    swarm.agree(u32::try_from(SOCKETS / ROOMS)?)?;
    Ok(vec![RSS.value(rss), PSS.value(pss), scale.of(&CPU, &CPU_QUICK).value(cpu)])
}

/// A swarm whose clients ask for a message with each ping, as pages do.
pub(crate) fn pages(server: &Server) -> Outcome<Swarm> {
    let ask = |request: String, _: &str| request.replacen('?', "?features=keepalive&", 1);
    Ok(Swarm::new(server.address)?.with_edit(ask))
}

/// The cost of idle sockets: memory in bytes per socket, CPU of all in percent of a core.
pub(crate) struct Idle {
    pub(crate) rss: f64,
    pub(crate) pss: f64,
    pub(crate) cpu: f64,
}

/// Waits until a server with sockets settles, and measures it for `quiet`, in which every socket must get a ping or an
/// answer to its own, which each page sends once in `page_pings`. `empty` is its memory before the joins.
pub(crate) fn watch(
    server: &Server,
    swarm: &mut Swarm,
    empty: Memory,
    quiet: Duration,
    page_pings: Duration,
) -> Outcome<Idle> {
    swarm.run_until(Instant::now() + SETTLE)?;
    let full = server.memory()?;
    let pages: Vec<_> = swarm.open_clients().map(|(index, _)| index).collect();
    let sockets = pages.len();
    let step = page_pings / u32::try_from(sockets)?;
    let (before, began, counted) = (server.cpu()?, Instant::now(), swarm.counters);
    let mut asked = 0;
    for (page, turn) in pages.into_iter().cycle().zip(1..) {
        let next = step * turn;
        if next > quiet {
            break;
        }
        swarm.run_until(began + next)?;
        swarm.send(page, r#"{"type":"ping"}"#)?;
        asked += 1;
    }
    swarm.run_until(began + quiet)?;
    let cpu = server.cpu()?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    swarm.until("the last page has its answer", |counters| counters.texts - counted.texts >= asked)?;
    let pings = swarm.counters.pings - counted.pings;
    if pings + asked < sockets {
        let counts =
            format!("{pings} pings to {sockets} sockets in {quiet:?}, of which {asked} asked themselves");
        return Err(format!("{counts}: expected a sign of life for each").into());
    }
    let each = |full: f64, empty: f64| (full - empty) / sockets as f64;
    Ok(Idle { rss: each(full.rss, empty.rss), pss: each(full.pss, empty.pss), cpu })
}
