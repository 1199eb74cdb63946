//! The routes of a hub in the server of another program, for as long as the hub runs.
//!
//! The other program keeps its router, and would keep the hub's parts with it. So it gets a router that has the hub's routes
//! until the hub shuts down.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use crate::http::error::ApiError;
use crate::sync::lock;
use crate::transport::AdmitError;

/// The routes, until they are removed.
#[derive(Debug, Clone)]
pub(super) struct Mount(Arc<Mutex<Option<Router>>>);

impl Mount {
    pub(super) fn new(routes: Router) -> Self {
        Self(Arc::new(Mutex::new(Some(routes))))
    }

    /// A router that answers as the routes do, and 503 when they are removed.
    pub(super) fn router(&self) -> Router {
        let mount = self.clone();
        Router::new().fallback(async move |request: Request| {
            let routes = lock(&mount.0).clone();
            match routes {
                Some(routes) => TowerToHyperService::new(routes).call(request).await.into_response(),
                None => ApiError::from(AdmitError::Restarting).into_response(),
            }
        })
    }

    /// Removes the routes, and with them their handles of the hub's parts.
    pub(super) fn close(&self) {
        lock(&self.0).take();
    }
}
