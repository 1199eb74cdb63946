//! Events over HTTP: one, or an array that is accepted whole or rejected whole.
//!
//! An event has the fields of the socket's message, and `visitor` and `room`, which a socket would know.

use std::cell::Cell;
use std::io::Read;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::bufread::MultiGzDecoder;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::access::AccessControl;
use super::body::BODY_LIMIT;
use super::bots;
use super::error::ApiError;
use super::params::Params;
use super::state::EventsState;
use crate::address::Address;
use crate::history::event::{Actor, Batch, Event, PageViewEvent, WatchEvent, ahead_ms};
use crate::protocol::parse::{self, ParseError};
use crate::protocol::{ErrorCode, PageView, RoomId, Time, VisitorId, Watch};
use crate::quota::Exhausted;
use crate::rejections::Limit;

/// The maximum number of events in one array.
pub(super) const EVENTS_LIMIT: usize = 100;

/// The query parameters of a post of events.
#[derive(Debug, Deserialize, IntoParams)]
pub struct PostParams {
    /// Whether the response waits for the commit, which then starts earlier.
    #[param(value_type = bool, required = false)]
    durable: Option<String>,
}

impl PostParams {
    /// Returns whether the response waits for the commit.
    ///
    /// # Errors
    /// The value is neither `true` nor `false`.
    pub fn is_durable(&self) -> Result<bool, ApiError> {
        match self.durable.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::BadParameter { name: "durable", rule: "must be true or false" }),
        }
    }
}

/// The fields that an event over HTTP has in addition to those of the socket's message.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Sender {
    visitor: VisitorId,
    room: RoomId,
}

/// The events are queued for the next commit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queued {
    /// The number of events.
    queued: usize,
    /// Present if the `User-Agent` is a known bot's: the events are stored and count nowhere.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    bot: bool,
}

/// The events are committed to the database.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Committed {
    /// The number of events.
    #[expect(clippy::struct_field_names, reason = "the name in the answer")]
    committed: usize,
    /// In a cluster, the position in the log that has them: `GET /unified-stats?after=` of any node waits for it. Missing
    /// without a log, or while it is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    position: Option<u64>,
    /// As in [`Queued`].
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    bot: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// What a client reports in a post: the fields of the socket's message.
pub(crate) trait Report: DeserializeOwned {
    /// When it happened, by the client's clock.
    fn at(&self) -> Option<Time>;

    /// The event that the actor reported.
    ///
    /// Errors: two fields contradict each other.
    fn event(self, actor: Actor, at: Time) -> Result<Event, ParseError>;
}

impl Report for PageView {
    fn at(&self) -> Option<Time> {
        self.at
    }

    fn event(self, actor: Actor, at: Time) -> Result<Event, ParseError> {
        PageViewEvent::new(actor, self, at).map(Event::PageView)
    }
}

impl Report for Watch {
    fn at(&self) -> Option<Time> {
        self.at
    }

    fn event(self, actor: Actor, at: Time) -> Result<Event, ParseError> {
        WatchEvent::new(actor, self, at).map(Event::Watch)
    }
}

/// `POST /page-view` and `POST /watch-session`: queues page views, or states of watch sessions.
pub(crate) async fn post<T: Report>(
    State(state): State<Arc<EventsState>>,
    State(access): State<Arc<AccessControl>>,
    params: Result<Params<PostParams>, ApiError>,
    address: Address,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let claims = access.claims(&headers)?;
    let durable = params?.0.is_durable()?;
    let is_bot = bots::is_bot(&headers);
    let text = read_body(&state, address, headers, body).await?;
    let ahead = Cell::new(0);
    let event = |actor: Actor, report: T, at| {
        if let Some(claims) = &claims {
            claims.for_visitor(&actor.visitor)?.for_room(&actor.room)?;
        }
        ahead.update(|ahead| ahead + u64::from(ahead_ms(report.at(), at) > 0));
        report.event(actor, at).map_err(ApiError::BadBody)
    };
    let batch = parse_events(&text, is_bot, state.context.clock.wall(), event).inspect_err(|error| {
        if let ApiError::BadBody(error) = error {
            state.context.rejections.count_error(error.code);
        }
    })?;
    let (count, journal) = (batch.len(), &state.context.journal);
    let appended = if durable && count > 0 {
        journal.append_urgent(address, batch).map(Some)
    } else {
        journal.append_all(address, batch).map(|_| None)
    };
    let urgency = appended.inspect_err(|full| {
        state.context.rejections.count_error(ErrorCode::Overloaded);
        state.context.rejections.count_limit((*full).into());
    })?;
    journal.count_ahead(ahead.get());
    if let Some(urgency) = urgency {
        let position = journal.flush_by(urgency).await?.position;
        return Ok(Json(Committed { committed: count, position, bot: is_bot }).into_response());
    }
    Ok((StatusCode::ACCEPTED, Json(Queued { queued: count, bot: is_bot })).into_response())
}

