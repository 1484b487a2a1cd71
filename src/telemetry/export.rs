//! Sends spans to a collector: OTLP over HTTP (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>).
//!
//! A thread of the SDK takes them from a queue with a bound and hands them to the runtime. A span for which there is no place is
//! dropped; nobody waits.

use super::losses::Losses;
use super::span_queue::{Places, SpanQueue};
use crate::config::{DatabaseUrl, Sampler, Settings, TraceSettings};
use crate::error_chain::root_cause;
use crate::traces::Traces;
use axum::body::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler as SdkSampler, SdkTracerProvider, SpanData, SpanExporter,
};
use reqwest::{Client, redirect};
use sea_orm::prelude::async_trait::async_trait;
use secrecy::ExposeSecret;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

/// What is not sent in this time after the last request is lost.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest answer of the collector that is read.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// Sends spans until its end.
#[derive(Debug)]
pub struct SpanExport {
    provider: SdkTracerProvider,
    places: Arc<Places>,
    failures: Arc<Failures>,
}

impl SpanExport {
    /// Begins, and returns what makes the spans; `None` where the settings do not ask for it. Needs a runtime. No connection is
    /// opened yet.
    pub fn begin(settings: &Settings) -> Result<Option<(Self, Traces)>, ExporterBuildError> {
        let Some(traces) = &settings.traces else { return Ok(None) };
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(traces.delay)
            .with_max_queue_size(size(traces.queue))
            .with_max_export_batch_size(size(traces.batch))
            .build();
        let counts = Arc::default();
        let places = Arc::new(Places::new(size(traces.queue), Arc::clone(&counts)));
        let failures = Arc::default();
        let exporter = Exporter::new(traces, Arc::clone(&places), Arc::clone(&failures))?;
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(SpanQueue::new(processor, Arc::clone(&places)))
            .with_sampler(sampler(traces))
            .with_resource(resource(traces))
            .build();
        let system = match settings.database {
            DatabaseUrl::Postgres(_) => "postgresql",
            DatabaseUrl::Sqlite(_) => "sqlite",
        };
        let traces = Traces::new(provider.tracer("bulkhead"), system, counts);
        Ok(Some((Self { provider, places, failures }, traces)))
    }

    /// Sends what waits, for a few seconds at most.
    pub async fn end(self) {
        let Self { provider, places, failures } = self;
        let flush = move || provider.shutdown_with_timeout(FLUSH_TIMEOUT);
        let flushed = tokio::task::spawn_blocking(flush).await;
        places.end();
        failures.end();
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last traces were not sent: the collector did not take them in time");
        }
    }
}

/// A setting of which nobody sets more than fits.
fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn sampler(traces: &TraceSettings) -> SdkSampler {
    let parent_based = |otherwise| SdkSampler::ParentBased(Box::new(otherwise));
    match traces.sampler {
        Sampler::AlwaysOn => SdkSampler::AlwaysOn,
        Sampler::AlwaysOff => SdkSampler::AlwaysOff,
        Sampler::Ratio => SdkSampler::TraceIdRatioBased(traces.ratio),
        Sampler::ParentBasedAlwaysOn => parent_based(SdkSampler::AlwaysOn),
        Sampler::ParentBasedAlwaysOff => parent_based(SdkSampler::AlwaysOff),
        Sampler::ParentBasedRatio => parent_based(SdkSampler::TraceIdRatioBased(traces.ratio)),
    }
}

/// What tells this process from others.
fn resource(traces: &TraceSettings) -> Resource {
    let attributes = traces.attributes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder()
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(attributes)
        .with_service_name(traces.service_name.clone())
        .build()
}

/// Sends spans, and says now and then that it could not. The SDK would say it of each batch, and not why.
#[derive(Debug)]
struct Exporter {
    inner: opentelemetry_otlp::SpanExporter,
    /// Why the last request failed.
    cause: Arc<Mutex<String>>,
    failures: Arc<Failures>,
    /// Those of the queue that the spans come from.
    places: Arc<Places>,
}

/// What the collector did not take.
#[derive(Debug, Default)]
struct Failures {
    losses: Losses,
    /// What became of the last batch, and why.
    last: Mutex<(String, String)>,
}

impl Failures {
    fn add(&self, spans: usize, error: String, cause: String) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (error, cause);
        if let Some(spans) = self.losses.add(spans) {
            self.log(spans);
        }
    }

    /// Tells of what was lost since the last line: nobody does so later.
    fn end(&self) {
        if let Some(spans) = self.losses.rest() {
            self.log(spans);
        }
    }

    fn log(&self, spans: usize) {
        let (error, cause) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner);
        tracing::warn!(spans, error, cause, "traces are lost: the collector did not take them");
    }
}

impl Exporter {
    fn new(traces: &TraceSettings, places: Arc<Places>, failures: Arc<Failures>) -> Result<Self, ExporterBuildError> {
        let cause = Arc::default();
        let client = Sender {
            runtime: Handle::current(),
            client: Arc::default(),
            timeout: traces.timeout,
            cause: Arc::clone(&cause),
        };
        let headers = traces.headers.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned()));
        let inner = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(traces.collector.as_str())
            .with_timeout(traces.timeout)
            .with_headers(headers.collect())
            .with_http_client(client)
            .build()?;
        Ok(Self { inner, cause, failures, places })
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.places.leave(spans);
        let outcome = self.inner.export(batch).await;
        if let Err(error) = &outcome {
            let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.failures.add(spans, error.to_string(), cause);
        }
        outcome
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Sends requests from threads that are none of the runtime's.
#[derive(Debug)]
struct Sender {
    runtime: Handle,
    /// Built for the first request: that reads every certificate that the machine trusts.
    client: Arc<OnceCell<Client>>,
    timeout: Duration,
    cause: Arc<Mutex<String>>,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, timeout) = (Arc::clone(&self.client), self.timeout);
        let sent = self.runtime.spawn(async move { send(&client, timeout, request).await }).await;
        let sent = sent.unwrap_or_else(|error| Err(error.to_string()));
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = sent.as_ref().err().cloned().unwrap_or_default();
        Ok(sent?)
    }
}

async fn send(
    client: &OnceCell<Client>,
    timeout: Duration,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, String> {
    let build = async || {
        let built = tokio::task::spawn_blocking(move || build(timeout)).await;
        built.map_err(|panic| panic.to_string())?.map_err(|error| root_cause(&error))
    };
    let client = client.get_or_try_init(build).await?;
    let request = request.try_into().map_err(|error: reqwest::Error| root_cause(&error))?;
    let mut response = client.execute(request).await.map_err(|error| root_cause(&error))?;
    let mut answer = Response::builder().status(response.status());
    if let Some(headers) = answer.headers_mut() {
        *headers = std::mem::take(response.headers_mut());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
            return Err(format!("the response is longer than {RESPONSE_BYTES_MAX} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    answer.body(body.into()).map_err(|error| error.to_string())
}

fn build(timeout: Duration) -> reqwest::Result<Client> {
    // A redirect could lead to an address that no setting names.
    Client::builder().timeout(timeout).redirect(redirect::Policy::none()).build()
}
