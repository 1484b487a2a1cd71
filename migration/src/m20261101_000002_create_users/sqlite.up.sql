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
