//! Compares a build's migrations with a database's history, and decides whether the build can work with the schema.

use crate::history::{Entry, History};
use crate::migration::{Migration, Migrations};
use sea_orm_migration::sea_orm::DbBackend;
use std::fmt;

/// The status of one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationStatus {
    /// Recorded, and unchanged since.
    Applied,
    /// Recorded, but this build holds other SQL under its name.
    Edited,
    /// Not yet run.
    Pending,
    /// Not yet run, though a newer one has been.
    OutOfOrder,
    /// Started outside a transaction and interrupted, or still running.
    Dirty,
    /// Recorded, older than this build's newest, and not part of this build.
    Unknown,
    /// Recorded, and newer than this build.
    Ahead,
}

impl MigrationStatus {
    /// In lower case, as tables and JSON show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Edited => "edited",
            Self::Pending => "pending",
            Self::OutOfOrder => "out-of-order",
            Self::Dirty => "dirty",
            Self::Unknown => "unknown",
            Self::Ahead => "ahead",
        }
    }
}

impl fmt::Display for MigrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One migration, of the build or of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationInfo {
    /// The migration's name.
    pub name: String,
    /// Its status.
    pub status: MigrationStatus,
}

/// What to accept that is refused by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllowOptions {
    /// Recorded migrations that this build does not have.
    pub unknown: bool,
    /// Pending migrations that are older than one already applied.
    pub out_of_order: bool,
}

/// How much [`SchemaState::check`] looks at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CheckPolicy {
    /// Every migration of the build and of the history.
    #[default]
    Full,
    /// Only whether a migration of this build is pending or dirty.
    PendingOnly,
}

/// A schema that this build can work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compatibility {
    /// The schema holds every migration of this build, and none that [`CheckPolicy`] looks for besides.
    Exact,
    /// The schema also holds these newer migrations, and records that this build can work with them.
    Ahead(Vec<String>),
}

/// Why this build cannot work with a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaMismatch {
    /// The database has no history.
    #[error("the database has never been migrated: run migrate up")]
    NeverMigrated,
    /// Migrations of this build are not applied.
    #[error("migrations are pending: {}: run migrate up", .0.join(", "))]
    Pending(Vec<String>),
    /// Migrations of this build are not applied though newer ones are.
    #[error("migrations are pending that are older than what is applied: {}: if that is meant, run migrate up --allow-out-of-order", .0.join(", "))]
    OutOfOrder(Vec<String>),
    /// Migrations were changed after they had been applied.
    #[error("migrations were edited after they had been applied: {}: put them back as they were, and write the change as a new migration", .0.join(", "))]
    ChecksumMismatch(Vec<String>),
    /// The schema is newer than this build, and does not record that this build can work with it.
    #[error("the schema is ahead of this build: {}: {}", .names.join(", "), .needs.as_ref().map_or_else(|| "run a newer build".to_owned(), |name| format!("run a build that has {name}")))]
    Ahead {
        /// The migrations that this build does not have.
        names: Vec<String>,
        /// The migration that a build must have, where the schema records one.
        needs: Option<String>,
    },
    /// The history holds migrations from another line of development.
    #[error("migrations are applied that this build does not have, older than its newest: {}: is this the right build for this database? If so, set MIGRATION_ALLOW_UNKNOWN=true, or pass --allow-unknown", .0.join(", "))]
    Unknown(Vec<String>),
    /// Migrations outside a transaction were interrupted, or are running at this moment.
    #[error("migrations were interrupted, or are still running: {}: if none is running, look at the schema, then record what you found with migrate repair NAME --applied or --pending", .0.join(", "))]
    Dirty(Vec<String>),
}

/// A build's migrations compared with a database's history.
#[derive(Debug, Clone)]
pub struct SchemaState {
    /// Every migration of either, by name.
    pub migrations: Vec<MigrationInfo>,
    has_history: bool,
    /// For each migration that is ahead: the oldest build that can work with it, where the schema records one.
    ahead: Vec<(String, Option<String>)>,
    newest: &'static str,
}

