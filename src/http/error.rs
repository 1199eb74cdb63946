//! Error responses: `{"error":{"code","message"}}` with a matching status.
//!
//! All handlers share one enum, so that all errors of the HTTP interface are on one page.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, RETRY_AFTER, SEC_WEBSOCKET_VERSION, VARY, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::BadToken;
use crate::error_page::{self, PageError, accepts_html, error_page};
use crate::history::capacity::JournalFull;
use crate::history::journal::FlushError;
use crate::history::lifecycle::MaintenanceError;
use crate::history::stats::BadRange;
use crate::history::store::{LifecycleError, ReadError, SnapshotError};
use crate::presence::JoinError;
use crate::protocol::ids::BadName;
use crate::protocol::parse::ParseError;
use crate::quota::Exhausted;
use crate::transport::{AdmitError, LimitExceeded, UpgradeError};

/// `Retry-After` of a 503, in seconds.
const RETRY_UNAVAILABLE: HeaderValue = HeaderValue::from_static("5");

/// `Retry-After` of a 429, in seconds: after that, rate limits allow a burst again.
const RETRY_RATE_LIMITED: HeaderValue = HeaderValue::from_static("10");

/// The error code of a body in another encoding than gzip.
const UNSUPPORTED_ENCODING: &str = "unsupported-encoding";

/// The body of every error response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorBody {
    error: ErrorDetail,
}

/// Why a request was rejected.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// The error code, for programs.
    code: &'static str,
    /// What is wrong, for people: which field broke which rule.
    message: String,
}

