CREATE TABLE idempotency_keys (
    tenant_id   blob NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    key_hash    blob NOT NULL CHECK (length(key_hash) = 32),
    fingerprint blob NOT NULL CHECK (length(fingerprint) = 32),
    resource_id blob NOT NULL CHECK (length(resource_id) = 16),
    expires_at  integer NOT NULL,
    PRIMARY KEY (tenant_id, key_hash)
);
CREATE INDEX idempotency_keys_expiry ON idempotency_keys (tenant_id, expires_at);
CREATE TRIGGER idempotency_keys_tenant_stays BEFORE UPDATE OF tenant_id, key_hash ON idempotency_keys
WHEN NEW.tenant_id <> OLD.tenant_id OR NEW.key_hash <> OLD.key_hash
BEGIN
    SELECT RAISE(ABORT, 'a key stays in its tenant');
END;
