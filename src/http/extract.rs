//! Extractors: what handlers take from a request besides its body, and who may do what.
//!
//! A handler for the admin takes an [`Admin`], which only the admin token makes. A handler for visitors asks for their
//! [`claims`], where the hub requires tokens. Failed attempts to be the admin are rate limited by address.

use std::convert::Infallible;
use std::net::IpAddr;
use std::str;
use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method, Request};
use tracing::warn;

use super::app::App;
use super::error::ApiError;
use super::forwarded::forwarded_address;
use crate::address::Address;
use crate::auth::admin::bearer;
use crate::auth::{Access, BadToken, Claims, Tokens};
use crate::protocol::{RoomId, Time, VisitorId};
use crate::transport::{LimitExceeded, Peer, offered_token};

/// `Cache-Control` of answers that only the admin may see.
pub(super) const PRIVATE: &str = "private, no-store";

/// A room's name from an address. A wrong one is refused with its rule.
pub(super) fn room_id(path: Result<Path<String>, PathRejection>) -> Result<RoomId, ApiError> {
    // What does not even decode is a wrong name like any other.
    let name = path.map(|Path(name)| name).unwrap_or_default();
    RoomId::try_from(name).map_err(ApiError::BadRoom)
}

/// A query's parameters.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|rejection| ApiError::BadQuery(rejection.body_text()))
}

impl FromRequestParts<Arc<App>> for Address {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Infallible> {
        Ok(address(app, &parts.headers, &parts.extensions))
    }
}

