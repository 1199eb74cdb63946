//! Compares the figures of random queries with a naive count of random events.
//!
//! The count takes one event at a time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::window::Window;
use super::*;
use crate::history::calendar::{DAY_MS, HOUR_MS, time};
use crate::history::event::{Actor, Batch, PageViewEvent, RoomSample, TotalSample, WatchEvent};
use crate::history::metrics::HistoryMetrics;
use crate::history::store::Store;
use crate::panics::Panics;
use crate::protocol::VisitorId;

const ZONES: [&str; 5] = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"];

fn now() -> Time {
    time("2026-04-10T13:37:00Z".parse().unwrap())
}

fn actor(n: u64) -> Actor {
    let room = RoomId::try_from(["lobby", "garden"][usize::from(n.is_multiple_of(3))]).unwrap();
    Actor { room, visitor: VisitorId::try_from(format!("v{}", n % 7)).unwrap(), is_bot: n.is_multiple_of(11) }
}

/// Page views and watch sessions of the last 400 days, more of them lately.
fn batch() -> impl Strategy<Value = Batch> {
    let ago = prop_oneof![0..2 * DAY_MS, 0..40 * DAY_MS, 0..400 * DAY_MS];
    let view = (ago.clone(), any::<u64>()).prop_map(|(ago, n)| {
        let at = now().minus(ago);
        let view =
            serde_json::json!({ "id": Uuid::from_u128(u128::from(n)), "path": format!("/{}", n % 13) });
        PageViewEvent::new(actor(n), serde_json::from_value(view).unwrap(), at).unwrap()
    });
    let watch = (ago, any::<u64>()).prop_map(|(ago, n)| {
        let at = now().minus(ago);
        let watch = serde_json::json!({ "id": Uuid::from_u128(u128::from(n)), "content": format!("c{}", n % 3),
            "state": "ended", "watchedMs": n % 5_000, "startedAt": at, "at": at.plus(4_000) });
        WatchEvent::new(actor(n), serde_json::from_value(watch).unwrap(), at.plus(4_000)).unwrap()
    });
    let events = (proptest::collection::vec(view, 0..60), proptest::collection::vec(watch, 0..20));
    events.prop_map(|(page_views, watches)| Batch { page_views, watches, ..Batch::default() })
}

fn query() -> impl Strategy<Value = StatsQuery> {
    let between = (1..300 * DAY_MS, 1..90 * DAY_MS)
        .prop_map(|(ago, length)| Range::between(now().minus(ago), now().minus(ago).plus(length)).unwrap());
    let range = prop_oneof![3 => proptest::sample::select(Range::NAMED.to_vec()), 1 => between];
    let room = proptest::option::of(Just(RoomId::try_from("lobby").unwrap()));
    (range, room, proptest::sample::select(ZONES.to_vec())).prop_map(|(range, room, zone)| StatsQuery {
        range,
        scope: room.into(),
        zone: Zone::find(zone).unwrap(),
        prop: None,
    })
}

/// Counts one by one.
fn count(batch: &Batch, query: &StatsQuery, from: Time, to: Time) -> Totals {
    let is_counted = |actor: &Actor, at: Time| {
        !actor.is_bot && at >= from && at < to && query.scope.room().is_none_or(|room| *room == actor.room)
    };
    let views = batch.page_views.iter().filter(|view| is_counted(&view.actor, view.at));
    let watches = batch.watches.iter().filter(|watch| is_counted(&watch.actor, watch.started_at));
    let mut visitors: BTreeSet<&VisitorId> = views.clone().map(|view| &view.actor.visitor).collect();
    visitors.extend(watches.clone().map(|watch| &watch.actor.visitor));
    Totals {
        page_views: i64::try_from(views.count()).unwrap(),
        visitors: visitors.len() as u64,
        watch_sessions: i64::try_from(watches.clone().count()).unwrap(),
        watched_ms: i64::try_from(watches.map(WatchEvent::watched).sum::<u64>()).unwrap(),
        ..Totals::default()
    }
}

