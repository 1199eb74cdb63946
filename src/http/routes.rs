//! The table of what there is: every address, its methods and its handler.
//!
//! Nothing is decided here; who may see what is the handlers' business.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};

use super::app::App;
use super::error::ApiError;
use super::{assets, events, limits, live, operate, origins, pages, stats, visitors};

/// Every address, its methods and its handler. Unknown ones are 404, unknown methods 405, in JSON.
pub fn router(app: Arc<App>) -> Router {
    // Files are the same for everybody, wherever their page comes from.
    let files = Router::new()
        .route("/", get(pages::dashboard))
        .route("/room/{room}", get(pages::room))
        .route("/assets/{file}", get(assets::asset))
        .route("/client/{file}", get(assets::client));
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
        .layer(from_fn_with_state(Arc::clone(&app), count))
        .with_state(app)
}

/// Counts every answer by the route's pattern, so that names in addresses make no new counters.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    app.meter.answered(route.as_ref().map_or("none", MatchedPath::as_str), response.status());
    response
}
