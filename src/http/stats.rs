//! Statistics of the history: `GET /unified-stats`.
//!
//! The handler validates the parameters. The history runs the query and caches the responses.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};
use utoipa::IntoParams;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::access::{AccessControl, PRIVATE};
use super::assets::is_current;
use super::error::ApiError;
use super::params::Params;
use super::state::StatsState;
use crate::address::Address;
use crate::auth::Access;
use crate::history::Journal;
use crate::history::log::status::LogMonitor;
use crate::history::prop_names::{PROP_LIMIT, is_prop};
use crate::history::stats::cache::{CHANGED_WAIT, CachedResponse};
use crate::history::stats::{Range, StatsQuery, Zone};
use crate::history::store::ReadError;
use crate::protocol::schema::one_of;
use crate::protocol::{RoomId, Time};

/// `Cache-Control` of public responses: browsers revalidate after 5 s. A shared cache stores a response for 30 s, as
/// long as the hub does, and may serve it stale while it revalidates (RFC 9111, RFC 5861).
const PUBLIC: &str = "public, max-age=5, s-maxage=30, stale-while-revalidate=30";

/// How long `after` waits.
const AFTER_LIMIT: Duration = Duration::from_secs(2);

/// The parameters of `GET /unified-stats`.
#[derive(Debug, Deserialize, IntoParams)]
pub struct StatsParams {
    #[param(schema_with = named_ranges)]
    range: Option<String>,
    /// The start of the period. Requires `to`. A number below 100000000000 would be seconds, and is rejected.
    #[param(value_type = Time, required = false)]
    from: Option<String>,
    /// The end of the period, at most 20 years after `from`.
    #[param(value_type = Time, required = false)]
    to: Option<String>,
    /// Only this room; the default is all rooms.
    #[param(value_type = RoomId, required = false)]
    room: Option<String>,
    /// The IANA time zone for days and hours; the default is UTC.
    #[param(value_type = Zone, required = false)]
    tz: Option<String>,
    #[param(schema_with = prop_name)]
    prop: Option<String>,
    /// In a cluster, waits for up to 2 s until this position of the log is counted: the `position` of a durable post, on
    /// any node.
    #[param(value_type = u64, required = false)]
    after: Option<String>,
}

fn named_ranges() -> ObjectBuilder {
    let text = "A named period; the default is 24h. Cannot be combined with from and to.";
    one_of(Range::NAMED.map(Range::name)).description(Some(text))
}

fn prop_name() -> ObjectBuilder {
    let text =
        ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(PROP_LIMIT));
    text.description(Some(
        "A property of page views to break down. Requires the admin token, unless PUBLIC_PROPS names it. One that \
         neither ROLLUP_PROPS nor PUBLIC_PROPS names cannot be broken down over months that are in archives.",
    ))
}

/// `GET /unified-stats`: the statistics of a period.
pub(crate) async fn unified_stats(
    State(state): State<Arc<StatsState>>,
    State(control): State<Arc<AccessControl>>,
    address: Address,
    params: Result<Params<StatsParams>, ApiError>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut access = control.dashboard;
    control.admit(access, &headers, address)?;
    let Params(params) = params?;
    if params.prop.as_ref().is_some_and(|prop| !state.public_props.has(prop)) {
        access = Access::Admin;
        control.admit(access, &headers, address).map_err(|error| match error {
            ApiError::Unauthorized => ApiError::PrivateProp,
            other => other,
        })?;
    }
    let after = params.after.as_deref().map(position).transpose()?;
    let query = StatsQuery::try_from(params)?;
    let mut wait = CHANGED_WAIT;
    if let (Some(after), Some(log)) = (after, &state.log) {
        let deadline = Instant::now() + AFTER_LIMIT;
        // Afterwards the answer says what it has.
        let _ = timeout_at(deadline, counted(after, log, &state.journal)).await;
        wait = wait.max(deadline.saturating_duration_since(Instant::now()));
    }
    let served = state.cache.get(&query, wait).await.map_err(|error| match &*error {
        ReadError::Archived { .. } => ApiError::ArchivedProp(error),
        ReadError::Interrupted | ReadError::Database(_) => ApiError::History(error),
    })?;
    let cache = if access == Access::Admin { PRIVATE } else { PUBLIC };
    let lag = state.log.as_ref().and_then(|log| log.status().lagging());
    let CachedResponse { body, etag } = match lag {
        Some(lag) => lagging(&served, lag),
        None => served,
    };
    let caching = [(CACHE_CONTROL, cache.to_owned()), (ETAG, etag.clone())];
    if is_current(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, caching).into_response());
    }
    Ok((caching, [(CONTENT_TYPE, "application/json")], body).into_response())
}

/// Waits until a position of the log is in the file.
async fn counted(position: u64, log: &LogMonitor, journal: &Journal) {
    log.until_read(position).await;
    if log.status().position < position {
        // A failed flush is retried, and the answer does not wait for it.
        let _ = journal.flush().await;
    }
}

/// Adds the lag to a response.
fn lagging(response: &CachedResponse, lag_ms: u64) -> CachedResponse {
    let object = response.body.strip_suffix(b"}").unwrap_or(&response.body);
    let body = [object, format!(",\"lagMs\":{lag_ms}}}").as_bytes()].concat();
    let etag = format!("{}-{lag_ms}\"", response.etag.trim_end_matches('"'));
    CachedResponse { body: body.into(), etag }
}

