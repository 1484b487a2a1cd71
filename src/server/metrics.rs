//! Serves metrics, on a port of their own and in Prometheus' text format.

use crate::app::AppState;
use crate::config::Settings;
use crate::endpoints::passing_checks;
use crate::error::{ApiError, ErrorCode};
use crate::telemetry;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The most connections to the port: collectors are few.
const CONNECTIONS: u32 = 64;

type Value = Gauge<f64, AtomicU64>;

/// Metrics at `/metrics`, where collectors look by default.
pub(super) fn router(state: AppState) -> Router {
    state.database.metrics().expect_errors(ErrorCode::ALL.iter().map(|code| code.code()));
    Router::new().route("/metrics", get(page)).with_state(state)
}

/// The settings of the port's listener.
pub(super) fn settings(settings: &Settings) -> Arc<Settings> {
    Arc::new(Settings { max_connections: CONNECTIONS, ..settings.clone() })
}

async fn page(State(state): State<AppState>) -> Response {
    let Some(registry) = registry(&state).await else { return ApiError::from(ErrorCode::NotFound).into_response() };
    let mut text = String::new();
    match prometheus_text::encode(&mut text, &registry) {
        Ok(()) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => ApiError::internal(&error).into_response(),
    }
}

/// What the process has counted, and what it is like now.
async fn registry(state: &AppState) -> Option<Registry> {
    let checks = passing_checks(state).await;
    let mut registry = state.database.metrics().registry()?;
    let seconds = || Some(Unit::Seconds);

    let revision = state.settings.source_revision.clone().unwrap_or_default();
    let build = [("version", env!("CARGO_PKG_VERSION").to_owned()), ("revision", revision)];
    registry.register("bulkhead_build", "The version that runs", Info::new(build));

    let phase = state.lifecycle.phase();
    let times = state.lifecycle.times();
    let phases = times.map(|(each, _)| (each.name(), f64::from(u8::from(each == phase))));
    gauges(
        &mut registry,
        "bulkhead_phase",
        "Where the process stands: 1 for the phase it is in",
        None,
        "phase",
        phases,
    );
    let times = times.map(|(each, time)| (each.name(), time.as_secs_f64()));
    gauges(&mut registry, "bulkhead_phase_duration", "How long it was in each phase", seconds(), "phase", times);

    let told =
        checks.into_iter().filter_map(|(check, passes)| passes.map(|passes| (check, f64::from(u8::from(passes)))));
    let help = "The checks of readiness: 1 for one that passes; none for isolation where it cannot be told";
    gauges(&mut registry, "bulkhead_check_passes", help, None, "check", told);

    let (size, idle) = state.database.connections();
    let connections = [("idle", count(idle)), ("used", count(size.saturating_sub(idle)))];
    let (name, help) = ("db_client_connection_count", "Connections of the pool");
    gauges(&mut registry, name, help, None, "db_client_connection_state", connections);
    let max = count(state.database.max_connections());
    gauge(&mut registry, "db_client_connection_max", "The most connections of the pool", None, max);

    let (queued, places) = state.tenancy.queued();
    let help = "Entries and changes that wait for the audit log, or are being written";
    gauge(&mut registry, "bulkhead_audit_queue_length", help, None, count(queued));
    gauge(
        &mut registry,
        "bulkhead_audit_queue_max",
        "How many there may be; others wait for them",
        None,
        count(places),
    );

    if let Some(age) = state.auth.key_age() {
        let help = "How long ago the identity provider's keys were fetched";
        gauge(&mut registry, "bulkhead_oidc_keys_age", help, seconds(), age.as_secs_f64());
    }
    let cache = state.auth.cache_counts();
    let help = "Tokens that were looked up in the cache of verified ones";
    counters(
        &mut registry,
        "bulkhead_token_cache_lookups",
        help,
        "outcome",
        [("hit", cache.hits), ("miss", cache.misses)],
    );
    gauge(&mut registry, "bulkhead_token_cache_entries", "Tokens in that cache", None, count(cache.entries));

    // opentelemetry.io/docs/specs/semconv/otel/sdk-metrics: without an error, the label is empty.
    let (exported, dropped) = state.database.metrics().span_counts();
    let help = "Spans that were handed to the exporter of traces, or dropped since the queue was full (queue_full)";
    counters(
        &mut registry,
        "otel_sdk_processor_span_processed",
        help,
        "error_type",
        [("", exported), ("queue_full", dropped)],
    );

    let redactions = Counter::<u64>::default();
    redactions.inc_by(telemetry::redacted_lines());
    registry.register("bulkhead_log_redacted_lines", "Lines of the log of which something was left out", redactions);
    Some(registry)
}

/// As a metric's value, which is exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "counts of connections and entries are small")]
fn count(number: usize) -> f64 {
    number as f64
}

fn gauge(registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>, value: f64) {
    let gauge = Value::default();
    gauge.set(value);
    register(registry, name, help, unit, gauge);
}

fn gauges(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    label: &'static str,
    values: impl IntoIterator<Item = (&'static str, f64)>,
) {
    let family = Family::<[(&str, &str); 1], Value>::default();
    for (text, value) in values {
        family.get_or_create(&[(label, text)]).set(value);
    }
    register(registry, name, help, unit, family);
}

fn counters<const N: usize>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    label: &'static str,
    values: [(&'static str, u64); N],
) {
    let family = Family::<[(&str, &str); 1], Counter>::default();
    for (text, value) in values {
        family.get_or_create(&[(label, text)]).inc_by(value);
    }
    register(registry, name, help, None, family);
}

fn register(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    metric: impl prometheus_client::registry::Metric,
) {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric),
        None => registry.register(name, help, metric),
    }
}