fn pages(batch: &Batch, query: &StatsQuery, from: Time, to: Time) -> Vec<TopPage> {
    let mut pages = BTreeMap::<String, i64>::new();
    for view in &batch.page_views {
        let one = Batch { page_views: vec![view.clone()], ..Batch::default() };
        *pages.entry(view.path.to_string()).or_default() += count(&one, query, from, to).page_views;
    }
    let mut pages: Vec<TopPage> = pages
        .into_iter()
        .filter(|(_, page_views)| *page_views > 0)
        .map(|(path, page_views)| TopPage { path, page_views })
        .collect();
    pages.sort_by(|a, b| b.page_views.cmp(&a.page_views).then_with(|| a.path.cmp(&b.path)));
    pages.truncate(10);
    pages
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn stats_equal_a_naive_count(
        batch in batch(),
        queries in proptest::collection::vec(query(), 1..6),
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
            // Of two events with one id the first remains.
            let mut batch = batch;
            let mut seen = BTreeSet::new();
            batch.page_views.retain(|view| seen.insert(view.id));
            let mut seen = BTreeSet::new();
            batch.watches.retain(|watch| seen.insert(watch.id));
            store.commit(&batch).await.unwrap();
            for query in &queries {
                let result = store.stats(query, now(), &[], &HistoryMetrics::register(&Panics::register())).await.unwrap();
                let window = Window::new(query.range, &query.zone, now(), Time::from_millis(0));
                assert_eq!(result.totals, count(&batch, query, window.whole.from, window.whole.to), "{query:?}");
                let before = window.previous;
                assert_eq!(result.previous.totals, count(&batch, query, before.from, before.to), "{query:?}");
                for (point, bucket) in result.series.iter().zip(&window.buckets) {
                    assert_eq!(point.totals, count(&batch, query, bucket.periods[0].from, bucket.periods[0].to), "{query:?}");
                }
                assert_eq!(result.top_pages, pages(&batch, query, window.whole.from, window.whole.to));
            }
        });
    }
}

/// One visitor is present from the start of the period to now, in samples of a minute.
#[tokio::test]
async fn average_divides_by_the_time_that_has_passed() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
    let from = time("2026-04-10T07:30:00Z".parse().unwrap());
    let minutes = (now().millis() - from.millis()) / 60_000;
    let sample = |minute: u64| {
        let calm = BTreeMap::from([("calm".to_owned(), 60_000)]);
        let one =
            RoomSample { present_ms: 60_000, peak: 1, joins: 0, moods_ms: calm, ..RoomSample::default() };
        let (id, at) = (Uuid::from_u128(u128::from(minute)), from.plus(minute * 60_000));
        let rooms = BTreeMap::from([("lobby".try_into().unwrap(), one.clone())]);
        TotalSample { id, at, nodes: BTreeSet::new(), hub: one, rooms }
    };
    let samples = (0..minutes).map(sample).collect();
    store.commit(&Batch { samples, ..Batch::default() }).await.unwrap();
    let metrics = HistoryMetrics::register(&Panics::register());
    // The range ends in the future.
    let range = Range::between(from, from.plus(9 * HOUR_MS)).unwrap();
    for room in [None, RoomId::try_from("lobby").ok()] {
        let query = StatsQuery::new(room.into(), range);
        let stats = store.stats(&query, now(), &[], &metrics).await.unwrap();
        let averages: Vec<f64> = stats.series.iter().map(|point| point.totals.average_present).collect();
        assert_eq!(averages, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(serde_json::json!(stats.totals)["averagePresent"], 1.0);
        assert_eq!(
            stats.moods,
            BTreeMap::from([("calm".to_owned(), i64::try_from(minutes * 60_000).unwrap())])
        );
    }
    // The period before reaches past now too.
    let range = Range::between(now().plus(HOUR_MS), now().plus(5 * HOUR_MS)).unwrap();
    let stats = store.stats(&StatsQuery::new(Scope::Hub, range), now(), &[], &metrics).await.unwrap();
    assert!(stats.previous.to > now());
    assert_eq!(serde_json::json!(stats.previous.totals)["averagePresent"], 1.0);
}

