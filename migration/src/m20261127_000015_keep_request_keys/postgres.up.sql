-- Keys of requests that make a row once, however often they are sent (the Idempotency-Key header).
--
-- Of a request there are two hashes and the id of its row, and for 24 hours: nothing of what it said. expires_at is Unix time in
-- seconds. The API removes expired keys when it adds others, so it may delete here, and only here.

CREATE TABLE idempotency_keys (
    tenant_id   uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    key_hash    bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    fingerprint bytea NOT NULL CHECK (octet_length(fingerprint) = 32),
    resource_id uuid NOT NULL,
    expires_at  bigint NOT NULL,
    PRIMARY KEY (tenant_id, key_hash)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (tenant_id, expires_at);

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON idempotency_keys
    USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
GRANT SELECT, INSERT, DELETE, UPDATE (fingerprint, resource_id, expires_at) ON idempotency_keys TO bulkhead_app;
