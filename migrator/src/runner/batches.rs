//! What the batches of a backfill have in common on both databases: progress, and an end.

use super::progress::PROGRESS_LOG_INTERVAL;
use crate::error::MigrationError;
use crate::migration::Migration;
use std::time::Instant;

/// Counts the rows that a backfill has changed.
pub(super) struct Batches {
    name: &'static str,
    rows: u64,
    /// More rows than there are: whoever changes so many changes the same ones again and again.
    limit: u64,
    logged: Instant,
}

impl Batches {
    pub(super) fn new(migration: &Migration, limit: u64) -> Self {
        Self { name: migration.name, rows: 0, limit, logged: Instant::now() }
    }

    /// Adds the rows of one batch; returns whether there were any. Logs the sum every ten seconds.
    pub(super) fn add(&mut self, rows: u64) -> Result<bool, MigrationError> {
        self.rows += rows;
        if rows > 0 && self.rows > self.limit {
            return Err(MigrationError::Endless { name: self.name.to_owned(), rows: self.rows });
        }
        if self.logged.elapsed() >= PROGRESS_LOG_INTERVAL {
            self.logged = Instant::now();
            self.log("rows changed so far");
        }
        Ok(rows > 0)
    }

    pub(super) fn log(&self, text: &str) {
        tracing::info!(migration = self.name, rows = self.rows, "{text}");
    }
}
