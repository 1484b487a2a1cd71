//! The Host header, which a request of HTTP/1.1 has exactly once (RFC 9112, section 3.2). One program that takes the first of
//! two and another that takes the last would not agree on what is asked for.

use super::interceptor::Interceptor;
use crate::error::{ApiError, ErrorCode};
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Version};
use axum::response::{IntoResponse, Response};

/// Refuses a request without a Host header, with two, or with one that names no host.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneHost;

impl Interceptor for OneHost {
    type Context = ();

    fn on_request(&self, request: &mut Request) -> Result<(), Response> {
        let mut values = request.headers().get_all(HOST).iter();
        let good = match values.next() {
            None => request.version() < Version::HTTP_11,
            Some(value) => values.next().is_none() && names_a_host(value),
        };
        if good {
            return Ok(());
        }
        let what = "there must be one Host header, of a host and a port";
        Err(ApiError::detailed(ErrorCode::InvalidInput, what).of_field("Host".to_owned()).into_response())
    }
}

/// `uri-host [":" port]`, or nothing, where the client's address has no host (RFC 9110, section 7.2).
fn names_a_host(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    text.is_empty() || (!text.contains('@') && text.parse::<Authority>().is_ok())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_host_has_a_name_and_perhaps_a_port() {
        for (text, good) in [
            ("", true),
            ("example.org", true),
            ("example.org:8080", true),
            ("127.0.0.1", true),
            ("[::1]:8080", true),
            ("me@example.org", false),
            ("a b/@", false),
            ("a/b", false),
            ("[::1", false),
        ] {
            assert_eq!(names_a_host(&HeaderValue::from_str(text).unwrap()), good, "{text}");
        }
    }
}
