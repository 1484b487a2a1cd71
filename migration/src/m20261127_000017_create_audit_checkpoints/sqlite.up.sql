-- See postgres.up.sql.

CREATE TABLE audit_nodes (
    tenant_id blob NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    level     integer NOT NULL CHECK (level BETWEEN 1 AND 7),
    position  integer NOT NULL CHECK (position >= 0),
    hash      blob NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (tenant_id, level, position)
);
CREATE TABLE audit_checkpoints (
    tenant_id  blob NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
    size       integer NOT NULL CHECK (size > 0),
    note       text NOT NULL CHECK (length(note) <= 4096),
    created_at text NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    PRIMARY KEY (tenant_id, size)
);
CREATE TRIGGER audit_nodes_no_update BEFORE UPDATE ON audit_nodes
BEGIN
    SELECT RAISE(ABORT, 'audit_nodes is append-only');
END;
CREATE TRIGGER audit_nodes_no_delete BEFORE DELETE ON audit_nodes
BEGIN
    SELECT RAISE(ABORT, 'audit_nodes is append-only');
END;
CREATE TRIGGER audit_nodes_no_replace BEFORE INSERT ON audit_nodes
WHEN EXISTS (SELECT 1 FROM audit_nodes WHERE tenant_id = NEW.tenant_id AND level = NEW.level AND position = NEW.position)
BEGIN
    SELECT RAISE(ABORT, 'audit_nodes is append-only');
END;
CREATE TRIGGER audit_checkpoints_no_update BEFORE UPDATE ON audit_checkpoints
BEGIN
    SELECT RAISE(ABORT, 'audit_checkpoints is append-only');
END;
CREATE TRIGGER audit_checkpoints_no_delete BEFORE DELETE ON audit_checkpoints
BEGIN
    SELECT RAISE(ABORT, 'audit_checkpoints is append-only');
END;
CREATE TRIGGER audit_checkpoints_no_replace BEFORE INSERT ON audit_checkpoints
WHEN EXISTS (SELECT 1 FROM audit_checkpoints WHERE tenant_id = NEW.tenant_id AND size = NEW.size)
BEGIN
    SELECT RAISE(ABORT, 'audit_checkpoints is append-only');
END;
