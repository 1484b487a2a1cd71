//! What each statement of a migration locks, measured on a PostgreSQL whose tables have rows. `bulkhead migrate plan` prints it.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::time::Duration;
use test_support::measure_locks;

const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/locks.txt");

/// What fills the tables, and after which migration.
const ROWS: &[(&str, &str)] = &[
    (
        "m20261101_000001_create_tenants",
        "INSERT INTO tenants (id, name, external_id)
         SELECT gen_random_uuid(), 'Tenant', n::text FROM generate_series(1, 10) n",
    ),
    (
        "m20261101_000002_create_users",
        "INSERT INTO users (id, tenant_id, email)
         SELECT gen_random_uuid(), t.id, n || '@example.org' FROM tenants t, generate_series(1, 1000) n",
    ),
    (
        "m20261124_000004_create_documents",
        "INSERT INTO documents (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes)
         SELECT gen_random_uuid(), u.tenant_id, u.id, u.tenant_id || '/' || u.id, 'bucket', 'name', 'text/plain', 1 FROM users u",
    ),
    (
        "m20261124_000005_create_audit_logs",
        "INSERT INTO audit_logs (id, tenant_id, sequence, action, resource_type, created_at, prev_hash, hash)
         SELECT gen_random_uuid(), t.id, n, 'USER_READ', 'users', now(), repeat('0', 64), repeat('0', 64)
         FROM tenants t, generate_series(1, 1000) n",
    ),
];

/// Far more than any of them needs: what holds a lock for longer has become another kind of migration.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn lock_trace_is_the_recorded_one() {
    let migrations = bulkhead_migration::all();
    let Some(measured) = measure_locks(&migrations, ROWS).await else { return };
    for (migration, locks) in migrations.iter().zip(&measured) {
        for (table, mode, held) in &locks.held {
            println!("{}: {table}, {mode} for {:.1} ms", migration.name, held.as_secs_f64() * 1000.0);
            assert!(*held < LONG, "{} holds {mode} on {table} for {held:?}", migration.name);
        }
    }
    let lines: Vec<String> = measured.into_iter().flat_map(|locks| locks.lines).collect();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(RECORDED, lines.join("\n") + "\n").unwrap();
    } else {
        let recorded = fs::read_to_string(RECORDED).unwrap();
        let recorded: Vec<&str> = recorded.lines().collect();
        assert_eq!(lines, recorded, "UPDATE_DOCS=1 cargo test -p bulkhead-migration writes {RECORDED} anew");
    }
}
