//! How the figures change with the number of sockets and with the number of rooms.
//!
//! Each line is one hub that is filled, left alone, and then told of changes of mood, in so many rooms
//! at once that about two thousand people hear of them. What is flat stays the same from line to line.
//! The pings' own cost is taken off that of the deliveries.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::figure::{median, micros, millis, quantile};
use crate::process::Subject;
use crate::scenarios::idle::{self, Idle};
use crate::swarm::{Newcomer, Swarm};
use crate::{Outcome, say};

/// Sockets, in a hundred rooms.
const SOCKETS: [usize; 4] = [1_000, 5_000, 10_000, 19_000];
/// Rooms, with ten thousand sockets.
const ROOMS: [usize; 4] = [1, 10, 100, 1_000];
/// Pings come five times as often as by default, so that a short time contains them.
const PING: &str = "5s";
const QUIET: Duration = Duration::from_secs(6);
/// About so many hear of each step's changes.
const TOLD: usize = 2_000;
const STEPS: usize = 12;
/// Changes in one room at a time.
const SINGLE: usize = 40;
const MOODS: [&str; 2] = ["calm", "joy"];

struct Point {
    sockets: usize,
    rooms: usize,
    join: f64,
    idle: Idle,
    delivery: f64,
    last: f64,
    worst: f64,
}

/// Prints both tables.
pub(crate) fn print(hub: &Path) -> Outcome {
    let hub = Subject::Hub(hub.to_owned());
    let mut points = Vec::new();
    for sockets in SOCKETS {
        points.push(measure(&hub, sockets, 100)?);
    }
    say("By sockets, in 100 rooms:\n");
    print_table(points.iter());
    let mut by_rooms = Vec::new();
    for rooms in ROOMS.into_iter().filter(|rooms| *rooms != 100) {
        by_rooms.push(measure(&hub, 10_000, rooms)?);
    }
    by_rooms.extend(points.into_iter().filter(|point| point.sockets == 10_000));
    by_rooms.sort_by_key(|point| point.rooms);
    say("\nBy rooms, with 10,000 sockets:\n");
    print_table(by_rooms.iter());
    Ok(())
}

fn print_table<'a>(points: impl Iterator<Item = &'a Point>) {
    say(
        "| sockets | rooms | memory per socket | CPU per join | idle CPU, pinged every 5 s | CPU per delivery \
         | change to last member, median | worst |",
    );
    say("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for Point { sockets, rooms, join, idle, delivery, last, worst } in points {
        let Idle { rss, cpu, .. } = idle;
        say(format_args!(
            "| {sockets} | {rooms} | {rss:.0} B | {join:.1} µs | {cpu:.2} % | {delivery:.2} µs | {last:.1} ms \
             | {worst:.1} ms |"
        ));
    }
}

fn measure(hub: &Subject, sockets: usize, rooms: usize) -> Outcome<Point> {
    crate::complain(format_args!("{sockets} sockets in {rooms} rooms"));
    let server = hub.start(&[("PING_INTERVAL", PING)])?;
    let empty = server.memory()?;
    let before = server.cpu()?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(sockets, |index| Newcomer {
        room: format!("room-{}", index % rooms),
        visitor: format!("v{index}"),
        mood: None,
    })?;
    let size = sockets / rooms;
    swarm.agree(u32::try_from(size)?)?;
    let join = micros(server.cpu()?.saturating_sub(before)) / sockets as f64;
    let idle = idle::watch(&server, &mut swarm, empty, QUIET)?;

    let (before, began) = (server.cpu()?, Instant::now());
    let at_once = (TOLD / size).clamp(1, rooms);
    for step in 0..STEPS {
        change(&mut swarm, size, 0..at_once, MOODS[step % 2])?;
        swarm.run_until(Instant::now() + pause(size))?;
    }
    let pings = began.elapsed().mul_f64(idle.cpu / 100.0);
    let delivery = micros(server.cpu()?.saturating_sub(before + pings)) / (STEPS * at_once * size) as f64;
    let mut latencies = Vec::with_capacity(SINGLE);
    for single in 0..SINGLE {
        let room = single % rooms;
        latencies.push(change(&mut swarm, size, room..room + 1, MOODS[single / rooms % 2])?);
        let wait = pause(size) / u32::try_from(rooms.min(SINGLE))?;
        swarm.run_until(Instant::now() + wait.max(Duration::from_millis(10)))?;
    }
    let worst = quantile(&latencies, 1.0).unwrap_or_default();
    let last = median(&latencies).unwrap_or_default();
    Ok(Point { sockets, rooms, join, idle, delivery, last, worst })
}

/// Longer than a room of this size waits until it publishes again.
fn pause(size: usize) -> Duration {
    Duration::from_micros(75) * u32::try_from(size).unwrap_or(u32::MAX).max(4_000)
}

/// The first member of each of the rooms changes mood; waits until all there have heard it, and says
/// how many milliseconds that took. A room's first member has the room's number.
fn change(swarm: &mut Swarm, size: usize, rooms: std::ops::Range<usize>, mood: &str) -> Outcome<f64> {
    let told = swarm.tally.texts + rooms.len() * size;
    let began = Instant::now();
    for member in rooms {
        swarm.say(member, &format!(r#"{{"type":"mood","mood":"{mood}"}}"#))?;
    }
    swarm.until("all have heard of a mood", |tally| tally.texts >= told)?;
    Ok(millis(began.elapsed()))
}
