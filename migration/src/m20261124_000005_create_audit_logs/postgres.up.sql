-- The audit log: who did what. Each tenant has a chain of entries, and each entry has the hash of the entry before it.
--
-- audit_heads holds the last entry of each chain. Writers of one chain lock its row, and it shows when entries are missing.
-- Each filter of the list has an index in the order of the list, but for resource_type: an id belongs to one type.
-- The chain of the system tenant holds what belongs to no tenant, such as refused logins.

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
