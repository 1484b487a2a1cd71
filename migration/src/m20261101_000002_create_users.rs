//! Users: who may act, each in exactly one tenant.

use crate::{Mode, Sql, SqlMigration};

// `UNIQUE (tenant_id, id)` is what other tables point at, so that none can cite another tenant's user.
pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261101_000002_create_users",
    minimum_build: "m20261101_000001_create_tenants",
    mode: Mode::Transaction,
    up: Sql {
        postgres: "
        CREATE TABLE users (
            id              uuid PRIMARY KEY,
            tenant_id       uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            email           varchar(320) NOT NULL CHECK (email <> ''),
            external_idp_id varchar(255),
            full_name       varchar(255),
            role            text NOT NULL DEFAULT 'member' CHECK (role IN ('admin', 'member', 'viewer')),
            last_login_at   timestamptz,
            created_at      timestamptz NOT NULL DEFAULT now(),
            updated_at      timestamptz NOT NULL DEFAULT now(),
            deleted_at      timestamptz,
            UNIQUE (tenant_id, id)
        );
        CREATE UNIQUE INDEX users_live_email ON users (tenant_id, lower(email)) WHERE deleted_at IS NULL;
        CREATE UNIQUE INDEX users_live_external_idp_id ON users (tenant_id, external_idp_id) WHERE deleted_at IS NULL;
        CREATE INDEX users_live_newest ON users (tenant_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
    ",
        sqlite: "
        CREATE TABLE users (
            id              blob PRIMARY KEY NOT NULL CHECK (length(id) = 16),
            tenant_id       blob NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            email           text NOT NULL CHECK (length(email) BETWEEN 1 AND 320),
            external_idp_id text CHECK (length(external_idp_id) <= 255),
            full_name       text CHECK (length(full_name) <= 255),
            role            text NOT NULL DEFAULT 'member' CHECK (role IN ('admin', 'member', 'viewer')),
            last_login_at   text,
            created_at      text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
            updated_at      text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
            deleted_at      text,
            UNIQUE (tenant_id, id)
        );
        CREATE UNIQUE INDEX users_live_email ON users (tenant_id, lower(email)) WHERE deleted_at IS NULL;
        CREATE UNIQUE INDEX users_live_external_idp_id ON users (tenant_id, external_idp_id) WHERE deleted_at IS NULL;
        CREATE INDEX users_live_newest ON users (tenant_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
    ",
    },
    down: Sql { postgres: "DROP TABLE users", sqlite: "DROP TABLE users" },
};
