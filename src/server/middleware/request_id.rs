//! The request's id: a UUID v7 (RFC 9562), or the id that a trusted proxy has given the request.

use super::client::{ViaTrustedProxy, only_line};
use super::interceptor::Interceptor;
use crate::telemetry::redact;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The header with the id, on every response.
pub(in crate::server) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is accepted from a proxy, in characters.
const LENGTH_MAX: usize = 128;

/// The id of a request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    fn generate() -> Self {
        Self(Arc::from(&*Uuid::now_v7().as_hyphenated().encode_lower(&mut Uuid::encode_buffer())))
    }

    /// The id from a trusted proxy: exactly one, of characters that are harmless in a header, in a log and in JSON. An id
    /// that the log would redact is not accepted: nobody could find it there.
    fn from_trusted_proxy(headers: &HeaderMap) -> Option<Self> {
        let text = only_line(headers, &X_REQUEST_ID).filter(|text| (1..=LENGTH_MAX).contains(&text.len()))?;
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (text.bytes().all(harmless) && redact(text) == text).then(|| Self(text.into()))
    }

    /// The id of `request`; empty if it has not passed this layer.
    pub(super) fn of(request: &Request) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(|| Self("".into()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Sets the id of every request, and the header of its response.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetRequestId;

impl Interceptor for SetRequestId {
    type Context = RequestId;

    fn on_request(&self, request: &mut Request) -> Result<RequestId, Response> {
        let forwarded = request
            .extensions()
            .get::<ViaTrustedProxy>()
            .and_then(|_| RequestId::from_trusted_proxy(request.headers()));
        let id = forwarded.unwrap_or_else(RequestId::generate);
        request.extensions_mut().insert(id.clone());
        Ok(id)
    }

    fn on_response(&self, id: RequestId, response: &mut Response) {
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
    }
}
