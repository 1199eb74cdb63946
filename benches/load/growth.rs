//! Growth: how the figures change with the number of sockets and with the number of rooms.
//!
//! Each line is one hub: sockets join, then idle, then moods change, in as many rooms at once as have
//! about 2,000 members. The cost of the pings is subtracted from that of the deliveries.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::figure::{median, micros, millis, quantile};
use crate::process::Subject;
use crate::scenarios::idle::{self, Idle};
use crate::swarm::{Join, Swarm};
use crate::{Outcome, print_line};

/// Numbers of sockets, in 100 rooms.
const SOCKETS: [usize; 4] = [1_000, 5_000, 10_000, 19_000];
/// Numbers of rooms, with 10,000 sockets.
const ROOMS: [usize; 4] = [1, 10, 100, 1_000];
/// A fifth of the default interval, so that a short time has pings.
const PING: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(6);
/// About this many deliveries in each step.
const DELIVERIES: usize = 2_000;
const STEPS: usize = 12;
/// Changes in one room at a time, for the latency.
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
    print_line("By sockets, in 100 rooms:\n");
    print_table(points.iter());
    let mut by_rooms = Vec::new();
    for rooms in ROOMS.into_iter().filter(|rooms| *rooms != 100) {
        by_rooms.push(measure(&hub, 10_000, rooms)?);
    }
    by_rooms.extend(points.into_iter().filter(|point| point.sockets == 10_000));
    by_rooms.sort_by_key(|point| point.rooms);
    print_line("\nBy rooms, with 10,000 sockets:\n");
    print_table(by_rooms.iter());
    Ok(())
}

fn print_table<'a>(points: impl Iterator<Item = &'a Point>) {
    print_line(
        "| sockets | rooms | memory per socket | CPU per join | idle CPU, one ping per 5 s | CPU per delivery \
         | change to last member, median | worst |",
    );
    print_line("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for Point { sockets, rooms, join, idle, delivery, last, worst } in points {
        let Idle { rss, cpu, .. } = idle;
        print_line(format_args!(
            "| {sockets} | {rooms} | {rss:.0} B | {join:.1} µs | {cpu:.2} % | {delivery:.2} µs | {last:.1} ms \
             | {worst:.1} ms |"
        ));
    }
}

fn measure(hub: &Subject, sockets: usize, rooms: usize) -> Outcome<Point> {
    crate::print_error(format_args!("{sockets} sockets in {rooms} rooms"));
    let server = hub.start(&[("PING_INTERVAL", &format!("{}s", PING.as_secs()))])?;
    let empty = idle::memory_after_start(&server)?;
    let before = server.cpu()?;
    let mut swarm = idle::pages(&server)?;
    swarm.join_all(sockets, |index| Join {
        room: format!("room-{}", index % rooms),
        visitor: format!("v{index}"),
        mood: None,
    })?;
    let size = sockets / rooms;
    swarm.agree(u32::try_from(size)?)?;
    let join = micros(server.cpu()?.saturating_sub(before)) / sockets as f64;
    let idle = idle::watch(&server, &mut swarm, empty, QUIET, hub.page_pings(PING))?;

    let (before, began) = (server.cpu()?, Instant::now());
    let at_once = (DELIVERIES / size).clamp(1, rooms);
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

/// A pause that is longer than the publish window of a room of this size.
fn pause(size: usize) -> Duration {
    Duration::from_micros(75) * u32::try_from(size).unwrap_or(u32::MAX).max(4_000)
}

/// The first member of each room changes mood. Waits until all members have it, and returns the time in
/// milliseconds. The index of a room's first member is the room's number.
fn change(swarm: &mut Swarm, size: usize, rooms: std::ops::Range<usize>, mood: &str) -> Outcome<f64> {
    let expected = swarm.counters.texts + rooms.len() * size;
    let began = Instant::now();
    for member in rooms {
        swarm.send(member, &format!(r#"{{"type":"mood","mood":"{mood}"}}"#))?;
    }
    swarm.until("all members have the new mood", |counters| counters.texts >= expected)?;
    Ok(millis(began.elapsed()))
}
