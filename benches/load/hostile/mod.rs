//! Good members beside hostile peers: what the good ones notice, and what the hub keeps of it.
//!
//! First a quiet time, then one address that floods, then everything at once. The hub has its default settings,
//! limits included. In the end every good member has to know what is so, and every page view that was acked has
//! to be in SQLite once.

mod attacks;
mod crowd;
mod echo;
mod good;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use self::attacks::ATTACKS;
use self::crowd::{Crowd, Done};
use self::echo::Echo;
use self::good::{Good, MEMBERS, ROOMS, Settled};
use crate::figure::quantile;
use crate::http::Http;
use crate::process::{Server, Settings, Subject};
use crate::scenarios::events;
use crate::swarm::PATIENCE;
use crate::{Outcome, complain, say};

/// The defaults, which the other scenarios turn off.
const DEFAULTS: Settings<'_> = &[
    ("RATE_LIMITS", "on"),
    ("LEAVE_GRACE", "3s"),
    ("MAX_CONNECTIONS", "15000"),
    ("MAX_ROOMS", "10000"),
    ("RUST_LOG", "warn"),
];

/// The times before the hostile one, or as long as that, where it is shorter.
const BEFORE: Duration = Duration::from_mins(1);

/// A line of the table is about so long.
const LINE: Duration = Duration::from_mins(1);

/// What the good members may wait at most, in times of what they wait when it is quiet.
const BAR: f64 = 3.0;

/// One line of the table.
struct Line {
    name: String,
    latencies: Vec<f64>,
    /// What the machine takes by itself.
    echo: Vec<f64>,
    /// Of a core.
    cpu: f64,
    rss: f64,
    sockets: f64,
    connections: f64,
}

impl Line {
    fn p99(&self) -> f64 {
        quantile(&self.latencies, 0.99).unwrap_or_default()
    }

    fn print(&self, quiet: f64) {
        let at = |part| quantile(&self.latencies, part).unwrap_or_default();
        say(format_args!(
            "| {} | {:.2} ms | {:.2} ms | {:.1} ms | {:.2} x | {:.2} ms | {:.0} % | {:.1} MB | {} | {} |",
            self.name,
            at(0.5),
            at(0.99),
            at(1.0),
            self.p99() / quiet,
            quantile(&self.echo, 0.99).unwrap_or_default(),
            self.cpu,
            self.rss / 1e6,
            self.sockets,
            self.connections,
        ));
    }
}

/// Runs all of it, prints the tables, and says whether all was right.
pub(crate) fn run(hub: &Path, time: Duration) -> Outcome<bool> {
    let server = Subject::Hub(hub.to_owned()).start_logged(DEFAULTS)?;
    let mut good = Good::join(server.address)?;
    good.live_until(Instant::now() + Duration::from_secs(5))?;
    let before = BEFORE.min(time);
    let echo = Echo::start()?;
    let quiet = watch(&server, &mut good, &echo, "quiet", before)?;
    complain(format_args!("quiet: p99 {:.2} ms", quiet.p99()));
    let flood = Crowd::from_one_address(server.address);
    let flooded = watch(&server, &mut good, &echo, "one address floods", before)?;
    let flooders = flood.call_off()?;
    complain(format_args!("one address floods: p99 {:.2} ms", flooded.p99()));

    let crowd = Crowd::of_all_kinds(server.address);
    let minutes = u32::try_from(time.as_secs().div_ceil(LINE.as_secs()))?.max(2);
    let mut hostile = Vec::new();
    for minute in 1..=minutes {
        let name = format!("all at once, {minute}/{minutes}");
        let line = watch(&server, &mut good, &echo, &name, time / minutes)?;
        complain(format_args!("minute {minute}: p99 {:.2} ms", line.p99()));
        hostile.push(line);
    }
    let done = crowd.call_off()?;
    let metrics = metrics(&server)?;
    let settled = good.settle()?;

    print_lines(&quiet, &flooded, &hostile);
    print_attacks(&flooders, before, &done, time);
    print_refusals(&metrics);
    let latencies = hostile.iter().flat_map(|line| &line.latencies).copied().collect::<Vec<_>>();
    let times = quantile(&latencies, 0.99).unwrap_or_default() / quiet.p99();
    let mark = if times <= BAR { "ok" } else { "OVER" };
    say(format_args!(
        "\nDelivery, p99 of all hostile minutes to the quiet time: {times:.2} x, bar {BAR} x {mark}."
    ));
    print_memory(&hostile);
    let panics: f64 =
        metrics.iter().filter(|(name, _)| name.contains("_panics_total")).map(|(_, count)| count).sum();
    check(&server, &mut good, &settled, panics)
}

