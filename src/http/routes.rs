//! The table of what there is: every address, its methods and its handler.
//!
//! Nothing is decided here; who may see what is the handlers' business.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::future::Either;
use hyper::Version;
use hyper::body::Incoming;
use hyper::header::HOST;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::app::App;
use super::error::ApiError;
use super::{
    assets, body, contract, events, extract, operate, pages, personal_data, rooms, stats, websocket,
};
use crate::address::Address;
use crate::panics::{Panics, Scope};

/// All that is answered: requests for sockets at once, everything else by the router.
#[derive(Debug, Clone)]
pub(crate) struct Front {
    app: Arc<App>,
    router: TowerToHyperService<Router>,
}

impl Front {
    /// What `app` answers.
    #[must_use]
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self { router: TowerToHyperService::new(router(Arc::clone(&app))), app }
    }
}

impl Service<hyper::Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        Ready<Result<Response, Infallible>>,
        <TowerToHyperService<Router> as Service<Request>>::Future,
    >;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let answer = if names_one_host(&request) {
            websocket::answer(&self.app, &request)
        } else {
            Some(ApiError::Host.into_response())
        };
        match answer {
            Some(response) => Either::Left(ready(Ok(response))),
            None => Either::Right(self.router.call(request.map(Body::new))),
        }
    }
}

/// Whether a request says once whom it asks, as RFC 9112 (section 3.2) has it: whoever reads two may read them in
/// another order than the proxy in front.
fn names_one_host<B>(request: &Request<B>) -> bool {
    match request.headers().get_all(HOST).iter().count() {
        0 => request.version() < Version::HTTP_11,
        count => count == 1,
    }
}

/// Every address, its methods and its handler. Unknown ones are 404, unknown methods 405, in JSON.
fn router(app: Arc<App>) -> Router {
    // Files are the same for everybody, wherever their page comes from.
    let files = Router::new()
        .route("/", get(pages::dashboard))
        .route("/room/{room}", get(pages::room))
        .route("/assets/{file}", get(assets::asset))
        .route("/client/{file}", get(assets::client))
        .route("/openapi.json", get(contract::openapi))
        .route("/asyncapi.json", get(contract::asyncapi))
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(Arc::clone(&app), answer_file));
    Router::new()
        .route("/rooms/{room}", get(rooms::room))
        .route("/rooms/{room}/socket", get(websocket::room))
        .route("/live-activity", get(rooms::live_activity))
        .route("/live", get(websocket::activity))
        .route("/unified-stats", get(stats::unified_stats))
        .route("/page-view", post(events::page_view))
        .route("/watch-session", post(events::watch_session))
        .route("/presence", post(async || ApiError::Heartbeat))
        .route("/health", get(operate::health))
        .route("/metrics", get(operate::metrics))
        .route("/flush", post(operate::flush))
        .route("/init-db", post(operate::init_db))
        .route("/maintain", post(operate::maintain))
        .route("/visitors/{visitor}/data", get(personal_data::data).delete(personal_data::erase))
        .route("/debug", get(operate::debug))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(Arc::clone(&app), answer))
        .merge(files)
        .layer(from_fn(body::drain))
        .with_state(app)
}

/// Answers everything but files. Whatever comes of it, pages of allowed origins may read it.
async fn answer(State(app): State<Arc<App>>, address: Address, request: Request, next: Next) -> Response {
    let verdict = app.origins.judge(&request, app.clock.elapsed());
    let route = route(&request);
    let answer = async {
        verdict.check()?;
        extract::check_rate(&app, address, &request)?;
        match verdict.preflight(&request) {
            Some(preflight) => Ok(preflight),
            None => unless_it_panics(app.metrics.panics(), next.run(request)).await,
        }
    };
    let mut response = answer.await.into_response();
    verdict.tell(&mut response);
    count(&app, route.as_ref(), response)
}

/// Answers with a file, which is the same for all, and which caches may keep so.
async fn answer_file(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = route(&request);
    let answer = unless_it_panics(app.metrics.panics(), next.run(request)).await;
    count(&app, route.as_ref(), answer.into_response())
}

fn route(request: &Request) -> Option<MatchedPath> {
    request.extensions().get().cloned()
}

/// Counts answers by the route's pattern, so that names in addresses make no new counters.
fn count(app: &App, route: Option<&MatchedPath>, response: Response) -> Response {
    app.metrics.answered(route.map_or("none", MatchedPath::as_str), response.status());
    response
}

async fn unless_it_panics(
    panics: &Panics,
    handler: impl Future<Output = Response>,
) -> Result<Response, ApiError> {
    panics.catch(Scope::Request, handler).await.ok_or(ApiError::Panic)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_500_in_json() {
        let answer = unless_it_panics(&Panics::register(), async { panic!("a test") }).await.into_response();
        assert_eq!(answer.status(), 500);
        let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal");
    }
}
