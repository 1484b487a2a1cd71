//! What cannot be recorded is neither answered nor done.

use super::operations::{Operation, operation, secured};
use crate::support::AuditedTenant;
use bulkhead::entity::audit_log::Model;
use sea_orm::{ConnectionTrait, Statement};
use test_support::{Database, Signal, on_migrated_databases};

on_migrated_databases!(without_audit_log_nothing_is_answered);

impl AuditedTenant {
    /// The chain but for refusals, which come into it when it can be written again.
    async fn log_without_refusals(&self) -> Vec<Model> {
        self.log().await.into_iter().filter(|entry| entry.action != "ACCESS_REFUSED").collect()
    }

    /// All rows of what a tenant has, as text.
    async fn rows(&self) -> Vec<String> {
        let columns = |table: &str| match table {
            "tenants" => "name || status || updated_at",
            "users" => "email || coalesce(full_name, '') || role || updated_at || coalesce(deleted_at || '', '')",
            _ => "filename || status || updated_at || coalesce(deleted_at || '', '')",
        };
        let mut rows = Vec::new();
        for table in ["tenants", "users", "documents"] {
            let sql = format!("SELECT {} AS row FROM {table} ORDER BY id", columns(table));
            let statement = Statement::from_string(self.owner.get_database_backend(), sql);
            let found = self.owner.query_all_raw(statement).await.unwrap();
            rows.extend(found.iter().map(|row| row.try_get::<String>("", "row").unwrap()));
        }
        rows
    }
}

/// Ways in which the log cannot be written, and how that ends.
fn faults(postgres: bool) -> Vec<(&'static str, &'static str)> {
    if !postgres {
        return vec![(
            "CREATE TRIGGER full BEFORE INSERT ON audit_logs BEGIN SELECT RAISE(ABORT, 'no'); END",
            "DROP TRIGGER full",
        )];
    }
    vec![
        (
            "REVOKE EXECUTE ON FUNCTION append_entries(jsonb) FROM bulkhead_app",
            "GRANT EXECUTE ON FUNCTION append_entries(jsonb) TO bulkhead_app",
        ),
        ("ALTER FUNCTION canonical_json(jsonb) RENAME TO gone", "ALTER FUNCTION gone(jsonb) RENAME TO canonical_json"),
        (
            "ALTER TABLE audit_logs ADD CONSTRAINT nothing CHECK (false) NOT VALID",
            "ALTER TABLE audit_logs DROP CONSTRAINT nothing",
        ),
        // Refused as late as can be: by the commit.
        (
            "CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON audit_logs DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse_late()",
            "DROP TRIGGER late ON audit_logs; DROP FUNCTION refuse_late()",
        ),
    ]
}

async fn without_audit_log_nothing_is_answered(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let mut server = clinic.server(&[]).await;
    let (admin, viewer) = (clinic.caller(&server, "ada", "admin"), clinic.caller(&server, "ada", "viewer"));
    let mut operations = Vec::new();
    for name in secured() {
        operations.push(operation(&clinic, &admin, &name).await);
    }
    let (rows, log) = (clinic.rows().await, clinic.log_without_refusals().await);
    assert!(rows.len() > 6 && log.len() > 6);
    let mut refusals = 0;
    for (fault, repair) in faults(clinic.on_postgres()) {
        clinic.execute(fault).await;
        for Operation { name, request, .. } in &operations {
            let answer = request.by(&admin).await;
            assert_eq!(answer.outcome(), (500, "SYS_003"), "{name} after {fault}: {}", answer.body);
            // Nothing but the error: no row that was read, no version of it.
            assert_eq!(answer.body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"], "{name}");
            assert_eq!(answer.header("etag"), "", "{name}");
            let refused = request.by(&viewer).await;
            // A refusal stays one, and what a viewer may read is not answered either.
            assert!(matches!(refused.outcome(), (403, "AUTH_008") | (500, "SYS_003")), "{name}: {}", refused.body);
            refusals += u64::from(refused.status == 403);
        }
        assert_eq!(clinic.rows().await, rows, "{fault}");
        assert_eq!(clinic.log_without_refusals().await, log, "{fault}");
        clinic.execute(repair).await;
    }
    // And then everything goes on where it was.
    for Operation { name, request, status, .. } in &operations {
        let answer = request.by(&admin).await;
        assert_eq!(answer.status, *status, "{name}: {}", answer.body);
    }
    assert_eq!(clinic.log_without_refusals().await.len(), log.len() + operations.len());
    // What was refused meanwhile is recorded once the log can be written, at the latest by a stop.
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    let recorded = clinic.log().await.into_iter().filter(|entry| entry.action == "ACCESS_REFUSED");
    assert_eq!(recorded.map(|entry| entry.metadata["count"].as_u64().unwrap_or(1)).sum::<u64>(), refusals);
    clinic.must(&["audit", "verify"]).await;
}
