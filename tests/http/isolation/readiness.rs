//! Readiness says who keeps tenants apart, and when nobody but the application does.

use crate::{ready, run, stderr};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use test_support::{Database, Server};

/// Status, `status`, and the isolation's `status` and `error`.
pub(super) async fn isolation(server: &Server<'_>) -> (u16, Value, Value, Value) {
    let (status, mut body) = server.get_json("/api/v1/health/ready").await;
    let check = body["checks"]["isolation"].take();
    (status.as_u16(), body["status"].take(), check["status"].clone(), check["error"].clone())
}

#[tokio::test]
async fn on_sqlite_it_is_the_application() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    assert_eq!(isolation(&server).await, (200, json!("ready"), json!("application"), Value::Null));
}

/// What an operator, or a migration that forgot something, may do; how that ends; what is said of it.
const FAULTS: [(&str, &str, &str); 30] = [
    (
        "ALTER TABLE users NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE users FORCE ROW LEVEL SECURITY",
        "table users: row-level security is not forced on its owner",
    ),
    (
        "ALTER TABLE audit_heads DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE audit_heads ENABLE ROW LEVEL SECURITY",
        "table audit_heads: row-level security is not enabled",
    ),
    (
        "ALTER POLICY own_tenant ON documents RENAME TO gone; ALTER POLICY gone ON documents TO bulkhead_app",
        "ALTER POLICY gone ON documents TO PUBLIC; ALTER POLICY gone ON documents RENAME TO own_tenant",
        "table documents: no policy shows the rows of the transaction's tenant alone",
    ),
    (
        "ALTER POLICY own_tenant ON documents WITH CHECK (true)",
        "DROP POLICY own_tenant ON documents; CREATE POLICY own_tenant ON documents
             USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)",
        "policy own_tenant of table documents: it opens the rows of other tenants",
    ),
    (
        "CREATE POLICY support ON users FOR SELECT TO bulkhead_app USING (true)",
        "DROP POLICY support ON users",
        "policy support of table users: it opens the rows of other tenants",
    ),
    (
        "CREATE POLICY support ON documents FOR INSERT WITH CHECK (true)",
        "DROP POLICY support ON documents",
        "policy support of table documents: it opens the rows of other tenants",
    ),
    (
        "CREATE POLICY support ON audit_logs TO bulkhead_app, pg_monitor USING (true)",
        "DROP POLICY support ON audit_logs",
        "policy support of table audit_logs: it opens the rows of other tenants",
    ),
    (
        "ALTER POLICY repairs ON audit_logs WITH CHECK (true)",
        "ALTER POLICY repairs ON audit_logs
             WITH CHECK (action <> 'CHAIN_REPAIRED' OR has_table_privilege('audit_logs'::regclass, 'TRUNCATE'))",
        "table audit_logs: bulkhead_app may record that a chain was repaired",
    ),
    // A table that a team added, each time without one thing that it needs.
    (
        "CREATE TABLE patients (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenants (id), UNIQUE (tenant_id, id));
         ALTER TABLE patients ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; GRANT SELECT ON patients TO bulkhead_app",
        "DROP TABLE patients",
        "table patients: no policy shows",
    ),
    (
        "CREATE TABLE patients (id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenants (id))",
        "DROP TABLE patients",
        "table patients: no primary or unique key begins with tenant_id",
    ),
    (
        "CREATE TABLE patients (tenant_id uuid PRIMARY KEY)",
        "DROP TABLE patients",
        "table patients: tenant_id is no foreign key to tenants",
    ),
    (
        "CREATE TABLE patients (tenant_id uuid UNIQUE REFERENCES tenants (id))",
        "DROP TABLE patients",
        "table patients: tenant_id may be null",
    ),
    (
        "CREATE TABLE patients (tenant_id uuid PRIMARY KEY REFERENCES tenants (id), doctor uuid REFERENCES users (id))",
        "DROP TABLE patients",
        "table patients: foreign key patients_doctor_fkey does not carry tenant_id",
    ),
    (
        "CREATE TABLE patients (tenant_id uuid PRIMARY KEY REFERENCES tenants (id), updated_at timestamptz)",
        "DROP TABLE patients",
        "table patients: no trigger runs set_updated_at before every update",
    ),
    (
        "CREATE TABLE codes (code text PRIMARY KEY); GRANT SELECT, INSERT ON codes TO bulkhead_app",
        "DROP TABLE codes",
        "table codes: it has no tenant_id, and bulkhead_app may INSERT",
    ),
    (
        "CREATE VIEW everyone AS SELECT email FROM users; GRANT SELECT ON everyone TO bulkhead_app",
        "DROP VIEW everyone",
        "view everyone: bulkhead_app may use it",
    ),
    (
        "GRANT DELETE ON audit_logs TO bulkhead_app",
        "REVOKE DELETE ON audit_logs FROM bulkhead_app",
        "table audit_logs: bulkhead_app may DELETE",
    ),
    (
        "GRANT UPDATE (hash) ON audit_heads TO bulkhead_app",
        "REVOKE UPDATE (hash) ON audit_heads FROM bulkhead_app",
        "table audit_heads: bulkhead_app may update hash",
    ),
    (
        "GRANT INSERT (created_at) ON audit_logs TO bulkhead_app",
        "REVOKE INSERT (created_at) ON audit_logs FROM bulkhead_app",
        "table audit_logs: bulkhead_app may choose created_at",
    ),
    (
        "GRANT UPDATE (tenant_id) ON documents TO bulkhead_app",
        "REVOKE UPDATE (tenant_id) ON documents FROM bulkhead_app",
        "table documents: bulkhead_app may update tenant_id",
    ),
    (
        "GRANT SELECT (email) ON users TO PUBLIC",
        "REVOKE SELECT (email) ON users FROM PUBLIC",
        "table users: everybody has a right to it",
    ),
    (
        "ALTER TABLE audit_logs DISABLE TRIGGER audit_logs_append_only",
        "ALTER TABLE audit_logs ENABLE TRIGGER audit_logs_append_only",
        "table audit_logs: trigger audit_logs_append_only is disabled",
    ),
    (
        "ALTER TABLE documents DISABLE TRIGGER ALL",
        "ALTER TABLE documents ENABLE TRIGGER ALL",
        "table documents: foreign key documents_tenant_id_fkey is not checked",
    ),
    (
        "DROP TRIGGER audit_logs_chain ON audit_logs",
        "CREATE TRIGGER audit_logs_chain BEFORE INSERT ON audit_logs
             FOR EACH ROW EXECUTE FUNCTION continue_audit_chain()",
        "table audit_logs: no trigger runs continue_audit_chain before every insert",
    ),
    (
        "ALTER FUNCTION find_caller(text, text) SET search_path = public",
        "ALTER FUNCTION find_caller(text, text) SET search_path = public, pg_temp",
        "function find_caller(text,text): it runs with its owner's rights, and its search_path does not end with pg_temp",
    ),
    (
        "GRANT EXECUTE ON FUNCTION refuse_change() TO PUBLIC",
        "REVOKE EXECUTE ON FUNCTION refuse_change() FROM PUBLIC",
        "function refuse_change(): everybody may execute it",
    ),
    (
        "GRANT EXECUTE ON FUNCTION continue_audit_chain() TO bulkhead_app",
        "REVOKE EXECUTE ON FUNCTION continue_audit_chain() FROM bulkhead_app",
        "function continue_audit_chain(): bulkhead_app may make it the trigger of another table",
    ),
    (
        "CREATE FUNCTION everyone() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM users'",
        "DROP FUNCTION everyone()",
        "function everyone(): it runs with its owner's rights",
    ),
    (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        "schema public: bulkhead_app may create objects in it",
    ),
    (
        "ALTER TABLE tenants DISABLE TRIGGER tenants_audit_chain",
        "ALTER TABLE tenants ENABLE TRIGGER tenants_audit_chain",
        "table tenants: trigger tenants_audit_chain is disabled",
    ),
];

