//! Limits on requests: whose address it is, and how often it posts and asks.
//!
//! A proxy's word for an address is taken only where the configuration says so, since anybody can say
//! anything in a header.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, Request};
use tracing::warn;

use super::app::App;
use super::forwarded::told_address;
use crate::session::{Address, TooMuch};

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