/// Reads the body as text, which may be compressed. Its type must be JSON, or plain text as beacons send it.
async fn read_body(
    state: &EventsState,
    address: Address,
    headers: HeaderMap,
    body: Body,
) -> Result<String, ApiError> {
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let known = ["application/json", "text/plain"];
        if !known.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
            return Err(ApiError::MediaType);
        }
    }
    let is_gzip = is_gzip(&headers)?;
    // Headers are slices of hyper's read buffer. While they live, reading the body takes another one, of 8 KiB.
    drop(headers);
    let bytes = state.bodies.read(address, body).await.inspect_err(|error| match error {
        ApiError::BodiesOverBudget(Exhausted::Total) => {
            state.context.rejections.count_limit(Limit::BytesInFlight);
        }
        ApiError::BodiesOverBudget(Exhausted::Address) => {
            state.context.rejections.count_limit(Limit::AddressBytesInFlight);
        }
        ApiError::TooManyChunks => state.context.rejections.count_limit(Limit::BodyPieces),
        _ => {}
    })?;
    let bytes = if is_gzip { inflate(&bytes)? } else { bytes };
    String::from_utf8(bytes).map_err(|_| {
        ApiError::BadBody(ParseError { code: ErrorCode::BadJson, message: "not UTF-8".to_owned() })
    })
}

/// Returns whether the body is compressed.
/// Errors: it has another encoding than gzip, or several.
fn is_gzip(headers: &HeaderMap) -> Result<bool, ApiError> {
    let lists = headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes);
    let encodings = lists.flat_map(|list| list.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut encodings = encodings.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity"));
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(false),
        // Both names are the same (RFC 9110, section 8.4.1.3).
        (Some(name), None) if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
            Ok(true)
        }
        _ => Err(ApiError::ContentEncoding),
    }
}

/// Decompresses a body.
/// Errors: it is not gzip, or has more than [`BODY_LIMIT`] bytes then.
fn inflate(bytes: &[u8]) -> Result<Vec<u8>, ApiError> {
    let mut inflated = Vec::new();
    let mut stream = MultiGzDecoder::new(bytes).take(BODY_LIMIT as u64 + 1);
    stream.read_to_end(&mut inflated).map_err(|_| ApiError::BadGzip)?;
    if inflated.len() > BODY_LIMIT { Err(ApiError::TooLarge(BODY_LIMIT)) } else { Ok(inflated) }
}

