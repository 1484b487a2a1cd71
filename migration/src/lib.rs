//! Bulkhead's schema: one folder for each migration holds the SQL that applies and reverts it on each database.
//!
//! PostgreSQL and SQLite have SQL of their own, since their types differ (uuid, timestamptz). The comment at the top of
//! `postgres.up.sql` says what the migration is for. `bulkhead-migrator` runs the migrations.

use bulkhead_migrator::{Migration, Migrations, Mode, Scopes, Sql};

/// The migration in the folder of this name.
macro_rules! migration {
    ($name:literal, $mode:expr, $min_compatible_version:literal) => {
        Migration {
            name: $name,
            min_compatible_version: $min_compatible_version,
            mode: $mode,
            up: sql!($name, "up"),
            down: sql!($name, "down"),
        }
    };
}

macro_rules! sql {
    ($name:literal, $direction:literal) => {
        Sql {
            postgres: include_str!(concat!($name, "/postgres.", $direction, ".sql")),
            sqlite: include_str!(concat!($name, "/sqlite.", $direction, ".sql")),
        }
    };
}

/// Bulkhead's schema.
#[must_use]
pub fn migrations() -> Migrations {
    Migrations::new(all()).with_locks(LOCKS)
}

/// What each migration locks on PostgreSQL, one lock a line. `tests/locks.rs` measures it.
pub const LOCKS: &str = include_str!("locks.txt");

/// For `Mode::Backfill` of a table whose rows belong to tenants: row-level security holds for the owner of the tables, too.
pub const EACH_TENANT: Scopes = Scopes {
    prepare: "SET LOCAL app.directory = 'on'",
    query: "SELECT id::text FROM tenants ORDER BY id",
    setting: "app.current_tenant_id",
};

/// Bulkhead's migrations, oldest first.
#[must_use]
pub fn all() -> Vec<Migration> {
    vec![
        migration!("m20261101_000001_create_tenants", Mode::Transaction, "m20261101_000001_create_tenants"),
        migration!("m20261101_000002_create_users", Mode::Transaction, "m20261101_000001_create_tenants"),
        migration!(
            "m20261122_000003_index_users_by_role",
            Mode::ConcurrentIndex("users_live_role"),
            "m20261101_000001_create_tenants"
        ),
        migration!("m20261124_000004_create_documents", Mode::Transaction, "m20261101_000001_create_tenants"),
        migration!("m20261124_000005_create_audit_logs", Mode::Transaction, "m20261101_000001_create_tenants"),
        migration!("m20261124_000006_create_triggers", Mode::Transaction, "m20261101_000001_create_tenants"),
        migration!("m20261124_000007_enforce_tenancy", Mode::Transaction, "m20261124_000007_enforce_tenancy"),
        migration!(
            "m20261124_000008_index_users_by_subject",
            Mode::ConcurrentIndex("users_subject"),
            "m20261124_000007_enforce_tenancy"
        ),
        migration!("m20261125_000009_confine_functions", Mode::Transaction, "m20261125_000009_confine_functions"),
        migration!(
            "m20261126_000010_index_audit_logs_by_time",
            Mode::ConcurrentIndex("audit_logs_time"),
            "m20261125_000009_confine_functions"
        ),
        migration!("m20261126_000011_confine_repairs", Mode::Transaction, "m20261125_000009_confine_functions"),
        migration!("m20261126_000012_record_entries", Mode::Transaction, "m20261125_000009_confine_functions"),
        migration!("m20261126_000013_route_entries", Mode::Transaction, "m20261125_000009_confine_functions"),
        migration!("m20261126_000014_append_entries", Mode::Transaction, "m20261125_000009_confine_functions"),
        // An older build takes the right to delete from this table for a fault of the isolation, and is not ready.
        migration!("m20261127_000015_keep_request_keys", Mode::Transaction, "m20261127_000015_keep_request_keys"),
        migration!("m20261127_000016_check_places_of_files", Mode::Transaction, "m20261127_000015_keep_request_keys"),
        migration!(
            "m20261127_000017_create_audit_checkpoints",
            Mode::Transaction,
            "m20261127_000015_keep_request_keys"
        ),
        // scripts/new-resource adds migrations above this line.
    ]
}
