//! What a database's history says beside what a build knows, and whether the two fit.

use crate::catalogue::Migrations;
use sea_orm_migration::sea_orm::DbBackend;
use std::fmt;

/// One row of the history, as the database holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Of the SQL that was applied; `None` where nobody recorded it.
    pub(crate) fingerprint: Option<String>,
    pub(crate) minimum_build: Option<String>,
    /// Begun outside a transaction, and not known to have ended.
    pub(crate) running: bool,
}

/// The history; `None` where the database has none yet.
pub(crate) type History = Option<Vec<Entry>>;

/// Where one migration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Recorded, and unchanged since.
    Applied,
    /// Recorded, but this build holds other SQL under its name.
    Edited,
    /// Not yet run.
    Pending,
    /// Not yet run, though a newer one has been.
    OutOfOrder,
    /// Begun outside a transaction and interrupted.
    Dirty,
    /// Recorded, older than this build's newest, and not part of this build.
    Unknown,
    /// Recorded, and newer than this build.
    Ahead,
}

impl Standing {
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

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One migration, of the build or of the history, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The migration's name.
    pub name: String,
    /// Where it stands.
    pub standing: Standing,
}

/// What to let pass that is refused by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leniency {
    /// Recorded migrations that this build does not have.
    pub unknown: bool,
    /// Pending migrations that are older than one already applied.
    pub out_of_order: bool,
}

/// A schema that this build can work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// Every migration of this build is applied, and no other.
    Exact,
    /// These are applied besides, and say that this build can work with them.
    Ahead(Vec<String>),
}

/// Why a build and a schema do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The database has no history.
    #[error("the database has never been migrated: run migrate up")]
    NeverMigrated,
    /// Migrations of this build are not applied.
    #[error("migrations are pending: {}: run migrate up", .0.join(", "))]
    Pending(Vec<String>),
    /// Migrations of this build are not applied though newer ones are.
    #[error("migrations are pending that are older than what is applied: {}: if that is meant, run migrate up --allow-out-of-order", .0.join(", "))]
    OutOfOrder(Vec<String>),
    /// A migration was changed after it had been applied.
    #[error("migrations were edited after they had been applied: {}: put them back as they were, and write the change as a new migration", .0.join(", "))]
    ChecksumMismatch(Vec<String>),
    /// The schema is newer than this build, and does not say that this build can work with it.
    #[error("the schema is ahead of this build: {}: {}", .names.join(", "), .needs.as_ref().map_or_else(|| "run a newer build".to_owned(), |name| format!("run a build that has {name}")))]
    Ahead {
        /// What this build does not have.
        names: Vec<String>,
        /// What a build must have, where the schema says so.
        needs: Option<String>,
    },
    /// The history holds migrations from another line of development.
    #[error("migrations are applied that this build does not have, older than its newest: {}: is this the right build for this database? If so, set MIGRATION_ALLOW_UNKNOWN=true, or pass --allow-unknown", .0.join(", "))]
    Unknown(Vec<String>),
    /// A migration outside a transaction was interrupted, or is running at this moment.
    #[error("migrations were interrupted half-way, or are running: {}: if nothing runs, look at the schema, then say what is true with migrate repair NAME --applied or --pending", .0.join(", "))]
    Dirty(Vec<String>),
}

/// A build's migrations and a history, laid side by side.
#[derive(Debug, Clone)]
pub struct State {
    /// Every migration of either, by name.
    pub steps: Vec<Step>,
    exists: bool,
    /// What the schema says of the builds that can work with it, for each step that is ahead.
    ahead: Vec<(String, Option<String>)>,
    newest: String,
}