impl SchemaState {
    pub(crate) fn new(build: &Migrations, backend: DbBackend, history: &History) -> Self {
        let entries = history.as_deref().unwrap_or_default();
        let newest = build.newest();
        let last_applied = entries.iter().filter(|entry| !entry.running).map(|entry| entry.name.as_str()).max();
        let of_build = build.iter().map(|migration| {
            let entry = entries.iter().find(|entry| entry.name == migration.name);
            let status = match entry {
                Some(entry) => recorded_status(migration, backend, entry),
                None if last_applied.is_some_and(|last| migration.name < last) => MigrationStatus::OutOfOrder,
                None => MigrationStatus::Pending,
            };
            MigrationInfo { name: migration.name.to_owned(), status }
        });
        let others = || entries.iter().filter(|entry| build.find(&entry.name).is_none());
        let of_others = others().map(|entry| {
            let ahead = entry.name.as_str() > newest;
            let status = if ahead { MigrationStatus::Ahead } else { MigrationStatus::Unknown };
            MigrationInfo { name: entry.name.clone(), status }
        });
        let mut migrations: Vec<MigrationInfo> = of_build.chain(of_others).collect();
        migrations.sort_by(|one, other| one.name.cmp(&other.name));
        let ahead = others().filter(|entry| entry.name.as_str() > newest);
        let ahead = ahead.map(|entry| (entry.name.clone(), entry.min_compatible_version.clone())).collect();
        Self { migrations, has_history: history.is_some(), ahead, newest }
    }

    /// The names of the migrations in one status, oldest first.
    #[must_use]
    pub fn names(&self, status: MigrationStatus) -> Vec<String> {
        self.names_in(&[status])
    }

    /// What `up` would run, oldest first.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.names_in(&[MigrationStatus::Pending, MigrationStatus::OutOfOrder])
    }

    fn names_in(&self, statuses: &[MigrationStatus]) -> Vec<String> {
        let found = self.migrations.iter().filter(|migration| statuses.contains(&migration.status));
        found.map(|migration| migration.name.clone()).collect()
    }

    /// Whether nothing is left to run or to repair.
    pub(crate) fn is_done(&self) -> bool {
        self.pending().is_empty() && self.names(MigrationStatus::Dirty).is_empty()
    }

    /// Whether this build can serve with this schema. The start, readiness and `migrate verify` all ask here.
    pub fn check(&self, policy: CheckPolicy, allow: AllowOptions) -> Result<Compatibility, SchemaMismatch> {
        match policy {
            CheckPolicy::Full => self.validate(allow)?,
            CheckPolicy::PendingOnly => self.fail_if_any(MigrationStatus::Dirty, SchemaMismatch::Dirty)?,
        }
        let pending = self.pending();
        if !pending.is_empty() {
            return Err(if self.has_history {
                SchemaMismatch::Pending(pending)
            } else {
                SchemaMismatch::NeverMigrated
            });
        }
        let ahead = self.names(MigrationStatus::Ahead);
        let exact = ahead.is_empty() || policy == CheckPolicy::PendingOnly;
        Ok(if exact { Compatibility::Exact } else { Compatibility::Ahead(ahead) })
    }

    /// Whether this build may change this schema: refuses everything that a full check refuses, except what is merely
    /// pending.
    pub(crate) fn validate(&self, allow: AllowOptions) -> Result<(), SchemaMismatch> {
        self.fail_if_any(MigrationStatus::Dirty, SchemaMismatch::Dirty)?;
        self.validate_ignoring_dirty(allow)
    }

    /// The same before the lock is held, when a dirty migration may be one that another process is running.
    pub(crate) fn validate_ignoring_dirty(&self, allow: AllowOptions) -> Result<(), SchemaMismatch> {
        self.fail_if_any(MigrationStatus::Edited, SchemaMismatch::ChecksumMismatch)?;
        if !allow.unknown {
            self.fail_if_any(MigrationStatus::Unknown, SchemaMismatch::Unknown)?;
        }
        self.validate_ahead()?;
        if !allow.out_of_order {
            self.fail_if_any(MigrationStatus::OutOfOrder, SchemaMismatch::OutOfOrder)?;
        }
        Ok(())
    }

    /// Whether this build may revert migrations: not where the history holds newer ones, or ones it does not know.
    pub(crate) fn validate_revert(&self) -> Result<(), SchemaMismatch> {
        self.fail_if_any(MigrationStatus::Ahead, |names| SchemaMismatch::Ahead { names, needs: None })?;
        self.validate(AllowOptions { out_of_order: true, unknown: false })
    }

    fn fail_if_any(
        &self,
        status: MigrationStatus,
        mismatch: impl FnOnce(Vec<String>) -> SchemaMismatch,
    ) -> Result<(), SchemaMismatch> {
        let names = self.names(status);
        if names.is_empty() { Ok(()) } else { Err(mismatch(names)) }
    }

    fn validate_ahead(&self) -> Result<(), SchemaMismatch> {
        let newest = self.newest;
        let compatible = |minimum: &Option<String>| minimum.as_deref().is_some_and(|minimum| minimum <= newest);
        if self.ahead.iter().all(|(_, minimum)| compatible(minimum)) {
            return Ok(());
        }
        let needs = self.ahead.iter().filter_map(|(_, minimum)| minimum.clone()).max();
        let needs = needs.filter(|needs| needs.as_str() > newest);
        Err(SchemaMismatch::Ahead { names: self.names(MigrationStatus::Ahead), needs })
    }
}

