CREATE TRIGGER tenants_updated_at AFTER UPDATE ON tenants FOR EACH ROW WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE tenants SET updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
        strftime('%Y-%m-%dT%H:%M:%fZ', OLD.updated_at, '+0.001 seconds')) WHERE id = NEW.id;
END;
CREATE TRIGGER users_updated_at
AFTER UPDATE OF tenant_id, email, external_idp_id, full_name, role, created_at, updated_at, deleted_at ON users
FOR EACH ROW WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE users SET updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
        strftime('%Y-%m-%dT%H:%M:%fZ', OLD.updated_at, '+0.001 seconds')) WHERE id = NEW.id;
END;
CREATE TRIGGER documents_updated_at AFTER UPDATE ON documents FOR EACH ROW WHEN NEW.updated_at = OLD.updated_at
BEGIN
    UPDATE documents SET updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
        strftime('%Y-%m-%dT%H:%M:%fZ', OLD.updated_at, '+0.001 seconds')) WHERE id = NEW.id;
END;

CREATE TRIGGER audit_logs_no_update BEFORE UPDATE ON audit_logs
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is append-only');
END;
CREATE TRIGGER audit_logs_no_delete BEFORE DELETE ON audit_logs
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is append-only');
END;
CREATE TRIGGER audit_heads_stay BEFORE DELETE ON audit_heads
BEGIN
    SELECT RAISE(ABORT, 'audit_heads is append-only');
END;
CREATE TRIGGER audit_heads_advance BEFORE UPDATE ON audit_heads
WHEN NEW.tenant_id <> OLD.tenant_id OR NEW.sequence <> OLD.sequence + 1 OR NOT EXISTS (
    SELECT 1 FROM audit_logs
    WHERE tenant_id = NEW.tenant_id AND sequence = NEW.sequence AND hash = NEW.hash)
BEGIN
    SELECT RAISE(ABORT, 'audit_heads is append-only');
END;
CREATE TRIGGER audit_logs_no_replace BEFORE INSERT ON audit_logs
WHEN EXISTS (SELECT 1 FROM audit_logs WHERE id = NEW.id)
BEGIN
    SELECT RAISE(ABORT, 'audit_logs is append-only');
END;
CREATE TRIGGER audit_heads_no_replace BEFORE INSERT ON audit_heads
WHEN EXISTS (SELECT 1 FROM audit_heads WHERE tenant_id = NEW.tenant_id)
BEGIN
    SELECT RAISE(ABORT, 'audit_heads is append-only');
END;

CREATE TRIGGER tenants_audit_chain AFTER INSERT ON tenants
BEGIN
    INSERT INTO audit_heads (tenant_id) VALUES (NEW.id);
END;
CREATE TRIGGER audit_logs_chain BEFORE INSERT ON audit_logs
BEGIN
    SELECT RAISE(ABORT, 'the entry does not continue the chain') WHERE NOT EXISTS (
        SELECT 1 FROM audit_heads
        WHERE tenant_id = NEW.tenant_id AND sequence = NEW.sequence - 1 AND hash = NEW.prev_hash);
END;
CREATE TRIGGER audit_logs_head AFTER INSERT ON audit_logs
BEGIN
    UPDATE audit_heads SET sequence = NEW.sequence, hash = NEW.hash WHERE tenant_id = NEW.tenant_id;
END;