/// Positions are SQLite's integers.
fn position(text: &str) -> Result<u64, ApiError> {
    let position = text.parse::<i64>().ok().and_then(|position| u64::try_from(position).ok());
    position.ok_or(ApiError::BadParameter { name: "after", rule: "must be a position of the log" })
}

impl TryFrom<StatsParams> for StatsQuery {
    type Error = ApiError;

    fn try_from(params: StatsParams) -> Result<Self, ApiError> {
        let invalid = |name, rule| ApiError::BadParameter { name, rule };
        let range = match (params.range.as_deref(), params.from, params.to) {
            (None, None, None) => Range::Day,
            (Some(name), None, None) => {
                Range::find(name).ok_or_else(|| invalid("range", "must be 24h, 7d, 30d or 12mo"))?
            }
            (None, Some(from), Some(to)) => {
                let (from, to) = (timestamp("from", &from)?, timestamp("to", &to)?);
                Range::between(from, to).map_err(|rule| ApiError::BadRange { name: "to", rule })?
            }
            (Some(_), _, _) => return Err(invalid("range", "cannot be given together with from and to")),
            (None, Some(_), None) => return Err(invalid("to", "is missing: from and to go together")),
            (None, None, Some(_)) => return Err(invalid("from", "is missing: from and to go together")),
        };
        let room = params.room.map(RoomId::try_from).transpose().map_err(ApiError::BadRoom)?;
        let zone = match params.tz {
            None => Zone::default(),
            Some(name) => Zone::find(&name)
                .map_err(|_| invalid("tz", "must be an IANA time zone such as Europe/Berlin"))?,
        };
        if params.prop.as_deref().is_some_and(|prop| !is_prop(prop)) {
            return Err(invalid("prop", "must be the name of a property, of 1 to 1024 bytes"));
        }
        Ok(Self { range, scope: room.into(), zone, prop: params.prop })
    }
}

fn timestamp(name: &'static str, text: &str) -> Result<Time, ApiError> {
    // As milliseconds these are before March 1973. 0 is the same time in both units.
    const SECONDS: std::ops::Range<u64> = 1..100_000_000_000;
    let invalid = |rule| ApiError::BadParameter { name, rule };
    match text.parse::<u64>() {
        Ok(number) if SECONDS.contains(&number) => Err(invalid(
            "must be milliseconds since 1970 UTC, and this looks like seconds: multiply it by 1000",
        )),
        Ok(number) => Time::try_from(number).map_err(|_| invalid("must be milliseconds since 1970 UTC")),
        Err(_) => Err(invalid("must be milliseconds since 1970 UTC")),
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;
    use crate::history::scope::Scope;

    #[test]
    fn lag_is_added_to_the_body_and_to_the_tag() {
        let response = CachedResponse { body: "{\"a\":1}".into(), etag: "W/\"12\"".to_owned() };
        let CachedResponse { body, etag } = lagging(&response, 7_000);
        assert_eq!((&body[..], etag.as_str()), (&br#"{"a":1,"lagMs":7000}"#[..], "W/\"12-7000\""));
    }

    fn parse(query: &str) -> Result<StatsQuery, String> {
        let uri = format!("/?{query}").parse().unwrap();
        let params = Query::<StatsParams>::try_from_uri(&uri).unwrap().0;
        StatsQuery::try_from(params).map_err(|error| error.to_string())
    }

    #[test]
    fn invalid_parameter_is_named_in_the_error() {
        assert_eq!(parse(""), Ok(StatsQuery::new(Scope::Hub, Range::Day)));
        let full = parse("range=12mo&room=lobby&tz=europe/berlin&prop=plan").unwrap();
        assert_eq!((full.range, full.zone.to_string()), (Range::Year, "Europe/Berlin".to_owned()));
        assert_eq!((full.scope.room().unwrap().as_str(), full.prop.as_deref()), ("lobby", Some("plan")));
        let custom = parse("from=1700000000000&to=1700000000001").unwrap().range;
        let [from, to] = [1_700_000_000_000, 1_700_000_000_001].map(Time::from_millis);
        assert_eq!(custom, Range::between(from, to).unwrap());
        let invalid = [
            ("range=1y", "range: must be"),
            ("range=24h&from=1&to=2", "range: cannot"),
            ("from=1", "to: is missing"),
            ("to=1", "from: is missing"),
            ("from=a&to=2", "from: must be"),
            ("from=1700000000000&to=-1", "to: must be"),
            ("from=1700000000000&to=1700000000000", "to: must be after"),
            (
                "from=1700000000&to=1700000000000",
                "from: must be milliseconds since 1970 UTC, and this looks like sec",
            ),
            ("from=0&to=1700000000", "to: must be milliseconds since 1970 UTC, and this looks like seconds"),
            (
                "from=1699999999000&to=99999999999",
                "to: must be milliseconds since 1970 UTC, and this looks like",
            ),
            ("from=0&to=1700000000000", "to: must be at most"),
            ("room=A", "room: must match"),
            ("tz=Mars/Olympus", "tz: must be"),
            ("prop=", "prop: must be"),
        ];
        for (query, message) in invalid {
            let error = parse(query).unwrap_err();
            assert!(error.starts_with(message), "{query}: {error}");
        }
    }
}
