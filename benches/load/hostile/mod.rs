//! The hub under attack: honest members beside hostile peers.
//!
//! First a quiet phase, then all attacks at once: one run from one address, one from 50, each with a new hub. The hub
//! has its default settings, limits included, and requires visitor tokens, which the attackers have too. Every
//! bar must be met; at the end every honest member must have the right state, and every acked event must be in
//! SQLite once.
//!
//! There are two sets of attacks. `attacks` is about sockets and requests; its texts come from sets of a fixed size.
//! `cardinality` is about the history: all its texts and ids are distinct.

mod attackers;
mod attacks;
mod cardinality;
mod http_clients;
mod loopback;
mod members;
mod memory;
mod payloads;
mod phase;
mod tokens;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use self::attackers::{AttackCounts, Attackers};
use self::attacks::{ATTACKS, Attack};
use self::cardinality::{CARDINALITY, ROLLED_UP};
use self::http_clients::{Clients, Reply};
use self::loopback::LoopbackProbe;
use self::members::{MEMBERS, Members, Settled};
use self::memory::Memory;
use self::phase::{Bar, Phase, at, late, rejected, times};
use crate::http::Http;
use crate::process::{Server, Settings, Subject};
use crate::scenarios::events;
use crate::swarm::TIMEOUT;
use crate::{Outcome, print_error, print_line};

/// The defaults that the other scenarios turn off, and tokens.
const SETTINGS: Settings<'_> = &[
    ("RATE_LIMITS", "on"),
    ("LEAVE_GRACE", "3s"),
    ("MAX_CONNECTIONS", "15000"),
    ("MAX_ROOMS", "10000"),
    ("RUST_LOG", "info"),
    ("TOKEN_SECRET", tokens::SECRET),
    ("ROLLUP_PROPS", ROLLED_UP),
];

/// The quiet phase; it is no longer than the attacks.
const QUIET: Duration = Duration::from_mins(1);

/// The phase after the attacks.
const AFTER: Duration = Duration::from_secs(10);

/// About the length of a phase during the attacks.
const PHASE: Duration = Duration::from_mins(1);

/// The arguments of a run.
pub(crate) struct Plan {
    /// How long the attacks last, in each run.
    pub(crate) time: Duration,
    /// Source addresses of the attackers, one run for each number.
    pub(crate) addresses: Vec<u8>,
    /// Whether the attacks are those on the history's cardinality.
    pub(crate) cardinality: bool,
    /// Only attacks whose names contain one of these; where it is empty, all.
    pub(crate) only: Vec<String>,
}

/// Runs the benchmark and prints the tables. Returns whether all results are right and all bars are met.
pub(crate) fn run(hub: &Path, plan: &Plan) -> Outcome<bool> {
    let is_selected = |attack: &&Attack| {
        plan.only.is_empty() || plan.only.iter().any(|part| attack.name.contains(part.as_str()))
    };
    let all = if plan.cardinality { CARDINALITY } else { ATTACKS };
    let attacks: Vec<_> = all.iter().filter(is_selected).collect();
    if attacks.is_empty() {
        return Err("--attacks selects no attack".into());
    }
    let mut right = true;
    for addresses in &plan.addresses {
        print_line(format_args!("\nAttacks from {addresses} address(es), for {:?}", plan.time));
        let mut run = Run::start(hub)?;
        let ended = run.run_phases(plan.time, *addresses, &attacks);
        right &= run.report(ended, &attacks, plan.cardinality)?;
    }
    Ok(right)
}

/// A hub with its clients and probes, and the measurements so far.
struct Run {
    server: Server,
    members: Members,
    loopback: LoopbackProbe,
    memory: Memory,
    health: Clients,
    durable: Clients,
    phases: Vec<Phase>,
    peak: f64,
    /// How long the attacks lasted, and the counters of each.
    attacked: Duration,
    counts: Vec<AttackCounts>,
    metrics: BTreeMap<String, f64>,
}

