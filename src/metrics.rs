//! What the process counts, measures and traces for its operators.
//!
//! Labels are names of this program and of HTTP: a route's template, a method, a status, a code. No label's type can hold a
//! tenant, a user, a path, or anything else that a client sends.
//!
//! Names are those of OpenTelemetry's semantic conventions where these have one
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>, and `db/database-metrics`), written as Prometheus writes
//! them: `http.server.request.duration` is `http_server_request_duration_seconds`.

mod histogram;
mod requests;

use crate::traces::{DatabaseSpan, Trace, Traces};
use axum::extract::MatchedPath;
use histogram::Histogram;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use requests::Requests;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// In milliseconds, as OpenTelemetry's conventions advise for the database's operations.
const OPERATION_BUCKETS: [u32; 9] = [1, 5, 10, 50, 100, 500, 1000, 5000, 10_000];

/// Counts, measures and traces, or does nothing where nobody asked for it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Never freed: a process has one. A count of references would be written to by each clone, of which a request makes a dozen.
    meters: Option<&'static Meters>,
    traces: Option<Traces>,
}

#[derive(Debug)]
struct Meters {
    requests: Requests,
    active_requests: Gauge,
    errors: Family<CodeLabel, Counter>,
    refusals: Family<LimitLabel, Counter>,
    operations: Family<OperationLabel, Histogram, fn() -> Histogram>,
    /// Those of the family, by [`Operation`]: a request has several, and a look-up by label costs more than what it counts.
    each_operation: [Histogram; Operation::ALL.len()],
    connection_waits: Histogram,
    connection_waiters: Gauge,
    appends: Histogram,
    refused_checkpoints: Counter,
    waiting_checkpoints: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    db_operation_name: &'static str,
}

/// A limit that refuses requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// `RATE_LIMIT_PER_MINUTE`
    Rate,
    /// `MAX_CONCURRENT_REQUESTS_PER_CLIENT`
    Client,
    /// `MAX_CONCURRENT_REQUESTS`
    Requests,
}

impl Limit {
    const ALL: [Self; 3] = [Self::Rate, Self::Client, Self::Requests];

    const fn label(self) -> LimitLabel {
        let limit = match self {
            Self::Rate => "rate",
            Self::Client => "client",
            Self::Requests => "requests",
        };
        LimitLabel { limit }
    }
}

/// What the database is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Begin,
    Commit,
    Select,
    Insert,
    Update,
    Delete,
    Other,
}

impl Operation {
    const ALL: [Self; 7] =
        [Self::Begin, Self::Commit, Self::Select, Self::Insert, Self::Update, Self::Delete, Self::Other];

    const fn name(self) -> &'static str {
        match self {
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Other => "OTHER",
        }
    }

    const fn label(self) -> OperationLabel {
        OperationLabel { db_operation_name: self.name() }
    }

    /// By the statement's first word.
    pub(crate) fn of(sql: &str) -> Self {
        match sql.split(' ').next() {
            Some("SELECT") => Self::Select,
            Some("INSERT") => Self::Insert,
            Some("UPDATE") => Self::Update,
            Some("DELETE") => Self::Delete,
            _ => Self::Other,
        }
    }
}

impl Metrics {
    /// One that counts.
    #[must_use]
    pub fn on() -> Self {
        let seconds = || Histogram::new(&OPERATION_BUCKETS);
        let operations = Family::new_with_constructor(seconds as fn() -> Histogram);
        let each_operation = Operation::ALL.map(|operation| operations.get_or_create_owned(&operation.label()));
        let refusals = Family::default();
        // A rule can only tell a rise from what was there before.
        for limit in Limit::ALL {
            drop(refusals.get_or_create(&limit.label()));
        }
        let meters = Meters {
            requests: Requests::new(),
            active_requests: Gauge::default(),
            errors: Family::default(),
            refusals,
            operations,
            each_operation,
            connection_waits: seconds(),
            connection_waiters: Gauge::default(),
            appends: seconds(),
            refused_checkpoints: Counter::default(),
            waiting_checkpoints: Gauge::default(),
        };
        Self { meters: Some(Box::leak(Box::new(meters))), traces: None }
    }

