//! The log of events: how far the files of other nodes are behind, and what a replicated event costs each node.
//!
//! One node gets page views at a steady rate. A page view now and then is looked up in all files until each has it.

use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::Line;
use super::nodes::Nodes;
use crate::figure::{median, micros, millis, quantile};
use crate::http::Http;
use crate::process::{Server, Subject};
use crate::scenarios::events::{join, page_view};
use crate::swarm::{Swarm, TIMEOUT};
use crate::{Outcome, print_error};

/// Page views per second.
const RATE: usize = 2_500;
const SOCKETS: usize = 200;
/// How long it is measured.
const MEASURED: Duration = Duration::from_secs(40);
/// The time between two page views that are looked up.
const PROBES: Duration = Duration::from_millis(300);
/// The time between two looks at a file.
const LOOKS: Duration = Duration::from_millis(5);
const FLUSH: &str = "500ms";
const FLUSH_MS: f64 = 500.0;

/// CPU time of each hub per page view, in microseconds, without what an idle hub takes; and the lags.
struct Measured {
    cpu: Vec<f64>,
    lags: Vec<f64>,
}

pub(super) fn log(hub: &std::path::Path) -> Outcome<Vec<Line>> {
    print_error("log: one node");
    let single = Subject::Hub(hub.to_owned()).start(&[("FLUSH_INTERVAL", FLUSH)])?;
    let one = measure(std::slice::from_ref(&single))?.cpu[0];
    drop(single);
    print_error("log: three nodes");
    let nodes = Nodes::with_log(hub, &[("FLUSH_INTERVAL", FLUSH)])?;
    let Measured { cpu, lags } = measure(&nodes.hubs)?;
    let published = publish_millis(&nodes.hubs[0])?;
    let (lag, middle) = (quantile(&lags, 0.99).unwrap_or(f64::NAN), median(&lags).unwrap_or(f64::NAN));
    let (own, others) = (cpu[0] / one, cpu[1].max(cpu[2]) / one);
    Ok(vec![
        Line {
            figure: "log: commit on one node to commit on the last one, 2,500 page views/s, flush interval 500 ms",
            value: format!("p99 {lag:.0} ms, median {middle:.0} ms ({} page views)", lags.len()),
            bar: "p99 ≤ flush interval + 200 ms",
            is_met: lag <= FLUSH_MS + 200.0,
        },
        Line {
            figure: "the same, a message in the log",
            value: format!("p99 {published:.0} ms"),
            bar: "p99 ≤ 100 ms",
            is_met: published <= 100.0,
        },
        Line {
            figure: "the same, CPU per page view of the node that gets them, against a hub without NATS",
            value: format!("{:.1} µs, {one:.1} µs: {own:.2}", cpu[0]),
            bar: "≤ 2.5",
            is_met: own <= 2.5,
        },
        Line {
            figure: "the same, of another node",
            value: format!("{:.1} µs: {others:.2}", cpu[1].max(cpu[2])),
            bar: "≤ 1.5",
            is_met: others <= 1.5,
        },
    ])
}

