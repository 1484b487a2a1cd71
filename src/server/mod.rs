//! The server: what every request passes through, and the life of the process from listening to the last answer.

mod checkpoints;
mod connections;
mod docs;
mod hyper_errors;
mod listener;
mod metrics;
mod middleware;
mod response_body;
mod router;
mod startup;
mod write_timeout;

pub use listener::BindError;
#[cfg(any(test, fuzzing))]
pub(crate) use middleware::fuzz;
pub use router::{api_document, router};

use crate::app::AppState;
use crate::auth::Auth;
use crate::config::{Environment, Issuer, LogFormat, Settings};
use crate::lifecycle::{Lifecycle, Phase, Signals};
use crate::telemetry::SpanExport;
use crate::{database, invocation};
use axum::Router;
use bulkhead_migrator::Migrations;
use listener::TakenPort;
pub use startup::StartupError;
pub(crate) use startup::runner;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// A connection whose statement outlives its request closes only when the statement ends: not waited for.
const POOL_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a start refuses connections: a balancer without health checks of its own sends a refused request to another
/// instance at once, and never gives one to a release that fails at its start. A start with nothing to migrate is faster.
const QUIET_START: Duration = Duration::from_secs(2);

/// How many connections to the database are open before the first request.
const WARM_CONNECTIONS: u32 = 4;

/// What was refused and counted is not lost by a stop, unless the database does not take it in this time.
const AUDIT_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the server ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No socket to listen on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database or its schema could not be made ready.
    #[error(transparent)]
    Startup(#[from] StartupError),
    /// Traces cannot be sent as the settings say.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The runtime could not watch for signals.
    #[error("cannot watch for signals: {0}")]
    Signals(#[source] std::io::Error),
}

impl ServeError {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Startup(error) => error.exit_code(),
            Self::Bind(_) | Self::Traces(_) | Self::Signals(_) => 1,
        }
    }
}

/// Prepares the schema as the settings say and serves until SIGTERM or SIGINT, then drains.
///
/// A start that takes longer than two seconds listens before it is ready: liveness answers while migrations run.
pub async fn run(settings: Settings, migrations: Migrations) -> Result<(), ServeError> {
    let settings = Arc::new(settings);
    let lifecycle = Lifecycle::default();
    let signals = Signals::install().map_err(ServeError::Signals)?;
    let port = listener::bind("PORT", settings.host, settings.port)?;
    let metrics_port =
        settings.metrics_port.map(|port| listener::bind("METRICS_PORT", settings.host, port)).transpose()?;
    database::initialize_sqlite(&settings).await;
    let (export, traces) = SpanExport::begin(&settings)?.unzip();
    let database = database::pool(&settings).traced(traces);
    let policy = startup::check_policy(&settings);
    let runner = Arc::new(runner(&settings, migrations).with(|options| options.policy = policy));
    let auth = Auth::new(&settings.auth);
    let state = AppState::new(Arc::clone(&settings), database.clone(), Arc::clone(&auth), lifecycle.clone(), runner);

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        environment = %settings.environment,
        database = %settings.database,
        "bulkhead starts"
    );
    // From the beginning: a start that takes long is what someone may want to see.
    let metrics = match metrics_port {
        Some(port) => {
            let (listener, address) = port.listen()?;
            tracing::info!("serves metrics at http://{address}/metrics");
            let router = metrics::router(state.clone());
            // To the end: a stop that takes long is what someone may want to see, too.
            let endless = Lifecycle::default();
            Some(tokio::spawn(listener::serve(listener, router, endless, metrics::settings(&settings))))
        }
        None => None,
    };
    let (listens, listening) = oneshot::channel();
    let serving = tokio::spawn(serve(port, router(state.clone()), lifecycle.clone(), Arc::clone(&settings), listens));

    // The provider's keys are on their way while the schema is made ready.
    let keys = tokio::spawn(async move { auth.run().await });
    // The signals stay watched to the end: the second one exits at once.
    let stop = tokio::spawn(signals.watch(lifecycle.clone()));
    let mut checkpoints = None;
    tokio::select! {
        ready = startup::migrate_and_wait(&state) => {
            if let Err(error) = ready {
                // Whoever waits for the start is answered, and not cut off.
                lifecycle.enter(Phase::Draining);
                let _ = serving.await;
                return Err(error.into());
            }
            // The first requests after a restart should not wait for connections.
            state.database.open(WARM_CONNECTIONS).await;
            lifecycle.enter(Phase::Serving);
            checkpoints = Some(tokio::spawn(checkpoints::run(state.clone())));
            if let Ok(address) = listening.await {
                announce(&settings, address);
            }
        }
        () = lifecycle.draining() => tracing::warn!("stopped before the schema was ready; what was in a transaction is rolled back"),
    }
    // A panic of the accept loop is the end of the server either way.
    if let Ok(Err(error)) = serving.await {
        return Err(error.into());
    }
    // At the same time, so that a stop takes no longer.
    let traces = async {
        if let Some(export) = export {
            export.end().await;
        }
    };
    let flush = tokio::time::timeout(AUDIT_FLUSH_TIMEOUT, state.tenancy.flush());
    let (flushed, ()) = tokio::join!(flush, traces);
    if flushed.is_err() {
        tracing::error!("the audit log lacks refusals that were counted: the database did not take them in time");
    }
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    stop.abort();
    keys.abort();
    if let Some(checkpoints) = checkpoints {
        checkpoints.abort();
    }
    if tokio::time::timeout(POOL_CLOSE_TIMEOUT, database.close()).await.is_err() {
        tracing::warn!("a statement was still running; its connection was cut off");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Listens once the process is ready, or the start takes long, and serves until the process has stopped in order.
async fn serve(
    port: TakenPort,
    router: Router,
    lifecycle: Lifecycle,
    settings: Arc<Settings>,
    listens: oneshot::Sender<SocketAddr>,
) -> Result<(), BindError> {
    if tokio::time::timeout(QUIET_START, lifecycle.ready()).await == Ok(false) {
        return Ok(());
    }
    let (listener, address) = port.listen()?;
    tracing::info!(%address, "listening");
    let _ = listens.send(address);
    listener::serve(listener, router, lifecycle, settings).await;
    Ok(())
}

fn announce(settings: &Settings, address: SocketAddr) {
    // What a person can click; `::` and `0.0.0.0` are not addresses to open.
    let host = match address.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() => "localhost".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    };
    let base = format!("http://{host}:{}", address.port());
    if settings.docs_enabled {
        tracing::info!(docs = %format_args!("{base}/docs"), "ready on {base}");
    } else {
        tracing::info!("ready on {base}");
    }
    // For whoever starts it for the first time, at a terminal. A machine that reads the log needs no advice.
    if settings.environment == Environment::Development
        && settings.log_format == LogFormat::Pretty
        && matches!(settings.auth.issuer, Issuer::Development(_))
    {
        let command = invocation::command();
        tracing::info!(
            "next, in another terminal: `{command} dev-token` makes the tenant \"development\" and prints a token for it; \
             `{command} tenant create --help` tells how to make others"
        );
    }
}
