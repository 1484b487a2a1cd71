-- Users: people who may act. Each belongs to exactly one tenant.
--
-- Other tables refer to (tenant_id, id), so that no row can refer to a user of another tenant.

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
