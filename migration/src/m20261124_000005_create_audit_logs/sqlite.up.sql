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
