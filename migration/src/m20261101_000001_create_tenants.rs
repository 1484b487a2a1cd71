//! Tenants: the customers whose data is kept apart.

use crate::{Mode, Sql, SqlMigration};

pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261101_000001_create_tenants",
    minimum_build: "m20261101_000001_create_tenants",
    mode: Mode::Transaction,
    up: Sql {
        postgres: "
        CREATE TABLE tenants (
            id          uuid PRIMARY KEY,
            name        varchar(255) NOT NULL CHECK (name <> ''),
            external_id varchar(128) NOT NULL UNIQUE,
            status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'trial')),
            kms_key_arn text,
            created_at  timestamptz NOT NULL DEFAULT now(),
            updated_at  timestamptz NOT NULL DEFAULT now(),
            deleted_at  timestamptz
        );
        CREATE INDEX tenants_live_newest ON tenants (created_at DESC, id DESC) WHERE deleted_at IS NULL;
    ",
        sqlite: "
        CREATE TABLE tenants (
            id          blob PRIMARY KEY NOT NULL CHECK (length(id) = 16),
            name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
            external_id text NOT NULL UNIQUE CHECK (length(external_id) <= 128),
            status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended', 'trial')),
            kms_key_arn text,
            created_at  text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
            updated_at  text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
            deleted_at  text
        );
        CREATE INDEX tenants_live_newest ON tenants (created_at DESC, id DESC) WHERE deleted_at IS NULL;
    ",
    },
    down: Sql { postgres: "DROP TABLE tenants", sqlite: "DROP TABLE tenants" },
};
