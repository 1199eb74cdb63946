//! Idle: 10,000 sockets in 1,000 rooms, without traffic but the server's pings and keepalives, and the pings of pages that
//! are seen, which ask for a sign of life, or after a keepalive for the hub's time.
//!
//! Memory per socket is the growth of the process's resident memory (RSS delta) from before the joins. It
//! contains what the allocator or the garbage collector has not returned.

use std::time::{Duration, Instant};

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit};
use crate::process::{Memory, PagePings, Server, Subject};
use crate::scenarios::{Scale, Scenario};
use crate::swarm::{Join, Swarm};

pub(crate) const SOCKETS: usize = 10_000;
pub(crate) const ROOMS: usize = 1_000;
const ASK: &str = r#"{"type":"ping"}"#;
const KEEPALIVE: &[u8] = br#"{"type":"keepalive""#;
/// The pause between the start or the last join, and a look at memory.
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
    let (ping, quiet) = scale.of((25, 30), (5, 6));
    let server = subject.start(&[("PING_INTERVAL", &format!("{ping}s"))])?;
    let empty = memory_after_start(&server)?;
    let mut swarm = pages(&server)?;
    swarm.join_all(SOCKETS, |index| Join {
        room: format!("room-{}", index % ROOMS),
        visitor: format!("v{index}"),
        mood: None,
    })?;
    let page_pings = subject.page_pings(Duration::from_secs(ping));
    let Idle { rss, pss, cpu } = watch(&server, &mut swarm, empty, Duration::from_secs(quiet), page_pings)?;
    swarm.agree(u32::try_from(SOCKETS / ROOMS)?)?;
    Ok(vec![RSS.value(rss), PSS.value(pss), scale.of(&CPU, &CPU_QUICK).value(cpu)])
}

/// The memory of a server that has done what it does after its start.
#[expect(clippy::disallowed_methods, reason = "the tool has no other tasks on this thread")]
pub(crate) fn memory_after_start(server: &Server) -> Outcome<Memory> {
    std::thread::sleep(SETTLE);
    server.memory()
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
/// answer to its own. `empty` is its memory before the joins.
pub(crate) fn watch(
    server: &Server,
    swarm: &mut Swarm,
    empty: Memory,
    quiet: Duration,
    page_pings: PagePings,
) -> Outcome<Idle> {
    swarm.run_until(Instant::now() + SETTLE)?;
    let full = server.memory()?;
    let sockets = swarm.open_clients().count();
    let (before, began, counted) = (server.cpu()?, Instant::now(), swarm.counters);
    let Sent { asked, keepalives } = match page_pings {
        PagePings::Every(interval) => ask_evenly(swarm, interval, began + quiet)?,
        PagePings::AfterKeepalive { one_in } => ask_after_keepalives(swarm, one_in, began + quiet)?,
    };
    let cpu = server.cpu()?.saturating_sub(before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    swarm.until("the last page has its answer", |counters| {
        counters.texts - counted.texts >= asked + keepalives
    })?;
    let pings = swarm.counters.pings - counted.pings;
    if pings + asked < sockets {
        let counts =
            format!("{pings} pings to {sockets} sockets in {quiet:?}, of which {asked} asked themselves");
        return Err(format!("{counts}: expected a sign of life for each").into());
    }
    let each = |full: f64, empty: f64| (full - empty) / sockets as f64;
    Ok(Idle { rss: each(full.rss, empty.rss), pss: each(full.pss, empty.pss), cpu })
}

/// The pings of pages, and the keepalives that they got.
struct Sent {
    asked: usize,
    keepalives: usize,
}

/// Each page sends a ping once in `interval`, in turn.
fn ask_evenly(swarm: &mut Swarm, interval: Duration, end: Instant) -> Outcome<Sent> {
    let pages: Vec<_> = swarm.open_clients().map(|(index, _)| index).collect();
    let (step, began, mut asked) = (interval / u32::try_from(pages.len())?, Instant::now(), 0);
    for (page, turn) in pages.into_iter().cycle().zip(1..) {
        let next = began + step * turn;
        if next > end {
            break;
        }
        swarm.run_until(next)?;
        swarm.send(page, ASK)?;
        asked += 1;
    }
    swarm.run_until(end)?;
    Ok(Sent { asked, keepalives: 0 })
}

/// One page of so many that get a keepalive sends a ping when it has read it, and after its pong.
fn ask_after_keepalives(swarm: &mut Swarm, one_in: u64, end: Instant) -> Outcome<Sent> {
    let (mut sent, mut due) = (Sent { asked: 0, keepalives: 0 }, Vec::new());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(sent);
        }
        swarm.turn(left, &mut |page, text| {
            if text.starts_with(KEEPALIVE) {
                sent.keepalives += 1;
                if (sent.keepalives as u64).is_multiple_of(one_in) {
                    due.push(page);
                }
            }
        })?;
        for page in due.drain(..) {
            swarm.send(page, ASK)?;
            sent.asked += 1;
        }
    }
}
