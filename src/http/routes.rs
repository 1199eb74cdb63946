//! The table of what there is: every address, its methods and its handler.
//!
//! Nothing is decided here; who may see what is the handlers' business.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::{CatchPanicLayer, ResponseForPanic};

use super::app::App;
use super::error::ApiError;
use super::{assets, contract, events, limits, live, operate, origins, pages, stats, visitors};
use crate::panics::{Panics, Part};

/// Every address, its methods and its handler. Unknown ones are 404, unknown methods 405, in JSON.
pub fn router(app: Arc<App>) -> Router {
    // Files are the same for everybody, wherever their page comes from.
    let files = Router::new()
        .route("/", get(pages::dashboard))
        .route("/room/{room}", get(pages::room))
        .route("/assets/{file}", get(assets::asset))
        .route("/client/{file}", get(assets::client))
        .route("/openapi.json", get(contract::openapi))
        .route("/asyncapi.json", get(contract::asyncapi));
    Router::new()
        .route("/rooms/{room}", get(live::room))
        .route("/rooms/{room}/socket", get(live::room_socket))
        .route("/live-activity", get(live::live_activity))
        .route("/live", get(live::live_socket))
        .route("/unified-stats", get(stats::unified_stats))
        .route("/page-view", post(events::page_view))
        .route("/watch-session", post(events::watch_session))
        .route("/presence", post(async || ApiError::Heartbeat))
        .route("/health", get(operate::health))
        .route("/metrics", get(operate::metrics))
        .route("/flush", post(operate::flush))
        .route("/init-db", post(operate::init_db))
        .route("/maintain", post(operate::maintain))
        .route("/visitors/{visitor}/data", get(visitors::data).delete(visitors::erase))
        .route("/debug", get(operate::debug))
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(Arc::clone(&app), origins::check))
        .merge(files)
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(from_fn_with_state(Arc::clone(&app), limits::posts))
        .layer(CatchPanicLayer::custom(Panicked(app.meter.panics().clone())))
        .layer(from_fn_with_state(Arc::clone(&app), count))
        .with_state(app)
}

/// Answers for a handler that panicked.
#[derive(Debug, Clone)]
struct Panicked(Panics);

impl ResponseForPanic for Panicked {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, _: Box<dyn Any + Send>) -> Response {
        self.0.count(Part::Request);
        ApiError::Panic.into_response()
    }
}

/// Counts every answer by the route's pattern, so that names in addresses make no new counters.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    app.meter.answered(route.as_ref().map_or("none", MatchedPath::as_str), response.status());
    response
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_500_in_json() {
        let panicking = Router::new().route("/", get(async || -> () { panic!("a test") }));
        let panicking = panicking.layer(CatchPanicLayer::custom(Panicked(Panics::register())));
        let answer = TowerToHyperService::new(panicking).call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.status(), 500);
        let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "internal");
    }
}
