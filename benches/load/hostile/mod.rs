//! Good members beside hostile peers: what the good ones notice, and what the hub keeps of it.
//!
//! First a quiet time, then all hostile peers at once, once from one address and once from fifty, each time against
//! a hub of its own. It has its default settings, limits included, and asks for visitors' tokens, which the
//! hostile peers have too. Every figure with a bar has to meet it, in the end every good member has to know what is
//! so, and every event that was acked has to be in SQLite once.
//!
//! It is about what stops the hub. Hostile peers use texts from sets of a fixed size, because what distinct names and
//! values do to the history is another question.

mod attackers;
mod attacks;
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

use self::attackers::{Crowd, Done};
use self::attacks::{ATTACKS, Attack};
use self::http_clients::{Answer, Clients};
use self::loopback::Echo;
use self::members::{Good, MEMBERS, Settled};
use self::memory::Memory;
use self::phase::{Bar, Line, at, late, not_taken, times};
use crate::http::Http;
use crate::process::{Server, Settings, Subject};
use crate::scenarios::events;
use crate::swarm::PATIENCE;
use crate::{Outcome, complain, say};

/// The defaults, which the other scenarios turn off, and tokens.
const SETTINGS: Settings<'_> = &[
    ("RATE_LIMITS", "on"),
    ("LEAVE_GRACE", "3s"),
    ("MAX_CONNECTIONS", "15000"),
    ("MAX_ROOMS", "10000"),
    ("RUST_LOG", "info"),
    ("TOKEN_SECRET", tokens::SECRET),
];

/// The quiet time, or as long as the hostile one, where that is shorter.
const QUIET: Duration = Duration::from_mins(1);

/// What is looked at when all is over.
const AFTER: Duration = Duration::from_secs(10);

/// A line of the table is about so long.
const LINE: Duration = Duration::from_mins(1);

/// What to run.
pub(crate) struct Plan {
    /// How long the hostile peers go on, each time.
    pub(crate) time: Duration,
    /// From how many addresses they come, a run for each.
    pub(crate) addresses: Vec<u8>,
    /// Only attacks whose names contain one of these; without any, all.
    pub(crate) only: Vec<String>,
}

/// Runs all of it, prints the tables, and says whether all was right.
pub(crate) fn run(hub: &Path, plan: &Plan) -> Outcome<bool> {
    let is_meant = |attack: &&Attack| {
        plan.only.is_empty() || plan.only.iter().any(|part| attack.name.contains(part.as_str()))
    };
    let attacks: Vec<_> = ATTACKS.iter().filter(is_meant).collect();
    if attacks.is_empty() {
        return Err("no attack has such a name".into());
    }
    let mut right = true;
    for addresses in &plan.addresses {
        say(format_args!("\nHostile peers from {addresses} address(es), for {:?}", plan.time));
        let mut run = Run::start(hub)?;
        let ended = run.all(plan.time, *addresses, &attacks);
        right &= run.judge(ended, &attacks)?;
    }
    Ok(right)
}

/// A hub with all that is around it, and what was measured so far.
struct Run {
    server: Server,
    good: Good,
    echo: Echo,
    memory: Memory,
    health: Clients,
    durable: Clients,
    lines: Vec<Line>,
    peak: f64,
    /// How long the hostile peers went on, and what each kind did.
    hostile: Duration,
    done: Vec<Done>,
    metrics: BTreeMap<String, f64>,
}

impl Run {
    fn start(hub: &Path) -> Outcome<Self> {
        let server = Subject::Hub(hub.to_owned()).start_logged(SETTINGS)?;
        let memory = Memory::watch(server.id());
        let mut good = Good::join(server.address)?;
        good.live_until(Instant::now() + Duration::from_secs(5))?;
        good.take_times();
        Ok(Self {
            good,
            echo: Echo::start()?,
            memory,
            health: Clients::ask_for_health(server.address),
            durable: Clients::post_durably(server.address),
            lines: Vec::new(),
            peak: 0.0,
            hostile: Duration::ZERO,
            done: Vec::new(),
            metrics: BTreeMap::new(),
            server,
        })
    }

