CREATE TABLE documents (
    id           blob PRIMARY KEY NOT NULL CHECK (length(id) = 16),
    tenant_id    blob NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    user_id      blob NOT NULL,
    storage_key  text NOT NULL CHECK (length(storage_key) <= 1024 AND substr(storage_key, 1, 37) = lower(
                     substr(hex(tenant_id), 1, 8) || '-' || substr(hex(tenant_id), 9, 4) || '-' ||
                     substr(hex(tenant_id), 13, 4) || '-' || substr(hex(tenant_id), 17, 4) || '-' ||
                     substr(hex(tenant_id), 21, 12)) || '/'),
    bucket       text NOT NULL CHECK (length(bucket) BETWEEN 1 AND 255),
    filename     text NOT NULL CHECK (length(filename) BETWEEN 1 AND 255),
    content_type text NOT NULL CHECK (length(content_type) BETWEEN 1 AND 255),
    size_bytes   integer NOT NULL CHECK (size_bytes >= 0),
    status       text NOT NULL DEFAULT 'processing' CHECK (status IN ('processing', 'completed', 'failed')),
    metadata     text NOT NULL DEFAULT '{}' CHECK (json_type(metadata) = 'object'),
    created_at   text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at   text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    deleted_at   text,
    UNIQUE (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE RESTRICT
);
CREATE UNIQUE INDEX documents_live_file ON documents (tenant_id, bucket, storage_key) WHERE deleted_at IS NULL;
CREATE INDEX documents_live_newest ON documents (tenant_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX documents_live_status ON documents (tenant_id, status, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;
CREATE INDEX documents_live_owner ON documents (tenant_id, user_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;
