-- Checkpoints of the audit log: what a tenant's entries were at some time, as a Merkle tree (RFC 6962) whose root is signed.
--
-- - audit_nodes has the hashes of complete subtrees of 256, 65536 and more entries, so that a proof reads few rows. The hashes of the
--   entries themselves are in audit_logs. Node N of level L is the root of the 256^L entries from N * 256^L on.
-- - audit_checkpoints has the signed notes. Both tables are append-only, and the role of run time inserts: what it could make up
--   there fits neither the entries nor a signature.

CREATE TABLE audit_nodes (
    tenant_id uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    level     bigint NOT NULL CHECK (level BETWEEN 1 AND 7),
    position  bigint NOT NULL CHECK (position >= 0),
    hash      bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (tenant_id, level, position)
);
CREATE TABLE audit_checkpoints (
    tenant_id  uuid NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    size       bigint NOT NULL CHECK (size > 0),
    note       text NOT NULL CHECK (length(note) <= 4096),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, size)
);
CREATE TRIGGER audit_nodes_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_nodes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_checkpoints_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

ALTER TABLE audit_nodes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_checkpoints ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON audit_nodes
    USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON audit_checkpoints
    USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
GRANT SELECT, INSERT ON audit_nodes TO bulkhead_app;
GRANT SELECT, INSERT (tenant_id, size, note) ON audit_checkpoints TO bulkhead_app;
