//! Middleware that depends on the phase of the process.

use super::interceptor::Interceptor;
use super::is_health;
use crate::error::{ApiError, ErrorCode};
use crate::lifecycle::{Lifecycle, Phase};
use axum::extract::Request;
use axum::http::header::{CONNECTION, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

/// When a client may try again while the process starts, in seconds.
const RETRY_AFTER_START: [(HeaderName, HeaderValue); 1] = [(RETRY_AFTER, HeaderValue::from_static("1"))];

/// Closes connections while the process stops.
#[derive(Debug, Clone)]
pub(super) struct CloseWhenDraining(pub(super) Lifecycle);

impl Interceptor for CloseWhenDraining {
    type Context = ();

    fn on_request(&self, _request: &mut Request) -> Result<(), Response> {
        Ok(())
    }

    fn on_response(&self, (): (), response: &mut Response) {
        if self.0.phase() == Phase::Draining {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// This endpoint describes the build and uses no tables.
const VERSION: &str = "/api/v1/version";

/// Refuses requests that need tables until the process has been ready once.
#[derive(Debug, Clone)]
pub(super) struct RequireReady(pub(super) Lifecycle);

impl Interceptor for RequireReady {
    type Context = ();

    fn on_request(&self, request: &mut Request) -> Result<(), Response> {
        let path = request.uri().path();
        if path.starts_with("/api/") && !is_health(path) && path != VERSION && !self.0.has_served() {
            return Err((RETRY_AFTER_START, ApiError::from(ErrorCode::SchemaNotReady)).into_response());
        }
        Ok(())
    }
}