/// A range of two hours that is older than the quarter hours gets the figures of its day, and says so.
#[tokio::test]
async fn pruned_range_says_the_step_and_bounds_of_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
    store.begin_quarters(time("2026-04-01T00:00:00Z".parse().unwrap())).await.unwrap();
    let day = time("2026-03-05T00:00:00Z".parse().unwrap());
    let view = |hour: u64| {
        let view = serde_json::json!({ "id": Uuid::from_u128(hour.into()), "path": "/" });
        PageViewEvent::new(actor(hour), serde_json::from_value(view).unwrap(), day.plus(hour * HOUR_MS))
    };
    let page_views: Vec<_> = (0..24).filter(|hour| hour % 11 != 0).map(|hour| view(hour).unwrap()).collect();
    let views = i64::try_from(page_views.len()).unwrap();
    store.commit(&Batch { page_views, ..Batch::default() }).await.unwrap();
    let range = Range::between(day.plus(14 * HOUR_MS), day.plus(16 * HOUR_MS)).unwrap();
    let metrics = HistoryMetrics::register(&Panics::register());
    let stats = store.stats(&StatsQuery::new(Scope::Hub, range), now(), &[], &metrics).await.unwrap();
    assert_eq!((stats.step, stats.from, stats.to), (Step::Day, day, day.plus(DAY_MS)));
    assert_eq!((stats.totals.page_views, stats.series.len()), (views, 1));
    assert_eq!((stats.series[0].at, stats.series[0].totals.page_views), (day, views));
}

/// Lists of many values, of which few or many are candidates.
#[tokio::test]
async fn lists_of_many_values_equal_a_naive_count() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&format!("sqlite://{}/a.db", folder.path().display())).await.unwrap();
    let view = |n: u64, path: u64, ago: u64| {
        let view = serde_json::json!({ "id": Uuid::from_u128(u128::from(n)), "path": format!("/{path}") });
        let actor = Actor { is_bot: false, ..actor(n) };
        PageViewEvent::new(actor, serde_json::from_value(view).unwrap(), now().minus(ago)).unwrap()
    };
    // Path k has about 1,000 / k views, over 40 days; and one day has 300 paths with one view each.
    let mut page_views = Vec::new();
    for path in 1..200 {
        for _ in 0..1_000 / path {
            let n = page_views.len() as u64;
            page_views.push(view(n, path, n * 7_919 % 40 * DAY_MS));
        }
    }
    let all = Batch { page_views, ..Batch::default() };
    store.commit(&all).await.unwrap();
    let flat = (0..300).map(|n| view(10_000 + n, 1_000 + n, 60 * DAY_MS));
    let flat = Batch { page_views: flat.collect(), ..Batch::default() };
    store.commit(&flat).await.unwrap();
    let metrics = HistoryMetrics::register(&Panics::register());
    let all: Batch = [all, flat].into_iter().collect();
    let old = Range::between(now().minus(61 * DAY_MS), now().minus(59 * DAY_MS)).unwrap();
    for range in Range::NAMED.into_iter().chain([old]) {
        let query = StatsQuery::new(Scope::Hub, range);
        let result = store.stats(&query, now(), &[], &metrics).await.unwrap();
        let expected = pages(&all, &query, result.from, result.to);
        assert_eq!(result.top_pages, expected, "{range:?}");
        let listed: i64 = expected.iter().map(|page| page.page_views).sum();
        assert_eq!(result.other.pages.page_views, result.totals.page_views - listed);
    }
}
