//! The checks at the end: the hub's counts of each room, compared with the crowd's.
//!
//! Other visitors may be in the rooms, so that the hub may count more visitors than the crowd has, but not fewer; the
//! difference is `others`. The last count that each socket received must be the hub's count.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::{Crowd, TIMEOUT, print_line};

/// The longest wait for the last acks: the hub's default flush interval of 30 s and a margin.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(35);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

type AnyError = Box<dyn Error + Send + Sync>;

/// The counts of a room, as in `GET /rooms/{room}`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Count {
    present: u32,
    moods: BTreeMap<String, u32>,
}

/// The counts of a room by the crowd and by the hub.
pub(crate) struct Room {
    name: String,
    crowd: Count,
    /// The last count that each socket of the crowd received.
    seen: Vec<u32>,
    hub: Count,
}

/// A violation of the protocol: a sentence and its details.
type Violation = (&'static str, String);

impl Room {
    fn others(&self) -> u32 {
        self.hub.present.saturating_sub(self.crowd.present)
    }

    fn up_to_date(&self) -> usize {
        self.seen.iter().filter(|seen| **seen == self.hub.present).count()
    }
}

/// Checks the state in which all visitors should be in a room and have all acks.
pub(crate) fn check_present(crowd: &Crowd, rooms: &[Room]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let counters = crowd.counters();
    let (missing, never_acked) = (crowd.visitors - counters.present(), counters.events - counters.acked);
    if missing > 0 {
        violations.push(("Some visitors were in no room at the end", format!("{missing} visitors")));
    }
    if never_acked > 0 {
        violations.push(("Events were not acked", format!("{never_acked} events")));
    }
    for room @ Room { name, crowd, seen, hub } in rooms {
        let too_few = |(mood, number)| hub.moods.get(mood).is_none_or(|counted| counted < number);
        if hub.present < crowd.present || crowd.moods.iter().any(too_few) {
            let reason = format!("in {name} the crowd has {crowd:?}, and the hub counts {hub:?}");
            violations.push(("The hub counts too few visitors in a room", reason));
        }
        let (current, all) = (room.up_to_date(), seen.len());
        if current < all {
            let reason = format!("{current} of {all} sockets in {name} have it");
            violations.push(("Sockets did not get a room's last state", reason));
        }
    }
    violations
}

/// Checks the state after all visitors have left: the hub may count only the other visitors of before.
pub(crate) fn check_left(before: &[Room], after: &[Room]) -> Vec<Violation> {
    let left_over = |(before, Room { name, hub, .. }): (&Room, &Room)| {
        let (present, others) = (hub.present, before.others());
        let reason = format!("the hub counts {present} in {name}, where {others} others were before");
        (present > others).then_some(("A room counts visitors who have left", reason))
    };
    before.iter().zip(after).filter_map(left_over).collect()
}

/// Requests the hub's counts of all rooms, and adds the crowd's.
pub(crate) async fn query(crowd: &Crowd) -> Result<Vec<Room>, AnyError> {
    let mut rooms = Vec::with_capacity(crowd.rooms.len());
    for name in &crowd.rooms {
        let response = timeout(TIMEOUT, get_room(crowd.hub, name)).await;
        let hub = response.unwrap_or_else(|_| Err("no response in time".into()))?;
        rooms.push(Room { name: name.clone(), crowd: Count::default(), seen: Vec::new(), hub });
    }
    for ((_, tab), state) in &crowd.counters().tabs {
        let Room { crowd, seen, .. } = &mut rooms[state.room];
        seen.push(state.present);
        if *tab == 0 {
            crowd.present += 1;
            state.mood.iter().for_each(|mood| *crowd.moods.entry(mood.clone()).or_default() += 1);
        }
    }
    Ok(rooms)
}

async fn get_room(hub: SocketAddr, name: &str) -> Result<Count, AnyError> {
    let mut stream = TcpStream::connect(hub).await?;
    let request = format!("GET /rooms/{name} HTTP/1.1\r\nHost: {hub}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.take(64 * 1024).read_to_string(&mut response).await?;
    match response.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(serde_json::from_str(body)?),
        _ => Err(format!("GET /rooms/{name} got {response:?}").into()),
    }
}

/// Repeats a check until it finds nothing, or records its violations after the wait.
pub(crate) async fn compare(
    crowd: &Crowd,
    wait: Duration,
    check: impl Fn(&[Room]) -> Vec<Violation>,
) -> Vec<Room> {
    let deadline = Instant::now() + wait;
    loop {
        sleep(POLL_INTERVAL).await;
        let (violations, rooms) = match query(crowd).await {
            Ok(rooms) => (check(&rooms), rooms),
            Err(error) => (vec![("The hub did not return its counts", error.to_string())], Vec::new()),
        };
        if violations.is_empty() || Instant::now() >= deadline {
            for (sentence, reason) in violations {
                crowd.counters().violation(sentence, reason);
            }
            return rooms;
        }
    }
}

pub(crate) fn print_rooms(before: &[Room], after: &[Room]) {
    print_line(format_args!(
        "\n{:<10} {:>8} {:>8} {:>12} {:>8}",
        "room", "crowd", "others", "up to date", "after"
    ));
    for (index, room) in before.iter().enumerate().take(20) {
        let after = after.get(index).map_or_else(|| "?".to_owned(), |room| room.hub.present.to_string());
        let (name, crowd, others) = (&room.name, room.crowd.present, room.others());
        let seen = format!("{}/{}", room.up_to_date(), room.seen.len());
        print_line(format_args!("{name:<10} {crowd:>8} {others:>8} {seen:>12} {after:>8}"));
    }
    print_line(
        "(visitors of the crowd and others; sockets with the last count; the count after all have left)",
    );
}

/// Prints all violations, and returns the exit code.
pub(crate) fn summarize(crowd: &Crowd) -> ExitCode {
    let counters = crowd.counters();
    if let Some(error) = &counters.last_error {
        print_line(format_args!("The last error: {error}."));
    }
    if counters.violations().map(print_line).count() > 0 {
        return ExitCode::FAILURE;
    }
    print_line("No violation of the protocol was found.");
    ExitCode::SUCCESS
}