/// Sends page views to the first hub.
fn measure(hubs: &[Server]) -> Outcome<Measured> {
    let mut swarm = Swarm::new(hubs[0].address)?;
    swarm.join_all(SOCKETS, join)?;
    let mut files = hubs.iter().map(File::open).collect::<Outcome<Vec<_>>>()?;
    let mut load = Views { sent: 0, began: Instant::now() };
    let cpu = || hubs.iter().map(Server::cpu).collect::<Outcome<Vec<_>>>();
    let (began, before) = (Instant::now(), cpu()?);
    swarm.run_until(began + Duration::from_secs(5))?;
    let idle: Vec<f64> =
        cpu()?.iter().zip(&before).map(|(now, then)| share(now.saturating_sub(*then), began)).collect();
    load.began = Instant::now();
    // The first seconds fill tables and caches.
    while load.began.elapsed() < Duration::from_secs(5) {
        load.send(&mut swarm)?;
    }
    let (began, before, sent) = (Instant::now(), cpu()?, load.sent);
    let (mut lags, mut probe, mut look) = (Vec::new(), None::<Probe>, Instant::now());
    while began.elapsed() < MEASURED || probe.is_some() {
        let last = load.send(&mut swarm)?;
        if look.elapsed() < LOOKS {
            continue;
        }
        look = Instant::now();
        match &mut probe {
            None => probe = last.filter(|_| began.elapsed() < MEASURED).map(|id| Probe::of(id, hubs.len())),
            Some(found) => {
                for (file, seen) in files.iter_mut().zip(&mut found.seen).filter(|(_, seen)| seen.is_none()) {
                    if file.has(found.id)? {
                        *seen = Some(Instant::now());
                    }
                }
                if found.began.elapsed() > TIMEOUT {
                    return Err("a page view is not in all files".into());
                }
                if let Some(lag) = found.lag()
                    && found.began.elapsed() >= PROBES
                {
                    lags.push(lag);
                    probe = None;
                }
            }
        }
    }
    // What was sent last is committed within the flush interval.
    swarm.run_until(Instant::now() + Duration::from_secs(1))?;
    let (took, count) = (began.elapsed().as_secs_f64(), (load.sent - sent) as f64);
    let used = cpu()?.into_iter().zip(before).map(|(now, then)| micros(now.saturating_sub(then)));
    let cpu = used.zip(idle).map(|(used, idle)| (used - idle * took * 1e6) / count).collect();
    Ok(Measured { cpu, lags })
}

fn share(cpu: Duration, began: Instant) -> f64 {
    cpu.as_secs_f64() / began.elapsed().as_secs_f64()
}

/// Page views at a steady rate.
struct Views {
    sent: usize,
    began: Instant,
}

impl Views {
    /// Sends what is due, and reads for a millisecond. Returns the id of the last page view that was sent.
    fn send(&mut self, swarm: &mut Swarm) -> Outcome<Option<Uuid>> {
        let mut last = None;
        let due = RATE * self.began.elapsed().as_millis() as usize / 1_000;
        while self.sent < due {
            let id = Uuid::now_v7();
            swarm.send(self.sent % SOCKETS, &page_view(self.sent / SOCKETS + 1, id))?;
            (self.sent, last) = (self.sent + 1, Some(id));
        }
        let mut refused = None;
        swarm.turn(Duration::from_millis(1), &mut |_, text| {
            if text.starts_with(br#"{"type":"error""#) {
                refused = Some(String::from_utf8_lossy(text).into_owned());
            }
        })?;
        refused.map_or(Ok(last), |refused| Err(refused.into()))
    }
}

/// A page view that is looked up.
struct Probe {
    id: Uuid,
    began: Instant,
    /// When each file had it.
    seen: Vec<Option<Instant>>,
}

impl Probe {
    fn of(id: Uuid, files: usize) -> Self {
        Self { id, began: Instant::now(), seen: vec![None; files] }
    }

    /// From the file of the node that got it to the last one, in milliseconds, once all have it.
    fn lag(&self) -> Option<f64> {
        let seen = self.seen.iter().copied().collect::<Option<Vec<_>>>()?;
        Some(millis(seen.iter().max()?.saturating_duration_since(*seen.first()?)))
    }
}

/// A database of a running hub.
struct File {
    runtime: Runtime,
    connection: SqliteConnection,
}

impl File {
    fn open(server: &Server) -> Outcome<Self> {
        let options = SqliteConnectOptions::new().filename(server.database()).read_only(true);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connection = runtime.block_on(SqliteConnection::connect_with(&options))?;
        Ok(Self { runtime, connection })
    }

    fn has(&mut self, id: Uuid) -> Outcome<bool> {
        let query =
            sqlx::query_scalar::<_, i64>("SELECT EXISTS (SELECT 1 FROM raw_page_views WHERE id = ?1)");
        let found = query.bind(id.as_bytes().to_vec()).fetch_one(&mut self.connection);
        Ok(self.runtime.block_on(found)? == 1)
    }
}

/// The 99th percentile of the time from sending a message until most of the log's disks have it, in milliseconds.
fn publish_millis(hub: &Server) -> Outcome<f64> {
    let page = Http::connect(hub.address)?.get("/metrics")?;
    let name = r#"breathing_room_log_publish_seconds{quantile="0.99"} "#;
    let value = page.lines().find_map(|line| line.strip_prefix(name)).ok_or("no time of the log")?;
    Ok(value.parse::<f64>()? * 1_000.0)
}
