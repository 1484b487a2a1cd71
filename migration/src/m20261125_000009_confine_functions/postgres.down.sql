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
DROP TRIGGER audit_logs_chain ON audit_logs;
CREATE TRIGGER audit_logs_chain AFTER INSERT ON audit_logs
    FOR EACH ROW EXECUTE FUNCTION advance_audit_head();
CREATE FUNCTION lock_audit_head(tenant uuid) RETURNS TABLE (sequence bigint, hash text)
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT h.sequence, h.hash FROM audit_heads h
    WHERE h.tenant_id = $1 AND h.tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid
    FOR UPDATE
$$;
REVOKE ALL ON FUNCTION lock_audit_head(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lock_audit_head(uuid) TO bulkhead_app;
REVOKE INSERT (id, tenant_id, user_id, action, resource_type, resource_id, ip, user_agent, metadata)
    ON audit_logs FROM bulkhead_app;
GRANT INSERT ON audit_logs TO bulkhead_app;
CREATE OR REPLACE FUNCTION begin_audit_chain() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit_heads (tenant_id) VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION find_caller(external_id text, subject text)
    RETURNS TABLE (tenant_id uuid, status text, tenant_deleted boolean,
                   user_id uuid, role text, user_deleted boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
BEGIN
    PERFORM set_config('app.directory', 'on', true);
    RETURN QUERY
        SELECT t.id, t.status, t.deleted_at IS NOT NULL, u.id, u.role, u.deleted_at IS NOT NULL
        FROM tenants t LEFT JOIN users u ON u.tenant_id = t.id AND u.external_idp_id = $2
        WHERE t.external_id = $1
        ORDER BY u.deleted_at DESC NULLS FIRST
        LIMIT 1;
    PERFORM set_config('app.directory', '', true);
END $$;
ALTER FUNCTION begin_audit_chain() RESET search_path;
ALTER FUNCTION refuse_change() RESET search_path;
ALTER FUNCTION set_updated_at() RESET search_path;
DROP FUNCTION continue_audit_chain();
DROP FUNCTION canonical_json(jsonb);
