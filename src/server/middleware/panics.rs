//! Turns a panic into a 500. The panic hook of the process has logged it.

use crate::error::{ApiError, ErrorCode};
use axum::response::{IntoResponse, Response};
use std::any::Any;

// The layer requires this signature; the payload is the panic's.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn respond(_payload: Box<dyn Any + Send>) -> Response {
    ApiError::from(ErrorCode::Internal).into_response()
}
