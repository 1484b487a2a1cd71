//! What a migration is to the runner: sea-orm's trait, and what can be said of it without running it.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// What can be said of a migration without running it.
pub trait Describe {
    /// The SQL that `up` will run on `backend`; `None` where only running it tells.
    fn sql(&self, _backend: DbBackend) -> Option<&str> {
        None
    }

    /// The oldest build that can serve once this migration is applied, by the name of that build's newest
    /// migration; `None` when nobody can say, and then every older build refuses.
    fn minimum_build(&self) -> Option<&str> {
        None
    }

    /// Whether a migration outside a transaction finishes its own work when it is run again after a crash.
    fn rerunnable(&self) -> bool {
        false
    }

    /// SHA-256 of the SQL, in hexadecimal. Indentation, empty lines and the comment at the top do not count.
    fn fingerprint(&self, backend: DbBackend) -> Option<String> {
        let mut hash = Sha256::new();
        let lines = self.sql(backend)?.lines().map(str::trim).filter(|line| !line.is_empty());
        for line in lines.skip_while(|line| line.starts_with("--")) {
            hash.update(line);
            hash.update("\n");
        }
        Some(format!("{:x}", hash.finalize()))
    }
}

/// A migration that can be described.
pub trait DescribedMigration: MigrationTrait + Describe {}

impl<M: MigrationTrait + Describe> DescribedMigration for M {}

/// All migrations of a build, oldest first; their names sort in the same order.
#[derive(Clone)]
pub struct Migrations(Arc<[Box<dyn DescribedMigration>]>);

impl Migrations {
    /// Takes them oldest first.
    ///
    /// # Panics
    /// When their names do not ascend: the history is kept by name, and a name out of order could never be told
    /// from a migration that was slipped in later.
    #[must_use]
    pub fn new(migrations: Vec<Box<dyn DescribedMigration>>) -> Self {
        assert!(migrations.is_sorted_by(|one, next| one.name() < next.name()), "migrations' names must ascend");
        Self(migrations.into())
    }

    /// A plain sea-orm migrator: it runs under the lock, but nothing is known of its migrations beforehand.
    #[must_use]
    pub fn of<M: MigratorTrait>() -> Self {
        let migrations =
            M::migrations().into_iter().map(|inner| -> Box<dyn DescribedMigration> { Box::new(Undescribed(inner)) });
        Self::new(migrations.collect())
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &dyn DescribedMigration> {
        self.0.iter().map(AsRef::as_ref)
    }

    pub(crate) fn find(&self, name: &str) -> Option<&dyn DescribedMigration> {
        self.iter().find(|migration| migration.name() == name)
    }

    /// The newest migration's name, which says what schema this build was made for.
    #[must_use]
    pub fn newest(&self) -> &str {
        self.iter().next_back().map_or("", MigrationName::name)
    }
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(MigrationName::name)).finish()
    }
}

/// A migration written as SQL, once for each database.
#[derive(Debug, Clone, Copy)]
pub struct SqlMigration {
    /// By which the history knows it; sorts by time.
    pub name: &'static str,
    /// See [`Describe::minimum_build`]: its own name where older builds break, an older one where they do not.
    pub minimum_build: &'static str,
    /// What applies it.
    pub up: Sql,
    /// What reverts it.
    pub down: Sql,
    /// How it runs on PostgreSQL. On SQLite every run is one transaction.
    pub mode: Mode,
}

/// The same step in each database's own SQL; several statements may stand in each.
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
    /// One statement that PostgreSQL runs outside transactions only. It counts as dirty while it runs, and a person
    /// must look at it when it was interrupted.
    ByHand,
    /// `up` is CREATE INDEX CONCURRENTLY IF NOT EXISTS of this index. What an interrupted build leaves behind, an
    /// invalid index, is dropped before it is run again (postgresql.org/docs/current/sql-createindex.html).
    ConcurrentIndex(&'static str),
}

impl Sql {
    fn of(&self, backend: DbBackend) -> Option<&'static str> {
        match backend {
            DbBackend::Postgres => Some(self.postgres),
            DbBackend::Sqlite => Some(self.sqlite),
            _ => None,
        }
    }

    async fn run(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let backend = manager.get_database_backend();
        let sql = self.of(backend).ok_or_else(|| DbErr::Custom(format!("no SQL for {backend:?}")))?;
        manager.get_connection().execute_unprepared(sql).await?;
        Ok(())
    }
}

impl MigrationName for SqlMigration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for SqlMigration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if let (Mode::ConcurrentIndex(index), DbBackend::Postgres) = (self.mode, manager.get_database_backend()) {
            drop_if_invalid(manager, index).await?;
        }
        self.up.run(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.down.run(manager).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(self.mode == Mode::Transaction)
    }
}

impl Describe for SqlMigration {
    fn sql(&self, backend: DbBackend) -> Option<&str> {
        self.up.of(backend)
    }

    fn minimum_build(&self) -> Option<&str> {
        Some(self.minimum_build)
    }

    fn rerunnable(&self) -> bool {
        matches!(self.mode, Mode::ConcurrentIndex(_))
    }
}

async fn drop_if_invalid(manager: &SchemaManager<'_>, index: &str) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    let invalid = sea_orm::Statement::from_sql_and_values(
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

/// A migration of a plain sea-orm migrator.
struct Undescribed(Box<dyn MigrationTrait>);

impl MigrationName for Undescribed {
    fn name(&self) -> &str {
        self.0.name()
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Undescribed {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.0.up(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.0.down(manager).await
    }

    fn use_transaction(&self) -> Option<bool> {
        self.0.use_transaction()
    }
}

impl Describe for Undescribed {}