    /// The same, with spans.
    pub(crate) fn with_traces(self, traces: Option<Traces>) -> Self {
        Self { traces, ..self }
    }

    /// Begins the span of a request; `id` and `parent` are asked for where there is one.
    pub(crate) fn trace_request<'p>(
        &self,
        method: &'static str,
        route: Option<&MatchedPath>,
        id: impl FnOnce() -> String,
        parent: impl FnOnce() -> Option<&'p str>,
    ) -> Trace {
        let Some(traces) = &self.traces else { return Trace::default() };
        traces.request(method, route.map(MatchedPath::as_str), id(), parent())
    }

    /// Begins the span of work that belongs to no request.
    pub(crate) fn trace_work(&self, name: &'static str) -> Trace {
        self.traces.as_ref().map(|traces| traces.work(name)).unwrap_or_default()
    }

    /// How many spans were handed to the exporter, and how many were dropped before.
    pub(crate) fn span_counts(&self) -> (u64, u64) {
        self.traces.as_ref().map(Traces::counts).unwrap_or_default()
    }

    /// The request, or other work, that the caller is a part of.
    pub(crate) fn current_trace(&self) -> Trace {
        self.traces.as_ref().map(|_| Trace::current()).unwrap_or_default()
    }

    /// Names errors that may come: a rule cannot tell the first of a kind from one that was counted long ago, unless it was 0 before.
    pub(crate) fn expect_errors(&self, codes: impl Iterator<Item = &'static str>) {
        if let Some(meters) = &self.meters {
            for code in codes {
                drop(meters.errors.get_or_create(&CodeLabel { code }));
            }
        }
    }

    /// Begins to measure a request; it counts as one in progress until its value is gone.
    pub(crate) fn request(&self) -> Option<ActiveRequest<'_>> {
        let meters = self.meters?;
        Some(ActiveRequest { meters, _raised: Raised::new(&meters.active_requests) })
    }

    /// A request that a limit has refused.
    pub(crate) fn refused(&self, limit: Limit) {
        if let Some(meters) = &self.meters {
            meters.refusals.get_or_create(&limit.label()).inc();
        }
    }

    /// Begins to measure and to trace an operation of the database, and a statement where `sql` is one. What is not waited for to
    /// its end does not count.
    pub(crate) fn operation(&self, operation: Operation, sql: &str) -> OperationTimer<'_> {
        let span = self.traces.as_ref().and_then(|traces| traces.statement(operation.name(), sql));
        OperationTimer { timer: self.timer(|meters| &meters.each_operation[operation as usize]), span }
    }

    /// A connection of the pool: measures how long it is waited for, and traces the wait where it is not there at once.
    pub(crate) async fn connection<T, E>(
        &self,
        mut acquire: Pin<&mut impl Future<Output = Result<T, E>>>,
    ) -> Result<T, E> {
        let _waits = self.meters.map(|meters| Raised::new(&meters.connection_waiters));
        let timer = self.timer(|meters| &meters.connection_waits);
        let mut span = None;
        let outcome = poll_fn(|context| {
            let polled = acquire.as_mut().poll(context);
            if let (Poll::Pending, None, Some(traces)) = (&polled, &span, &self.traces) {
                span = traces.connection_wait();
            }
            polled
        })
        .await;
        timer.end();
        if let Some(span) = span {
            span.end(outcome.is_err());
        }
        outcome
    }

    /// Begins to measure an entry of the audit log, from its place in the queue to the commit.
    pub(crate) fn append(&self) -> Timer<'_> {
        self.timer(|meters| &meters.appends)
    }

    /// A checkpoint that was refused, since it would contradict an earlier one.
    pub(crate) fn checkpoint_refused(&self) {
        if let Some(meters) = &self.meters {
            meters.refused_checkpoints.inc();
        }
    }

    /// Of how many logs the webhook lacks the newest checkpoint.
    pub(crate) fn checkpoints_waiting(&self, logs: usize) {
        if let Some(meters) = &self.meters {
            meters.waiting_checkpoints.set(i64::try_from(logs).unwrap_or(i64::MAX));
        }
    }

    fn timer(&self, histogram: impl FnOnce(&Meters) -> &Histogram) -> Timer<'_> {
        Timer(self.meters.map(|meters| (histogram(meters), Instant::now())))
    }

    /// A registry with all of it, where it counts.
    pub(crate) fn registry(&self) -> Option<Registry> {
        let meters = self.meters?;
        let mut registry = Registry::default();
        let seconds = Unit::Seconds;
        registry.register_with_unit(
            "http_server_request_duration",
            "How long requests took, by method, route and status",
            seconds.clone(),
            meters.requests.metric(),
        );
        registry.register("http_server_active_requests", "Requests in progress", meters.active_requests.clone());
        registry.register("bulkhead_http_errors", "Answers with an error, by its code", meters.errors.clone());
        registry.register("bulkhead_http_refusals", "Requests that a limit refused", meters.refusals.clone());
        registry.register_with_unit(
            "db_client_operation_duration",
            "How long the database took for a statement, or for a transaction's begin or commit",
            seconds.clone(),
            meters.operations.clone(),
        );
        registry.register_with_unit(
            "db_client_connection_wait_time",
            "How long requests waited for a connection of the pool (PostgreSQL)",
            seconds.clone(),
            meters.connection_waits.clone(),
        );
        registry.register(
            "db_client_connection_pending_requests",
            "Requests that wait for a connection of the pool (PostgreSQL)",
            meters.connection_waiters.clone(),
        );
        registry.register_with_unit(
            "bulkhead_audit_append_duration",
            "How long entries of the audit log took, from their place in the queue to the commit",
            seconds,
            meters.appends.clone(),
        );
        registry.register(
            "bulkhead_audit_checkpoints_refused",
            "Checkpoints that would contradict an earlier one: entries are missing or changed",
            meters.refused_checkpoints.clone(),
        );
        registry.register(
            "bulkhead_audit_checkpoints_waiting",
            "Audit logs whose newest checkpoint AUDIT_CHECKPOINT_WEBHOOK did not take; it is sent again",
            meters.waiting_checkpoints.clone(),
        );
        Some(registry)
    }
}

