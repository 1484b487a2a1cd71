//! A migration: its SQL for each database, and how it runs.

use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// All migrations of a build, oldest first; their names sort in the same order.
#[derive(Clone)]
pub struct Migrations {
    list: Arc<[Migration]>,
    locks: &'static str,
}

impl Migrations {
    /// Takes them oldest first.
    ///
    /// # Panics
    /// When their names do not ascend: the history is kept by name, and a name out of order looks like a migration
    /// that was added later.
    #[must_use]
    pub fn new(migrations: Vec<Migration>) -> Self {
        assert!(migrations.is_sorted_by(|one, next| one.name < next.name), "migrations' names must ascend");
        Self { list: migrations.into(), locks: "" }
    }

    /// Adds what a test has measured that each of them locks, for [`Runner::plan`](crate::Runner::plan).
    #[must_use]
    pub fn with_locks(self, locks: &'static str) -> Self {
        Self { locks, ..self }
    }

    pub(crate) fn locks(&self) -> &'static str {
        self.locks
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Migration> {
        self.list.iter()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Migration> {
        self.iter().find(|migration| migration.name == name)
    }

    /// The migrations of these names, in the build's order.
    pub(crate) fn select(&self, names: &[String]) -> impl DoubleEndedIterator<Item = &Migration> {
        self.iter().filter(|migration| names.iter().any(|name| name == migration.name))
    }

    /// The newest migration's name, which says what schema this build was made for.
    #[must_use]
    pub fn newest(&self) -> &'static str {
        self.list.last().map_or("", |migration| migration.name)
    }
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|migration| migration.name)).finish()
    }
}

/// A migration written as SQL, once for each database.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The name in the history; names sort by time.
    pub name: &'static str,
    /// The oldest build that can serve once this migration is applied, by the name of that build's newest migration:
    /// this migration itself where older builds break, an older one where they do not.
    pub min_compatible_version: &'static str,
    /// The SQL that applies it.
    pub up: Sql,
    /// The SQL that reverts it.
    pub down: Sql,
    /// How it runs on PostgreSQL. On SQLite every run is one transaction.
    pub mode: Mode,
}

/// The same step in each database's own SQL; each may hold several statements.
#[derive(Debug, Clone, Copy)]
pub struct Sql {
    /// For PostgreSQL.
    pub postgres: &'static str,
    /// For SQLite.
    pub sqlite: &'static str,
}

/// How a migration runs on PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In a transaction: all of it or nothing.
    Transaction,
    /// One statement that PostgreSQL runs outside transactions only. It counts as dirty while it runs; when it was
    /// interrupted, a person must look at the schema.
    NonTransactional,
    /// `up` is CREATE INDEX CONCURRENTLY IF NOT EXISTS of this index. An interrupted build leaves an invalid index,
    /// which is dropped before the next try (postgresql.org/docs/current/sql-createindex.html).
    ConcurrentIndex(&'static str),
    /// `up` is a statement with a LIMIT of its own. It runs again and again, each time in a transaction of its own, until it
    /// changes no row; only then it is applied. After an interruption the next run goes on, since its WHERE leaves out the rows
    /// that are done. With [`Scopes`] it does so once for each of them. `down` runs once, in a transaction.
    Backfill(Option<Scopes>),
}

/// What a backfill runs for, one after the other, where policies show the owner of the tables a part of the rows at a time.
/// A role for which policies do not hold needs none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes {
    /// Statements before the query, in its transaction.
    pub prepare: &'static str,
    /// A query with one column of text: a scope in each row.
    pub query: &'static str,
    /// The setting that names the scope in each batch's transaction.
    pub setting: &'static str,
}

/// Whether a migration is applied or reverted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

impl Sql {
    pub(crate) fn on(self, backend: DbBackend) -> &'static str {
        match backend {
            DbBackend::Sqlite => self.sqlite,
            _ => self.postgres,
        }
    }
}

impl Migration {
    /// SHA-256 of the SQL that applies it, in hexadecimal. Indentation, empty lines and the comment at the top do not
    /// count.
    #[must_use]
    pub fn checksum(&self, backend: DbBackend) -> String {
        let mut hash = Sha256::new();
        let lines = self.up.on(backend).lines().map(str::trim).filter(|line| !line.is_empty());
        for line in lines.skip_while(|line| line.starts_with("--")) {
            hash.update(line);
            hash.update("\n");
        }
        format!("{:x}", hash.finalize())
    }

    /// Whether it can simply run again after it was interrupted outside a transaction.
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.mode, Mode::ConcurrentIndex(_) | Mode::Backfill(_))
    }

    /// Runs its SQL once; records nothing. Returns how many rows it changed.
    pub(crate) async fn run(&self, connection: &impl ConnectionTrait, direction: Direction) -> Result<u64, DbErr> {
        let backend = connection.get_database_backend();
        let sql = match direction {
            Direction::Up => self.up,
            Direction::Down => self.down,
        };
        if let (Mode::ConcurrentIndex(index), DbBackend::Postgres, Direction::Up) = (self.mode, backend, direction) {
            drop_if_invalid(connection, index).await?;
        }
        connection.execute_unprepared(sql.on(backend)).await.map(|done| done.rows_affected())
    }
}

async fn drop_if_invalid(connection: &impl ConnectionTrait, index: &str) -> Result<(), DbErr> {
    let invalid = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "SELECT 1 AS one FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE NOT i.indisvalid AND c.relname = $1 AND n.nspname = current_schema()",
        [index.into()],
    );
    if connection.query_one_raw(invalid).await?.is_some() {
        tracing::warn!(index, "an interrupted build left this index invalid; it is built again");
        connection.execute_unprepared(&format!("DROP INDEX CONCURRENTLY IF EXISTS \"{index}\"")).await?;
    }
    Ok(())
}
