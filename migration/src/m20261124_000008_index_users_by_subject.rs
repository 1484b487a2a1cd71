//! Callers by the subject of their token, deleted users included: who was deleted must be found to be refused.

use crate::{Mode, Sql, SqlMigration};

pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261124_000008_index_users_by_subject",
    minimum_build: "m20261124_000007_enforce_tenancy",
    mode: Mode::ConcurrentIndex("users_subject"),
    up: Sql {
        postgres: "CREATE INDEX CONCURRENTLY IF NOT EXISTS users_subject ON users (tenant_id, external_idp_id)",
        sqlite: "CREATE INDEX users_subject ON users (tenant_id, external_idp_id)",
    },
    down: Sql { postgres: "DROP INDEX CONCURRENTLY IF EXISTS users_subject", sqlite: "DROP INDEX users_subject" },
};