impl State {
    pub(crate) fn new(migrations: &Migrations, backend: DbBackend, history: &History) -> Self {
        let entries = history.as_deref().unwrap_or_default();
        let recorded = |name: &str| entries.iter().find(|entry| entry.name == name);
        let newest = migrations.newest();
        let last_applied = entries.iter().filter(|entry| !entry.running).map(|entry| entry.name.as_str()).max();
        let mut steps: Vec<Step> = migrations
            .iter()
            .map(|migration| {
                let name = migration.name();
                let standing = match recorded(name) {
                    Some(entry) if entry.running && migration.rerunnable() => Standing::Pending,
                    Some(entry) if entry.running => Standing::Dirty,
                    Some(Entry { fingerprint: Some(then), .. })
                        if migration.fingerprint(backend).is_some_and(|now| now != *then) =>
                    {
                        Standing::Edited
                    }
                    Some(_) => Standing::Applied,
                    None if last_applied.is_some_and(|last| name < last) => Standing::OutOfOrder,
                    None => Standing::Pending,
                };
                Step { name: name.to_owned(), standing }
            })
            .collect();
        let mut ahead = Vec::new();
        for entry in entries.iter().filter(|entry| migrations.find(&entry.name).is_none()) {
            let standing = if entry.name.as_str() > newest { Standing::Ahead } else { Standing::Unknown };
            if standing == Standing::Ahead {
                ahead.push((entry.name.clone(), entry.minimum_build.clone()));
            }
            steps.push(Step { name: entry.name.clone(), standing });
        }
        steps.sort_by(|one, other| one.name.cmp(&other.name));
        Self { steps, exists: history.is_some(), ahead, newest: newest.to_owned() }
    }

    /// The names in one standing, oldest first.
    #[must_use]
    pub fn names(&self, standing: Standing) -> Vec<String> {
        self.steps.iter().filter(|step| step.standing == standing).map(|step| step.name.clone()).collect()
    }

