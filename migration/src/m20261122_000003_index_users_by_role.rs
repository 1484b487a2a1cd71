//! Lists of a tenant's users by role, without holding up those who write to a large table meanwhile.

use crate::{Mode, Sql, SqlMigration};

pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261122_000003_index_users_by_role",
    minimum_build: "m20261101_000001_create_tenants",
    mode: Mode::ConcurrentIndex("users_live_role"),
    up: Sql {
        postgres: "CREATE INDEX CONCURRENTLY IF NOT EXISTS users_live_role
            ON users (tenant_id, role, created_at DESC, id DESC) WHERE deleted_at IS NULL",
        sqlite: "CREATE INDEX users_live_role
            ON users (tenant_id, role, created_at DESC, id DESC) WHERE deleted_at IS NULL",
    },
    down: Sql { postgres: "DROP INDEX CONCURRENTLY IF EXISTS users_live_role", sqlite: "DROP INDEX users_live_role" },
};
