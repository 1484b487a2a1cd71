//! From a listening socket to a database this build can work with.

use crate::config::Settings;
use crate::database;
use bulkhead_migration::{MigrationError, Runner};
use sea_orm::{DatabaseConnection, DbErr};

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

/// One preparation.
pub(super) struct Prepare<'a> {
    pub(super) settings: &'a Settings,
    pub(super) database: &'a DatabaseConnection,
    pub(super) migrate: bool,
}

impl Prepare<'_> {
    /// Applies what is pending. Asks first on the connection that will serve: with nothing to do, no lock is
    /// taken and no second connection opened.
    pub(super) async fn run(self) -> Result<(), PrepareError> {
        if !self.migrate {
            return Ok(());
        }
        let pending = Runner::pending(self.database)
            .await
            .map_err(|error| unusable("DATABASE_URL", &self.settings.database, &error))?;
        if pending.is_empty() {
            tracing::info!("the schema is up to date");
            return Ok(());
        }
        let changes = migrate(self.settings, async |runner| runner.up(None).await).await?;
        if changes.applied.is_empty() {
            tracing::info!("another process has applied the migrations");
        } else {
            tracing::info!(migrations = %changes.applied.join(", "), "{} migrations applied", changes.applied.len());
        }
        Ok(())
    }
}

/// Runs `action` on a migration connection of its own, and closes it.
pub(crate) async fn migrate<T>(
    settings: &Settings,
    action: impl AsyncFnOnce(&Runner<'_>) -> Result<T, MigrationError>,
) -> Result<T, PrepareError> {
    let connection = database::migration_connection(settings);
    let runner = Runner::new(&connection, settings.migration_lock_timeout);
    let done = action(&runner).await;
    let _ = connection.close().await;
    done.map_err(|error| match error {
        MigrationError::Database(DbErr::Conn(_) | DbErr::ConnectionAcquire(_)) => {
            unusable("MIGRATION_DATABASE_URL", &settings.migration_database, &error)
        }
        error => PrepareError::Migration(error),
    })
}

pub(crate) fn unusable(
    variable: &'static str,
    database: &crate::config::DatabaseUrl,
    error: &dyn std::error::Error,
) -> PrepareError {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    PrepareError::Database { variable, database: database.to_string(), cause: cause.to_string() }
}
