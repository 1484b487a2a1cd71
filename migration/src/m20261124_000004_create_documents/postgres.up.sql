-- Documents: what is known of files that are stored elsewhere.
--
-- The storage key of a file begins with the tenant's id, so that no row can refer to a file of another tenant.

CREATE TABLE documents (
    id           uuid PRIMARY KEY,
    tenant_id    uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    user_id      uuid NOT NULL,
    storage_key  varchar(1024) NOT NULL CHECK (starts_with(storage_key, tenant_id::text || '/')),
    bucket       varchar(255) NOT NULL CHECK (bucket <> ''),
    filename     varchar(255) NOT NULL CHECK (filename <> ''),
    content_type varchar(255) NOT NULL CHECK (content_type <> ''),
    size_bytes   bigint NOT NULL CHECK (size_bytes >= 0),
    status       text NOT NULL DEFAULT 'processing' CHECK (status IN ('processing', 'completed', 'failed')),
    metadata     jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    deleted_at   timestamptz,
    UNIQUE (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id) ON DELETE RESTRICT
);
CREATE UNIQUE INDEX documents_live_file ON documents (tenant_id, bucket, storage_key) WHERE deleted_at IS NULL;
CREATE INDEX documents_live_newest ON documents (tenant_id, created_at DESC, id DESC) WHERE deleted_at IS NULL;
CREATE INDEX documents_live_status ON documents (tenant_id, status, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;
CREATE INDEX documents_live_owner ON documents (tenant_id, user_id, created_at DESC, id DESC)
    WHERE deleted_at IS NULL;
