//! The end of the day: what the hub says of its rooms, held against what the crowd knows.
//!
//! Other people may be in the rooms too, so the hub may count more people than the crowd has, but
//! never fewer; the difference is `others`. What each socket was last told must be the hub's count.

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

/// How long the last acks may take: the hub's default flush interval, and some more.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(35);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

type AnyError = Box<dyn Error + Send + Sync>;

/// Who is in a room; also the answer to `GET /rooms/{room}`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Count {
    present: u32,
    moods: BTreeMap<String, u32>,
}

/// A room as the crowd and the hub see it.
pub(crate) struct Room {
    name: String,
    crowd: Count,
    /// What each socket of the crowd was last told.
    seen: Vec<u32>,
    hub: Count,
}

/// What is not right: a sentence and its reason.
type Violation = (&'static str, String);

impl Room {
    fn others(&self) -> u32 {
        self.hub.present.saturating_sub(self.crowd.present)
    }

    fn up_to_date(&self) -> usize {
        self.seen.iter().filter(|seen| **seen == self.hub.present).count()
    }
}

/// What is wrong when everybody should be in a room and have all acks.
pub(crate) fn check_present(crowd: &Crowd, rooms: &[Room]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let counters = crowd.counters();
    let (missing, never_acked) = (crowd.visitors - counters.present(), counters.events - counters.acked);
    if missing > 0 {
        violations.push(("Not everybody was in a room at the end", format!("{missing} were not")));
    }
    if never_acked > 0 {
        violations.push(("Events were never acked", format!("{never_acked} of them")));
    }
    for room @ Room { name, crowd, seen, hub } in rooms {
        let too_few = |(mood, number)| hub.moods.get(mood).is_none_or(|counted| counted < number);
        if hub.present < crowd.present || crowd.moods.iter().any(too_few) {
            let reason = format!("in {name} the crowd is {crowd:?}, and the hub says {hub:?}");
            violations.push(("The hub counts too few people in a room", reason));
        }
        let (well, all) = (room.up_to_date(), seen.len());
        if well < all {
            let reason = format!("{well} of {all} in {name} were");
            violations.push(("Sockets were not told a room's last state", reason));
        }
    }
    violations
}

/// What is wrong when everybody has left: more people than there were others before.
pub(crate) fn check_left(before: &[Room], after: &[Room]) -> Vec<Violation> {
    let left_over = |(before, Room { name, hub, .. }): (&Room, &Room)| {
        let (present, others) = (hub.present, before.others());
        let reason = format!("the hub counts {present} in {name}, where {others} others had been");
        (present > others).then_some(("A room kept people after everybody had left", reason))
    };
    before.iter().zip(after).filter_map(left_over).collect()
}

/// Asks the hub for all rooms, and puts beside it what the crowd knows.
pub(crate) async fn query(crowd: &Crowd) -> Result<Vec<Room>, AnyError> {
    let mut rooms = Vec::with_capacity(crowd.rooms.len());
    for name in &crowd.rooms {
        let answer = timeout(TIMEOUT, get_room(crowd.hub, name)).await;
        let hub = answer.unwrap_or_else(|_| Err("no answer in time".into()))?;
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
    let mut answer = String::new();
    stream.take(64 * 1024).read_to_string(&mut answer).await?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(serde_json::from_str(body)?),
        _ => Err(format!("GET /rooms/{name} was answered with {answer:?}").into()),
    }
}

/// Compares until nothing is wrong, or complains when the time is up.
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
            Err(error) => (vec![("The hub did not say what it counts", error.to_string())], Vec::new()),
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
        "room", "crowd", "others", "well told", "after"
    ));
    for (index, room) in before.iter().enumerate().take(20) {
        let after = after.get(index).map_or_else(|| "?".to_owned(), |room| room.hub.present.to_string());
        let (name, crowd, others) = (&room.name, room.crowd.present, room.others());
        let seen = format!("{}/{}", room.up_to_date(), room.seen.len());
        print_line(format_args!("{name:<10} {crowd:>8} {others:>8} {seen:>12} {after:>8}"));
    }
    print_line(
        "(people of the crowd and others; sockets last told as many; who is there when all have left)",
    );
}

/// Says in a sentence each what was not right.
pub(crate) fn summarize(crowd: &Crowd) -> ExitCode {
    let counters = crowd.counters();
    if let Some(error) = &counters.last_error {
        print_line(format_args!("The last of the errors: {error}."));
    }
    if counters.violations().map(print_line).count() > 0 {
        return ExitCode::FAILURE;
    }
    print_line("Everything was as the protocol promises.");
    ExitCode::SUCCESS
}
