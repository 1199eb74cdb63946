//! Extractors of path and query parameters, whose rejections are the hub's own errors.
//!
//! A handler that checks a token first takes a `Result` of them, since extractors run before the handler.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::history::calendar::Month;
use crate::protocol::{RoomId, VisitorId};

/// The room of a path.
#[derive(Debug)]
pub(crate) struct RoomPath(pub RoomId);

/// What a path has in the place of a room's name.
#[derive(Debug)]
pub(crate) struct NamePath(pub String);

/// The visitor of a path.
#[derive(Debug)]
pub(crate) struct VisitorPath(pub VisitorId);

/// The month of a path.
#[derive(Debug)]
pub(crate) struct MonthPath(pub Month);

/// The parameters of a query.
#[derive(Debug)]
pub(crate) struct Params<T>(pub T);

impl<S: Sync> FromRequestParts<S> for RoomPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        RoomId::try_from(segment(parts).await).map(Self).map_err(ApiError::BadRoom)
    }
}

impl<S: Sync> FromRequestParts<S> for NamePath {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(segment(parts).await))
    }
}

impl<S: Sync> FromRequestParts<S> for VisitorPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        VisitorId::try_from(segment(parts).await).map(Self).map_err(ApiError::BadVisitor)
    }
}

impl<S: Sync> FromRequestParts<S> for MonthPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let bad = |_| ApiError::BadParameter { name: "month", rule: "must be a month such as 2026-11" };
        segment(parts).await.parse().map(Self).map_err(bad)
    }
}

/// The one variable segment of a path. A segment that cannot be decoded is empty, which no rule allows.
async fn segment(parts: &mut Parts) -> String {
    Path::from_request_parts(parts, &()).await.map(|Path(segment)| segment).unwrap_or_default()
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri);
        query.map(|Query(params)| Self(params)).map_err(|rejection| ApiError::BadQuery(rejection.body_text()))
    }
}
