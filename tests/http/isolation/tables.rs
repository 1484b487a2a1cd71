//! Every table with rows of tenants has all that keeps them apart and recorded. Whoever adds a table and forgets a part of it
//! is told the file to change.

use crate::support::{SAMPLES, TestTenant, at};
use crate::{run_on, stderr};
use bulkhead::server::api_document;
use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(tables_of_tenants_are_complete, another_tenants_row_looks_absent_in_every_resource);

/// The file whose SQL creates a table.
fn migration_of(table: &str, file: &str) -> String {
    let creates = format!("CREATE TABLE {table} ");
    let migrations = bulkhead_migration::all();
    let found = migrations.iter().find(|migration| migration.up.postgres.contains(&creates));
    format!("migration/src/{}/{file}", found.map_or("?", |migration| migration.name))
}

async fn texts(connection: &DatabaseConnection, sql: &str) -> Vec<String> {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let rows = connection.query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

/// What is missing on PostgreSQL, besides rights: what `migrate verify` says.
async fn verified(database: &Database) -> Vec<String> {
    let output = run_on(database, &["migrate", "verify"]).await;
    let faults = stderr(&output);
    let faults: Vec<String> =
        faults.lines().filter(|line| line.contains("table ")).map(|line| line.trim().to_owned()).collect();
    assert_eq!(faults.is_empty(), output.status.success(), "{}", stderr(&output));
    faults
}

/// The tables with rows of tenants that the API writes, except for the audit log's, which it only appends to.
const TENANT_TABLES_POSTGRES: &str = "
    SELECT c.relname::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        AND c.relname NOT IN ('audit_logs', 'audit_heads', 'audit_nodes', 'audit_checkpoints')";
const TENANT_TABLES_SQLITE: &str = "
    SELECT t.name FROM sqlite_master t JOIN pragma_table_info(t.name) c ON c.name = 'tenant_id'
    WHERE t.type = 'table' AND t.name NOT IN ('audit_logs', 'audit_heads', 'audit_nodes', 'audit_checkpoints')";

/// Tables that nobody reads through the API: what is kept for requests that come again.
const WITHOUT_ROUTES: [&str; 1] = ["idempotency_keys"];

/// Rights that the API needs, and a table has not.
const RIGHTS: &str = "
    SELECT 'bulkhead_app may not ' || privilege FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege
    WHERE NOT has_any_column_privilege('bulkhead_app', 'TABLE', privilege)";

/// Parts that SQLite's table has not.
const PARTS: &str = "
    SELECT 'no trigger ' || name FROM (
        SELECT 'TABLE_tenant_stays' AS name UNION SELECT 'TABLE_updated_at'
            WHERE EXISTS (SELECT 1 FROM pragma_table_info('TABLE') WHERE name = 'updated_at')) AS needed
    WHERE NOT EXISTS (SELECT 1 FROM sqlite_master m WHERE m.type = 'trigger' AND m.tbl_name = 'TABLE' AND m.name = needed.name)
    UNION ALL SELECT 'tenant_id is no foreign key to tenants' WHERE NOT EXISTS (
        SELECT 1 FROM pragma_foreign_key_list('TABLE') WHERE \"table\" = 'tenants' AND \"from\" = 'tenant_id')
    UNION ALL SELECT 'a foreign key to ' || f.\"table\" || ' does not carry tenant_id' FROM pragma_foreign_key_list('TABLE') f
        WHERE f.\"table\" <> 'tenants' GROUP BY f.id, f.\"table\" HAVING sum(f.\"from\" = 'tenant_id') = 0
    UNION ALL SELECT 'tenant_id may be null' FROM pragma_table_info('TABLE') WHERE name = 'tenant_id' AND NOT \"notnull\"";

async fn tables_of_tenants_are_complete(database: Database) {
    let connection = database.connect().await;
    let postgres = database.url.starts_with("postgres");
    let mut missing = Vec::new();
    if postgres {
        for fault in verified(&database).await {
            let table = fault.split("table ").nth(1).unwrap().split([':', ' ']).next().unwrap();
            missing.push(format!("{}: {fault}", migration_of(table, "postgres.up.sql")));
        }
    }
    let (all, parts, file) = if postgres {
        (TENANT_TABLES_POSTGRES, RIGHTS, "postgres.up.sql")
    } else {
        (TENANT_TABLES_SQLITE, PARTS, "sqlite.up.sql")
    };
    let tables = texts(&connection, all).await;
    assert!(tables.len() >= 2, "{tables:?}");
    let paths: Vec<String> = api_document().paths.paths.into_keys().collect();
    for table in &tables {
        for fault in texts(&connection, &parts.replace("TABLE", table)).await {
            missing.push(format!("{}: table {table}: {fault}", migration_of(table, file)));
        }
        if WITHOUT_ROUTES.contains(&table.as_str()) {
            continue;
        }
        if !paths.contains(&format!("/api/v1/{}/{{id}}", table.replace('_', "-"))) {
            missing.push(format!("src/resources/mod.rs: no routes of {table}, so nothing records who reads them"));
        } else if !SAMPLES.iter().any(|sample| sample.name == *table) {
            missing.push(format!(
                "tests/http/support/samples.rs: no sample of {table}, so nothing tests its audit entries"
            ));
        }
    }
    connection.close().await.unwrap();
    assert!(missing.is_empty(), "{missing:#?}");
}

async fn another_tenants_row_looks_absent_in_every_resource(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let other = app.new_tenant().await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let foreign = other.user("eve@example.org").await["id"].clone();
    for sample in SAMPLES {
        let list = sample.path();
        let row = clinic.admin.make(&list, &(sample.new)(&owner)).await;
        let path = at(&list, &row);
        let attempts = [
            other.admin.get(&path).await,
            other.admin.patch(&path, &(sample.changes)()).await,
            other.admin.delete(&path).await,
            other.admin.restore(&path).await,
        ];
        for attempt in attempts {
            assert_eq!(attempt.outcome(), (404, "RES_001"), "{path}");
        }
        assert!(!other.admin.all(&list).await.iter().any(|seen| seen["id"] == row["id"]), "{path}");
        let kept = clinic.viewer.get(&path).await;
        assert_eq!((kept.status, &kept.body), (200, &row), "{path}");
        // A row cannot refer to another tenant's user, where it refers to one at all.
        let body = (sample.new)(&foreign);
        if body.to_string().contains(foreign.as_str().unwrap()) {
            assert_eq!(clinic.admin.post(&list, &body).await.outcome(), (404, "RES_001"), "{path}");
        }
    }
}
