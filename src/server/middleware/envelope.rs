//! Every 4xx and 5xx in the one error shape.

use super::request_id::RequestId;
use crate::config::Environment;
use crate::error::{ApiError, ErrorBody, ErrorCode};
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Marks an answer of 4xx or 5xx whose body is its own and documented, such as readiness.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnBody;

pub(super) async fn envelope(State(environment): State<Environment>, request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    let mut response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || response.extensions().get::<OwnBody>().is_some() {
        return response;
    }
    let error = response.extensions_mut().remove::<ApiError>().unwrap_or_else(|| {
        *response.status_mut() = registered(status);
        ErrorCode::of_status(status).into()
    });
    let detail = error.detail.filter(|_| environment == Environment::Development);
    // Headers such as Allow and Retry-After belong to the answer; those about the old body do not.
    for about_the_body in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
        response.headers_mut().remove(about_the_body);
    }
    let (mut parts, _) = response.into_parts();
    // For the access log.
    parts.extensions.insert(error.code);
    let (body_parts, body): (_, Body) =
        Json(ErrorBody::new(error.code, detail, id.to_string())).into_response().into_parts();
    parts.headers.extend(body_parts.headers);
    Response::from_parts(parts, body)
}

/// The registry's status where a library's differs: a body that does not fit its type is a 400, a time-out is ours.
fn registered(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        StatusCode::REQUEST_TIMEOUT => StatusCode::SERVICE_UNAVAILABLE,
        status => status,
    }
}
