//! The queue of spans that wait for the exporter: what finds no place in it is counted, and told of.
//!
//! The SDK's own queue drops spans, too, and says nothing of it. So it is never full: this one has its places.

use super::losses::Losses;
use crate::traces::SpanCounts;
use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanProcessor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The places of the queue.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    taken: AtomicUsize,
    counts: Arc<SpanCounts>,
    losses: Losses,
}

impl Places {
    pub(super) fn new(max: usize, counts: Arc<SpanCounts>) -> Self {
        Self { max, taken: AtomicUsize::new(0), counts, losses: Losses::default() }
    }

    fn take(&self) -> bool {
        let next = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// So many spans have left the queue for the exporter.
    pub(super) fn leave(&self, spans: usize) {
        self.taken.fetch_sub(spans, Ordering::Relaxed);
        self.counts.exported(spans);
    }

    fn refuse(&self) {
        self.counts.dropped();
        if let Some(spans) = self.losses.add(1) {
            log(spans);
        }
    }

    /// Tells of what was refused since the last line: nobody does so later.
    pub(super) fn end(&self) {
        if let Some(spans) = self.losses.rest() {
            log(spans);
        }
    }
}

fn log(spans: usize) {
    // Of no request: it is one of many.
    tracing::warn!(parent: None, spans, "traces are lost: as many spans wait as OTEL_BSP_MAX_QUEUE_SIZE says");
}

/// Takes spans from requests, and hands those that find a place to the SDK.
#[derive(Debug)]
pub(super) struct SpanQueue {
    inner: BatchSpanProcessor,
    places: Arc<Places>,
}

impl SpanQueue {
    /// Its exporter says of which spans their places are free again. `inner` has as many places, or more.
    pub(super) fn new(inner: BatchSpanProcessor, places: Arc<Places>) -> Self {
        Self { inner, places }
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.places.take() {
            self.inner.on_end(span);
        } else {
            self.places.refuse();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
