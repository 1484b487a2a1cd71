//! Why a run did not do what it was asked to.

use crate::compatibility::{MigrationStatus, SchemaMismatch};
use sea_orm_migration::sea_orm::sqlx::error::DatabaseError;
use sea_orm_migration::sea_orm::sqlx::postgres::PgDatabaseError;
use sea_orm_migration::sea_orm::{DbErr, RuntimeErr};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a run did not do what it was asked to. What a run had finished before stays applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// This build cannot work with the schema. Nothing was changed.
    #[error(transparent)]
    Mismatch(#[from] SchemaMismatch),
    /// Another process held the lock for longer than this one may wait. Nothing was changed.
    #[error("the migration lock was not free within {} s; it is held by {holder}", .waited.as_secs())]
    LockTimeout {
        /// How long this process waited.
        waited: Duration,
        /// What the database says of the holder.
        holder: String,
    },
    /// The session that held the lock is gone; the migration was not begun.
    #[error("the session that held the migration lock has ended; {name} was not begun")]
    LockLost {
        /// The migration that was to run.
        name: String,
    },
    /// A connection pooler may run each transaction in another session, so that a session-level lock does not hold.
    #[error(
        "the connection goes through a pooler in transaction mode (PgBouncer), where the migration lock does not hold: set \
         MIGRATION_DATABASE_URL to a direct connection to PostgreSQL"
    )]
    Pooler,
    /// The role may not change the schema, or the database may not be written.
    #[error(
        "migrations are pending and this connection may not run them ({cause}): set MIGRATION_DATABASE_URL to one that may"
    )]
    NotPermitted {
        /// What the database says.
        cause: String,
    },
    /// Other sessions held a lock on a table at every try.
    #[error("{name} did not get its locks: other sessions held them at each of {tries} tries; it was not applied")]
    Blocked {
        /// The migration.
        name: String,
        /// How often it was tried.
        tries: usize,
    },
    /// A foreign key would reference no row once the run is committed (SQLite).
    #[error("the migrations would leave {rows} more {} whose foreign key references no row; nothing was changed", if *.rows == 1 { "row" } else { "rows" })]
    DanglingForeignKeys {
        /// How many rows more than before.
        rows: usize,
    },
    /// A backfill has changed more rows than there are.
    #[error(
        "{name} has changed {rows} rows, which is more than the tables hold, and finds more: its WHERE must leave out the rows \
         that are done"
    )]
    Endless {
        /// The migration.
        name: String,
        /// How many rows it has changed in this run, those that it changed twice among them.
        rows: u64,
    },
    /// A backfill that runs for each scope has found none.
    #[error("{name} has no scope to run for: is this the role that may list them?")]
    NoScope {
        /// The migration.
        name: String,
    },
    /// A migration failed.
    #[error("{name} failed: {}; {after}", text(.cause))]
    Failed {
        /// The migration.
        name: String,
        /// What the database says.
        #[source]
        cause: DbErr,
        /// What the failure left behind.
        after: AfterFailure,
    },
    /// There is nothing to repair.
    #[error("{name} was not interrupted: it is {status}")]
    NotDirty {
        /// The migration.
        name: String,
        /// Its status.
        status: MigrationStatus,
    },
    /// There is no migration of this name.
    #[error("there is no migration {name} in this build")]
    NoSuchMigration {
        /// The name that was asked for.
        name: String,
    },
    /// The database refused, or could not be reached.
    #[error("{}", text(.0))]
    Database(#[from] DbErr),
}

/// What a failed migration has left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// Nothing: it ran in a transaction.
    RolledBack,
    /// The batches before the one that failed, after which the next run goes on.
    BatchesStay,
    /// Something that the next run removes.
    RetryCleansUp,
    /// Nobody knows: it ran outside a transaction.
    Dirty,
}

impl fmt::Display for AfterFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RolledBack => "nothing of it is left",
            Self::BatchesStay => {
                "it is not applied; the batches that were done stay, and the next run goes on after them"
            }
            Self::RetryCleansUp => "it is not applied, and the next run removes what it left behind",
            Self::Dirty => {
                "it does not run in a transaction: look at the schema, then record what you found with migrate repair"
            }
        })
    }
}

/// The driver's code of an error: SQLSTATE on PostgreSQL, the extended result code on SQLite.
#[must_use]
pub fn code(error: &DbErr) -> Option<String> {
    refusal(error)?.code().map(Cow::into_owned)
}

/// The text of an error, without the line of PostgreSQL's own source that the driver adds to it.
#[must_use]
pub fn text(error: &DbErr) -> String {
    let mut text = error.to_string();
    let line = refusal(error).and_then(|refusal| refusal.try_downcast_ref::<PgDatabaseError>()?.line());
    if let Some(rest) = line.and_then(|line| text.strip_suffix(&format!(" at line {line}"))) {
        text.truncate(rest.len());
    }
    text
}

/// What the database itself said.
fn refusal(error: &DbErr) -> Option<&dyn DatabaseError> {
    let (DbErr::Exec(RuntimeErr::SqlxError(inner))
    | DbErr::Query(RuntimeErr::SqlxError(inner))
    | DbErr::Conn(RuntimeErr::SqlxError(inner))) = error
    else {
        return None;
    };
    inner.as_database_error()
}

/// `lock_not_available`, after lock_timeout, and `deadlock_detected` (postgresql.org/docs/current/errcodes-appendix.html).
pub(crate) fn is_blocked(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("55P03" | "40P01"))
}

/// `undefined_table` or `undefined_function` on PostgreSQL; SQLite has no code of its own for it.
#[must_use]
pub fn is_missing_table(error: &DbErr) -> bool {
    matches!(code(error).as_deref(), Some("42P01" | "42883")) || error.to_string().contains("no such table")
}

/// `insufficient_privilege`, `read_only_sql_transaction`; SQLITE_READONLY and its extensions.
pub(crate) fn is_not_permitted(error: &DbErr) -> bool {
    let sqlite = |code: &str| code.parse::<i32>().is_ok_and(|code| code & 0xff == 8);
    code(error).is_some_and(|code| code == "42501" || code == "25006" || sqlite(&code))
}

/// SQLITE_BUSY and its extensions.
pub(crate) fn is_busy(error: &DbErr) -> bool {
    code(error).and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == 5)
}
