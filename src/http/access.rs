//! Access control: whose request it is, what its address may do, and who is the admin or a visitor.
//!
//! A handler for the admin takes an [`Admin`], which only the admin token makes. A handler for visitors asks for the
//! [claims](AccessControl::claims) of their token, where the hub requires tokens. Failed attempts to be the admin are rate
//! limited by address; the right token always passes.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::str;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderName, Method, Request};
use tracing::warn;

use super::Config;
use super::error::ApiError;
use super::forwarded::forwarded_address;
use super::log_throttle::LogThrottle;
use crate::address::Address;
use crate::auth::admin::bearer;
use crate::auth::{Access, AdminToken, BadToken, Claims, Tokens};
use crate::protocol::{Time, VisitorId};
use crate::time::Clock;
use crate::transport::{LimitExceeded, PeerAddress, Sockets, offered_token};

/// `Cache-Control` of answers that only the admin may see.
pub(super) const PRIVATE: &str = "private, no-store";

/// The route that no rate limit applies to. Its answer costs no more than a rejection, and a supervisor would take a 429 for
/// a reason to restart the hub.
const HEALTH: &str = "/health";

/// The settings and the limits that decide who may do what.
#[derive(Debug)]
pub(crate) struct AccessControl {
    /// Who may see the dashboard and what it shows.
    pub dashboard: Access,
    /// Who may see `/metrics`; none where it is at the private address only.
    pub metrics: Option<Access>,
    /// The header with the client's address, where a proxy is in front.
    client_ip_header: Option<HeaderName>,
    /// Limits the log lines about a proxy that sends no such header.
    missing_address: LogThrottle,
    admin_token: AdminToken,
    /// The keys of visitor tokens; none where the hub requires no tokens.
    tokens: Option<Tokens>,
    /// The rate limits by address.
    sockets: Arc<Sockets>,
    clock: Clock,
}

impl AccessControl {
    /// The access control of the configuration.
    pub(crate) fn new(
        config: &Config,
        admin_token: AdminToken,
        tokens: Option<Tokens>,
        sockets: Arc<Sockets>,
        clock: Clock,
    ) -> Self {
        let client_ip_header = config.client_ip_header.clone();
        let missing_address = LogThrottle::default();
        let metrics = config.metrics_listen.is_none().then_some(config.metrics);
        let dashboard = config.dashboard;
        Self { dashboard, metrics, client_ip_header, missing_address, admin_token, tokens, sockets, clock }
    }

    /// The address that a request counts for: the one in the proxy's header where a proxy is configured, or the peer's.
    pub(crate) fn address(&self, headers: &HeaderMap, extensions: &Extensions) -> Address {
        let forwarded = self.client_ip_header.as_ref().and_then(|header| {
            let address = forwarded_address(headers, header);
            if address.is_none() && self.missing_address.due(&[], self.clock.elapsed()).is_some() {
                warn!(%header, "CLIENT_IP_HEADER has no address: rate limits apply to the proxy's own address");
            }
            address
        });
        let peer = extensions.get().map(|PeerAddress(peer)| *peer);
        // In a server of another program, axum has the peer.
        let connected = || extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        forwarded.or(peer).or_else(connected).unwrap_or(IpAddr::from([0; 4])).into()
    }

    /// Counts a request against the rates of its address. One that opens a socket counts against another rate, in its handler.
    /// Returns the address whose turn the request waits for: none for the admin's requests and `/health`, which are not
    /// limited.
    /// Errors: the address is over a rate.
    pub(crate) fn check_rate<B>(
        &self,
        request: &Request<B>,
        route: &str,
        opens_sockets: bool,
    ) -> Result<Option<Address>, LimitExceeded> {
        if self.admin_token.matches(request.headers()) {
            return Ok(None);
        }
        let address = self.address(request.headers(), request.extensions());
        match *request.method() {
            _ if opens_sockets => {}
            Method::POST => self.sockets.admit_post(address)?,
            _ if route == HEALTH => return Ok(None),
            _ => self.sockets.admit_read(address)?,
        }
        Ok(Some(address))
    }

    /// Waits for the turn of a request from this address among those of all addresses.
    pub(crate) async fn turn(&self, address: Address) {
        self.sockets.turn(address).await;
    }

    /// Admits the admin.
    /// Errors: the request does not bring the admin token, or its address has failed too often.
    pub(crate) fn admit_admin(&self, headers: &HeaderMap, address: Address) -> Result<Admin, ApiError> {
        if self.admin_token.matches(headers) {
            return Ok(Admin(()));
        }
        self.sockets.count_admin_failure(address)?;
        Err(ApiError::Unauthorized)
    }

    /// Admits a request to what `access` is for.
    /// Errors: it is for the admin only, and [the admin is not admitted](Self::admit_admin).
    pub(crate) fn admit(
        &self,
        access: Access,
        headers: &HeaderMap,
        address: Address,
    ) -> Result<(), ApiError> {
        match access {
            Access::Public => Ok(()),
            Access::Admin => self.admit_admin(headers, address).map(|Admin(())| ()),
        }
    }