/// Parses all events of a body. `event` builds an event from the fields of the socket's message.
///
/// # Errors
/// The body is neither an object nor an array of at most 100, or one of its events is invalid. The error is that of the
/// first invalid event, with its index.
pub fn parse_events<T: DeserializeOwned>(
    text: &str,
    is_bot: bool,
    arrived: Time,
    event: impl Fn(Actor, T, Time) -> Result<Event, ApiError>,
) -> Result<Batch, ApiError> {
    let one = |text: &str, arrived: Time| {
        let Sender { visitor, room } = parse::object(text).map_err(ApiError::BadBody)?;
        event(Actor { room, visitor, is_bot }, parse::object(text).map_err(ApiError::BadBody)?, arrived)
    };
    if !text.trim_start().starts_with('[') {
        return Ok(Batch::from_iter([one(text, arrived)?]));
    }
    let items: Vec<&RawValue> = serde_json::from_str(text)
        .map_err(|error| ParseError { code: ErrorCode::BadJson, message: error.to_string() })
        .map_err(ApiError::BadBody)?;
    if items.len() > EVENTS_LIMIT {
        let rule = format!("must have at most {EVENTS_LIMIT} events");
        return Err(ApiError::BadBody(ParseError::field("array", &rule)));
    }
    let indexed = (0_u64..).zip(items).map(|(index, item)| {
        // The order within an array is the order of arrival.
        one(item.get(), arrived.plus(index)).map_err(|error| match error {
            ApiError::BadBody(ParseError { code, message }) => {
                ApiError::BadBody(ParseError { code, message: format!("[{index}]: {message}") })
            }
            other => other,
        })
    });
    indexed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<usize, (ErrorCode, String)> {
        let event = |actor, view: PageView, at| {
            PageViewEvent::new(actor, view, at).map(Event::PageView).map_err(ApiError::BadBody)
        };
        parse_events(text, false, Time::from_millis(1), event).map(|batch| batch.len()).map_err(|error| {
            match error {
                ApiError::BadBody(error) => (error.code, error.message),
                other => panic!("{other}"),
            }
        })
    }

    const GOOD: &str = r#"{"id":"018f0e6e-0000-7000-8000-000000000001","path":"/","visitor":"v","room":"r"}"#;

    #[test]
    fn single_event_and_array_are_accepted() {
        assert_eq!(parse(GOOD), Ok(1));
        assert_eq!(parse(&format!(" [{GOOD}, {GOOD}] ")), Ok(2));
        assert_eq!(parse("[]"), Ok(0));
        assert_eq!(parse(&format!("[{}]", vec![GOOD; 100].join(","))), Ok(100));
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn gzip_body_is_bounded_after_inflation() {
        let zeros = |length: usize| gzip(&vec![0; length]);
        assert_eq!(inflate(&zeros(BODY_LIMIT)).unwrap().len(), BODY_LIMIT);
        assert_eq!(inflate(&[gzip(b"[1"), gzip(b"]")].concat()).unwrap(), b"[1]");
        for long in [zeros(BODY_LIMIT + 1), zeros(50_000_000), [zeros(BODY_LIMIT), zeros(1)].concat()] {
            assert!(matches!(inflate(&long), Err(ApiError::TooLarge(BODY_LIMIT))), "{}", long.len());
        }
        let whole = zeros(100);
        let mut damaged = whole.clone();
        damaged[whole.len() - 6] ^= 1;
        for bad in
            [b"{}".as_slice(), b"", &whole[..whole.len() - 1], &damaged, &[whole.as_slice(), b"{}"].concat()]
        {
            assert!(matches!(inflate(bad), Err(ApiError::BadGzip)), "{bad:?}");
        }
    }

    #[test]
    fn invalid_array_is_rejected_with_index_and_field() {
        let no_room = GOOD.replace(r#","room":"r""#, "");
        let bad_room = GOOD.replace(r#""room":"r""#, r#""room":"R""#);
        let cases = [
            (format!("[{GOOD},{no_room}]"), ErrorCode::BadField, "[1]: missing field `room`"),
            (format!("[{GOOD},{GOOD},{bad_room}]"), ErrorCode::BadField, "[2]: room: must match"),
            (format!("[{GOOD},5]"), ErrorCode::BadJson, "[1]: not a JSON object"),
            (format!("[{GOOD},"), ErrorCode::BadJson, ""),
            (format!("[{}]", vec![GOOD; 101].join(",")), ErrorCode::BadField, "array: must have at most 100"),
            (no_room, ErrorCode::BadField, "missing field `room`"),
        ];
        for (text, code, message) in cases {
            let error = parse(&text).unwrap_err();
            assert_eq!(error.0, code, "{text}");
            assert!(error.1.starts_with(message), "{}", error.1);
        }
    }
}
