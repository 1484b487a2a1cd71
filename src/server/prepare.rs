//! From a listening socket to a database this build can work with.

use crate::app::{AppState, leniency};
use crate::config::{DatabaseUrl, MigrateOnStart, Settings};
use crate::database;
use crate::lifecycle::Phase;
use bulkhead_migrator::{Fit, MigrationError, Migrations, Misfit, Options, Progress, Runner, State, Target};
use sea_orm::DbErr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a server that waits for its schema looks at it again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How often a start that waits for the database says so.
const SAY_AGAIN: Duration = Duration::from_secs(2);

/// Why the database could not be made ready; says which variable to look at.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
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
}

impl PrepareError {
    /// Blames the connection for what is the connection's, the migrations for the rest.
    pub(crate) fn of_migration(settings: &Settings, error: MigrationError) -> Self {
        match error {
            MigrationError::Database(cause @ (DbErr::Conn(_) | DbErr::ConnectionAcquire(_))) => {
                Self::database(settings.migration_database_variable, &settings.migration_database, &cause)
            }
            error => Self::Migration(error),
        }
    }

    pub(crate) fn database(variable: &'static str, database: &DatabaseUrl, error: &dyn std::error::Error) -> Self {
        Self::Database { variable, database: database.to_string(), cause: crate::error_chain::root_cause(error) }
    }

    /// The schema's history cannot be read on the connection that serves.
    fn unreadable(settings: &Settings, error: &DbErr) -> Self {
        let unreadable = Self::database("DATABASE_URL", &settings.database, error);
        match unreadable {
            // insufficient_privilege (postgresql.org/docs/current/errcodes-appendix.html).
            Self::Database { variable, database, cause } if database::code(error).as_deref() == Some("42501") => {
                let cause = format!("{cause}: GRANT {} TO its role", database::APP_ROLE);
                Self::Database { variable, database, cause }
            }
            other => other,
        }
    }
}

/// The runner that these settings ask for.
#[must_use]
pub(crate) fn runner(settings: &Settings, migrations: Migrations) -> Runner {
    let options = Options {
        lock_timeout: settings.migration_lock_timeout,
        ddl_lock_timeout: settings.migration_ddl_lock_timeout,
        statement_timeout: settings.migration_statement_timeout,
        connect_timeout: settings.database_acquire_timeout,
        leniency: leniency(settings),
        ..Options::default()
    };
    Runner::new(migrations, options)
}

/// Returns once the schema is one that this build can serve with; applies what is pending first, where that is
/// asked for.
///
/// An older build on a newer schema waits instead of failing: restarting it would change nothing.
pub(super) async fn prepare(state: &AppState) -> Result<(), PrepareError> {
    let settings = &state.settings;
    if settings.migrate_on_start == MigrateOnStart::Apply {
        // On the connection that will serve: with nothing to do, no lock is taken and no other connection opened.
        let now = first_look(state).await?;
        match state.fit(&now) {
            Ok(Fit::Exact) => {
                tracing::info!("the schema is up to date");
                return Ok(());
            }
            Ok(Fit::Ahead(_)) | Err(Misfit::Ahead { .. }) => {}
            // What looks interrupted may be another process at work: the runner tells, once it has the lock.
            Err(Misfit::NeverMigrated | Misfit::Pending(_) | Misfit::Dirty(_)) => migrate(state).await?,
            Err(misfit) => return Err(PrepareError::Migration(misfit.into())),
        }
    }
    wait_for_the_schema(state).await;
    Ok(())
}

/// What the schema is, as soon as the database is there; waits for it as long as the settings say, and says meanwhile why.
async fn first_look(state: &AppState) -> Result<State, PrepareError> {
    let settings = &state.settings;
    let end = Instant::now() + settings.database_acquire_timeout;
    let mut said = None;
    loop {
        let mut look = pin!(state.schema(&state.database));
        // The pool waits longer from try to try, and keeps to itself what it waits for.
        let cause: PrepareError = loop {
            let waited = tokio::time::timeout(LOOK_AGAIN, &mut look).await;
            let outcome = match waited {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(error)) if !is_absence(&error) => return Err(PrepareError::unreadable(settings, &error)),
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            match (state.probe.absence(LOOK_AGAIN).await, outcome) {
                (Some(cause), _) => break PrepareError::database("DATABASE_URL", &settings.database, &cause),
                (None, Some(error)) => break PrepareError::unreadable(settings, &error),
                // It is there: what takes so long is a lock, or the way.
                (None, None) if said.is_none() => {}
                // It is back, which the pool may not have noticed.
                (None, None) => {
                    said = None;
                    look.set(state.schema(&state.database));
                }
            }
        };
        if Instant::now() >= end {
            return Err(cause);
        }
        if said.is_none_or(|at: Instant| at.elapsed() >= SAY_AGAIN) {
            tracing::warn!("waiting for the database: {cause}");
            said = Some(Instant::now());
        }
        tokio::time::sleep(LOOK_AGAIN.min(end.saturating_duration_since(Instant::now()))).await;
    }
}

/// Whether the database is not there, or not yet. What it says of the login or its name does not pass by waiting.
fn is_absence(error: &DbErr) -> bool {
    match database::code(error) {
        Some(code) => code.starts_with("08") || code.starts_with("57P") || code == "53300",
        None => database::Trouble::of(error) == Some(database::Trouble::Unreachable),
    }
}

async fn migrate(state: &AppState) -> Result<(), PrepareError> {
    let lifecycle = state.lifecycle.clone();
    let observer = Arc::new(move |progress| {
        lifecycle.enter(match progress {
            Progress::WaitingForLock => Phase::WaitingForLock,
            Progress::Applying(_) => Phase::Migrating,
        });
    });
    let runner = state.runner.with(|options| options.observer = observer);
    let target: Target = database::migration_target(&state.settings);
    match runner.up(&target, None).await {
        Ok(changes) if changes.applied.is_empty() => tracing::info!("another process has applied the migrations"),
        Ok(changes) => {
            tracing::info!(migrations = %changes.applied.join(", "), "{} migrations applied", changes.applied.len());
        }
        // A newer build has been at it meanwhile: not this one's failure.
        Err(MigrationError::Misfit(Misfit::Ahead { .. })) => {}
        Err(error) => return Err(PrepareError::of_migration(&state.settings, error)),
    }
    Ok(())
}

async fn wait_for_the_schema(state: &AppState) {
    let mut said = None;
    loop {
        let found = match state.schema(state.probe.connection()).await {
            Ok(now) => match state.fit(&now) {
                Ok(Fit::Exact) => return,
                Ok(Fit::Ahead(names)) => {
                    tracing::warn!(
                        migrations = names.join(", "),
                        "the schema is ahead of this build, and says that this build can work with it"
                    );
                    return;
                }
                Err(misfit) => misfit.to_string(),
            },
            Err(error) => match state.probe.absence(LOOK_AGAIN).await {
                Some(cause) => PrepareError::database("DATABASE_URL", &state.settings.database, &cause).to_string(),
                None => PrepareError::unreadable(&state.settings, &error).to_string(),
            },
        };
        state.lifecycle.enter(Phase::WaitingForSchema);
        if said.as_ref() != Some(&found) {
            tracing::error!("not ready: {found}");
            said = Some(found);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
