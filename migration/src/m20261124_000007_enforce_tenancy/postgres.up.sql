-- Row-level security for everybody, and a role that may do what the API does.
--
-- - bulkhead_app may do what is granted below and nothing else. Run-time transactions take this role, so that the policies
--   hold for a superuser's connection as well. The role belongs to the server and not to this database: `down` takes its
--   rights and leaves the role. The login that migrates may take the role; another run-time login needs
--   `GRANT bulkhead_app TO login`.
-- - Without a tenant in the session there are no rows (postgresql.org/docs/current/ddl-rowsecurity.html). FORCE makes the
--   policies hold for the owner of the tables, too.
-- - A caller's tenant is not known before the token is looked up. Only find_caller reads across tenants, and the owner of the
--   tables when it asks to (`audit verify`): the `directory` policies are for the owner alone. The function sets the
--   parameter in its body, because only a superuser may set such a parameter in a function's head.
-- - SQLite has no roles. There a trigger keeps each row in its tenant, as the grants on columns do on PostgreSQL.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'bulkhead_app') THEN
        CREATE ROLE bulkhead_app NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- made for another database of this server at the same moment
END $$;
DO $$
BEGIN
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        GRANT bulkhead_app TO CURRENT_USER;
    END IF;
EXCEPTION WHEN unique_violation OR insufficient_privilege THEN
    NULL; -- whoever gives roles on this server has granted it, or grants it to the login of run time alone
END $$;

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE users ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE documents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON tenants
    USING (id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON users
    USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON documents
    USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON audit_logs
    USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
CREATE POLICY own_tenant ON audit_heads
    USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
CREATE POLICY directory ON tenants FOR SELECT TO CURRENT_USER
    USING (current_setting('app.directory', true) = 'on');
CREATE POLICY directory ON users FOR SELECT TO CURRENT_USER
    USING (current_setting('app.directory', true) = 'on');

CREATE FUNCTION find_caller(external_id text, subject text)
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
CREATE FUNCTION lock_audit_head(tenant uuid) RETURNS TABLE (sequence bigint, hash text)
    LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT h.sequence, h.hash FROM audit_heads h
    WHERE h.tenant_id = $1 AND h.tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid
    FOR UPDATE
$$;
REVOKE ALL ON FUNCTION find_caller(text, text), lock_audit_head(uuid) FROM PUBLIC;

DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO bulkhead_app', current_schema());
END $$;
GRANT SELECT ON seaql_migrations, seaql_migrations_meta TO bulkhead_app;
GRANT SELECT, UPDATE (name) ON tenants TO bulkhead_app;
GRANT SELECT, INSERT (id, tenant_id, email, external_idp_id, full_name, role),
    UPDATE (email, external_idp_id, full_name, role, last_login_at, deleted_at) ON users TO bulkhead_app;
GRANT SELECT,
    INSERT (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes, status, metadata),
    UPDATE (user_id, filename, content_type, size_bytes, status, metadata, deleted_at)
    ON documents TO bulkhead_app;
GRANT SELECT, INSERT ON audit_logs TO bulkhead_app;
GRANT SELECT ON audit_heads TO bulkhead_app;
GRANT EXECUTE ON FUNCTION find_caller(text, text), lock_audit_head(uuid) TO bulkhead_app;
