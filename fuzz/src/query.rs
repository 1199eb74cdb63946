//! Queries of HTTP requests: parsed, or rejected with 400 and the parameter's name.
//!
//! The window of stats has whole buckets without gaps, for any range and time zone.

use axum::extract::Query;
use axum::http::Uri;
use breathing_room::config::{Time, Vocabulary};
use breathing_room::internals::{
    ApiError, DEFAULT_MOODS, JoinParams, PostParams, StatsParams, StatsQuery, Window, Zone,
};

/// The wall time of all queries: 2027.
const NOW: u64 = 1_800_000_000_000;

/// The maximum number of buckets: months of 20 years or hours of nine days, and partial ones.
const BUCKETS: usize = 300;

pub fn check(bytes: &[u8]) {
    let Ok(uri) = Uri::try_from([b"/?", bytes].concat()) else { return };
    if let Ok(Query(params)) = Query::<StatsParams>::try_from_uri(&uri) {
        match StatsQuery::try_from(params) {
            Ok(query) => check_query(&query),
            Err(error) => check_error(&error),
        }
    }
    if let Ok(Query(joining)) = Query::<JoinParams>::try_from_uri(&uri) {
        let vocabulary = Vocabulary::parse(DEFAULT_MOODS).expect("moods");
        match joining.visitor(None) {
            Ok(visitor) => assert!((1..=64).contains(&visitor.as_str().len())),
            Err(error) => check_error(&error),
        }
        let mood = joining.mood(&vocabulary);
        let _ = mood.map(|mood| mood.map(|mood| vocabulary.name(mood))).inspect_err(check_error);
    }
    if let Ok(Query(params)) = Query::<PostParams>::try_from_uri(&uri) {
        let _ = params.is_durable().inspect_err(check_error);
    }
}

fn check_query(query: &StatsQuery) {
    let zone = Zone::find(&query.zone.to_string());
    assert_eq!(zone.as_ref(), Ok(&query.zone), "the name of a zone must be unique");
    assert!(query.scope.room().is_none_or(|room| room.as_str().len() <= 64));
    assert!(query.prop.as_ref().is_none_or(|prop| (1..=1024).contains(&prop.len())));
    let Window { whole, buckets, previous, .. } =
        Window::new(query.range, &query.zone, Time::from_millis(NOW), Time::from_millis(0));
    assert!((1..=BUCKETS).contains(&buckets.len()), "{} buckets", buckets.len());
    let mut periods: Vec<_> = buckets.iter().flat_map(|bucket| bucket.periods.iter().copied()).collect();
    periods.sort_by_key(|period| period.from);
    assert_eq!(periods.first().map(|period| period.from), Some(whole.from));
    assert_eq!(periods.last().map(|period| period.to), Some(whole.to));
    assert!(periods.iter().all(|period| period.from < period.to));
    assert!(periods.windows(2).all(|pair| pair[0].to == pair[1].from));
    assert!(previous.to == whole.from && previous.millis() <= whole.millis());
}

fn check_error(error: &ApiError) {
    let (status, _) = error.status_and_code();
    let message = error.to_string();
    assert_eq!(status, 400, "{message}");
    let (name, rule) = message.split_once(": ").expect("a name and a rule");
    assert!(!rule.is_empty() && message.len() <= 128, "{message}");
    let names = ["range", "from", "to", "room", "tz", "prop", "visitor", "mood", "durable"];
    assert!(names.contains(&name), "{message}");
}