/// Why a request was rejected. Displays as the message of the response.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// An HTTP/1.1 request has no `Host` header, or a request has two.
    #[error("Host: must be present exactly once")]
    Host,
    /// The room's name breaks its rule.
    #[error("room: {0}")]
    BadRoom(BadName),
    /// The visitor's id breaks its rule.
    #[error("visitor: {0}")]
    BadVisitor(BadName),
    /// The mood is not in the vocabulary.
    #[error("mood: must be one of this hub's moods")]
    UnknownMood,
    /// A query parameter breaks its rule.
    #[error("{name}: {rule}")]
    BadParameter {
        /// The parameter.
        name: &'static str,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// `from` and `to` are not a valid period.
    #[error("{name}: {rule}")]
    BadRange {
        /// The parameter.
        name: &'static str,
        /// The rule that it breaks.
        rule: BadRange,
    },
    /// The query string cannot be parsed.
    #[error("cannot parse the query: {0}")]
    BadQuery(String),
    /// The body is not valid JSON, or one of its fields breaks its rule.
    #[error("{}", .0.message)]
    BadBody(ParseError),
    /// The body ended before it was complete.
    #[error("the body is incomplete")]
    BrokenBody,
    /// The body is over the limit, in bytes.
    #[error("the body is over {0} bytes")]
    TooLarge(usize),
    /// The body did not arrive in time.
    #[error("the body took too long to arrive")]
    BodyTimeout,
    /// The body has too many small chunks.
    #[error("the body has too many small chunks: send it in fewer")]
    TooManyChunks,
    /// The bodies in flight use up their budget.
    #[error("too many request bodies are in flight: try again later")]
    BodiesOverBudget(#[from] Exhausted),
    /// The body is neither JSON nor text.
    #[error("Content-Type must be application/json or text/plain")]
    MediaType,
    /// The body has another encoding than gzip, or several.
    #[error("Content-Encoding must be gzip, or absent")]
    ContentEncoding,
    /// The body cannot be decompressed.
    #[error("the body is not valid gzip")]
    BadGzip,
    /// The admin token is missing or wrong.
    #[error("this needs Authorization: Bearer with the admin token")]
    Unauthorized,
    /// The property is not public, because its values may be about people.
    #[error(
        "prop: a breakdown by this property needs Authorization: Bearer with the admin token, unless the hub's \
         PUBLIC_PROPS names it"
    )]
    PrivateProp,
    /// The property has no rollups, and page views of the period are archived.
    #[error("prop: {0}")]
    ArchivedProp(Arc<ReadError>),
    /// The hub requires visitor tokens, and the request has none.
    #[error("this needs a token: Authorization: Bearer, or on a socket the subprotocol bearer.{{token}}")]
    NoToken,
    /// The visitor token is not valid for this request.
    #[error("token: {0}")]
    BadToken(#[from] BadToken),
    /// The page's origin is not allowed.
    #[error("this origin is not one of this hub's ALLOWED_ORIGINS")]
    Origin,
    /// No route matches the path.
    #[error("there is nothing at this path")]
    NotFound,
    /// The hub is a replica.
    #[error("this hub is a replica: it has the history and the dashboard, and no rooms. Use another node")]
    Replica,
    /// The route does not support the method.
    #[error("this path does not support this method")]
    Method,
    /// The request is a heartbeat, which the hub does not support any more.
    #[error(
        "there are no heartbeats any more: presence is the open socket. Connect a WebSocket to \
         /rooms/{{room}}/socket with the subprotocols breathing-room.v1 and visitor.{{id}}, and keep it open"
    )]
    Heartbeat,
    /// The request is not a valid WebSocket upgrade.
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// The hub does not admit another socket now.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The visitor cannot join the room now.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The address exceeds one of its limits.
    #[error(transparent)]
    LimitExceeded(#[from] LimitExceeded),
    /// Too many requests for personal data are waiting.
    #[error("too many requests for personal data are waiting: try again in a moment")]
    Busy,
    /// The event queue is full, or the address sends too many events.
    #[error(transparent)]
    QueueFull(#[from] JournalFull),
    /// The events are queued but not committed.
    #[error(transparent)]
    Flush(#[from] FlushError),
    /// A query of the history failed.
    #[error(transparent)]
    History(#[from] Arc<ReadError>),
    /// Maintenance or an erasure did not finish.
    #[error(transparent)]
    Lifecycle(#[from] MaintenanceError),
    /// There is no copy of the database.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A migration failed.
    #[error("the migration failed: {0}")]
    Migration(String),
    /// The handler panicked.
    #[error("internal error: the hub's log has the details")]
    Panic,
}

impl ApiError {
    /// Returns the status and the error code of the response.
    #[must_use]
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Host => (StatusCode::BAD_REQUEST, "bad-host"),
            Self::BadRoom(_) => (StatusCode::BAD_REQUEST, "bad-room"),
            Self::BadVisitor(_) => (StatusCode::BAD_REQUEST, "bad-visitor"),
            Self::UnknownMood => (StatusCode::BAD_REQUEST, "unknown-mood"),
            Self::BadParameter { .. } | Self::BadRange { .. } | Self::BadQuery(_) | Self::ArchivedProp(_) => {
                (StatusCode::BAD_REQUEST, "bad-parameter")
            }
            Self::BadBody(error) => (StatusCode::BAD_REQUEST, error.code.as_str()),
            Self::BrokenBody | Self::TooManyChunks | Self::BadGzip => {
                (StatusCode::BAD_REQUEST, "broken-body")
            }
            Self::Upgrade(UpgradeError::Key | UpgradeError::Body) => (StatusCode::BAD_REQUEST, "bad-upgrade"),
            Self::Origin => (StatusCode::FORBIDDEN, "forbidden-origin"),
            Self::Unauthorized | Self::PrivateProp | Self::NoToken | Self::BadToken(_) => {
                (StatusCode::UNAUTHORIZED, "unauthorized")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            Self::Replica => (StatusCode::NOT_FOUND, "replica"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed"),
            Self::Heartbeat => (StatusCode::GONE, "gone"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type"),
            Self::ContentEncoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_ENCODING),
            Self::Upgrade(_) => (StatusCode::UPGRADE_REQUIRED, "upgrade-required"),
            Self::Migration(_) | Self::Panic => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "too-slow"),
            Self::LimitExceeded(LimitExceeded::OpenSockets | LimitExceeded::LiveSockets)
            | Self::Admit(AdmitError::LimitExceeded(LimitExceeded::OpenSockets)) => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many")
            }
            Self::Join(JoinError::TooManyRooms) => (StatusCode::TOO_MANY_REQUESTS, "too-many-rooms"),
            Self::LimitExceeded(_) | Self::Admit(AdmitError::LimitExceeded(_)) => {
                (StatusCode::TOO_MANY_REQUESTS, "too-fast")
            }
            Self::Admit(AdmitError::Full) | Self::Join(JoinError::RoomsFull) => {
                (StatusCode::SERVICE_UNAVAILABLE, "full")
            }
            Self::Admit(AdmitError::Restarting) | Self::Lifecycle(MaintenanceError::Stopped) => {
                (StatusCode::SERVICE_UNAVAILABLE, "restarting")
            }
            Self::QueueFull(_)
            | Self::BodiesOverBudget(_)
            | Self::Busy
            | Self::Snapshot(SnapshotError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Snapshot(SnapshotError::NoRoom { .. }) => (StatusCode::SERVICE_UNAVAILABLE, "disk-full"),
            Self::Flush(_) => (StatusCode::SERVICE_UNAVAILABLE, "not-committed"),
            Self::Lifecycle(MaintenanceError::Failed(LifecycleError::Archive(_))) => {
                (StatusCode::SERVICE_UNAVAILABLE, "archive-unavailable")
            }
            Self::Lifecycle(MaintenanceError::Failed(_)) | Self::History(_) | Self::Snapshot(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "history-unavailable")
            }
        }
    }

    /// Returns the headers of an error response with this status.
    pub(crate) fn headers(status: StatusCode) -> Vec<(HeaderName, HeaderValue)> {
        match status {
            StatusCode::SERVICE_UNAVAILABLE => vec![(RETRY_AFTER, RETRY_UNAVAILABLE)],
            StatusCode::TOO_MANY_REQUESTS => vec![(RETRY_AFTER, RETRY_RATE_LIMITED)],
            StatusCode::UNAUTHORIZED => vec![(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))],
            // Without `Upgrade`, which HTTP/2 forbids: a proxy would forward an invalid response.
            StatusCode::UPGRADE_REQUIRED => vec![(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))],
            _ => Vec::new(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let message = self.to_string();
        let page = PageError { code, message: message.clone().into() };
        let body = ErrorBody { error: ErrorDetail { code, message } };
        let mut response = (status, Json(body)).into_response();
        response.extensions_mut().insert(page);
        response.headers_mut().extend(Self::headers(status));
        // Only with this 415: without the header, the media type is the reason (RFC 9110, section 12.5.3).
        if code == UNSUPPORTED_ENCODING {
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Answers with a page instead of JSON if the response is an error and the request a `GET` that accepts HTML. The status
/// and the other headers stay.
pub(super) async fn as_page(request: Request, next: Next) -> Response {
    let accepted = request.headers().get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
    let wants_page = *request.method() == Method::GET && accepts_html(accepted);
    let mut response = next.run(request).await;
    let Some(error) = response.extensions_mut().remove::<PageError>() else { return response };
    let status = response.status();
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Accept"));
    if wants_page {
        headers.remove(CONTENT_LENGTH);
        for (name, value) in error_page::HEADERS {
            headers.insert(name, value);
        }
        *response.body_mut() = Body::from(error_page(status, &error));
    }
    response
}
