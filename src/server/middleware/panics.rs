//! A panic is a 500 for that request. The process's panic hook has logged it.

use crate::error::{ApiError, ErrorCode};
use axum::response::{IntoResponse, Response};
use std::any::Any;

// The signature is the layer's: it hands over the panic's payload.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn answer(_payload: Box<dyn Any + Send>) -> Response {
    ApiError::from(ErrorCode::Internal).into_response()
}
