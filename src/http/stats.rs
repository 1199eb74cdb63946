//! What is asked of the history: the only requests that read the database.
//!
//! A query is checked here; what it means is the history's business, and so is which answers are kept.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa::openapi::schema::{ObjectBuilder, Type};

use super::access::{AccessControl, PRIVATE};
use super::error::ApiError;
use super::etag::is_known;
use super::params::Params;
use super::state::StatsState;
use crate::address::Address;
use crate::auth::Access;
use crate::history::stats::{Range, StatsQuery, Zone};
use crate::protocol::schema::one_of;
use crate::protocol::{RoomId, Time};

/// A browser asks again after 5 s; an edge shares an answer for as long as it is new here, and serves
/// it while it asks for the next one (RFC 9111, RFC 5861).
const CACHE: &str = "public, max-age=5, s-maxage=30, stale-while-revalidate=30";

/// The longest name of a property, in bytes: no event has a longer one.
const PROP_LIMIT: usize = 1024;

/// The properties of page views whose values anybody may see. Values may be about people, so that by default there
/// are none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublicProps(Vec<String>);

impl PublicProps {
    /// Reads the names of properties, separated by commas.
    ///
    /// # Errors
    /// One is empty or too long.
    pub fn parse(list: &str) -> Result<Self, String> {
        if list.trim().is_empty() {
            return Ok(Self::default());
        }
        let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().all(|name| is_prop(name)) {
            Ok(Self(names))
        } else {
            Err("must be names of properties of 1 to 1024 bytes, separated by commas".to_owned())
        }
    }

    /// Whether this property is one of them.
    fn has(&self, prop: &str) -> bool {
        self.0.iter().any(|public| public == prop)
    }
}

fn is_prop(name: &str) -> bool {
    (1..=PROP_LIMIT).contains(&name.len())
}

/// The query of the stats.
#[derive(Debug, Deserialize, IntoParams)]
pub struct Asking {
    #[param(schema_with = named_ranges)]
    range: Option<String>,
    /// The first moment. Needs `to`.
    #[param(value_type = Time, required = false)]
    from: Option<String>,
    /// The end, at most 20 years after `from`.
    #[param(value_type = Time, required = false)]
    to: Option<String>,
    /// One room; without it, all.
    #[param(value_type = RoomId, required = false)]
    room: Option<String>,
    /// The IANA time zone of days and hours; the default is UTC.
    #[param(value_type = Zone, required = false)]
    tz: Option<String>,
    #[param(schema_with = prop_name)]
    prop: Option<String>,
}

fn named_ranges() -> ObjectBuilder {
    let text = "A stretch of time that has a name; the default is 24h. Not together with from and to.";
    one_of(Range::NAMED.map(Range::name)).description(Some(text))
}

fn prop_name() -> ObjectBuilder {
    let text =
        ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(PROP_LIMIT));
    text.description(Some(
        "A property of page views to break down: for the admin, unless PUBLIC_PROPS names it.",
    ))
}

/// `GET /unified-stats`: what the history says about a stretch of time.
pub(crate) async fn unified_stats(
    State(state): State<Arc<StatsState>>,
    State(control): State<Arc<AccessControl>>,
    address: Address,
    params: Result<Params<Asking>, ApiError>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut access = control.dashboard;
    control.admit(access, &headers, address)?;
    let Params(asking) = params?;
    if asking.prop.as_ref().is_some_and(|prop| !state.public_props.has(prop)) {
        access = Access::Admin;
        control.admit(access, &headers, address).map_err(|error| match error {
            ApiError::Unauthorized => ApiError::PrivateProp,
            other => other,
        })?;
    }
    let question = StatsQuery::try_from(asking)?;
    let served = state.cache.get(&question).await?;
    let cache = if access == Access::Admin { PRIVATE } else { CACHE };
    let headers_out = [(CACHE_CONTROL, cache.to_owned()), (ETAG, served.etag.clone())];
    if is_known(&headers, &served.etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers_out).into_response());
    }
    Ok((headers_out, [(CONTENT_TYPE, "application/json")], served.body).into_response())
}

