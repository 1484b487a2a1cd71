//! Gives every 4xx and 5xx response the error body of this API, in the shape that the client asks for.

use super::interceptor::Interceptor;
use super::request_id::RequestId;
use crate::config::Environment;
use crate::error::ApiError;
use crate::error_response::{ErrorBody, KeepErrorBody, Problem, code_of_status};
use axum::Json;
use axum::extract::Request;
use axum::http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// When a client may try again, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Writes the error body; only in development with its detail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope(pub(super) Environment);

/// Which of the two shapes an error has.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Own,
    Problem,
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static(Problem::MEDIA_TYPE);

impl Interceptor for Envelope {
    type Context = (RequestId, Shape);

    fn on_request(&self, request: &mut Request) -> Result<Self::Context, Response> {
        let shape = if Problem::is_wanted(request.headers()) { Shape::Problem } else { Shape::Own };
        Ok((RequestId::of(request), shape))
    }

    fn on_response(&self, (id, shape): Self::Context, response: &mut Response) {
        let status = response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        if !is_error || response.extensions().get::<KeepErrorBody>().is_some() {
            return;
        }
        let error = response.extensions_mut().remove::<ApiError>().unwrap_or_else(|| {
            *response.status_mut() = normalize_status(status);
            code_of_status(status).into()
        });
        if matches!(response.status(), StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE) {
            // The rest of the body is not read, so no other request can come on this connection (RFC 9112, section 9.3).
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().entry(RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS);
        }
        let detail = error.detail.filter(|_| self.0 == Environment::Development);
        // Headers such as Allow and Retry-After stay; those of the old body do not.
        for about_the_body in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
            response.headers_mut().remove(about_the_body);
        }
        let (code, id) = (error.code, id.to_string());
        let body = match shape {
            Shape::Own => Json(ErrorBody::new(code, error.field, detail, id)).into_response(),
            Shape::Problem => {
                let body = Json(Problem::new(response.status(), code, error.field, detail, id));
                ([(CONTENT_TYPE, PROBLEM_JSON)], body).into_response()
            }
        };
        let (parts, body) = body.into_parts();
        response.headers_mut().extend(parts.headers);
        *response.body_mut() = body;
        // For the access log.
        response.extensions_mut().insert(code);
    }
}

/// Replaces a library's status by that of the error registry: a body of the wrong type is a 400, a timeout of the server
/// is a 503.
fn normalize_status(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        StatusCode::REQUEST_TIMEOUT => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    }
}
