//! The database keeps tenants apart by itself: row-level security for everyone, and a role that may do what the API does.

use crate::{Mode, Sql, SqlMigration};

// - `bulkhead_app` may do what is granted below and nothing else; run-time transactions take it on, so that a superuser's
//   connection is no way round the policies. It belongs to the server, not to this database: `down` takes its rights away
//   and leaves the role. Whoever migrates may take it on; another login for run time needs `GRANT bulkhead_app TO it`.
// - No tenant named means no rows (postgresql.org/docs/current/ddl-rowsecurity.html); FORCE binds the tables' owner too.
// - A caller's tenant is not known before its token is matched: `find_caller` alone looks across tenants, and whoever owns
//   the tables (`audit verify`) when it says so. The policies for that are for the owner alone. The function says so in
//   its body: to name such a parameter in its head takes a superuser.
// - SQLite has no roles: there a row is at least tied to its tenant for good, as the column grants do on PostgreSQL.
pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261124_000007_enforce_tenancy",
    minimum_build: "m20261124_000007_enforce_tenancy",
    mode: Mode::Transaction,
    up: Sql {
        postgres: "
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
    ",
        sqlite: "
        CREATE TRIGGER users_tenant_stays BEFORE UPDATE OF id, tenant_id ON users
        WHEN NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id
        BEGIN
            SELECT RAISE(ABORT, 'a user stays in its tenant');
        END;
        CREATE TRIGGER documents_tenant_stays BEFORE UPDATE OF id, tenant_id, bucket, storage_key ON documents
        WHEN NEW.tenant_id <> OLD.tenant_id OR NEW.id <> OLD.id
            OR NEW.bucket <> OLD.bucket OR NEW.storage_key <> OLD.storage_key
        BEGIN
            SELECT RAISE(ABORT, 'a document stays in its tenant, and its file where it is');
        END;
    ",
    },
    down: Sql {
        postgres: "
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
    ",
        sqlite: "
        DROP TRIGGER documents_tenant_stays;
        DROP TRIGGER users_tenant_stays;
    ",
    },
};
