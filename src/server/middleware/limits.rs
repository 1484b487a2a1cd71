//! How much at once, how large.

use super::around::Concern;
use super::is_health;
use crate::config::Settings;
use crate::error::{ApiError, ErrorCode};
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use http_body_util::Limited;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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
impl Concern for Concurrency {
    type Kept = Option<OwnedSemaphorePermit>;

    fn before(&self, request: &mut Request) -> Result<Self::Kept, Response> {
        if is_health(request.uri().path()) {
            return Ok(None);
        }
        let room = Arc::clone(&self.0).try_acquire_owned();
        room.map(Some).map_err(|_| ([(RETRY_AFTER, "1")], ApiError::from(ErrorCode::Overloaded)).into_response())
    }
}

/// The longest body, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit(pub(super) u32);

/// Refuses an announced length at once; a body without one is cut off where it exceeds the limit, and whoever reads
/// it answers 413.
impl Concern for BodyLimit {
    type Kept = ();

    fn before(&self, request: &mut Request) -> Result<(), Response> {
        if request.body().size_hint().lower() > u64::from(self.0) {
            return Err(ApiError::from(ErrorCode::TooLarge).into_response());
        }
        if !request.body().is_end_stream() {
            let most = usize::try_from(self.0).unwrap_or(usize::MAX);
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = Body::new(Limited::new(body, most));
        }
        Ok(())
    }
}