/// Whose request it is.
pub(crate) fn address(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Address {
    let told = app.config.client_ip_header.as_ref().and_then(|header| {
        let told = forwarded_address(headers, header);
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
pub(crate) fn check_rate<B>(app: &App, address: Address, request: &Request<B>) -> Result<(), LimitExceeded> {
    if app.admin_token.matches(request.headers()) {
        return Ok(());
    }
    match *request.method() {
        Method::POST => app.sockets.admit_post(address),
        _ if request.uri().path() == HEALTH => Ok(()),
        _ => app.sockets.admit_read(address),
    }
}

/// Lets the admin through. Whoever is not, is paced by their address.
///
/// # Errors
/// The request does not bring the admin token, or its address has failed too often.
pub(crate) fn admit_admin(app: &App, headers: &HeaderMap, address: Address) -> Result<Admin, ApiError> {
    if app.admin_token.matches(headers) {
        return Ok(Admin(()));
    }
    app.sockets.count_admin_failure(address)?;
    Err(ApiError::Unauthorized)
}

/// What the token of a request says, from its header or its subprotocols; nothing where the hub asks for none.
///
/// # Errors
/// The hub asks for tokens, and this one is missing or not good.
pub(crate) fn claims(app: &App, headers: &HeaderMap) -> Result<Option<Claims>, ApiError> {
    let Some(tokens) = &app.room.tokens else { return Ok(None) };
    read(tokens, headers, app.clock.wall()).map(Some)
}

/// Who asks for what is kept of a visitor.
#[derive(Debug)]
pub(crate) enum Asker {
    /// The admin.
    Admin,
    /// A visitor.
    Visitor(Claims),
}

impl Asker {
    /// Who a request comes from.
    ///
    /// # Errors
    /// From neither. Where the hub asks for no tokens, nobody can show to be a visitor.
    pub(crate) fn of(app: &App, headers: &HeaderMap, address: Address) -> Result<Self, ApiError> {
        if app.admin_token.matches(headers) {
            return Ok(Self::Admin);
        }
        let tokens = app.room.tokens.as_ref().ok_or(ApiError::Unauthorized);
        let claims = tokens.and_then(|tokens| read(tokens, headers, app.clock.wall()));
        claims.map(Self::Visitor).or_else(|refused| {
            app.sockets.count_admin_failure(address)?;
            Err(refused)
        })
    }

    /// Lets the admin through, and visitors to what is their own. A token that opens one room only does not: a
    /// visitor's own is in all of them.
    ///
    /// # Errors
    /// It is another visitor's, or the token is for one room.
    pub(crate) fn may_have(&self, visitor: &VisitorId) -> Result<(), ApiError> {
        match self {
            Self::Admin => Ok(()),
            Self::Visitor(claims) if claims.for_visitor(visitor)?.room.is_none() => Ok(()),
            Self::Visitor(_) => Err(BadToken::Room.into()),
        }
    }
}

/// A token that is offered as a subprotocol is for this hub; a header may be another's, such as a proxy's.
fn read(tokens: &Tokens, headers: &HeaderMap, now: Time) -> Result<Claims, ApiError> {
    let given = match offered_token(headers) {
        Some(offered) => offered,
        None => str::from_utf8(bearer(headers).ok_or(ApiError::NoToken)?).map_err(|_| BadToken::Malformed)?,
    };
    Ok(tokens.verify(given, now)?)
}

/// Proof that a request is the admin's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admin(());

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        admit_admin(app, &parts.headers, address(app, &parts.headers, &parts.extensions))
    }
}

/// Admits a request to what `access` is for.
///
/// # Errors
/// It is for the admin only, and the request does not bring the admin token.
pub(crate) fn admit(
    access: Access,
    app: &App,
    headers: &HeaderMap,
    address: Address,
) -> Result<(), ApiError> {
    match access {
        Access::Public => Ok(()),
        Access::Admin => admit_admin(app, headers, address).map(|Admin(())| ()),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

    use super::*;
    use crate::auth::Secret;
    use crate::auth::keys::Key;

    fn keys() -> (Secret, Tokens) {
        let secret = Secret::from("a secret of more than thirty-two bytes".to_owned());
        let tokens = Tokens::new(vec![Key::secret(&secret).unwrap()], None);
        (secret, tokens)
    }

    #[test]
    fn offered_token_is_read_before_a_header_that_may_be_anothers() {
        let (secret, tokens) = keys();
        let now = Time::from_millis(1_000_000);
        let claims = Claims { visitor: VisitorId::try_from("ann").unwrap(), room: None, expires: now };
        let good = claims.sign(&secret, None).unwrap();
        let ask = |authorization: &str, offered: &str| {
            let values = [(AUTHORIZATION, authorization), (SEC_WEBSOCKET_PROTOCOL, offered)];
            let given = values.into_iter().filter(|(_, value)| !value.is_empty());
            let headers = given.map(|(name, value)| (name, value.parse().unwrap())).collect();
            read(&tokens, &headers, now)
                .map(|claims| claims.visitor.to_string())
                .map_err(|bad| bad.to_string())
        };
        let offered = format!("breathing-room.v1, bearer.{good}");
        for foreign in ["", "Basic YTpi", "Bearer of-a-proxy", &format!("Bearer {good}")] {
            assert_eq!(ask(foreign, &offered).as_deref(), Ok("ann"), "{foreign}");
        }
        assert_eq!(ask(&format!("Bearer {good}"), "breathing-room.v1").as_deref(), Ok("ann"));
        assert!(ask("Basic YTpi", "").unwrap_err().starts_with("this needs a token"));
        assert!(
            ask(&format!("Bearer {good}"), "bearer.bad").unwrap_err().starts_with("token: must be a JWT")
        );
    }

    #[test]
    fn what_is_a_visitors_own_opens_to_the_visitors_own_token() {
        let [ann, bob] = ["ann", "bob"].map(|name| VisitorId::try_from(name).unwrap());
        let claims = |visitor: &VisitorId, room: Option<&str>| {
            let room = room.map(|room| RoomId::try_from(room).unwrap());
            Asker::Visitor(Claims { visitor: visitor.clone(), room, expires: Time::MAX })
        };
        assert!(claims(&ann, None).may_have(&ann).is_ok() && Asker::Admin.may_have(&ann).is_ok());
        for other in [claims(&bob, None), claims(&ann, Some("lobby"))] {
            let (status, code) = other.may_have(&ann).unwrap_err().status_and_code();
            assert_eq!((status.as_u16(), code), (401, "unauthorized"));
        }
    }
}