#[tokio::test]
async fn missing_part_of_isolation_is_named() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let server = ready(&database, &[]).await;
    let good = (200, json!("ready"), json!("database"), Value::Null);
    assert_eq!(isolation(&server).await, good);
    let connection = database.connect().await;
    for (fault, repair, told) in FAULTS {
        connection.execute_unprepared(fault).await.unwrap();
        let refused = (503, json!("unavailable"), json!("not-enforced"), json!("SYS_007"));
        assert_eq!(isolation(&server).await, refused, "{fault}");
        server.log_line(told, "ERROR").await;
        let verify = run(&["migrate", "verify"], &[("DATABASE_URL", &database.url)]).await;
        assert_eq!(verify.status.code(), Some(3), "{fault}");
        assert!(stderr(&verify).contains(told), "{fault}: {}", stderr(&verify));
        connection.execute_unprepared(repair).await.unwrap();
        assert_eq!(isolation(&server).await, good, "{repair}");
    }
    let verify = run(&["migrate", "verify"], &[("DATABASE_URL", &database.url)]).await;
    assert!(verify.status.success(), "{}", stderr(&verify));
    connection.close().await.unwrap();
}

#[tokio::test]
async fn what_a_careful_operator_adds_is_no_fault() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let server = ready(&database, &[]).await;
    let connection = database.connect().await;
    let additions = "
        CREATE TABLE patients (
            id uuid PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES tenants (id), doctor uuid, updated_at timestamptz,
            UNIQUE (tenant_id, id), FOREIGN KEY (tenant_id, doctor) REFERENCES users (tenant_id, id));
        ALTER TABLE patients ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY own_tenant ON patients
            USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid);
        CREATE TRIGGER patients_updated_at BEFORE UPDATE ON patients FOR EACH ROW EXECUTE FUNCTION set_updated_at();
        GRANT SELECT, INSERT (id, tenant_id, doctor), UPDATE (doctor) ON patients TO bulkhead_app;
        CREATE TABLE codes (code text PRIMARY KEY);
        GRANT SELECT ON codes TO bulkhead_app;
        CREATE POLICY only_some ON patients AS RESTRICTIVE USING (doctor IS NOT NULL);
        CREATE EXTENSION pgcrypto;
        CREATE VIEW workload AS SELECT doctor, count(*) FROM patients GROUP BY doctor";
    connection.execute_unprepared(additions).await.unwrap();
    assert_eq!(isolation(&server).await, (200, json!("ready"), json!("database"), Value::Null));
    connection.close().await.unwrap();
}
