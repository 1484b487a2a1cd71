//! Migrations nobody has to think about: what sea-orm-migration lacks, and Bulkhead's own schema.
//!
//! [`Runner`] applies the migrations of a build under a lock, so that any number of processes may start at once;
//! it knows an edited migration by its fingerprint, tells an older schema from a newer one, and says why when a
//! build and a schema do not fit. It depends on nothing of Bulkhead: [`Migrations`] can be anyone's.
//!
//! Bulkhead's migrations are written as SQL, once for PostgreSQL and once for SQLite: the two differ in their types
//! (uuid, timestamptz), and an auditor reads the very statements that run.

mod catalogue;
mod error;
mod history;
mod m20261101_000001_create_tenants;
mod m20261101_000002_create_users;
mod m20261122_000003_index_users_by_role;
mod m20261124_000004_create_documents;
mod m20261124_000005_create_audit_logs;
mod m20261124_000006_create_triggers;
mod m20261124_000007_enforce_tenancy;
mod m20261124_000008_index_users_by_subject;
mod m20261125_000009_confine_functions;
mod runner;
mod state;

pub use catalogue::{Describe, DescribedMigration, Migrations, Mode, Sql, SqlMigration};
pub use error::{Left, MigrationError, code, is_missing_table};
pub use runner::{Changes, Options, Planned, Progress, Repair, Runner, Target};
pub use state::{Fit, Leniency, Misfit, Standing, State, Step};

/// Bulkhead's schema.
#[must_use]
pub fn migrations() -> Migrations {
    Migrations::new(all())
}

/// Bulkhead's migrations, oldest first.
#[must_use]
pub fn all() -> Vec<Box<dyn DescribedMigration>> {
    vec![
        Box::new(m20261101_000001_create_tenants::MIGRATION),
        Box::new(m20261101_000002_create_users::MIGRATION),
        Box::new(m20261122_000003_index_users_by_role::MIGRATION),
        Box::new(m20261124_000004_create_documents::MIGRATION),
        Box::new(m20261124_000005_create_audit_logs::MIGRATION),
        Box::new(m20261124_000006_create_triggers::MIGRATION),
        Box::new(m20261124_000007_enforce_tenancy::MIGRATION),
        Box::new(m20261124_000008_index_users_by_subject::MIGRATION),
        Box::new(m20261125_000009_confine_functions::MIGRATION),
    ]
}
