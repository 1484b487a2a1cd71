//! What a migration locks on PostgreSQL, as a test has measured it, and how large the locked tables are.

use crate::migration::Migrations;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbErr, Statement};
use std::collections::HashMap;
use std::fmt;

/// The mode of a lock on a table, weakest first (postgresql.org/docs/current/explicit-locking.html, "Table-Level Locks").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "PostgreSQL's names")]
pub enum LockMode {
    AccessShare,
    RowShare,
    RowExclusive,
    ShareUpdateExclusive,
    Share,
    ShareRowExclusive,
    Exclusive,
    AccessExclusive,
}

impl LockMode {
    const ALL: [Self; 8] = [
        Self::AccessShare,
        Self::RowShare,
        Self::RowExclusive,
        Self::ShareUpdateExclusive,
        Self::Share,
        Self::ShareRowExclusive,
        Self::Exclusive,
        Self::AccessExclusive,
    ];

    /// The mode by its name in `pg_locks`, such as `AccessExclusiveLock`.
    #[must_use]
    pub fn from_pg_locks(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.in_pg_locks() == name)
    }

    /// Its name in `pg_locks`.
    #[must_use]
    pub fn in_pg_locks(self) -> String {
        format!("{self:?}Lock")
    }

    /// What other sessions cannot do while the lock is held: the table of conflicts of the page above, for the modes that
    /// SELECT, SELECT FOR UPDATE, and INSERT, UPDATE and DELETE take.
    #[must_use]
    pub const fn blocks(self) -> &'static str {
        match self {
            Self::AccessShare | Self::ShareUpdateExclusive => "nothing",
            Self::RowShare => "nothing but changes to the rows it locks",
            Self::RowExclusive => "nothing but changes to the rows it changes",
            Self::Share | Self::ShareRowExclusive | Self::Exclusive => "writes",
            Self::AccessExclusive => "reads and writes",
        }
    }
}

impl fmt::Display for LockMode {
    /// As in SQL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::Exclusive => "EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        })
    }
}

/// A lock that a statement takes on a table which is in use, and which its transaction keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLock {
    /// The line of the SQL on which the statement begins; the first is 1.
    pub line: usize,
    /// The table.
    pub table: String,
    /// The strongest mode that the statement takes; where an earlier statement has taken it already, nothing is recorded.
    pub mode: LockMode,
    /// The table's size now.
    pub size: TableSize,
}

/// How large a table is, with its partitions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableSize {
    /// The rows, as VACUUM or ANALYZE last counted them; `None` where neither has run.
    pub rows: Option<u64>,
    /// Its size on the disk. Unlike a count, it is known at once, and whatever policies hide rows.
    pub bytes: u64,
}

impl fmt::Display for TableSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.rows) {
            (0, _) => f.write_str("no rows"),
            (_, Some(rows)) => write!(f, "about {rows} rows"),
            (bytes, None) => write!(f, "unknown rows in {} kB, never analysed", bytes / 1024),
        }
    }
}

/// Every table of the schema. `reltuples` is -1 where nothing has counted it, 0 before PostgreSQL 14
/// (postgresql.org/docs/current/catalog-pg-class.html).
const SIZES: &str = "
    SELECT c.relname::text AS name, sum(pg_relation_size(p.oid))::bigint AS bytes,
        CASE WHEN bool_and(p.reltuples > 0 OR pg_relation_size(p.oid) = 0) THEN sum(p.reltuples)::bigint END AS rows
    FROM pg_class c
    CROSS JOIN LATERAL (SELECT c.oid WHERE c.relkind = 'r'
        UNION ALL SELECT t.relid FROM pg_partition_tree(c.oid) t WHERE c.relkind = 'p' AND t.isleaf) part (oid)
    JOIN pg_class p ON p.oid = part.oid
    WHERE c.relnamespace = current_schema()::regnamespace GROUP BY c.oid, c.relname";

/// The size of each table that exists.
pub(crate) async fn table_sizes(connection: &impl ConnectionTrait) -> Result<HashMap<String, TableSize>, DbErr> {
    let rows = connection.query_all_raw(Statement::from_string(connection.get_database_backend(), SIZES)).await?;
    let sizes = rows.iter().map(|row| {
        let rows: Option<i64> = row.try_get("", "rows")?;
        let bytes: i64 = row.try_get("", "bytes")?;
        let size = TableSize {
            rows: rows.map(|rows| u64::try_from(rows).unwrap_or_default()),
            bytes: u64::try_from(bytes).unwrap_or_default(),
        };
        Ok((row.try_get("", "name")?, size))
    });
    sizes.collect()
}

/// The locks on tables that exist; `None` where the migration was not measured. Each line of what was measured is a
/// migration's name, a line of its SQL, a table and a mode as in `pg_locks`. The name alone says that there are no locks.
pub(crate) fn table_locks(
    migrations: &Migrations,
    name: &str,
    sizes: &HashMap<String, TableSize>,
) -> Option<Vec<TableLock>> {
    let mut measured = migrations.locks().lines().map(str::split_ascii_whitespace);
    let mut measured =
        measured.by_ref().filter_map(|mut words| (words.next() == Some(name)).then_some(words)).peekable();
    measured.peek()?;
    let lock = |mut words: std::str::SplitAsciiWhitespace<'_>| {
        let (line, table, mode) = (words.next()?, words.next()?, words.next()?);
        Some(TableLock {
            line: line.parse().ok()?,
            table: table.to_owned(),
            mode: LockMode::from_pg_locks(mode)?,
            size: *sizes.get(table)?,
        })
    };
    Some(measured.filter_map(lock).collect())
}
