//! What the process's phase means for a request.

use super::is_health;
use crate::error::{ApiError, ErrorCode};
use crate::server::{AppState, Phase};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// When to ask again while the process starts, in seconds.
const RETRY_AFTER_START: [(HeaderName, HeaderValue); 1] = [(RETRY_AFTER, HeaderValue::from_static("1"))];

pub(super) async fn close_when_draining(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if state.lifecycle.phase() == Phase::Draining {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

pub(super) async fn require_schema(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if path.starts_with("/api/") && !is_health(path) && !state.lifecycle.has_served() {
        return (RETRY_AFTER_START, ApiError::from(ErrorCode::SchemaNotReady)).into_response();
    }
    next.run(request).await
}