    /// The claims of a request's visitor token; none where the hub requires no tokens.
    /// Errors: the hub requires tokens, and the request's is missing or not valid.
    pub(crate) fn claims(&self, headers: &HeaderMap) -> Result<Option<Claims>, ApiError> {
        let Some(tokens) = &self.tokens else { return Ok(None) };
        verify(tokens, headers, self.clock.wall()).map(Some)
    }

    /// Who requests the personal data of a visitor.
    /// Errors: the request brings neither the admin token nor a valid visitor token, or its address has failed too
    /// often.
    pub(crate) fn requester(&self, headers: &HeaderMap, address: Address) -> Result<Requester, ApiError> {
        if self.admin_token.matches(headers) {
            return Ok(Requester::Admin);
        }
        let tokens = self.tokens.as_ref().ok_or(ApiError::Unauthorized);
        let claims = tokens.and_then(|tokens| verify(tokens, headers, self.clock.wall()));
        claims.map(Requester::Visitor).or_else(|rejected| {
            self.sockets.count_admin_failure(address)?;
            Err(rejected)
        })
    }
}

/// Verifies the token of a request. One that is offered as a subprotocol is for this hub; a header may be another's, such as
/// a proxy's.
fn verify(tokens: &Tokens, headers: &HeaderMap, now: Time) -> Result<Claims, ApiError> {
    let token = match offered_token(headers) {
        Some(offered) => offered,
        None => str::from_utf8(bearer(headers).ok_or(ApiError::NoToken)?).map_err(|_| BadToken::Malformed)?,
    };
    Ok(tokens.verify(token, now)?)
}

/// Who requests the personal data of a visitor.
#[derive(Debug)]
pub(crate) enum Requester {
    /// The admin.
    Admin,
    /// A visitor, with these claims.
    Visitor(Claims),
}

impl Requester {
    /// Allows the admin everything, and a visitor what is their own. A token that is for one room is not enough: a
    /// visitor's data is of all rooms.
    /// Errors: the data is another visitor's, or the token is for one room.
    pub(crate) fn may_access(&self, visitor: &VisitorId) -> Result<(), ApiError> {
        match self {
            Self::Admin => Ok(()),
            Self::Visitor(claims) if claims.for_visitor(visitor)?.room.is_none() => Ok(()),
            Self::Visitor(_) => Err(BadToken::Room.into()),
        }
    }
}

/// Proof that a request is the admin's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admin(());

impl<S: Sync> FromRequestParts<S> for Admin
where
    Arc<AccessControl>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let access = Arc::<AccessControl>::from_ref(state);
        access.admit_admin(&parts.headers, access.address(&parts.headers, &parts.extensions))
    }
}

impl<S: Sync> FromRequestParts<S> for Address
where
    Arc<AccessControl>: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Ok(Arc::<AccessControl>::from_ref(state).address(&parts.headers, &parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

    use super::*;
    use crate::auth::Secret;
    use crate::auth::keys::TokenKey;
    use crate::protocol::RoomId;

    fn keys() -> (Secret, Tokens) {
        let secret = Secret::from("a secret of more than thirty-two bytes".to_owned());
        let tokens = Tokens::new(vec![TokenKey::secret(&secret).unwrap()], None);
        (secret, tokens)
    }

    #[test]
    fn offered_token_wins_over_the_authorization_header() {
        let (secret, tokens) = keys();
        let now = Time::from_millis(1_000_000);
        let claims = Claims { visitor: VisitorId::try_from("ann").unwrap(), room: None, expires: now };
        let good = claims.sign(&secret, None).unwrap();
        let ask = |authorization: &str, offered: &str| {
            let values = [(AUTHORIZATION, authorization), (SEC_WEBSOCKET_PROTOCOL, offered)];
            let given = values.into_iter().filter(|(_, value)| !value.is_empty());
            let headers = given.map(|(name, value)| (name, value.parse().unwrap())).collect();
            verify(&tokens, &headers, now)
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
    fn visitor_token_gives_access_to_the_visitors_own_data_only() {
        let [ann, bob] = ["ann", "bob"].map(|name| VisitorId::try_from(name).unwrap());
        let claims = |visitor: &VisitorId, room: Option<&str>| {
            let room = room.map(|room| RoomId::try_from(room).unwrap());
            Requester::Visitor(Claims { visitor: visitor.clone(), room, expires: Time::MAX })
        };
        assert!(claims(&ann, None).may_access(&ann).is_ok() && Requester::Admin.may_access(&ann).is_ok());
        for other in [claims(&bob, None), claims(&ann, Some("lobby"))] {
            let (status, code) = other.may_access(&ann).unwrap_err().status_and_code();
            assert_eq!((status.as_u16(), code), (401, "unauthorized"));
        }
    }
}
