//! How much at once, how long, how large.

use super::is_health;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The requests at work, shared by all routes.
#[derive(Debug, Clone)]
pub(super) struct Concurrency(Arc<Semaphore>);

impl Concurrency {
    pub(super) fn new(settings: &Settings) -> Self {
        let most = usize::try_from(settings.max_concurrent_requests).unwrap_or(usize::MAX);
        Self(Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))))
    }
}

/// Refuses at once what there is no room for: a queue would only make every answer late.
pub(super) async fn concurrency(State(limit): State<Concurrency>, request: Request, next: Next) -> Response {
    if is_health(request.uri().path()) {
        return next.run(request).await;
    }
    match limit.0.try_acquire() {
        Ok(_room) => next.run(request).await,
        Err(_) => ([(RETRY_AFTER, "1")], ApiError::from(ErrorCode::Overloaded)).into_response(),
    }
}

/// How long a handler may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeLimit(pub(super) Duration);

pub(super) async fn time(State(limit): State<TimeLimit>, request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(limit.0, next.run(request)).await;
    answer.unwrap_or_else(|_| ApiError::from(ErrorCode::Overloaded).into_response())
}

/// The longest body, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit(pub(super) u32);

/// Refuses an announced length at once; a body without one is cut off where it exceeds the limit, and whoever reads
/// it answers 413.
pub(super) async fn body(State(BodyLimit(most)): State<BodyLimit>, request: Request, next: Next) -> Response {
    if request.body().size_hint().lower() > u64::from(most) {
        return ApiError::from(ErrorCode::TooLarge).into_response();
    }
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    next.run(request.map(|body| Body::new(Limited::new(body, most)))).await
}