impl Run {
    fn start(hub: &Path) -> Outcome<Self> {
        let server = Subject::Hub(hub.to_owned()).start_logged(SETTINGS)?;
        let memory = Memory::watch(server.id());
        let mut members = Members::join(server.address)?;
        members.run_until(Instant::now() + Duration::from_secs(5))?;
        members.take_times();
        Ok(Self {
            members,
            loopback: LoopbackProbe::start()?,
            memory,
            health: Clients::health(server.address),
            durable: Clients::durable_posts(server.address),
            phases: Vec::new(),
            peak: 0.0,
            attacked: Duration::ZERO,
            counts: Vec::new(),
            metrics: BTreeMap::new(),
            server,
        })
    }

    /// Runs all phases, and waits until every member has the right state.
    fn run_phases(&mut self, time: Duration, addresses: u8, attacks: &[&'static Attack]) -> Outcome<Settled> {
        self.measure("quiet".to_owned(), QUIET.min(time))?;
        let attackers = Attackers::start(self.server.address, attacks.to_vec(), addresses);
        let began = Instant::now();
        let minutes = u32::try_from(time.as_secs().div_ceil(PHASE.as_secs()))?.max(2);
        let result = (1..=minutes)
            .try_for_each(|minute| self.measure(format!("all at once, {minute}/{minutes}"), time / minutes));
        self.attacked = began.elapsed();
        self.metrics = metrics(&self.server).unwrap_or_default();
        self.counts = attackers.stop()?;
        result?;
        self.measure("after".to_owned(), AFTER)?;
        self.members.settle()
    }

    /// Runs the honest members for some time and records a phase.
    fn measure(&mut self, name: String, time: Duration) -> Outcome {
        self.loopback.take();
        let (cpu, began) = (self.server.cpu()?, Instant::now());
        let result = self.members.run_until(began + time);
        let cpu =
            self.server.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        let metrics = metrics(&self.server).unwrap_or_default();
        let gauge = |name: &str| metrics.get(name).copied().unwrap_or(f64::NAN);
        let (latencies, leaves) = self.members.take_times();
        let (rss, peak) = self.memory.take();
        self.peak = self.peak.max(peak);
        let phase = Phase {
            name,
            latencies,
            leaves,
            loopback: self.loopback.take(),
            health: self.health.take(),
            durable: self.durable.take(),
            cpu,
            rss,
            sockets: gauge("breathing_room_connections"),
            connections: gauge("breathing_room_http_connections"),
        };
        print_error(format_args!("{}: p99 {:.2} ms, {:.0} MB", phase.name, phase.p99(), rss / 1e6));
        self.phases.push(phase);
        result
    }

    /// Prints the measurements and checks the hub's state. Returns whether all results are right and all bars are met.
    fn report(mut self, ended: Outcome<Settled>, attacks: &[&Attack], cardinality: bool) -> Outcome<bool> {
        phase::print(&self.phases);
        print_attacks(attacks, &self.counts, self.attacked);
        print_counters(&self.metrics);
        print_memory(&self.phases);
        let settled = ended.inspect_err(|failure| print_error(format_args!("WRONG: {failure}"))).ok();
        // Requests that were open at the end of the last phase.
        self.phases.push(Phase {
            health: self.health.stop(),
            durable: self.durable.stop(),
            ..Phase::default()
        });
        let is_right = match &settled {
            Some(settled) => check(&self.server, &mut self.members, settled)?,
            None => false,
        };
        let posts: Vec<_> = self.phases.iter().flat_map(|phase| &phase.durable).collect();
        let lost = if settled.is_some() { count_lost(&self.server, &posts)? } else { 0 };
        let mut bars = bars(&self.phases, lost, self.peak.max(self.memory.take().1));
        if cardinality {
            bars.extend(history_bars(&self.server)?);
        }
        let met = phase::print_bars(&bars);
        print_rejected(&posts);
        Ok(is_right && met)
    }
}

/// The bars of the benchmark. docs/benchmarks.md has the list.
fn bars(phases: &[Phase], lost: usize, peak: f64) -> Vec<Bar> {
    let (quiet, attacked) = phases.split_at(phases.len().min(1));
    let quiet = quiet.first().map(Phase::p99).unwrap_or_default();
    let latencies: Vec<_> = attacked.iter().flat_map(|phase| &phase.latencies).copied().collect();
    let health: Vec<_> = attacked.iter().flat_map(|phase| times(&phase.health)).collect();
    let durable: Vec<_> = attacked.iter().flat_map(|phase| times(&phase.durable)).collect();
    let count = |of: &dyn Fn(&Phase) -> usize| phases.iter().map(of).sum::<usize>() as f64;
    let bar = |name, measured, most, unit| Bar { name, measured, most, unit };
    vec![
        bar("change to members, p99, to the quiet phase", at(&latencies, 0.99) / quiet, 3.0, " x"),
        bar("`/health`, slowest response", at(&health, 1.0), 500.0, " ms"),
        bar("durable posts, p99", at(&durable, 0.99), 3_000.0, " ms"),
        bar("durable posts that were rejected", count(&|phase| rejected(&phase.durable)), 0.0, ""),
        bar("durable posts with 200 that are not in SQLite", lost as f64, 0.0, ""),
        bar(
            "groups that left with 1000 and counted until the grace",
            count(&|phase| late(&phase.leaves)),
            0.0,
            "",
        ),
        bar("resident memory, peak", peak / 1e6, 256.0, " MB"),
    ]
}

/// The bars of the history: the time of a flush, and the files relative to the events in them.
fn history_bars(server: &Server) -> Outcome<[Bar; 2]> {
    // The bytes of the events as a client sends them; 42, 11, … are the names and the punctuation of JSON.
    const EVENTS: &str = "
        SELECT CAST((SELECT ifnull(sum(42 + length(id) + length(room) + length(visitor) + length(path)
                    + ifnull(11 + length(title), 0) + ifnull(14 + length(referrer), 0)
                    + ifnull(9 + length(props), 0)), 0) FROM page_views)
             + (SELECT ifnull(sum(75 + length(id) + length(room) + length(visitor) + length(content)
                    + length(state) + length(watched_ms) + ifnull(9 + length(props), 0)), 0)
                FROM watch_sessions) AS REAL)";
    let events = events::query_all::<(f64,)>(server, EVENTS)?.first().map_or(f64::NAN, |row| row.0);
    let files: u64 = ["", "-wal"]
        .into_iter()
        .filter_map(|end| std::fs::metadata(format!("{}{end}", server.database().display())).ok())
        .map(|file| file.len())
        .sum();
    let metrics = metrics(server)?;
    let flushes = |label: &str| {
        let name = format!("breathing_room_flush_duration_seconds_{label}");
        metrics.get(&name).copied().unwrap_or(f64::NAN)
    };
    print_line(format_args!(
        "Database and write-ahead log: {:.0} MB; the events as JSON: {:.0} MB.",
        files as f64 / 1e6,
        events / 1e6
    ));
    let slow = flushes("count") - flushes(r#"bucket{le="2"}"#);
    Ok([
        Bar { name: "flushes over 2 s", measured: slow, most: 0.0, unit: "" },
        Bar {
            name: "database and log, relative to the events as JSON",
            measured: files as f64 / events,
            most: 3.0,
            unit: " x",
        },
    ])
}

/// The number of durable posts with a 200 that are not in SQLite exactly once.
fn count_lost(server: &Server, posts: &[&Reply]) -> Outcome<usize> {
    let found = page_views(server, "SELECT id FROM page_views WHERE visitor LIKE 'durable-%'")?;
    Ok(posts.iter().filter(|post| post.is_ok() && found.get(&post.id) != Some(&1)).count())
}

/// The rows of each id.
fn page_views(server: &Server, sql: &'static str) -> Outcome<HashMap<Uuid, usize>> {
    let mut found = HashMap::new();
    for (id,) in events::query_all::<(String,)>(server, sql)? {
        *found.entry(id.parse()?).or_default() += 1;
    }
    Ok(found)
}

/// All metrics, by name and labels.
fn metrics(server: &Server) -> Outcome<BTreeMap<String, f64>> {
    let page = Http::connect(server.address)?.get("/metrics")?;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    Ok(lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect())
}

fn print_attacks(attacks: &[&Attack], counts: &[AttackCounts], time: Duration) {
    print_line("\n| attack | opened | repeats | closed by the hub |");
    print_line("| --- | ---: | ---: | ---: |");
    let per_second = |count: usize| count as f64 / time.as_secs_f64();
    for (attack, AttackCounts { opened, closed, repeats }) in attacks.iter().zip(counts) {
        print_line(format_args!(
            "| {} | {opened} ({:.0}/s) | {repeats} ({:.0}/s) | {closed} |",
            attack.name,
            per_second(*opened),
            per_second(*repeats),
        ));
    }
}

fn print_counters(metrics: &BTreeMap<String, f64>) {
    const SHOWN: [&str; 9] = [
        "_limited_total",
        "_refused_total",
        "_rejected_total",
        "_evicted_total",
        "_sockets_aborted_total",
        "_accept_errors_total",
        "_events_committed_total",
        "_flush_duration_seconds_sum",
        "_flush_duration_seconds_count",
    ];
    let shown =
        metrics.iter().filter(|(name, count)| SHOWN.iter().any(|part| name.contains(part)) && **count > 0.0);
    print_line("\n| counter | |\n| --- | ---: |");
    for (name, count) in shown {
        print_line(format_args!("| `{name}` | {count} |"));
    }
}

/// Prints the responses of rejected durable posts.
fn print_rejected(posts: &[&Reply]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for post in posts.iter().filter(|post| !post.is_ok()) {
        let response = match &post.result {
            Ok(status) => format!("{status} {}", post.body),
            Err(failure) => failure.clone(),
        };
        *counts.entry(response).or_default() += 1;
    }
    for (response, count) in counts {
        print_line(format_args!("{count} durable posts were rejected with: {response}"));
    }
}

/// Prints whether memory grows in the second half of the attacks, by the means of its two halves.
fn print_memory(phases: &[Phase]) {
    let attacked: Vec<_> = phases.iter().filter(|phase| phase.name.starts_with("all")).collect();
    let second = &attacked[attacked.len() / 2..];
    let mean =
        |phases: &[&Phase]| phases.iter().map(|phase| phase.rss).sum::<f64>() / phases.len().max(1) as f64;
    let (earlier, later) = second.split_at(second.len() / 2);
    if earlier.is_empty() {
        return print_line("\nMemory: the run is too short to show growth.");
    }
    let (earlier, later) = (mean(earlier), mean(later));
    let growth = (later / earlier - 1.0) * 100.0;
    print_line(format_args!(
        "\nMemory in the second half of the attacks: {:.1} MB, then {:.1} MB ({growth:+.1} %).",
        earlier / 1e6,
        later / 1e6
    ));
}

/// Checks SQLite, the count of visitors, the panics and the log at the end of a run.
fn check(server: &Server, members: &mut Members, settled: &Settled) -> Outcome<bool> {
    let found = page_views(server, "SELECT id FROM page_views WHERE visitor LIKE 'honest-%'")?;
    let missing = settled.acked.iter().filter(|id| !found.contains_key(id)).count();
    let doubled = found.values().filter(|times| **times > 1).count();
    let (acked, refused) = (settled.acked.len(), settled.refused);
    print_line(format_args!(
        "Page views: {acked} acked, {} in SQLite; {missing} missing, {doubled} doubled; {refused} were \
         refused and sent again.",
        found.len()
    ));
    let present = wait_for_count(server, members)?;
    print_line(format_args!(
        "All {MEMBERS} members have the right state; the hub counts {present} visitors."
    ));
    let panics: f64 = metrics(server)?
        .iter()
        .filter(|(name, _)| name.contains("_panics_total"))
        .map(|(_, count)| count)
        .sum();
    let log = server.log()?;
    let errors = log.lines().filter(|line| line.contains("ERROR")).count();
    print_line(format_args!("{panics} panics; in the log {errors} errors, {} lines.", log.lines().count()));
    for line in log.lines().filter(|line| line.contains("ERROR")).take(20) {
        print_error(line);
    }
    Ok((missing, doubled, errors) == (0, 0, 0) && panics < 0.5 && is_complete(present))
}

fn is_complete(present: f64) -> bool {
    (present - MEMBERS as f64).abs() < 0.5
}

/// Waits until the hub counts the honest members only. Returns the last count.
fn wait_for_count(server: &Server, members: &mut Members) -> Outcome<f64> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let present = metrics(server)?.get("breathing_room_visitors").copied().unwrap_or_default();
        if is_complete(present) || Instant::now() > deadline {
            return Ok(present);
        }
        members.turn(Duration::from_millis(100))?;
    }
}
