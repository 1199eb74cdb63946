//! Stats: the time of `GET /unified-stats`, from the cache (hit) and from the database (miss).
//!
//! The database has 100,000 page views of one day. The response's `cached` says whether it is a hit, so a
//! hub without a cache has misses only. Each query runs once, and then again and again.

use std::time::Instant;

use serde::Deserialize;
use uuid::Uuid;

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, millis, quantile};
use crate::http::Http;
use crate::process::Subject;
use crate::scenarios::events::{join, pipeline};
use crate::scenarios::{Scale, Scenario};
use crate::swarm::Swarm;

const SOCKETS: usize = 200;
const EACH: usize = 500;
/// Rooms that are queried. Each has ten visitors.
const ROOMS: usize = 9;
const RANGES: [&str; 2] = ["24h", "30d"];
/// How often the same query runs, where there is a cache.
const AGAIN: usize = 25;

pub(crate) static SCENARIO: Scenario = Scenario {
    name: "stats",
    has_floor: false,
    has_peers: false,
    rounds: (1, 1),
    run: |subject, scale| run(subject, scale),
};

static HIT: Figure = Figure {
    scenario: "stats",
    name: "from the cache, median",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::None,
};
static HIT_P99: Figure = Figure {
    scenario: "stats",
    name: "from the cache, p99",
    unit: Unit::Millis,
    quantile: 0.99,
    bar: Bar::None,
};
static MISS: Figure = Figure {
    scenario: "stats",
    name: "from the database, median",
    unit: Unit::Millis,
    quantile: 0.5,
    bar: Bar::None,
};
static MISS_P99: Figure = Figure {
    scenario: "stats",
    name: "from the database, p99",
    unit: Unit::Millis,
    quantile: 0.99,
    bar: Bar::None,
};

#[derive(Debug, Deserialize)]
struct Response {
    totals: Totals,
    cached: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    page_views: usize,
}

fn run(subject: &Subject, _: Scale) -> Outcome<Vec<Sample>> {
    let server = subject.start(&[("FLUSH_INTERVAL", "500ms")])?;
    let mut swarm = Swarm::new(server.address)?;
    swarm.join_all(SOCKETS, join)?;
    pipeline(&mut swarm, EACH, Uuid::now_v7)?;

    let mut http = Http::connect(server.address)?;
    let rooms = (0..ROOMS).map(|room| (EACH * 10, format!("&room=room-{room}")));
    let whole = (EACH * SOCKETS, String::new());
    let queries: Vec<(usize, String)> = rooms.chain([whole]).collect();
    let (mut hits, mut misses) = (Vec::new(), Vec::new());
    for (range, (page_views, room)) in
        RANGES.iter().flat_map(|range| queries.iter().map(move |it| (range, it)))
    {
        for repetition in 0..AGAIN {
            let began = Instant::now();
            let body = http.get(&format!("/unified-stats?range={range}{room}"))?;
            let took = millis(began.elapsed());
            let response: Response = serde_json::from_str(&body)?;
            if response.totals.page_views != *page_views {
                return Err(format!("{range}{room}: {response:?}, expected {page_views} page views").into());
            }
            if response.cached {
                hits.push(took);
            } else {
                misses.push(took);
                if repetition > 0 {
                    break;
                }
            }
        }
    }
    let mut samples = vec![MISS.values(&misses), MISS_P99.values(&misses)];
    if quantile(&hits, 0.5).is_some() {
        samples.extend([HIT.values(&hits), HIT_P99.values(&hits)]);
    }
    Ok(samples)
}
