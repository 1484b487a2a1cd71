//! OPTIONS, for who asks which methods an address takes and is no browser before a request to another site.

use super::interceptor::Interceptor;
use axum::extract::Request;
use axum::http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH};
use axum::http::{Method, StatusCode};
use axum::response::Response;

/// Answers OPTIONS with 204 and Allow, or 404 (RFC 9110, section 9.3.7). The layer of CORS would take each for a preflight, and
/// answer 200 at any address; a preflight always names a method (Fetch standard, "CORS-preflight fetch").
///
/// No route takes OPTIONS, so the router has the 405 of the address, and adds Allow to whatever becomes of it. Under the name of
/// another method, that no route takes either, the request passes the layer of CORS.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlainOptions;

impl Interceptor for PlainOptions {
    type Context = bool;

    fn on_request(&self, request: &mut Request) -> Result<bool, Response> {
        let asks =
            *request.method() == Method::OPTIONS && !request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if asks {
            *request.method_mut() = Method::TRACE;
        }
        Ok(asks)
    }

    fn on_response(&self, asks: bool, response: &mut Response) {
        if asks && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().remove(CONTENT_LENGTH);
        }
    }
}