fn recorded_status(migration: &Migration, backend: DbBackend, entry: &Entry) -> MigrationStatus {
    if entry.running {
        return if migration.is_idempotent() { MigrationStatus::Pending } else { MigrationStatus::Dirty };
    }
    match &entry.checksum {
        Some(applied) if *applied != migration.checksum(backend) => MigrationStatus::Edited,
        _ => MigrationStatus::Applied,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Mode, Sql};

    fn migration(name: &'static str, sql: &'static str, mode: Mode) -> Migration {
        let both = Sql { postgres: sql, sqlite: sql };
        Migration { name, min_compatible_version: "m1", up: both, down: both, mode }
    }

    fn build(names: &[&'static str]) -> Migrations {
        Migrations::new(names.iter().map(|name| migration(name, "SELECT 1", Mode::Transaction)).collect())
    }

    fn applied(name: &str) -> Entry {
        let (name, minimum) = (name.to_owned(), Some("m1".to_owned()));
        Entry { name, checksum: None, min_compatible_version: minimum, running: false }
    }

    fn state(build: &Migrations, entries: &[Entry]) -> SchemaState {
        SchemaState::new(build, DbBackend::Sqlite, &Some(entries.to_vec()))
    }

    fn check(build: &Migrations, entries: &[Entry]) -> Result<Compatibility, SchemaMismatch> {
        state(build, entries).check(CheckPolicy::Full, AllowOptions::default())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn mismatches_are_told_apart() {
        use SchemaMismatch::{ChecksumMismatch, Dirty, NeverMigrated, OutOfOrder, Pending, Unknown};
        let two = build(&["m1", "m2"]);
        let never = SchemaState::new(&two, DbBackend::Sqlite, &None);
        assert_eq!(never.check(CheckPolicy::Full, AllowOptions::default()), Err(NeverMigrated));
        assert_eq!(check(&two, &[applied("m1"), applied("m2")]), Ok(Compatibility::Exact));
        assert_eq!(check(&two, &[applied("m1")]), Err(Pending(names(&["m2"]))));
        assert_eq!(check(&two, &[applied("m2")]), Err(OutOfOrder(names(&["m1"]))));
        assert_eq!(check(&two, &[applied("m0"), applied("m1"), applied("m2")]), Err(Unknown(names(&["m0"]))));
        let running = Entry { running: true, ..applied("m2") };
        assert_eq!(check(&two, &[applied("m1"), running.clone()]), Err(Dirty(names(&["m2"]))));
        let edited = Entry { checksum: Some("another".to_owned()), ..applied("m2") };
        assert_eq!(check(&two, &[applied("m1"), edited]), Err(ChecksumMismatch(names(&["m2"]))));
        let index = Migrations::new(vec![migration("m2", "SELECT 1", Mode::ConcurrentIndex("i"))]);
        assert_eq!(check(&index, &[running]), Err(Pending(names(&["m2"]))), "it can run again");
    }

    #[test]
    fn older_build_serves_newer_schema_only_where_recorded() {
        let old = build(&["m1", "m2"]);
        let newer = |minimum: Option<&str>| {
            let min_compatible_version = minimum.map(str::to_owned);
            Entry { min_compatible_version, ..applied("m3") }
        };
        let with = |minimum| check(&old, &[applied("m1"), applied("m2"), newer(minimum)]);
        assert_eq!(with(Some("m1")), Ok(Compatibility::Ahead(names(&["m3"]))));
        assert_eq!(with(Some("m2")), Ok(Compatibility::Ahead(names(&["m3"]))));
        let refused =
            |needs: Option<&str>| SchemaMismatch::Ahead { names: names(&["m3"]), needs: needs.map(str::to_owned) };
        assert_eq!(with(Some("m3")), Err(refused(Some("m3"))));
        assert_eq!(with(None), Err(refused(None)));
    }

    #[test]
    fn allow_options_accept_what_they_name_and_nothing_else() {
        let two = build(&["m1", "m2"]);
        let unknown = AllowOptions { unknown: true, ..AllowOptions::default() };
        let out_of_order = AllowOptions { out_of_order: true, ..AllowOptions::default() };
        let with_unknown = state(&two, &[applied("m0"), applied("m1"), applied("m2")]);
        assert!(with_unknown.check(CheckPolicy::Full, unknown).is_ok());
        assert!(with_unknown.check(CheckPolicy::Full, out_of_order).is_err());
        assert!(state(&two, &[applied("m2")]).validate(out_of_order).is_ok());
        assert!(state(&two, &[applied("m2")]).validate(unknown).is_err());
    }

    #[test]
    fn pending_only_ignores_all_but_pending_and_dirty() {
        let two = build(&["m1", "m2"]);
        let check = |entries: &[Entry]| state(&two, entries).check(CheckPolicy::PendingOnly, AllowOptions::default());
        let edited = Entry { checksum: Some("another".to_owned()), ..applied("m2") };
        let breaking = Entry { min_compatible_version: Some("m3".to_owned()), ..applied("m3") };
        assert_eq!(check(&[applied("m0"), applied("m1"), edited, breaking]), Ok(Compatibility::Exact));
        assert_eq!(check(&[applied("m2")]), Err(SchemaMismatch::Pending(names(&["m1"]))));
        let running = Entry { running: true, ..applied("m2") };
        assert_eq!(check(&[applied("m1"), running]), Err(SchemaMismatch::Dirty(names(&["m2"]))));
    }

    #[test]
    fn checksum_follows_statements_and_not_indentation() {
        let checksum = |sql| migration("m1", sql, Mode::Transaction).checksum(DbBackend::Sqlite);
        assert_eq!(checksum("CREATE TABLE a\n(b int)"), checksum("\n  CREATE TABLE a\n\n    (b int)\n"));
        assert_ne!(checksum("CREATE TABLE a (b int)"), checksum("CREATE TABLE a (b text)"));
        assert_ne!(checksum("SELECT 'a b'"), checksum("SELECT 'a  b'"));
        assert_eq!(checksum("-- x\n\n-- y\nDROP TABLE a"), checksum("DROP TABLE a"));
        assert_ne!(checksum("DROP TABLE a\n-- x"), checksum("DROP TABLE a"));
    }
}