/// The good members live for so long, and the hub is looked at meanwhile.
fn watch(server: &Server, good: &mut Good, echo: &Echo, name: &str, time: Duration) -> Outcome<Line> {
    echo.take();
    let (cpu, began) = (server.cpu()?, Instant::now());
    let latencies = good.live_until(began + time)?;
    let cpu = server.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0;
    let (rss, metrics) = (server.memory()?.rss, metrics(server)?);
    let gauge = |name: &str| metrics.get(name).copied().unwrap_or_default();
    let (sockets, connections) =
        (gauge("breathing_room_connections"), gauge("breathing_room_http_connections"));
    Ok(Line { name: name.to_owned(), latencies, echo: echo.take(), cpu, rss, sockets, connections })
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

fn print_lines(quiet: &Line, flooded: &Line, hostile: &[Line]) {
    say(format_args!(
        "\n{MEMBERS} good members in {ROOMS} rooms: from a change of mood until each member of the room is told.\n"
    ));
    say(
        "| time | p50 | p99 | max | p99 to quiet | echo, p99 | CPU, of a core | memory | sockets | other connections |",
    );
    say("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for line in [quiet, flooded].into_iter().chain(hostile) {
        line.print(quiet.p99());
    }
}

fn print_attacks(flooders: &[Done], before: Duration, done: &[Done], time: Duration) {
    say(
        "\n| hostile peers | opened | said again and again | ended by the hub | per second, in the flood of one address |",
    );
    say("| --- | ---: | ---: | ---: | ---: |");
    let per_second = |count: usize, time: Duration| count as f64 / time.as_secs_f64();
    for (attack, (done, flood)) in ATTACKS.iter().zip(done.iter().zip(flooders)) {
        let Done { opened, ended, said } = done;
        say(format_args!(
            "| {} | {opened} ({:.0}/s) | {said} ({:.0}/s) | {ended} | {:.0} opened, {:.0} said |",
            attack.name,
            per_second(*opened, time),
            per_second(*said, time),
            per_second(flood.opened, before),
            per_second(flood.said, before),
        ));
    }
}

fn print_refusals(metrics: &BTreeMap<String, f64>) {
    const SHOWN: [&str; 4] = ["_limited_total", "_refused_total", "_cut_off_total", "_accept_errors_total"];
    let shown =
        metrics.iter().filter(|(name, count)| SHOWN.iter().any(|part| name.contains(part)) && **count > 0.0);
    say("\n| counter | |\n| --- | ---: |");
    for (name, count) in shown {
        say(format_args!("| `{name}` | {count} |"));
    }
}

/// Whether memory still grows in the second half, by the mean of its two halves.
fn print_memory(hostile: &[Line]) {
    let second = &hostile[hostile.len() / 2..];
    let mean = |lines: &[Line]| lines.iter().map(|line| line.rss).sum::<f64>() / lines.len().max(1) as f64;
    let (earlier, later) = second.split_at(second.len() / 2);
    if earlier.is_empty() {
        return say("Memory: too short a time to tell whether it grows.");
    }
    let (earlier, later) = (mean(earlier), mean(later));
    let growth = (later / earlier - 1.0) * 100.0;
    say(format_args!(
        "Memory in the second half: {:.1} MB, then {:.1} MB ({growth:+.1} %).",
        earlier / 1e6,
        later / 1e6
    ));
}

/// What is on disk, in memory and in the log, when all is over.
fn check(server: &Server, good: &mut Good, settled: &Settled, panics: f64) -> Outcome<bool> {
    let mut found: HashMap<Uuid, usize> = HashMap::new();
    let rows: Vec<(String,)> =
        events::query_all(server, "SELECT id FROM page_views WHERE visitor LIKE 'good-%'")?;
    for (id,) in &rows {
        *found.entry(id.parse()?).or_default() += 1;
    }
    let missing = settled.acked.iter().filter(|id| !found.contains_key(id)).count();
    let doubled = found.values().filter(|times| **times > 1).count();
    let (acked, refused) = (settled.acked.len(), settled.refused);
    say(format_args!(
        "Page views: {acked} acked, {} in SQLite; {missing} missing, {doubled} doubled; {refused} were refused \
         and said again.",
        rows.len()
    ));
    let people = wait_for_the_last(server, good)?;
    say(format_args!(
        "Right in the end: all {MEMBERS} were last told what is so, and {people} people are here."
    ));
    let log = server.log()?;
    let errors = log.lines().filter(|line| line.contains("ERROR")).count();
    say(format_args!("{panics} panics; in the log {errors} errors, {} lines.", log.lines().count()));
    if errors > 0 {
        complain(&log);
    }
    Ok((missing, doubled, errors) == (0, 0, 0) && panics < 0.5 && acked == rows.len() && is_everybody(people))
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
