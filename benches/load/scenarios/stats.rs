//! How long `/unified-stats` takes, from a cache (hit) and from the database (miss).
//!
//! There are a hundred thousand page views of a day. The answer itself says where it came from, so a
//! hub without a cache has misses only. Rooms are asked for one by one, and then again.

use std::time::Instant;

use serde::Deserialize;
use uuid::Uuid;

use crate::Outcome;
use crate::figure::{Bar, Figure, Sample, Unit, millis, quantile};
use crate::http::Http;
use crate::process::Subject;
use crate::scenarios::events::{newcomer, pipeline};
use crate::scenarios::{Scale, Scenario};
use crate::swarm::Swarm;

const SOCKETS: usize = 200;
const EACH: usize = 500;
/// Rooms that are asked for. Each has ten people.
const ROOMS: usize = 9;
const RANGES: [&str; 2] = ["24h", "30d"];
/// How often the same is asked, where there is a cache.
const AGAIN: usize = 25;

pub(crate) static SCENARIO: Scenario =
    Scenario { name: "stats", has_floor: false, rounds: (1, 1), run: |subject, scale| run(subject, scale) };

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
struct Answer {
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
    swarm.join_all(SOCKETS, newcomer)?;
    pipeline(&mut swarm, EACH, Uuid::now_v7)?;

    let mut http = Http::connect(server.address)?;
    let rooms = (0..ROOMS).map(|room| (EACH * 10, format!("&room=room-{room}")));
    let whole = (EACH * SOCKETS, String::new());
    let asked: Vec<(usize, String)> = rooms.chain([whole]).collect();
    let (mut hits, mut misses) = (Vec::new(), Vec::new());
    for (range, (page_views, room)) in RANGES.iter().flat_map(|range| asked.iter().map(move |it| (range, it)))
    {
        for repetition in 0..AGAIN {
            let began = Instant::now();
            let body = http.get(&format!("/unified-stats?range={range}{room}"))?;
            let took = millis(began.elapsed());
            let answer: Answer = serde_json::from_str(&body)?;
            if answer.totals.page_views != *page_views {
                return Err(format!("{range}{room}: {answer:?}, where there are {page_views}").into());
            }
            if answer.cached {
                hits.push(took);
            } else {
                misses.push(took);
                if repetition > 0 {
                    break;
                }
            }
        }
    }
    let mut samples = vec![MISS.are(&misses), MISS_P99.are(&misses)];
    if quantile(&hits, 0.5).is_some() {
        samples.extend([HIT.are(&hits), HIT_P99.are(&hits)]);
    }
    Ok(samples)
}