    /// The quiet time, the hostile one and what comes after, until everybody knows what is so.
    fn all(&mut self, time: Duration, addresses: u8, attacks: &[&'static Attack]) -> Outcome<Settled> {
        self.watch("quiet".to_owned(), QUIET.min(time))?;
        let crowd = Crowd::start(self.server.address, attacks.to_vec(), addresses);
        let began = Instant::now();
        let minutes = u32::try_from(time.as_secs().div_ceil(LINE.as_secs()))?.max(2);
        let attacked = (1..=minutes)
            .try_for_each(|minute| self.watch(format!("all at once, {minute}/{minutes}"), time / minutes));
        self.hostile = began.elapsed();
        self.metrics = metrics(&self.server).unwrap_or_default();
        self.done = crowd.call_off()?;
        attacked?;
        self.watch("after it".to_owned(), AFTER)?;
        self.good.settle()
    }

    /// The good members live for so long, and the hub is looked at meanwhile.
    fn watch(&mut self, name: String, time: Duration) -> Outcome {
        self.echo.take();
        let (cpu, began) = (self.server.cpu()?, Instant::now());
        let lived = self.good.live_until(began + time);
        let cpu =
            self.server.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
        let metrics = metrics(&self.server).unwrap_or_default();
        let gauge = |name: &str| metrics.get(name).copied().unwrap_or(f64::NAN);
        let (latencies, leaves) = self.good.take_times();
        let (rss, peak) = self.memory.take();
        self.peak = self.peak.max(peak);
        let line = Line {
            name,
            latencies,
            leaves,
            echo: self.echo.take(),
            health: self.health.take(),
            durable: self.durable.take(),
            cpu,
            rss,
            sockets: gauge("breathing_room_connections"),
            connections: gauge("breathing_room_http_connections"),
        };
        complain(format_args!("{}: p99 {:.2} ms, {:.0} MB", line.name, line.p99(), rss / 1e6));
        self.lines.push(line);
        lived
    }

    /// Prints what was measured, looks at what is left, and says whether all of it is right.
    fn judge(mut self, ended: Outcome<Settled>, attacks: &[&Attack]) -> Outcome<bool> {
        phase::print(&self.lines);
        print_attacks(attacks, &self.done, self.hostile);
        print_counters(&self.metrics);
        print_memory(&self.lines);
        let settled = ended.inspect_err(|failure| complain(format_args!("WRONG: {failure}"))).ok();
        // What was asked and is answered only now.
        self.lines.push(Line { health: self.health.stop(), durable: self.durable.stop(), ..Line::default() });
        let is_right = match &settled {
            Some(settled) => check(&self.server, &mut self.good, settled)?,
            None => false,
        };
        let posts: Vec<_> = self.lines.iter().flat_map(|line| &line.durable).collect();
        let lost = if settled.is_some() { count_lost(&self.server, &posts)? } else { 0 };
        let met = phase::print_bars(&bars(&self.lines, lost, self.peak.max(self.memory.take().1)));
        print_refused(&posts);
        Ok(is_right && met)
    }
}

/// The bars of the issue that this benchmark is the answer to, and two that follow from what the protocol says.
fn bars(lines: &[Line], lost: usize, peak: f64) -> Vec<Bar> {
    let (quiet, hostile) = lines.split_at(lines.len().min(1));
    let quiet = quiet.first().map(Line::p99).unwrap_or_default();
    let latencies: Vec<_> = hostile.iter().flat_map(|line| &line.latencies).copied().collect();
    let health: Vec<_> = hostile.iter().flat_map(|line| times(&line.health)).collect();
    let durable: Vec<_> = hostile.iter().flat_map(|line| times(&line.durable)).collect();
    let count = |of: &dyn Fn(&Line) -> usize| lines.iter().map(of).sum::<usize>() as f64;
    let bar = |name, measured, most, unit| Bar { name, measured, most, unit };
    vec![
        bar("members told, p99, in times of the quiet time", at(&latencies, 0.99) / quiet, 3.0, " x"),
        bar("`/health`, slowest answer", at(&health, 1.0), 500.0, " ms"),
        bar("durable posts, p99", at(&durable, 0.99), 3_000.0, " ms"),
        bar("durable posts that were not taken", count(&|line| not_taken(&line.durable)), 0.0, ""),
        bar("durable posts that were taken and are not in SQLite", lost as f64, 0.0, ""),
        bar("groups that left with 1000 and were taken for lost", count(&|line| late(&line.leaves)), 0.0, ""),
        bar("resident memory, peak", peak / 1e6, 256.0, " MB"),
    ]
}

/// Durable posts that were taken and are not in SQLite once.
fn count_lost(server: &Server, answers: &[&Answer]) -> Outcome<usize> {
    let found = page_views(server, "SELECT id FROM page_views WHERE visitor LIKE 'durable-%'")?;
    Ok(answers.iter().filter(|answer| answer.is_ok() && found.get(&answer.id) != Some(&1)).count())
}

/// How often each id was found.
fn page_views(server: &Server, sql: &'static str) -> Outcome<HashMap<Uuid, usize>> {
    let mut found = HashMap::new();
    for (id,) in events::query_all::<(String,)>(server, sql)? {
        *found.entry(id.parse()?).or_default() += 1;
    }
    Ok(found)
}

/// All counters by name and labels.
fn metrics(server: &Server) -> Outcome<BTreeMap<String, f64>> {
    let page = Http::connect(server.address)?.get("/metrics")?;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    Ok(lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect())
}

fn print_attacks(attacks: &[&Attack], done: &[Done], time: Duration) {
    say("\n| hostile peers | opened | said again and again | ended by the hub |");
    say("| --- | ---: | ---: | ---: |");
    let per_second = |count: usize| count as f64 / time.as_secs_f64();
    for (attack, Done { opened, ended, said }) in attacks.iter().zip(done) {
        say(format_args!(
            "| {} | {opened} ({:.0}/s) | {said} ({:.0}/s) | {ended} |",
            attack.name,
            per_second(*opened),
            per_second(*said),
        ));
    }
}

fn print_counters(metrics: &BTreeMap<String, f64>) {
    const SHOWN: [&str; 9] = [
        "_limited_total",
        "_refused_total",
        "_rejected_total",
        "_evicted_total",
        "_cut_off_total",
        "_accept_errors_total",
        "_events_committed_total",
        "_flush_duration_seconds_sum",
        "_flush_duration_seconds_count",
    ];
    let shown =
        metrics.iter().filter(|(name, count)| SHOWN.iter().any(|part| name.contains(part)) && **count > 0.0);
    say("\n| counter | |\n| --- | ---: |");
    for (name, count) in shown {
        say(format_args!("| `{name}` | {count} |"));
    }
}

/// What durable posts were answered with that were not taken.
fn print_refused(posts: &[&Answer]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for post in posts.iter().filter(|post| !post.is_ok()) {
        let answer = match &post.result {
            Ok(status) => format!("{status} {}", post.body),
            Err(failure) => failure.clone(),
        };
        *counts.entry(answer).or_default() += 1;
    }
    for (answer, count) in counts {
        say(format_args!("{count} durable posts were answered with: {answer}"));
    }
}

/// Whether memory still grows in the second half of the hostile time, by the mean of its two halves.
fn print_memory(lines: &[Line]) {
    let hostile: Vec<_> = lines.iter().filter(|line| line.name.starts_with("all")).collect();
    let second = &hostile[hostile.len() / 2..];
    let mean = |lines: &[&Line]| lines.iter().map(|line| line.rss).sum::<f64>() / lines.len().max(1) as f64;
    let (earlier, later) = second.split_at(second.len() / 2);
    if earlier.is_empty() {
        return say("\nMemory: too short a time to tell whether it grows.");
    }
    let (earlier, later) = (mean(earlier), mean(later));
    let growth = (later / earlier - 1.0) * 100.0;
    say(format_args!(
        "\nMemory in the second half: {:.1} MB, then {:.1} MB ({growth:+.1} %).",
        earlier / 1e6,
        later / 1e6
    ));
}

/// What is on disk, in memory and in the log, when all is over.
fn check(server: &Server, good: &mut Good, settled: &Settled) -> Outcome<bool> {
    let found = page_views(server, "SELECT id FROM page_views WHERE visitor LIKE 'good-%'")?;
    let missing = settled.acked.iter().filter(|id| !found.contains_key(id)).count();
    let doubled = found.values().filter(|times| **times > 1).count();
    let (acked, refused) = (settled.acked.len(), settled.refused);
    say(format_args!(
        "Page views: {acked} acked, {} in SQLite; {missing} missing, {doubled} doubled; {refused} were refused \
         and said again.",
        found.len()
    ));
    let people = wait_for_the_last(server, good)?;
    say(format_args!("All {MEMBERS} were last told what is so, and {people} people are here."));
    let panics: f64 = metrics(server)?
        .iter()
        .filter(|(name, _)| name.contains("_panics_total"))
        .map(|(_, count)| count)
        .sum();
    let log = server.log()?;
    let errors = log.lines().filter(|line| line.contains("ERROR")).count();
    say(format_args!("{panics} panics; in the log {errors} errors, {} lines.", log.lines().count()));
    for line in log.lines().filter(|line| line.contains("ERROR")).take(20) {
        complain(line);
    }
    Ok((missing, doubled, errors) == (0, 0, 0) && panics < 0.5 && is_everybody(people))
}

fn is_everybody(people: f64) -> bool {
    (people - MEMBERS as f64).abs() < 0.5
}

/// How many people are here when the hostile ones have been counted out.
fn wait_for_the_last(server: &Server, good: &mut Good) -> Outcome<f64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let people = metrics(server)?.get("breathing_room_people").copied().unwrap_or_default();
        if is_everybody(people) || Instant::now() > deadline {
            return Ok(people);
        }
        good.turn(Duration::from_millis(100))?;
    }
}
