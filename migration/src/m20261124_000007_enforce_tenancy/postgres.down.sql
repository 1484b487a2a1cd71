REVOKE ALL ON tenants, users, documents, audit_logs, audit_heads, seaql_migrations, seaql_migrations_meta
    FROM bulkhead_app;
DO $$
BEGIN
    EXECUTE format('REVOKE USAGE ON SCHEMA %I FROM bulkhead_app', current_schema());
END $$;
DROP FUNCTION lock_audit_head(uuid);
DROP FUNCTION find_caller(text, text);
DROP POLICY directory ON users;
DROP POLICY directory ON tenants;
DROP POLICY own_tenant ON audit_heads;
DROP POLICY own_tenant ON audit_logs;
DROP POLICY own_tenant ON documents;
DROP POLICY own_tenant ON users;
DROP POLICY own_tenant ON tenants;
ALTER TABLE audit_heads NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
ALTER TABLE audit_logs NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
ALTER TABLE documents NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
ALTER TABLE users NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY;
