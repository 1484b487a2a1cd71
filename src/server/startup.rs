//! The start: waits for the database, applies migrations, and waits for a schema that this build can work with.

use crate::app::AppState;
use crate::auth::ProviderError;
use crate::config::{DatabaseUrl, MigrateOnStart, Settings};
use crate::database;
use crate::lifecycle::Phase;
use crate::text::counted;
use bulkhead_migrator::{
    AllowOptions, CheckPolicy, Compatibility, MigrationError, Migrations, Options, Progress, Runner, SchemaMismatch,
    SchemaState,
};
use sea_orm::DbErr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a server that waits for its schema reads it again.
const SCHEMA_POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How often a start that waits for the database logs that it does.
const WAIT_LOG_INTERVAL: Duration = Duration::from_secs(2);

/// Why the process could not be made ready; names the variable to look at.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The database cannot be reached or opened.
    #[error("{variable}: cannot use {database}: {cause}")]
    Database {
        /// The variable that names the database.
        variable: &'static str,
        /// The database, without its secrets.
        database: String,
        /// What the driver says.
        cause: String,
    },
    /// The migrations did not run.
    #[error(transparent)]
    Migration(MigrationError),
    /// The identity provider cannot be used.
    #[error(transparent)]
    Provider(#[from] ProviderError),
}

impl StartupError {
    /// The process's exit code: 3 where the schema is not as expected, 4 where the lock was not free in time, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Migration(MigrationError::Mismatch(_)) => 3,
            Self::Migration(MigrationError::LockTimeout { .. }) => 4,
            Self::Database { .. } | Self::Migration(_) | Self::Provider(_) => 1,
        }
    }

    /// Tells a connection that failed from a migration that failed.
    pub(crate) fn from_migration(settings: &Settings, error: MigrationError) -> Self {
        match error {
            MigrationError::Database(cause @ (DbErr::Conn(_) | DbErr::ConnectionAcquire(_))) => {
                Self::database(settings.migration_database_variable, &settings.migration_database, &cause)
            }
            error => Self::Migration(error),
        }
    }

    pub(crate) fn database(
        variable: &'static str,
        database: &DatabaseUrl,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        Self::Database { variable, database: database.to_string(), cause: database::cause(database, error) }
    }

    /// The history cannot be read on the connection that serves.
    fn unreadable_history(settings: &Settings, error: &DbErr) -> Self {
        match Self::database("DATABASE_URL", &settings.database, error) {
            // insufficient_privilege (postgresql.org/docs/current/errcodes-appendix.html).
            Self::Database { variable, database, cause } if database::code(error).as_deref() == Some("42501") => {
                let cause = format!("{cause}: GRANT {} TO its role", database::APP_ROLE);
                Self::Database { variable, database, cause }
            }
            other => other,
        }
    }
}

/// A runner with the timeouts of these settings, which checks schemas in full.
#[must_use]
pub(crate) fn runner(settings: &Settings, migrations: Migrations) -> Runner {
    let options = Options {
        lock_timeout: settings.migration_lock_timeout,
        ddl_lock_timeout: settings.migration_ddl_lock_timeout,
        statement_timeout: settings.migration_statement_timeout,
        connect_timeout: settings.database_acquire_timeout,
        allow: AllowOptions { unknown: settings.migration_allow_unknown, ..AllowOptions::default() },
        ..Options::default()
    };
    Runner::new(migrations, options)
}

/// How much of the schema a server looks at before it serves.
pub(super) fn check_policy(settings: &Settings) -> CheckPolicy {
    match settings.migrate_on_start {
        MigrateOnStart::Apply | MigrateOnStart::Verify => CheckPolicy::Full,
        MigrateOnStart::Off => CheckPolicy::PendingOnly,
    }
}

/// Returns when this build can serve with the schema; applies what is pending first, where the settings say so.
///
/// An older build on a newer schema waits instead of failing: a restart would change nothing.
pub(super) async fn migrate_and_wait(state: &AppState) -> Result<(), StartupError> {
    // At the same time as the first look at the database, and before anything is changed there.
    let provider = async { state.auth.prepare().await.map_err(StartupError::from) };
    if state.settings.migrate_on_start == MigrateOnStart::Apply {
        // On the connection that will serve: with nothing to do, no lock is taken and no other connection opened.
        let (schema, ()) = tokio::try_join!(wait_for_database(state), provider)?;
        match state.runner.check(&schema) {
            Ok(Compatibility::Exact) => {
                tracing::info!("the schema is up to date");
                return Ok(());
            }
            Ok(Compatibility::Ahead(_)) | Err(SchemaMismatch::Ahead { .. }) => {}
            // A dirty migration may be one that another process is running: the runner knows once it has the lock.
            Err(SchemaMismatch::NeverMigrated | SchemaMismatch::Pending(_) | SchemaMismatch::Dirty(_)) => {
                migrate(state).await?;
            }
            Err(mismatch) => return Err(StartupError::Migration(mismatch.into())),
        }
        wait_for_schema(state).await;
        return Ok(());
    }
    let schema = async {
        wait_for_schema(state).await;
        Ok(())
    };
    tokio::try_join!(schema, provider).map(drop)
}

