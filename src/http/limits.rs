//! Limits on requests: whose address it is, how often it posts, and how many bytes of bodies are on their
//! way at once.
//!
//! A proxy's word for an address is taken only where the configuration says so, since anybody can say
//! anything in a header.

use std::convert::Infallible;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, Request};
use bytes::Bytes;
use http_body_util::LengthLimitError;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::app::App;
use super::error::ApiError;
use super::forwarded::told_address;
use crate::session::{Address, TooMuch};

/// The longest body, in bytes.
const BODY_LIMIT: usize = 64 * 1024;

/// The other end of the connection that a request came on: an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl FromRequestParts<Arc<App>> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(address(app, &parts.headers, &parts.extensions))
    }
}

/// Whose request it is.
pub fn address(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Address {
    let told = app.config.client_ip_header.as_ref().and_then(|header| {
        let told = told_address(headers, header);
        if told.is_none() && app.untold.due(&[], app.clock.elapsed()).is_some() {
            warn!(%header, "no address can be read from CLIENT_IP_HEADER: limits go by the proxy's own address");
        }
        told
    });
    let peer = extensions.get().map(|Peer(peer)| *peer);
    // Every connection has a peer; all that had none would share their limits.
    told.or(peer).unwrap_or(IpAddr::from([0; 4])).into()
}

/// Where the hub says how it is. It is never refused: its answer costs no more than a refusal would, and whoever looks
/// after the hub would take a 429 for a reason to restart it.
const HEALTH: &str = "/health";

/// Refuses requests from an address that posts or asks too fast, but for the admin's.
///
/// # Errors
/// It does.
pub fn check_rate<B>(app: &App, address: Address, request: &Request<B>) -> Result<(), TooMuch> {
    if app.admin_token.is_in(request.headers()) {
        return Ok(());
    }
    match *request.method() {
        Method::POST => app.sockets.admit_post(address),
        _ if request.uri().path() == HEALTH => Ok(()),
        _ => app.sockets.admit_read(address),
    }
}

/// Room for the bodies that are on their way.
#[derive(Debug)]
pub struct Bodies {
    room: Semaphore,
    patience: Duration,
}

impl Bodies {
    /// Room for so many bytes, at least for one body, each of which may take so long.
    #[must_use]
    pub fn new(bytes: usize, patience: Duration) -> Self {
        Self { room: Semaphore::new(bytes.clamp(BODY_LIMIT, Semaphore::MAX_PERMITS)), patience }
    }

    /// A whole body, up to the limit of one.
    ///
    /// # Errors
    /// It is too large, breaks off or takes too long, or there is no room for it.
    pub async fn read(&self, body: Body) -> Result<Bytes, ApiError> {
        let told = body.size_hint().upper().and_then(|bytes| usize::try_from(bytes).ok());
        // Where its length is not told, room for the longest.
        let length = told.unwrap_or(BODY_LIMIT);
        if length > BODY_LIMIT {
            return Err(ApiError::TooLarge(BODY_LIMIT));
        }
        let permits = u32::try_from(length).unwrap_or(u32::MAX);
        let _room = self.room.try_acquire_many(permits).map_err(|_| ApiError::BodiesFull)?;
        let whole =
            timeout(self.patience, to_bytes(body, BODY_LIMIT)).await.map_err(|_| ApiError::SlowBody)?;
        whole.map_err(|error| {
            let too_large = error.source().is_some_and(<dyn Error>::is::<LengthLimitError>);
            if too_large { ApiError::TooLarge(BODY_LIMIT) } else { ApiError::BrokenBody }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_hours(1);

    fn stuck() -> Body {
        Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>())
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_given_up_and_its_room_is_free() {
        let bodies = Bodies::new(0, Duration::from_millis(1));
        assert!(matches!(bodies.read(stuck()).await, Err(ApiError::SlowBody)));
        assert!(bodies.read(Body::from("{}")).await.is_ok());
    }

    #[tokio::test]
    async fn so_many_bytes_of_bodies_are_on_their_way_at_once() {
        let bodies = Bodies::new(BODY_LIMIT + 10, LONG);
        let mut first = Box::pin(bodies.read(stuck()));
        assert!(futures_util::poll!(&mut first).is_pending());
        assert_eq!(bodies.read(Body::from("ten bytes.")).await.unwrap(), "ten bytes.");
        assert!(matches!(bodies.read(Body::from("eleven byte")).await, Err(ApiError::BodiesFull)));
        drop(first);
        assert!(bodies.read(Body::from("eleven byte")).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_has_a_longest_length_whether_it_tells_it_or_not() {
        let long = Bytes::from(vec![b' '; BODY_LIMIT + 1]);
        let streamed = futures_util::stream::iter([Ok::<_, std::io::Error>(long.clone())]);
        for body in [Body::from(long), Body::from_stream(streamed)] {
            assert!(matches!(Bodies::new(0, LONG).read(body).await, Err(ApiError::TooLarge(BODY_LIMIT))));
        }
    }
}
