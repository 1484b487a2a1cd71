//! One log line per answered request, and one span where requests are traced.

use super::client::{ViaTrustedProxy, only_line};
use super::is_health;
use super::request_id::RequestId;
use crate::clock;
use crate::error::ErrorCode;
use crate::metrics::Metrics;
use crate::telemetry::{ClientIp, RequestIdentity};
use crate::traces::{TRACEPARENT, Trace};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::time::Instant;
use tracing::Instrument;

pub(super) async fn access_log(State(metrics): State<Metrics>, mut request: Request, next: Next) -> Response {
    let active = metrics.request();
    let started = Instant::now();
    let method = method_name(request.method());
    let id = RequestId::of(&request);
    // The template, not the raw path, which may contain ids or personal data.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = request.extensions().get::<ClientIp>().map(|client| client.0);
    let probe = is_health(request.uri().path());
    let trace = if probe { Trace::default() } else { begin_trace(&metrics, method, route.as_ref(), &id, &request) };
    let identity = RequestIdentity::default();
    request.extensions_mut().insert(identity.clone());
    // All other lines that are logged meanwhile, such as a driver's warning or a panic, have the request's id too.
    let span = tracing::error_span!("request", request_id = %id);
    let response = trace.run(next.run(request).instrument(span)).await;
    let status = response.status();
    let error_code = response.extensions().get::<ErrorCode>().map(|code| code.code());

    let took = started.elapsed();
    trace.answered(status.as_u16(), error_code);

    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = %id,
                user_id = identity.user_id().map(tracing::field::display),
                tenant_id = identity.tenant_id().map(tracing::field::display),
                method,
                route = route.as_ref().map_or("unmatched", MatchedPath::as_str),
                status = status.as_u16(),
                error_code,
                duration_ms = clock::milliseconds(took),
                client_ip = client.map(tracing::field::display),
                "request"
            )
        };
    }
    // Successful probes come every few seconds; they would fill the log.
    if probe && status.is_success() {
        line!(debug);
    } else {
        line!(info);
    }
    if let Some(active) = active {
        active.answered(method, route, status.as_u16(), error_code, took);
    }
    response
}

/// The request's span. A trusted proxy's own is its parent; nobody else may join a trace.
fn begin_trace(
    metrics: &Metrics,
    method: &'static str,
    route: Option<&MatchedPath>,
    id: &RequestId,
    request: &Request,
) -> Trace {
    let parent = || {
        request.extensions().get::<ViaTrustedProxy>()?;
        only_line(request.headers(), &HeaderName::from_static(TRACEPARENT))
    };
    metrics.trace_request(method, route, || id.to_string(), parent)
}

/// The name of a standard method. Any other method is text of the client, which is not logged.
fn method_name(method: &Method) -> &'static str {
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