/// Returns the schema's state as soon as the database answers. Waits as long as the settings say, and logs why.
async fn wait_for_database(state: &AppState) -> Result<SchemaState, StartupError> {
    let settings = &state.settings;
    let mut wait = Wait::new(settings);
    loop {
        let mut read = pin!(state.runner.state(&state.database));
        let mut asked = Instant::now();
        // The pool waits longer from try to try, and does not say what it waits for.
        let cause: StartupError = loop {
            let outcome = match tokio::time::timeout(SCHEMA_POLL_INTERVAL, &mut read).await {
                Ok(Ok(schema)) => return Ok(schema),
                Ok(Err(error)) if !may_pass(&error) => {
                    return Err(StartupError::unreadable_history(settings, &error));
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            match (state.probe.absence(SCHEMA_POLL_INTERVAL).await, outcome) {
                (Some(cause), _) => break StartupError::database("DATABASE_URL", &settings.database, &cause),
                (None, Some(error)) => break StartupError::unreadable_history(settings, &error),
                // The database answers: the read waits for a lock, or the network is slow.
                (None, None) if wait.logged.is_none() && asked.elapsed() < settings.database_acquire_timeout => {}
                // The database answers again, which the pool may not have noticed; or this session of several gets no answer.
                (None, None) => {
                    if wait.logged.take().is_none() {
                        tracing::warn!("the database answers, but does not say which migrations it has: asking again");
                    }
                    asked = Instant::now();
                    read.set(state.runner.state(&state.database));
                }
            }
        };
        wait.before_next_try(cause).await?;
    }
}

/// How long a start still waits for a database.
struct Wait {
    end: Instant,
    /// When the cause was last logged.
    logged: Option<Instant>,
}

impl Wait {
    fn new(settings: &Settings) -> Self {
        Self { end: Instant::now() + settings.database_acquire_timeout, logged: None }
    }

    /// Waits until the next try, and logs every two seconds why; fails with `cause` once there is no more time.
    async fn before_next_try(&mut self, cause: StartupError) -> Result<(), StartupError> {
        if Instant::now() >= self.end {
            return Err(cause);
        }
        if self.logged.is_none_or(|at| at.elapsed() >= WAIT_LOG_INTERVAL) {
            tracing::warn!("waiting for the database: {cause}");
            self.logged = Some(Instant::now());
        }
        tokio::time::sleep(SCHEMA_POLL_INTERVAL.min(self.end.saturating_duration_since(Instant::now()))).await;
        Ok(())
    }
}

/// Whether the database is unreachable, which may pass. A login or a database name that it refuses does not pass.
fn may_pass(error: &DbErr) -> bool {
    match database::code(error) {
        // 5 is SQLITE_BUSY: another process turns the file to WAL mode.
        Some(code) => code.starts_with("08") || code.starts_with("57P") || code == "53300" || code == "5",
        None => database::Trouble::of(error) == Some(database::Trouble::Unreachable),
    }
}

async fn migrate(state: &AppState) -> Result<(), StartupError> {
    let lifecycle = state.lifecycle.clone();
    let observer = Arc::new(move |progress| {
        lifecycle.enter(match progress {
            Progress::WaitingForLock => Phase::WaitingForLock,
            Progress::Migrating => Phase::Migrating,
        });
    });
    let runner = state.runner.with(|options| options.observer = observer);
    let target = database::migration_target(&state.settings);
    let mut wait = Wait::new(&state.settings);
    let outcome = loop {
        match runner.up(&target, None).await {
            // MIGRATION_DATABASE_URL may name another server than the one that has answered.
            Err(MigrationError::Database(error @ DbErr::Conn(_))) if may_pass(&error) => {
                wait.before_next_try(StartupError::from_migration(&state.settings, error.into())).await?;
            }
            outcome => break outcome,
        }
    };
    match outcome {
        Ok(changes) if changes.applied.is_empty() => tracing::info!("another process has applied the migrations"),
        Ok(changes) => {
            let applied = counted(changes.applied.len(), "migration", "migrations");
            tracing::info!(migrations = %changes.applied.join(", "), "{applied} applied");
        }
        // A newer build has migrated meanwhile, which is not a failure of this one.
        Err(MigrationError::Mismatch(SchemaMismatch::Ahead { .. })) => {}
        Err(error) => return Err(StartupError::from_migration(&state.settings, error)),
    }
    Ok(())
}

async fn wait_for_schema(state: &AppState) {
    let mut logged = None;
    loop {
        let cause = match state.runner.state(state.probe.kept()).await {
            Ok(schema) => match state.runner.check(&schema) {
                Ok(Compatibility::Exact) => return,
                Ok(Compatibility::Ahead(names)) => {
                    tracing::warn!(
                        migrations = names.join(", "),
                        "the schema is ahead of this build, and says that this build can work with it"
                    );
                    return;
                }
                Err(mismatch) => mismatch.to_string(),
            },
            Err(error) => match state.probe.absence(SCHEMA_POLL_INTERVAL).await {
                Some(cause) => StartupError::database("DATABASE_URL", &state.settings.database, &cause).to_string(),
                None => StartupError::unreadable_history(&state.settings, &error).to_string(),
            },
        };
        state.lifecycle.enter(Phase::WaitingForSchema);
        if logged.as_ref() != Some(&cause) {
            tracing::error!("not ready: {cause}");
            logged = Some(cause);
        }
        tokio::time::sleep(SCHEMA_POLL_INTERVAL).await;
    }
}
