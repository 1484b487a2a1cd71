//! Every 4xx and 5xx in the one error shape.

use super::around::Concern;
use super::request_id::RequestId;
use crate::config::Environment;
use crate::error::ApiError;
use crate::error_response::{ErrorBody, KeepErrorBody, code_of_status};
use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// When to try again what may go well then, in seconds.
const SHORTLY: HeaderValue = HeaderValue::from_static("1");

/// Gives errors their shape; in development, their details too.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope(pub(super) Environment);

impl Concern for Envelope {
    type Kept = RequestId;

    fn before(&self, request: &mut Request) -> Result<RequestId, Response> {
        Ok(RequestId::of(request))
    }

    fn after(&self, id: RequestId, response: &mut Response) {
        let status = response.status();
        let refused = status.is_client_error() || status.is_server_error();
        if !refused || response.extensions().get::<KeepErrorBody>().is_some() {
            return;
        }
        let error = response.extensions_mut().remove::<ApiError>().unwrap_or_else(|| {
            *response.status_mut() = registered(status);
            code_of_status(status).into()
        });
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().entry(RETRY_AFTER).or_insert(SHORTLY);
        }
        let detail = error.detail.filter(|_| self.0 == Environment::Development);
        // Headers such as Allow and Retry-After belong to the answer; those about the old body do not.
        for about_the_body in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
            response.headers_mut().remove(about_the_body);
        }
        let body = Json(ErrorBody::new(error.code, error.field, detail, id.to_string())).into_response();
        let (parts, body) = body.into_parts();
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
        // For the access log.
        response.extensions_mut().insert(error.code);
    }
}

/// The registry's status where a library's differs: a body that does not fit its type is a 400, a time-out is ours.
fn registered(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        StatusCode::REQUEST_TIMEOUT => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    }
}
