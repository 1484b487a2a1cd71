//! Health: whether this instance lives (restart it if not), has started, and can serve (send it requests).

use crate::app::AppState;
use crate::auth::KeyStatus;
use crate::clock;
use crate::database::{self, Trouble};
use crate::error::ErrorCode;
use crate::error_response::KeepErrorBody;
use crate::lifecycle::Phase;
use crate::readiness::{Check, DatabaseChecks};
use crate::tenancy::Isolation;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bulkhead_migrator::SchemaMismatch;
use serde::Serialize;
use std::time::{Duration, Instant};
use utoipa::ToSchema;

/// How long one check may take; slower is as good as failed, since the prober gives up soon after.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// The error of a check of which the database said nothing, such as behind a lock.
const LOCKED: Option<&str> = Some(ErrorCode::DatabaseUnreachable.code());

#[derive(Serialize, ToSchema)]
pub(crate) struct Live {
    #[schema(example = "ok")]
    status: &'static str,
    /// Unix time in seconds.
    timestamp: u64,
}

/// The process answers; nothing else is looked at.
#[utoipa::path(
    get, path = "/health/live", operation_id = "getLiveness", tag = "health", security(()),
    responses((status = 200, body = Live, description = "It lives"))
)]
pub(crate) async fn live() -> Json<Live> {
    Json(Live { status: "ok", timestamp: unix_time() })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Startup {
    /// `started`, or the phase of the start.
    #[schema(example = "started")]
    status: &'static str,
    /// Unix time in seconds.
    timestamp: u64,
}

/// 200 once this instance has started.
///
/// That is when migrations are done and readiness has passed for the first time; it stays so from then on.
#[utoipa::path(
    get, path = "/health/startup", operation_id = "getStartup", tag = "health", security(()),
    responses((status = 200, body = Startup, description = "Started"), (status = 503, body = Startup, description = "Not started yet"))
)]
pub(crate) async fn startup(State(state): State<AppState>) -> Response {
    let started = state.started() || readiness(&state).await.status != Overall::Unavailable;
    let status = if started { "started" } else { state.lifecycle.phase().name() };
    answer(started, Startup { status, timestamp: unix_time() })
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    status: Overall,
    checks: Checks,
    /// Unix time in seconds.
    timestamp: u64,
}

#[derive(Serialize, ToSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Overall {
    /// Requests can be served.
    Ready,
    /// They can, but something that they will need is missing, or could not be looked at.
    Degraded,
    /// They cannot.
    Unavailable,
}

#[derive(Serialize, ToSchema)]
struct Checks {
    /// Whether the process takes requests: not before its start is done, not once it is told to stop.
    process: Check,
    /// Whether the database answers, and takes changes: `read-only` where it does not.
    database: Check,
    /// Whether the schema is the one this build works with; where that cannot be told (`timeout`, `unknown`), what was last
    /// seen of it counts.
    schema: Check,
    /// Who keeps tenants apart: `database`, or `application` where the database has no means for it (SQLite);
    /// `not-enforced` where it could, but does not: the log and `bulkhead migrate verify` name why.
    isolation: Check,
    /// Whether tokens can be checked: `stale` where the identity provider's last keys serve while it is away,
    /// `not-configured` where none is set up.
    auth: Check,
}

/// 200 when this instance can serve requests.
///
/// The status is `degraded` where it can serve some of them only. Each check is given one second.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "getReadiness", tag = "health", security(()),
    responses((status = 200, body = Readiness, description = "Ready, or degraded"), (status = 503, body = Readiness, description = "Not ready: see `checks`"))
)]
pub(crate) async fn ready(State(state): State<AppState>) -> Response {
    let readiness = readiness(&state).await;
    answer(readiness.status != Overall::Unavailable, readiness)
}

