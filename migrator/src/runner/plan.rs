//! The steps of a run that are the same on both databases.

use super::batches::Batches;
use super::{Options, Progress, failed};
use crate::compatibility::{MigrationStatus, SchemaState};
use crate::error::{AfterFailure, MigrationError};
use crate::history;
use crate::migration::{Direction, Migration, Migrations, Mode};
use sea_orm_migration::sea_orm::{ConnectionTrait, DatabaseConnection, DbErr};
use std::time::Instant;

/// What one run is to do.
pub(super) struct Plan<'a> {
    pub(super) migrations: &'a Migrations,
    pub(super) options: &'a Options,
    pub(super) direction: Direction,
    /// The most migrations to run.
    pub(super) limit: usize,
    /// Whether to drop the history's tables at the end.
    pub(super) drop_history: bool,
}

impl Plan<'_> {
    /// Whether there is nothing to do. Reads without the lock: when the schema is up to date, a run takes no lock and
    /// needs no right to write.
    pub(super) async fn is_done(&self, connection: &DatabaseConnection) -> Result<bool, MigrationError> {
        let history = history::read(connection).await?;
        if self.direction == Direction::Down {
            return Ok(history.is_none());
        }
        let state = SchemaState::new(self.migrations, connection.get_database_backend(), &history);
        state.validate_ignoring_dirty(self.options.allow)?;
        Ok(state.is_done())
    }

    /// Whether the process that held the lock has left nothing to apply. A revert is never done by others.
    pub(super) async fn is_done_by_others(&self, connection: &DatabaseConnection) -> Result<bool, DbErr> {
        if self.direction == Direction::Down {
            return Ok(false);
        }
        let history = history::read(connection).await?;
        Ok(SchemaState::new(self.migrations, connection.get_database_backend(), &history).is_done())
    }

    /// Runs each migration through `run`, which also records it; returns their names. The caller holds the lock, under
    /// which the history is read again.
    pub(super) async fn execute(
        &self,
        connection: &impl ConnectionTrait,
        run: impl AsyncFn(&Migration) -> Result<(), MigrationError>,
    ) -> Result<Vec<String>, MigrationError> {
        history::create_tables(connection).await?;
        let history = history::read_in_transaction(connection).await?;
        let state = SchemaState::new(self.migrations, connection.get_database_backend(), &history);
        let migrations: Vec<&Migration> = match self.direction {
            Direction::Up => {
                history::baseline(connection, self.migrations, &history).await?;
                state.validate(self.options.allow)?;
                self.migrations.select(&state.pending()).take(self.limit).collect()
            }
            Direction::Down => {
                state.validate_revert()?;
                let applied = state.names(MigrationStatus::Applied);
                self.migrations.select(&applied).rev().take(self.limit).collect()
            }
        };
        let (running, ran) = match self.direction {
            Direction::Up => ("applying", "applied"),
            Direction::Down => ("reverting", "reverted"),
        };
        for migration in &migrations {
            (self.options.observer)(Progress::Migrating);
            tracing::info!(migration = migration.name, "{running}");
            let started = Instant::now();
            run(migration).await?;
            tracing::info!(migration = migration.name, duration_ms = started.elapsed().as_millis(), "{ran}");
        }
        if self.drop_history {
            history::drop_tables(connection).await?;
        }
        Ok(migrations.iter().map(|migration| migration.name.to_owned()).collect())
    }

    /// Runs and records one migration in the caller's transaction. A backfill runs until it changes nothing, but no more
    /// than `row_limit` rows.
    pub(super) async fn run_in(
        &self,
        transaction: &impl ConnectionTrait,
        migration: &Migration,
        row_limit: u64,
    ) -> Result<(), MigrationError> {
        let run = async || {
            let outcome = migration.run(transaction, self.direction).await;
            outcome.map_err(|cause| failed(migration, cause, AfterFailure::RolledBack))
        };
        if let (Mode::Backfill(_), Direction::Up) = (migration.mode, self.direction) {
            let mut batches = Batches::new(migration, row_limit);
            while batches.add(run().await?)? {}
        } else {
            run().await?;
        }
        match self.direction {
            Direction::Up => {
                history::record_started(transaction, migration).await?;
                history::record_applied(transaction, migration.name).await?;
            }
            Direction::Down => history::delete(transaction, migration.name).await?,
        }
        Ok(())
    }
}
