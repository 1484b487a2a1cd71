//! Errors as HTTP responses: their one shape, and the status that each has.
//!
//! A handler returns [`ApiError`]. The server's outermost layer writes the body, and gives every other 4xx and 5xx (the
//! router's own 404 and 405, a rejected body, a panic) the same shape by its status.

use crate::error::{ApiError, ErrorCode};
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The body of every 4xx and 5xx answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    error: ErrorFields,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorFields {
    /// The stable code.
    #[schema(example = "RES_001")]
    code: &'static str,
    /// What went wrong, for people.
    #[schema(example = "There is nothing at this address.")]
    message: &'static str,
    /// Which field of the body, or which parameter, is to be changed; a name of the documentation, never a value. Where a
    /// deleted one cannot come back, its field that another one has meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// More of it; only in development.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The request's id, as in the X-Request-ID header and the log.
    request_id: String,
}

impl ErrorBody {
    /// The body for one occurrence of `code`.
    #[must_use]
    pub(crate) fn new(code: ErrorCode, field: Option<String>, detail: Option<String>, request_id: String) -> Self {
        Self { error: ErrorFields { code: code.code(), message: code.message(), field, detail, request_id } }
    }
}

/// The body of a 4xx or 5xx answer as RFC 9457 has it, for a client that asks for it. `type` says nothing here, so that `title` is
/// the status' phrase (section 4.2.1): `code` tells errors apart.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// `about:blank`.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status in words.
    #[schema(example = "Not Found")]
    title: &'static str,
    /// The status.
    #[schema(example = 404, minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong, for people; in development more of it.
    #[schema(example = "There is nothing at this address.")]
    detail: String,
    /// The stable code.
    #[schema(example = "RES_001")]
    code: &'static str,
    /// As in the other shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The request's id, as in the X-Request-ID header and the log.
    request_id: String,
}

impl Problem {
    /// The media type (RFC 9457, section 6.1).
    pub(crate) const MEDIA_TYPE: &'static str = "application/problem+json";

    /// The body for one occurrence of `code` that is answered with `status`.
    #[must_use]
    pub(crate) fn new(
        status: StatusCode,
        code: ErrorCode,
        field: Option<String>,
        detail: Option<String>,
        request_id: String,
    ) -> Self {
        let detail = detail.map_or_else(|| code.message().to_owned(), |more| format!("{} {more}", code.message()));
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail,
            code: code.code(),
            field,
            request_id,
        }
    }

    /// Whether the client asks for it: its Accept names the media type, and not with the weight 0 (RFC 9110, 12.5.1). Next to
    /// `application/json` too: who knows that type reads this one as well.
    pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
        let ranges =
            headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        ranges.into_iter().any(|range| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case(Self::MEDIA_TYPE)) && !parts.any(is_weight_zero)
        })
    }
}

/// Whether it is `q=0`, with up to three zeros behind the point (RFC 9110, 12.4.2).
fn is_weight_zero(parameter: &str) -> bool {
    let weight = parameter.strip_prefix(['q', 'Q']).and_then(|rest| rest.strip_prefix('='));
    weight.is_some_and(|weight| weight.parse() == Ok(0.0))
}

/// The code for a response that something other than a handler made, by its status.
#[must_use]
pub(crate) fn code_of_status(status: StatusCode) -> ErrorCode {
    match status {
        StatusCode::UNAUTHORIZED => ErrorCode::NoToken,
        StatusCode::FORBIDDEN => ErrorCode::RoleNotSufficient,
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorCode::MethodNotAllowed,
        StatusCode::CONFLICT => ErrorCode::Conflict,
        StatusCode::PRECONDITION_FAILED => ErrorCode::Stale,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::URI_TOO_LONG | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            ErrorCode::TooLarge
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorCode::UnsupportedMedia,
        StatusCode::TOO_MANY_REQUESTS => ErrorCode::RateLimited,
        StatusCode::REQUEST_TIMEOUT => ErrorCode::BodyTooSlow,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => ErrorCode::Overloaded,
        status if status.is_client_error() => ErrorCode::InvalidInput,
        _ => ErrorCode::Internal,
    }
}

/// Marks a 4xx or 5xx answer whose own body is documented, such as that of readiness: it keeps that body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepErrorBody;

/// What a 401 asks for (RFC 6750, section 3): a token, or one that is better than the one that came.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");
const CHALLENGE_AFTER_TOKEN: HeaderValue = HeaderValue::from_static(r#"Bearer error="invalid_token""#);

impl IntoResponse for ApiError {
    /// Status and headers only; the error travels as an extension to the layer that knows the request's id.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status.unwrap_or(self.code.status()));
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = if self.code == ErrorCode::NoToken { CHALLENGE } else { CHALLENGE_AFTER_TOKEN };
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        match self.code {
            // What the next request may be (RFC 9110, sections 12.5.1, 12.5.3 and 15.5.16).
            ErrorCode::UnsupportedMedia => {
                response.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
                response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            ErrorCode::KeyAtWork => {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}
