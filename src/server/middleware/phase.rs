//! What the process's phase means for a request.

use super::around::Concern;
use super::is_health;
use crate::error::{ApiError, ErrorCode};
use crate::lifecycle::{Lifecycle, Phase};
use axum::extract::Request;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

/// When to ask again while the process starts, in seconds.
const RETRY_AFTER_START: [(HeaderName, HeaderValue); 1] = [(RETRY_AFTER, HeaderValue::from_static("1"))];

/// Closes connections once the process is told to stop.
#[derive(Debug, Clone)]
pub(super) struct CloseWhenDraining(pub(super) Lifecycle);

impl Concern for CloseWhenDraining {
    type Kept = ();

    fn before(&self, _request: &mut Request) -> Result<(), Response> {
        Ok(())
    }

    fn after(&self, (): (), response: &mut Response) {
        if self.0.phase() == Phase::Draining {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Says what the build is, whatever the tables are.
const VERSION: &str = "/api/v1/version";

/// Refuses what needs tables until they have been ready once.
#[derive(Debug, Clone)]
pub(super) struct RequireSchema(pub(super) Lifecycle);

impl Concern for RequireSchema {
    type Kept = ();

    fn before(&self, request: &mut Request) -> Result<(), Response> {
        let path = request.uri().path();
        if path.starts_with("/api/") && !is_health(path) && path != VERSION && !self.0.has_served() {
            return Err((RETRY_AFTER_START, ApiError::from(ErrorCode::SchemaNotReady)).into_response());
        }
        Ok(())
    }
}
