-- Triggers: the time of a row's last change, the append-only audit log, the end of its chains.
--
-- - updated_at grows with every change, since clients compare it as the ETag. A login alone does not change the user.
-- - Statement triggers also refuse a statement that matches no row, and TRUNCATE.
-- - The function that moves the end of a chain runs with its owner's rights: who may append may not write the end itself.
-- - SQLite's REPLACE deletes rows without the triggers for DELETE. Triggers for INSERT refuse it.

CREATE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
    RETURN NEW;
END $$;
CREATE TRIGGER tenants_updated_at BEFORE UPDATE ON tenants
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER users_updated_at
    BEFORE UPDATE OF tenant_id, email, external_idp_id, full_name, role, created_at, updated_at, deleted_at ON users
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
CREATE TRIGGER documents_updated_at BEFORE UPDATE ON documents
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_heads_stay BEFORE DELETE OR TRUNCATE ON audit_heads
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_heads_advance BEFORE UPDATE ON audit_heads FOR EACH ROW
    WHEN (pg_trigger_depth() = 0 OR NEW.tenant_id <> OLD.tenant_id OR NEW.sequence <> OLD.sequence + 1)
    EXECUTE FUNCTION refuse_change();

CREATE FUNCTION begin_audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_heads (tenant_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER tenants_audit_chain AFTER INSERT ON tenants
    FOR EACH ROW EXECUTE FUNCTION begin_audit_chain();

CREATE FUNCTION advance_audit_head() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    UPDATE audit_heads SET sequence = NEW.sequence, hash = NEW.hash
        WHERE tenant_id = NEW.tenant_id AND sequence = NEW.sequence - 1 AND hash = NEW.prev_hash;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'entry % does not continue the chain', NEW.sequence USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER audit_logs_chain AFTER INSERT ON audit_logs
    FOR EACH ROW EXECUTE FUNCTION advance_audit_head();
