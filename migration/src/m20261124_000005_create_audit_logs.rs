//! The audit log: who did what, per tenant, each entry chained to the one before it by its hash.

use crate::{Mode, Sql, SqlMigration};

// `audit_heads` is where each tenant's chain ends: what writers take turns on, and what shows that entries are missing.
// Each filter of the list has an index in the list's order; an id says what kind of thing it is of by itself.
// The system tenant's chain holds what belongs to no tenant, such as refused logins.
pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261124_000005_create_audit_logs",
    minimum_build: "m20261101_000001_create_tenants",
    mode: Mode::Transaction,
    up: Sql {
        postgres: "
        CREATE TABLE audit_logs (
            id            uuid PRIMARY KEY,
            tenant_id     uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            sequence      bigint NOT NULL CHECK (sequence > 0),
            user_id       uuid,
            action        text NOT NULL CHECK (action <> ''),
            resource_type text NOT NULL CHECK (resource_type <> ''),
            resource_id   uuid,
            ip            inet,
            user_agent    varchar(256),
            metadata      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
            created_at    timestamptz NOT NULL,
            prev_hash     text NOT NULL CHECK (length(prev_hash) = 64),
            hash          text NOT NULL CHECK (length(hash) = 64),
            UNIQUE (tenant_id, sequence),
            FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE RESTRICT
        );
        CREATE INDEX audit_logs_user ON audit_logs (tenant_id, user_id, sequence DESC);
        CREATE INDEX audit_logs_action ON audit_logs (tenant_id, action, sequence DESC);
        CREATE INDEX audit_logs_kind ON audit_logs (tenant_id, resource_type, sequence DESC);
        CREATE INDEX audit_logs_resource ON audit_logs (tenant_id, resource_id, sequence DESC)
            WHERE resource_id IS NOT NULL;
        CREATE TABLE audit_heads (
            tenant_id uuid PRIMARY KEY REFERENCES tenants (id) ON DELETE RESTRICT,
            sequence  bigint NOT NULL DEFAULT 0 CHECK (sequence >= 0),
            hash      text NOT NULL DEFAULT repeat('0', 64) CHECK (length(hash) = 64)
        );
        INSERT INTO tenants (id, name, external_id) VALUES ('00000000-0000-7000-8000-000000000000', 'System', 'system')
            ON CONFLICT DO NOTHING;
        INSERT INTO audit_heads (tenant_id) SELECT id FROM tenants;
    ",
        sqlite: "
        CREATE TABLE audit_logs (
            id            blob PRIMARY KEY NOT NULL CHECK (length(id) = 16),
            tenant_id     blob NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            sequence      integer NOT NULL CHECK (sequence > 0),
            user_id       blob,
            action        text NOT NULL CHECK (action <> ''),
            resource_type text NOT NULL CHECK (resource_type <> ''),
            resource_id   blob CHECK (length(resource_id) = 16),
            ip            text,
            user_agent    text CHECK (length(user_agent) <= 256),
            metadata      text NOT NULL DEFAULT '{}' CHECK (json_type(metadata) = 'object'),
            created_at    text NOT NULL,
            prev_hash     text NOT NULL CHECK (length(prev_hash) = 64),
            hash          text NOT NULL CHECK (length(hash) = 64),
            UNIQUE (tenant_id, sequence),
            FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE RESTRICT
        );
        CREATE INDEX audit_logs_user ON audit_logs (tenant_id, user_id, sequence DESC);
        CREATE INDEX audit_logs_action ON audit_logs (tenant_id, action, sequence DESC);
        CREATE INDEX audit_logs_kind ON audit_logs (tenant_id, resource_type, sequence DESC);
        CREATE INDEX audit_logs_resource ON audit_logs (tenant_id, resource_id, sequence DESC)
            WHERE resource_id IS NOT NULL;
        CREATE TABLE audit_heads (
            tenant_id blob PRIMARY KEY NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
            sequence  integer NOT NULL DEFAULT 0 CHECK (sequence >= 0),
            hash      text NOT NULL DEFAULT '0000000000000000000000000000000000000000000000000000000000000000'
                      CHECK (length(hash) = 64)
        );
        INSERT INTO tenants (id, name, external_id) VALUES (x'00000000000070008000000000000000', 'System', 'system')
            ON CONFLICT DO NOTHING;
        INSERT INTO audit_heads (tenant_id) SELECT id FROM tenants;
    ",
    },
    down: Sql {
        postgres: "
        DROP TABLE audit_heads;
        DROP TABLE audit_logs;
        DELETE FROM tenants WHERE id = '00000000-0000-7000-8000-000000000000';
    ",
        sqlite: "
        DROP TABLE audit_heads;
        DROP TABLE audit_logs;
        DELETE FROM tenants WHERE id = x'00000000000070008000000000000000';
    ",
    },
};
