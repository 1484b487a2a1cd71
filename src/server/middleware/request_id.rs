//! The request's id: a UUID v7 (RFC 9562), or what a trusted proxy calls the request already.

use super::around::Concern;
use super::client::ThroughProxy;
use crate::telemetry::redact;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Carries the id in every answer.
pub(in crate::server) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken from a proxy.
const LONGEST: usize = 128;

/// The id of the request at hand.
#[derive(Debug, Clone)]
pub(super) struct RequestId(Arc<str>);

impl RequestId {
    fn fresh() -> Self {
        Self(Arc::from(&*Uuid::now_v7().as_hyphenated().encode_lower(&mut Uuid::encode_buffer())))
    }

    /// The proxy's id, where there is one, once, that is harmless in a header, in a log and in JSON. One that the log
    /// would not show as it is could not be found there by what the client is told.
    fn given(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(X_REQUEST_ID).iter();
        let only = lines.next().filter(|_| lines.next().is_none())?;
        let text = only.to_str().ok().filter(|text| (1..=LONGEST).contains(&text.len()))?;
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (text.bytes().all(harmless) && redact(text) == text).then(|| Self(text.into()))
    }

    /// The id of `request`; empty where it has not passed this layer.
    pub(super) fn of(request: &Request) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or_else(|| Self("".into()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gives every request its id, and every answer its request's.
#[derive(Debug, Clone, Copy)]
pub(super) struct GiveId;

impl Concern for GiveId {
    type Kept = RequestId;

    fn before(&self, request: &mut Request) -> Result<RequestId, Response> {
        let given = request.extensions().get::<ThroughProxy>().and_then(|_| RequestId::given(request.headers()));
        let id = given.unwrap_or_else(RequestId::fresh);
        request.extensions_mut().insert(id.clone());
        Ok(id)
    }

    fn after(&self, id: RequestId, response: &mut Response) {
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
    }
}
