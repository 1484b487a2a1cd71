//! A bare axum handler with an access log: what a liveness probe costs where nothing else is around it.

use axum::Router;
use axum::extract::{ConnectInfo, MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use std::net::SocketAddr;
use std::time::Instant;

async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|client| client.0.ip());
    let response = next.run(request).await;
    tracing::info!(
        %method,
        route = route.as_ref().map(MatchedPath::as_str),
        status = response.status().as_u16(),
        duration_ms = started.elapsed().as_secs_f64() * 1000.0,
        client_ip = client.map(tracing::field::display),
        "request"
    );
    response
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().json().flatten_event(true).init();
    let api = Router::new().route("/api/v1/health/live", get(contenders::live)).layer(from_fn(log));
    contenders::serve(api).await
}