impl TryFrom<Asking> for StatsQuery {
    type Error = ApiError;

    fn try_from(asking: Asking) -> Result<Self, ApiError> {
        let bad = |name, rule| ApiError::BadParameter { name, rule };
        let range = match (asking.range.as_deref(), asking.from, asking.to) {
            (None, None, None) => Range::Day,
            (Some(name), None, None) => {
                Range::find(name).ok_or_else(|| bad("range", "must be 24h, 7d, 30d or 12mo"))?
            }
            (None, Some(from), Some(to)) => {
                let (from, to) = (moment("from", &from)?, moment("to", &to)?);
                Range::between(from, to).map_err(|rule| ApiError::BadRange { name: "to", rule })?
            }
            (Some(_), _, _) => return Err(bad("range", "cannot be given together with from and to")),
            (None, Some(_), None) => return Err(bad("to", "is missing beside from")),
            (None, None, Some(_)) => return Err(bad("from", "is missing beside to")),
        };
        let room = asking.room.map(RoomId::try_from).transpose().map_err(ApiError::BadRoom)?;
        let zone = match asking.tz {
            None => Zone::default(),
            Some(name) => {
                Zone::find(&name).map_err(|_| bad("tz", "must be an IANA time zone such as Europe/Berlin"))?
            }
        };
        if asking.prop.as_deref().is_some_and(|prop| !is_prop(prop)) {
            return Err(bad("prop", "must be the name of a property, of 1 to 1024 bytes"));
        }
        Ok(Self { range, room, zone, prop: asking.prop })
    }
}

fn moment(name: &'static str, text: &str) -> Result<Time, ApiError> {
    let millis = text.parse::<u64>().ok().and_then(|millis| Time::try_from(millis).ok());
    millis.ok_or(ApiError::BadParameter { name, rule: "must be milliseconds since 1970 UTC" })
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;

    fn ask(query: &str) -> Result<StatsQuery, String> {
        let uri = format!("/?{query}").parse().unwrap();
        let asking = Query::<Asking>::try_from_uri(&uri).unwrap().0;
        StatsQuery::try_from(asking).map_err(|error| error.to_string())
    }

    #[test]
    fn public_props_are_names_separated_by_commas() {
        let props = PublicProps::parse("plan, utm_source").unwrap();
        assert!(props.has("plan") && props.has("utm_source") && !props.has("email") && !props.has(""));
        assert_eq!(PublicProps::parse(" "), Ok(PublicProps::default()));
        for bad in ["plan,", ",", &"x".repeat(1025)] {
            assert!(PublicProps::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_question_is_taken_or_refused_by_the_name_of_its_parameter() {
        assert_eq!(ask(""), Ok(StatsQuery::new(Range::Day)));
        let full = ask("range=12mo&room=lobby&tz=europe/berlin&prop=plan").unwrap();
        assert_eq!((full.range, full.zone.to_string()), (Range::Year, "Europe/Berlin".to_owned()));
        assert_eq!((full.room.unwrap().as_str(), full.prop.as_deref()), ("lobby", Some("plan")));
        let custom = ask("from=1000&to=2000").unwrap().range;
        assert_eq!(custom, Range::between(Time::from_millis(1000), Time::from_millis(2000)).unwrap());
        let refused = [
            ("range=1y", "range: must be"),
            ("range=24h&from=1&to=2", "range: cannot"),
            ("from=1", "to: is missing"),
            ("to=1", "from: is missing"),
            ("from=a&to=2", "from: must be"),
            ("from=2&to=-1", "to: must be"),
            ("from=2&to=2", "to: must be after"),
            ("from=0&to=1700000000000", "to: must be at most"),
            ("room=A", "room: must match"),
            ("tz=Mars/Olympus", "tz: must be"),
            ("prop=", "prop: must be"),
        ];
        for (query, message) in refused {
            let refusal = ask(query).unwrap_err();
            assert!(refusal.starts_with(message), "{query}: {refusal}");
        }
    }
}
