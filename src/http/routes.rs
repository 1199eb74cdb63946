//! The table of all routes: paths, methods and handlers, and the middleware around them.
//!
//! Every request passes the same checks in the same order: `Host`, origin, the rates of its address, and then its handler's own
//! (token, parameters, handshake).

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Version;
use axum::http::header::HOST;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::error::{ApiError, as_page};
use super::state::{App, MiddlewareState};
use super::{
    assets, body, cluster, contract, events, operate, pages, personal_data, replica, rooms, stats, websocket,
};
use crate::panics::{PanicScope, Panics};
use crate::protocol::{PageView, Watch};

/// What the middleware has to know of a group of routes.
#[derive(Debug, Clone)]
struct Group {
    app: App,
    opens_sockets: bool,
}

/// All routes. Unknown paths are 404 and unknown methods 405, in JSON.
pub(crate) fn router(app: App) -> Router {
    let checked = |opens_sockets| from_fn_with_state(Group { app: app.clone(), opens_sockets }, answer);
    // Files are the same for all origins, and caches may keep them so: no check of the origin, and no rate.
    let files = Router::new()
        .route("/", get(pages::dashboard))
        .route("/room/{room}", get(pages::room))
        .route("/assets/{file}", get(assets::asset))
        .route("/client/{file}", get(assets::client))
        .route("/openapi.json", get(contract::openapi))
        .route("/asyncapi.json", get(contract::asyncapi))
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(app.clone(), answer_file));
    let sockets = Router::new()
        .route("/rooms/{room}/socket", get(websocket::room))
        .route("/live", get(websocket::live))
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(checked(true));
    Router::new()
        .route("/rooms/{room}", get(rooms::room))
        .route("/rooms/{room}/visitors", get(cluster::room_visitors))
        .route("/cluster", get(cluster::cluster))
        .route("/replica", get(replica::replica))
        .route("/snapshot", get(replica::snapshot))
        .route("/archives/{month}", get(replica::archive))
        .route("/live-activity", get(rooms::live_activity))
        .route("/unified-stats", get(stats::unified_stats))
        .route("/page-view", post(events::post::<PageView>))
        .route("/watch-session", post(events::post::<Watch>))
        .route("/presence", post(async || ApiError::Heartbeat))
        .route("/health", get(operate::health))
        .route("/metrics", get(operate::metrics))
        .route("/flush", post(operate::flush))
        .route("/init-db", post(operate::init_db))
        .route("/maintain", post(operate::maintain))
        .route("/visitors/{visitor}/data", get(personal_data::data).delete(personal_data::erase))
        .route("/debug", get(operate::debug))
        .fallback(pages::missing)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(checked(false))
        .merge(sockets)
        .merge(files)
        .layer(from_fn(as_page))
        .with_state(app)
}

/// The routes of the private address: for machines of the operator, without a token or a rate.
pub(crate) fn private_router(app: App) -> Router {
    Router::new()
        .route("/metrics", get(operate::private_metrics))
        .route("/health", get(operate::health))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(app.clone(), answer_file))
        .with_state(app)
}

/// Answers a request that is for no file. Pages of allowed origins may read the answer, whatever it is.
async fn answer(State(group): State<Group>, request: Request, next: Next) -> Response {
    body::drain(request, async |request: Request| {
        let Group { app: App { access, middleware: state, .. }, opens_sockets } = group;
        let route = route(&request);
        let origin = state.cors.check(&request, opens_sockets, state.clock.elapsed());
        let answer = async {
            check_host(&request)?;
            origin.result()?;
            check_mode(&state, route.as_ref())?;
            if let Some(address) = access.check_rate(&request, name(route.as_ref()), opens_sockets)? {
                access.turn(address).await;
            }
            match origin.preflight(&request) {
                Some(preflight) => Ok(preflight),
                None => catch_panic(state.metrics.panics(), next.run(request)).await,
            }
        };
        let mut response = answer.await.into_response();
        origin.add_headers(&mut response);
        count(&state, route.as_ref(), response)
    })
    .await
}

/// Answers a request for a file.
async fn answer_file(State(state): State<Arc<MiddlewareState>>, request: Request, next: Next) -> Response {
    body::drain(request, async |request: Request| {
        let route = route(&request);
        let answer = async {
            check_host(&request)?;
            check_mode(&state, route.as_ref())?;
            catch_panic(state.metrics.panics(), next.run(request)).await
        };
        count(&state, route.as_ref(), answer.await.into_response())
    })
    .await
}

/// Rejects a request that does not name one host, as RFC 9112 (section 3.2) requires: of two, the proxy in front may read
/// the other one.
fn check_host(request: &Request) -> Result<(), ApiError> {
    let hosts = request.headers().get_all(HOST).iter().count();
    let names_one = hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11);
    if names_one { Ok(()) } else { Err(ApiError::Host) }
}

/// Rejects what a replica has not.
fn check_mode(state: &MiddlewareState, route: Option<&MatchedPath>) -> Result<(), ApiError> {
    if state.mode.rejects(name(route)) { Err(ApiError::Replica) } else { Ok(()) }
}

fn route(request: &Request) -> Option<MatchedPath> {
    request.extensions().get().cloned()
}

/// The pattern of a route, so that names in paths make no new counters.
fn name(route: Option<&MatchedPath>) -> &str {
    route.map_or("none", MatchedPath::as_str)
}

fn count(state: &MiddlewareState, route: Option<&MatchedPath>, response: Response) -> Response {
    state.metrics.answered(name(route), response.status());
    response
}

async fn catch_panic(panics: &Panics, handler: impl Future<Output = Response>) -> Result<Response, ApiError> {
    panics.catch(PanicScope::Request, handler).await.ok_or(ApiError::Panic)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn handler_that_panics_answers_500_in_json() {
        let answer = catch_panic(&Panics::register(), async { panic!("a test") }).await.into_response();
        assert_eq!(answer.status(), 500);
        let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal");
    }
}