/// The checks of readiness, by name, and whether each passes. `None` where it cannot be told who keeps tenants apart, such as
/// behind a lock: that is no fault of the database's.
pub(crate) async fn passing_checks(state: &AppState) -> [(&'static str, Option<bool>); 5] {
    let Checks { process, database, schema, isolation, auth } = readiness(state).await.checks;
    let enforced = match isolation.error {
        None => Some(true),
        Some(code) => (code == ErrorCode::NotIsolated.code()).then_some(false),
    };
    [
        ("process", Some(process.error.is_none())),
        ("database", Some(database.error.is_none())),
        ("schema", Some(schema.error.is_none())),
        ("isolation", enforced),
        ("auth", Some(auth.error.is_none())),
    ]
}

async fn readiness(state: &AppState) -> Readiness {
    let look = async {
        let (database, (schema, isolation)) = tokio::join!(database(state), schema_and_isolation(state));
        DatabaseChecks { database, schema, isolation }
    };
    let DatabaseChecks { database, schema, isolation } = state.checks.run(Box::pin(look)).await;
    // Last: a look that outlasts the beginning of a stop does not say that the instance is ready.
    let phase = state.lifecycle.phase();
    let process = match phase {
        Phase::Serving => Check { status: "ok", latency_ms: None, error: None },
        _ => Check { status: phase.name(), latency_ms: None, error: Some(ErrorCode::Overloaded.code()) },
    };
    let key_status = state.auth.key_status();
    let auth = auth(key_status);
    // Where it cannot be told who keeps tenants apart, row-level security may well do so: a locked table is no reason to
    // turn every instance away.
    let able = key_status != KeyStatus::Unavailable
        && isolation.error != Some(ErrorCode::NotIsolated.code())
        && process.error.is_none()
        && database.error.is_none()
        // Likewise a lock on the history: what it last said holds.
        && (schema.error.is_none() || schema.error == LOCKED && state.schema_fitted());
    if able {
        state.set_started();
    }
    let status = if !able {
        Overall::Unavailable
    } else if [&auth, &schema, &isolation].iter().any(|check| check.error.is_some()) {
        Overall::Degraded
    } else {
        Overall::Ready
    };
    Readiness { status, checks: Checks { process, database, schema, isolation, auth }, timestamp: unix_time() }
}

async fn database(state: &AppState) -> Check {
    check(async {
        match state.probe.takes_writes().await {
            Ok(_) if state.database_is_away() => Err(("unreachable", ErrorCode::DatabaseUnreachable)),
            Ok(true) => Ok("ok"),
            Ok(false) => Err(("read-only", ErrorCode::DatabaseRefuses)),
            Err(error) => {
                tracing::warn!(error = database::text(&error), "the database does not answer");
                Err(("unreachable", ErrorCode::DatabaseUnreachable))
            }
        }
    })
    .await
}

async fn schema_and_isolation(state: &AppState) -> (Check, Check) {
    // At once, where the schema was there the last time.
    let (schema, looked) = if state.schema_fitted() {
        let (schema, isolation) = tokio::join!(schema(state), isolation(state));
        (schema, Some(isolation))
    } else {
        (schema(state).await, None)
    };
    // Without its tables there is nothing to keep apart, and behind a lock nothing to see.
    let isolation = match looked {
        _ if schema.error.is_some() => schema.clone(),
        Some(isolation) => isolation,
        None => isolation(state).await,
    };
    (schema, isolation)
}

async fn schema(state: &AppState) -> Check {
    check(async {
        let kept = state.probe.kept();
        let schema = kept.in_another_session(|| state.runner.state(kept)).await.map_err(|error| {
            tracing::warn!(error = database::text(&error), "the schema cannot be read");
            match Trouble::of(&error) {
                Some(_) => ("unknown", ErrorCode::DatabaseUnreachable),
                None => ("unreadable", ErrorCode::SchemaNotReady),
            }
        })?;
        let checked = state.runner.check(&schema);
        state.set_schema_fits(checked.is_ok());
        let status = match checked {
            Ok(_) => return Ok("ok"),
            Err(SchemaMismatch::NeverMigrated | SchemaMismatch::Pending(_) | SchemaMismatch::OutOfOrder(_)) => "behind",
            Err(SchemaMismatch::Ahead { .. }) => "ahead",
            Err(SchemaMismatch::ChecksumMismatch(_)) => "edited",
            Err(SchemaMismatch::Unknown(_)) => "unknown",
            Err(SchemaMismatch::Dirty(_)) => "dirty",
        };
        Err((status, ErrorCode::SchemaNotReady))
    })
    .await
}

async fn isolation(state: &AppState) -> Check {
    check(async {
        match state.tenancy.isolation(state.probe.kept()).await {
            Ok(Isolation::Database) => Ok("database"),
            Ok(Isolation::Application) => Ok("application"),
            Ok(Isolation::NotEnforced(_)) => Err(("not-enforced", ErrorCode::NotIsolated)),
            Err(error) => {
                tracing::warn!(
                    error = database::text(&error),
                    "whether the database keeps tenants apart cannot be told"
                );
                Err(("unknown", ErrorCode::DatabaseUnreachable))
            }
        }
    })
    .await
}

/// What is known already: a probe asks nothing of the provider.
fn auth(status: KeyStatus) -> Check {
    let status = match status {
        KeyStatus::Fresh => return Check { status: "ok", latency_ms: None, error: None },
        KeyStatus::Stale => "stale",
        KeyStatus::Unavailable => "unreachable",
        KeyStatus::Disabled => "not-configured",
    };
    Check { status, latency_ms: None, error: Some(ErrorCode::ProviderUnreachable.code()) }
}

async fn check(work: impl Future<Output = Result<&'static str, (&'static str, ErrorCode)>>) -> Check {
    let started = Instant::now();
    let outcome = tokio::time::timeout(CHECK_TIMEOUT, work).await;
    let latency_ms = Some(clock::milliseconds(started.elapsed()));
    match outcome {
        Ok(Ok(status)) => Check { status, latency_ms, error: None },
        Ok(Err((status, code))) => Check { status, latency_ms, error: Some(code.code()) },
        Err(_) => Check { status: "timeout", latency_ms, error: Some(ErrorCode::DatabaseUnreachable.code()) },
    }
}

/// 200, or 503 with a body of the same shape.
fn answer(good: bool, body: impl Serialize) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = (status, Json(body)).into_response();
    response.extensions_mut().insert(KeepErrorBody);
    response
}

fn unix_time() -> u64 {
    clock::unix_seconds().unsigned_abs()
}