/// Measures from its making to its end.
#[derive(Debug)]
#[must_use]
pub(crate) struct Timer<'m>(Option<(&'m Histogram, Instant)>);

impl Timer<'_> {
    /// What was measured has ended.
    pub(crate) fn end(self) {
        if let Some((histogram, began)) = self.0 {
            histogram.observe(began.elapsed());
        }
    }
}

/// Measures and traces an operation of the database from its making to its end.
#[derive(Debug)]
#[must_use]
pub(crate) struct OperationTimer<'m> {
    timer: Timer<'m>,
    span: Option<DatabaseSpan>,
}

impl OperationTimer<'_> {
    /// What was measured has ended in this way.
    pub(crate) fn end<T, E>(self, outcome: &Result<T, E>) {
        self.timer.end();
        if let Some(span) = self.span {
            span.end(outcome.is_err());
        }
    }
}

/// A request in progress.
#[derive(Debug)]
pub(crate) struct ActiveRequest<'m> {
    meters: &'m Meters,
    _raised: Raised<'m>,
}

impl ActiveRequest<'_> {
    /// Counts the answer. `method` is one of HTTP's own, or a word of this program for all others.
    pub(crate) fn answered(
        self,
        method: &'static str,
        route: Option<MatchedPath>,
        status: u16,
        code: Option<&'static str>,
        took: Duration,
    ) {
        self.meters.requests.observe(method, route, status, took);
        if let Some(code) = code {
            self.meters.errors.get_or_create(&CodeLabel { code }).inc();
        }
    }
}

/// Raises a gauge by one while it lives.
#[derive(Debug)]
pub(crate) struct Raised<'m>(&'m Gauge);

impl<'m> Raised<'m> {
    fn new(gauge: &'m Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `each_operation` and `label` go by it.
    #[test]
    fn operations_are_in_order() {
        for (index, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, index);
        }
        assert_eq!(Operation::of("SELECT 1"), Operation::Select);
        assert_eq!(Operation::of("WITH x AS (SELECT 1) SELECT 1"), Operation::Other);
    }
}
