//! The spans of requests, of what they ask the database, and of their waits for it.
//!
//! No span holds anything of a client: names and attributes are words of this program and of HTTP, numbers, and ids that are made
//! up. Names are those of OpenTelemetry's semantic conventions (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>, and
//! `db/database-spans`) where these have one.

use futures_util::future::Either;
use opentelemetry::context::FutureExt;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The header by which a caller names its own span (W3C Trace Context).
pub(crate) const TRACEPARENT: &str = "traceparent";

/// Makes spans. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Traces(Arc<Maker>);

#[derive(Debug)]
struct Maker {
    tracer: SdkTracer,
    /// The database, as the conventions name it.
    system: &'static str,
    counts: Arc<SpanCounts>,
}

/// What has become of the spans that have ended.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl SpanCounts {
    /// So many more were handed to the exporter, whatever becomes of them there.
    pub(crate) fn exported(&self, spans: usize) {
        self.exported.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// One more was dropped, since the queue was full.
    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

impl Traces {
    /// Makes spans with this tracer, of a process whose database the conventions name `system`. Whoever takes the spans
    /// counts them in `counts`.
    #[must_use]
    pub fn new(tracer: SdkTracer, system: &'static str, counts: Arc<SpanCounts>) -> Self {
        Self(Arc::new(Maker { tracer, system, counts }))
    }

    /// How many spans were handed to the exporter, and how many were dropped before.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let SpanCounts { exported, dropped } = &*self.0.counts;
        (exported.load(Ordering::Relaxed), dropped.load(Ordering::Relaxed))
    }

    /// Begins a request's span. Its parent is the one that a [`TRACEPARENT`] names, if that is one.
    pub(crate) fn request(&self, method: &'static str, route: Option<&str>, id: String, parent: Option<&str>) -> Trace {
        let name = route.map_or_else(|| method.into(), |route| format!("{method} {route}").into());
        let mut attributes =
            vec![KeyValue::new("http.request.method", method), KeyValue::new("bulkhead.request_id", id)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        let outside = Context::new();
        let outside = match parent {
            Some(parent) => TraceContextPropagator::new().extract_with_context(&outside, &Traceparent(parent)),
            None => outside,
        };
        let builder = SpanBuilder { name, ..SpanBuilder::default() };
        self.begin(builder.with_kind(SpanKind::Server).with_attributes(attributes), &outside)
    }

    /// Begins the span of work that belongs to no request.
    pub(crate) fn work(&self, name: &'static str) -> Trace {
        self.begin(SpanBuilder::from_name(name).with_kind(SpanKind::Internal), &Context::new())
    }

    fn begin(&self, builder: SpanBuilder, outside: &Context) -> Trace {
        let span = builder.start_with_context(&self.0.tracer, outside);
        Trace(Some(Context::new().with_span(span)))
    }

    /// Begins the span of a statement, if the request that asks for it is traced.
    pub(crate) fn statement(&self, operation: &'static str, sql: &str) -> Option<DatabaseSpan> {
        Context::map_current(|context| {
            if !context.span().span_context().is_sampled() {
                return None;
            }
            let mut attributes =
                vec![KeyValue::new("db.system.name", self.0.system), KeyValue::new("db.operation.name", operation)];
            let table = table(sql);
            attributes.extend(table.map(|table| KeyValue::new("db.collection.name", table.to_owned())));
            let name = table.map_or_else(|| operation.into(), |table| format!("{operation} {table}").into());
            let builder = SpanBuilder { name, ..SpanBuilder::default() };
            let builder = builder.with_kind(SpanKind::Client).with_attributes(attributes);
            Some(DatabaseSpan(Box::new(builder.start_with_context(&self.0.tracer, context))))
        })
    }

    /// Begins the span of a wait for a connection of the pool, if the request that waits is traced. The conventions have a metric
    /// of it, and no span.
    pub(crate) fn connection_wait(&self) -> Option<DatabaseSpan> {
        Context::map_current(|context| {
            if !context.span().span_context().is_sampled() {
                return None;
            }
            let builder = SpanBuilder::from_name("connection wait").with_kind(SpanKind::Internal);
            let builder = builder.with_attributes([KeyValue::new("db.system.name", self.0.system)]);
            Some(DatabaseSpan(Box::new(builder.start_with_context(&self.0.tracer, context))))
        })
    }
}

/// The table that a statement is about, as sea-query writes it: the first name that is quoted behind its keyword. Other statements have none.
fn table(sql: &str) -> Option<&str> {
    let behind = |keyword: &str| sql.split_once(keyword).map(|(_, rest)| rest);
    let rest = match sql.strip_prefix("UPDATE \"") {
        Some(rest) => rest,
        None if sql.starts_with("INSERT ") => behind(" INTO \"")?,
        None => behind(" FROM \"")?,
    };
    let (name, _) = rest.split_once('"')?;
    // No value is ever written so. If one were, it would not look like this.
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_').then_some(name)
}

/// That header alone: what else a client may send of a trace is its own text.
struct Traceparent<'h>(&'h str);

impl Extractor for Traceparent<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        (name == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// A request, or other work, with its span; or one that is not traced. The span ends with the last of its clones, at the latest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trace(Option<Context>);

impl Trace {
    /// What the caller runs within.
    pub(crate) fn current() -> Self {
        Self(Context::map_current(|context| context.has_active_span().then(|| context.clone())))
    }

    /// Does its work: what that asks the database belongs to its span.
    pub(crate) fn run<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(work.with_context(context.clone())),
            None => Either::Right(work),
        }
    }

    /// Ends the span of a request. `error_code` is one of the API's own.
    pub(crate) fn answered(&self, status: u16, error_code: Option<&'static str>) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if let Some(code) = error_code {
            span.set_attribute(KeyValue::new("error.type", code));
        }
        // An error of the client is none of the server (conventions, "Status").
        if status >= 500 {
            span.set_status(Status::error(""));
        }
        span.end();
    }

    /// Links it to the others.
    pub(crate) fn link<'t>(&self, others: impl Iterator<Item = &'t Self>) {
        let Some(context) = &self.0 else { return };
        for other in others.filter_map(|other| other.0.as_ref()) {
            let other = other.span().span_context().clone();
            if other.is_sampled() {
                context.span().add_link(other, Vec::new());
            }
        }
    }
}

/// The span of a statement, or of a wait for a connection. It ends when it is dropped, at the latest. In a box, since most processes
/// make none, and each future that waits for a statement would be so much larger.
#[derive(Debug)]
pub(crate) struct DatabaseSpan(Box<Span>);

impl DatabaseSpan {
    pub(crate) fn end(mut self, failed: bool) {
        if failed {
            self.0.set_status(Status::error(""));
        }
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_named_as_the_program_writes_it() {
        for (sql, expected) in [
            (r#"SELECT "users"."id" FROM "users" WHERE "users"."email" = $1"#, Some("users")),
            (r#"INSERT INTO "audit_logs" ("id") VALUES ($1)"#, Some("audit_logs")),
            (r#"UPDATE "documents" SET "owner" = $1"#, Some("documents")),
            (r#"DELETE FROM "documents" WHERE "id" = $1"#, Some("documents")),
            ("SELECT record_entries($1)", None),
            ("SELECT 1 FROM users", None),
            (r#"SELECT 1 FROM "ada@example.org""#, None),
            (r#"SELECT 1 FROM "123-45-6789""#, None),
            ("BEGIN", None),
            ("", None),
        ] {
            assert_eq!(table(sql), expected, "{sql}");
        }
    }
}
