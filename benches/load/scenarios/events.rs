//! Events: 200 clients send page views as fast as they are acked, and all of them must be in SQLite.
//!
//! The CPU covers the whole work of the hub: read, parse, queue, commit, ack. The browser's ids are
//! random; ids that rise with time are cheaper to insert, so both are measured.

use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use uuid::Uuid;

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, micros};
use crate::process::{Server, Subject};
use crate::scenarios::{Scale, Scenario};
use crate::snapshot;
use crate::swarm::{Join, Swarm, TIMEOUT};

const SOCKETS: usize = 200;
/// Page views of each socket.
const EACH: usize = 500;
/// The most unacked page views of one socket. All together are fewer than the hub's queue holds.
const UNACKED: usize = 150;
/// The hub flushes earlier when its queue is a quarter full; this interval is for the last events.
const FLUSH: &str = "500ms";

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "events",
    has_floor: false,
    has_peers: false,
    rounds: (3, 1),
    run: |subject, scale| run(subject, scale),
};

static CPU: Figure = Figure {
    scenario: "events",
    name: "CPU per page view, ids by time (UUIDv7)",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::AtMost(15.0),
};
static CPU_RANDOM: Figure = Figure {
    scenario: "events",
    name: "CPU per page view, random ids (UUIDv4)",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::AtMost(15.0),
};
static WALL: Figure = Figure {
    scenario: "events",
    name: "time per page view, until all are acked",
    unit: Unit::Micros,
    quantile: 0.5,
    bar: Bar::None,
};

fn run(subject: &Subject, _: Scale) -> Outcome<Vec<Sample>> {
    let (by_time, wall) = measure(subject, Uuid::now_v7)?;
    let (random, _) = measure(subject, Uuid::new_v4)?;
    Ok(vec![CPU.value(by_time), CPU_RANDOM.value(random), WALL.value(wall)])
}

/// Returns CPU and wall time per page view, in microseconds.
fn measure(subject: &Subject, id: fn() -> Uuid) -> Outcome<(f64, f64)> {
    let server = subject.start(&[("FLUSH_INTERVAL", FLUSH)])?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(SOCKETS, join)?;
    swarm.run_until(Instant::now() + Duration::from_millis(300))?;
    let (before, began) = (server.cpu()?, Instant::now());
    pipeline(&mut swarm, EACH, id)?;
    let took = began.elapsed();
    // The flush goes on after the ack; its CPU belongs to the page views.
    swarm.run_until(Instant::now() + Duration::from_millis(100))?;
    let cpu = server.cpu()?.saturating_sub(before);
    check(&server)?;
    let all = (SOCKETS * EACH) as f64;
    Ok((micros(cpu) / all, micros(took) / all))
}

/// Ten clients in each room.
pub(crate) fn join(index: usize) -> Join {
    Join { room: format!("room-{}", index / 10), visitor: format!("v{index}"), mood: None }
}

/// Sends `each` page views on every socket and waits for all acks.
pub(crate) fn pipeline(swarm: &mut Swarm, each: usize, id: fn() -> Uuid) -> Outcome {
    let sockets = swarm.open_clients().count();
    let (mut sent, mut acked) = (vec![0; sockets], vec![0; sockets]);
    let mut due: Vec<usize> = (0..sockets).collect();
    let mut refused = None;
    let deadline = Instant::now() + TIMEOUT;
    while acked.iter().sum::<usize>() < sockets * each {
        for index in due.drain(..) {
            let upto = each.min(acked[index] + UNACKED);
            let views: Vec<String> = (sent[index]..upto).map(|view| page_view(view + 1, id())).collect();
            swarm.send_all(index, views.iter().map(String::as_str))?;
            sent[index] = upto;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("only {} page views were acked", acked.iter().sum::<usize>()).into());
        }
        swarm.turn(left, &mut |index, text| {
            if let Some(upto) = snapshot::number(text, b"\"upTo\":") {
                acked[index] = upto as usize;
                due.push(index);
            } else if text.starts_with(br#"{"type":"error""#) {
                refused = Some(String::from_utf8_lossy(text).into_owned());
            }
        })?;
        if let Some(refused) = refused {
            return Err(refused.into());
        }
    }
    Ok(())
}

/// A page view with this `ref`.
pub(crate) fn page_view(reference: usize, id: Uuid) -> String {
    let page = reference % 50;
    format!(
        r#"{{"type":"page-view","ref":{reference},"id":"{id}","path":"/rooms/river/{page}","title":"By the river"}}"#
    )
}

/// Checks that SQLite has every page view once, with the fields that were sent.
fn check(server: &Server) -> Outcome {
    let (rows, visitors, right): (i64, i64, i64) = query(
        server,
        "SELECT count(DISTINCT id), count(DISTINCT visitor),
                sum(path LIKE '/rooms/river/%' AND title = 'By the river' AND room LIKE 'room-%')
         FROM page_views",
    )?;
    if rows != i64::try_from(SOCKETS * EACH)? || visitors != i64::try_from(SOCKETS)? || right != rows {
        return Err(format!(
            "{rows} rows of {visitors} visitors, {right} of them with the fields that were sent"
        )
        .into());
    }
    Ok(())
}

/// Queries the database of a running hub for one row.
pub(crate) fn query<T>(server: &Server, sql: &'static str) -> Outcome<T>
where
    T: for<'row> sqlx::FromRow<'row, sqlx::sqlite::SqliteRow> + Send + Unpin,
{
    query_all(server, sql)?.pop().ok_or_else(|| "the query returned no row".into())
}

/// Queries the database of a running hub.
pub(crate) fn query_all<T>(server: &Server, sql: &'static str) -> Outcome<Vec<T>>
where
    T: for<'row> sqlx::FromRow<'row, sqlx::sqlite::SqliteRow> + Send + Unpin,
{
    let options = SqliteConnectOptions::new().filename(server.database()).read_only(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        Ok(sqlx::query_as(sql).fetch_all(&mut connection).await?)
    })
}