    /// What `up` would run, oldest first.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        let pending = |step: &&Step| matches!(step.standing, Standing::Pending | Standing::OutOfOrder);
        self.steps.iter().filter(pending).map(|step| step.name.clone()).collect()
    }

    /// Whether nothing is left to run or to repair.
    pub(crate) fn is_done(&self) -> bool {
        self.pending().is_empty() && self.names(Standing::Dirty).is_empty()
    }

    /// Whether this build can serve with this schema.
    pub fn verify(&self, leniency: Leniency) -> Result<Fit, Misfit> {
        self.sound(leniency)?;
        let pending = self.pending();
        if !self.exists && !pending.is_empty() {
            return Err(Misfit::NeverMigrated);
        }
        if !pending.is_empty() {
            return Err(Misfit::Pending(pending));
        }
        let names: Vec<String> = self.ahead.iter().map(|(name, _)| name.clone()).collect();
        Ok(if names.is_empty() { Fit::Exact } else { Fit::Ahead(names) })
    }

    /// Whether this build may change this schema: everything that [`State::verify`] refuses except what is merely
    /// pending.
    pub fn sound(&self, leniency: Leniency) -> Result<(), Misfit> {
        self.refuse(Standing::Dirty, Misfit::Dirty)?;
        self.sound_if_nothing_runs(leniency)
    }

    /// The same before the lock is held, when what looks interrupted may be another process at work.
    pub(crate) fn sound_if_nothing_runs(&self, leniency: Leniency) -> Result<(), Misfit> {
        self.refuse(Standing::Edited, Misfit::ChecksumMismatch)?;
        if !leniency.unknown {
            self.refuse(Standing::Unknown, Misfit::Unknown)?;
        }
        self.ahead_of_this_build()?;
        if !leniency.out_of_order {
            self.refuse(Standing::OutOfOrder, Misfit::OutOfOrder)?;
        }
        Ok(())
    }

    /// Whether this build may revert migrations: never beneath newer ones, or ones it does not know.
    pub(crate) fn revertible(&self) -> Result<(), Misfit> {
        self.refuse(Standing::Ahead, |names| Misfit::Ahead { names, needs: None })?;
        self.sound(Leniency { out_of_order: true, unknown: false })
    }

    fn refuse(&self, standing: Standing, misfit: impl Fn(Vec<String>) -> Misfit) -> Result<(), Misfit> {
        let names = self.names(standing);
        if names.is_empty() { Ok(()) } else { Err(misfit(names)) }
    }

    fn ahead_of_this_build(&self) -> Result<(), Misfit> {
        let works = |minimum: &Option<String>| minimum.as_ref().is_some_and(|minimum| *minimum <= self.newest);
        if self.ahead.iter().all(|(_, minimum)| works(minimum)) {
            return Ok(());
        }
        let names = self.ahead.iter().map(|(name, _)| name.clone()).collect();
        let needs = self.ahead.iter().filter_map(|(_, minimum)| minimum.clone()).max();
        Err(Misfit::Ahead { names, needs: needs.filter(|needs| *needs > self.newest) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::catalogue::{Mode, Sql, SqlMigration};

    fn migration(name: &'static str, sql: &'static str, mode: Mode) -> Box<dyn crate::DescribedMigration> {
        let both = Sql { postgres: sql, sqlite: sql };
        Box::new(SqlMigration { name, minimum_build: "m1", up: both, down: both, mode })
    }

    fn build(names: &[&'static str]) -> Migrations {
        Migrations::new(names.iter().map(|name| migration(name, "SELECT 1", Mode::Transaction)).collect())
    }

    fn applied(name: &str) -> Entry {
        Entry { name: name.to_owned(), fingerprint: None, minimum_build: Some("m1".to_owned()), running: false }
    }

    fn verify(build: &Migrations, entries: &[Entry]) -> Result<Fit, Misfit> {
        State::new(build, DbBackend::Sqlite, &Some(entries.to_vec())).verify(Leniency::default())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn each_way_of_not_fitting_is_told_apart() {
        let two = build(&["m1", "m2"]);
        assert_eq!(State::new(&two, DbBackend::Sqlite, &None).verify(Leniency::default()), Err(Misfit::NeverMigrated));
        assert_eq!(verify(&two, &[applied("m1"), applied("m2")]), Ok(Fit::Exact));
        assert_eq!(verify(&two, &[applied("m1")]), Err(Misfit::Pending(names(&["m2"]))));
        assert_eq!(verify(&two, &[applied("m2")]), Err(Misfit::OutOfOrder(names(&["m1"]))));
        assert_eq!(verify(&two, &[applied("m0"), applied("m1"), applied("m2")]), Err(Misfit::Unknown(names(&["m0"]))));
        let running = Entry { running: true, ..applied("m2") };
        assert_eq!(verify(&two, &[applied("m1"), running.clone()]), Err(Misfit::Dirty(names(&["m2"]))));
        let edited = Entry { fingerprint: Some("another".to_owned()), ..applied("m2") };
        assert_eq!(verify(&two, &[applied("m1"), edited]), Err(Misfit::ChecksumMismatch(names(&["m2"]))));
        let index = Migrations::new(vec![migration("m2", "SELECT 1", Mode::ConcurrentIndex("i"))]);
        assert_eq!(verify(&index, &[running]), Err(Misfit::Pending(names(&["m2"]))), "it heals itself");
    }

    #[test]
    fn an_older_build_serves_a_newer_schema_only_where_the_schema_says_so() {
        let old = build(&["m1", "m2"]);
        let newer = |minimum: Option<&str>| Entry { minimum_build: minimum.map(str::to_owned), ..applied("m3") };
        let with = |minimum| verify(&old, &[applied("m1"), applied("m2"), newer(minimum)]);
        assert_eq!(with(Some("m1")), Ok(Fit::Ahead(names(&["m3"]))));
        assert_eq!(with(Some("m2")), Ok(Fit::Ahead(names(&["m3"]))));
        let refused = |needs: Option<&str>| Misfit::Ahead { names: names(&["m3"]), needs: needs.map(str::to_owned) };
        assert_eq!(with(Some("m3")), Err(refused(Some("m3"))));
        assert_eq!(with(None), Err(refused(None)));
    }

    #[test]
    fn leniency_lets_pass_what_it_names_and_nothing_else() {
        let two = build(&["m1", "m2"]);
        let state = |entries: &[Entry]| State::new(&two, DbBackend::Sqlite, &Some(entries.to_vec()));
        let unknown = Leniency { unknown: true, ..Leniency::default() };
        let out_of_order = Leniency { out_of_order: true, ..Leniency::default() };
        assert!(state(&[applied("m0"), applied("m1"), applied("m2")]).verify(unknown).is_ok());
        assert!(state(&[applied("m0"), applied("m1"), applied("m2")]).verify(out_of_order).is_err());
        assert!(state(&[applied("m2")]).sound(out_of_order).is_ok());
        assert!(state(&[applied("m2")]).sound(unknown).is_err());
    }

    #[test]
    fn a_fingerprint_follows_the_statements_and_not_their_indentation() {
        let print = |sql| migration("m1", sql, Mode::Transaction).fingerprint(DbBackend::Sqlite).unwrap();
        assert_eq!(print("CREATE TABLE a\n(b int)"), print("\n  CREATE TABLE a\n\n    (b int)\n"));
        assert_ne!(print("CREATE TABLE a (b int)"), print("CREATE TABLE a (b text)"));
        assert_ne!(print("SELECT 'a b'"), print("SELECT 'a  b'"));
        assert_eq!(print("-- x\n\n-- y\nDROP TABLE a"), print("DROP TABLE a"));
        assert_ne!(print("DROP TABLE a\n-- x"), print("DROP TABLE a"));
    }
}
