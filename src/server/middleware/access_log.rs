//! One log line per answered request.

use super::is_health;
use super::request_id::RequestId;
use crate::error::ErrorCode;
use crate::telemetry::{Caller, ClientIp};
use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use std::time::Instant;
use tracing::Instrument;

pub(super) async fn access_log(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = name(request.method());
    let id = RequestId::of(&request);
    // The template, never the raw path: ids and whatever else a client puts there stay out of the log.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = request.extensions().get::<ClientIp>().map(|client| client.0);
    let probe = is_health(request.uri().path());
    let caller = Caller::default();
    request.extensions_mut().insert(caller.clone());
    // Whatever else is logged on the way, a driver's warning or a panic, says which request it was.
    let span = tracing::error_span!("request", request_id = %id);
    let response = next.run(request).instrument(span).await;
    let caller = caller.get();
    let status = response.status();
    let error_code = response.extensions().get::<ErrorCode>().map(|code| code.code());

    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = %id,
                user_id = caller.and_then(|ids| ids.user_id).map(tracing::field::display),
                tenant_id = caller.map(|ids| tracing::field::display(ids.tenant_id)),
                method,
                route = route.as_ref().map_or("unmatched", MatchedPath::as_str),
                status = status.as_u16(),
                error_code,
                duration_ms = started.elapsed().as_secs_f64() * 1000.0,
                client_ip = client.map(tracing::field::display),
                "request"
            )
        };
    }
    // A probe every few seconds that finds all well is not news.
    if probe && status.is_success() {
        line!(debug);
    } else {
        line!(info);
    }
    response
}

/// A method of the standard by its name; any other is the client's own text.
fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "OTHER",
    }
}
