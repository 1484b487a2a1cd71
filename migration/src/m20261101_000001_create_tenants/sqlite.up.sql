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
