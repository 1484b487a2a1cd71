//! The log only grows, and only at its end, for whoever writes to it, as long as the triggers stand.

use super::operations::make;
use crate::support::AuditedTenant;
use bulkhead::audit::GENESIS;
use sea_orm::ConnectionTrait;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(
    nobody_changes_or_deletes_an_entry,
    entry_must_continue_the_chain,
    nobody_moves_a_chains_end_by_hand
);

impl AuditedTenant {
    /// The owner (a superuser on PostgreSQL) is refused, and told why.
    async fn refuses(&self, sql: &str, why: &str) {
        match self.owner.execute_unprepared(sql).await {
            Ok(_) => panic!("done: {sql}"),
            Err(error) => assert!(error.to_string().contains(why), "{sql}: {error}"),
        }
    }

    /// One with some entries in its log.
    async fn with_entries(database: Database) -> Self {
        let (clinic, admin) = Self::start(database).await;
        for _ in 0..3 {
            make(&clinic, &admin, "users").await;
        }
        clinic
    }

    async fn is_whole(&self, entries: usize) {
        assert_eq!(self.log().await.len(), entries);
        self.must(&["audit", "verify"]).await;
    }
}

async fn nobody_changes_or_deletes_an_entry(database: Database) {
    let clinic = AuditedTenant::with_entries(database).await;
    let log = clinic.log().await;
    let entries = log.len();
    let id = clinic.literal(log[1].id);
    let why = "audit_logs is append-only";
    for sql in [
        "UPDATE audit_logs SET action = 'NOTHING'".to_owned(),
        "UPDATE audit_logs SET hash = hash".to_owned(),
        format!("UPDATE audit_logs SET user_agent = NULL WHERE id = {id}"),
        "DELETE FROM audit_logs".to_owned(),
        format!("DELETE FROM audit_logs WHERE id = {id}"),
    ] {
        clinic.refuses(&sql, why).await;
    }
    let last = log.last().unwrap();
    let (insert, _) = clinic.made_up(clinic.tenant, (last.sequence, &last.hash), 1, |entry| entry.id = log[1].id);
    if clinic.on_postgres() {
        // Also where there is nothing to change.
        for sql in ["UPDATE audit_logs SET action = 'x' WHERE false", "DELETE FROM audit_logs WHERE false"] {
            clinic.refuses(sql, why).await;
        }
        for sql in ["TRUNCATE audit_logs", "TRUNCATE audit_logs CASCADE", "TRUNCATE tenants CASCADE"] {
            clinic.refuses(sql, "is append-only").await;
        }
        clinic.refuses(&format!("{insert} ON CONFLICT (id) DO UPDATE SET action = 'x'"), why).await;
        let merge = "MERGE INTO audit_logs l USING tenants t ON t.id = l.tenant_id WHEN MATCHED THEN DELETE";
        clinic.refuses(merge, why).await;
        // Whom the API runs as is not even asked.
        for right in ["UPDATE", "DELETE", "TRUNCATE"] {
            let sql = format!("SELECT 1 / (NOT has_table_privilege('bulkhead_app', 'audit_logs', '{right}'))::int");
            clinic.execute(&sql).await;
        }
    } else {
        // Replacing deletes without a DELETE.
        let replace = insert.replace("INSERT", "INSERT OR REPLACE");
        clinic.refuses(&replace, "audit_logs").await;
        let upsert = format!("{insert} ON CONFLICT (id) DO UPDATE SET action = 'x'");
        clinic.refuses(&upsert, "audit_logs").await;
        clinic.refuses("UPDATE OR REPLACE audit_logs SET sequence = 1", why).await;
    }
    assert_eq!(clinic.log().await, log);
    clinic.is_whole(entries).await;
}

/// On PostgreSQL nobody chooses where an entry stands: see `isolation::escalation` for whom the API runs as.
async fn entry_must_continue_the_chain(database: Database) {
    let clinic = AuditedTenant::with_entries(database).await;
    let log = clinic.log().await;
    let entries = log.len();
    if clinic.on_postgres() {
        let made_up = clinic.made_up(clinic.tenant, (40, GENESIS), 2, |_| ()).0;
        clinic.execute(&made_up).await;
        assert_eq!(clinic.log().await.last().unwrap().sequence, log.last().unwrap().sequence + 2);
        clinic.is_whole(entries + 2).await;
        return;
    }
    let last = log.last().unwrap();
    let (sequence, hash) = (last.sequence, last.hash.as_str());
    let shouted = hash.to_uppercase();
    let insert = |after, how_many| clinic.made_up(clinic.tenant, after, how_many, |_| ()).0;
    let why = "continue the chain";
    for (sql, why) in [
        (insert((sequence + 1, hash), 1), why),
        (insert((sequence, GENESIS), 1), why),
        (insert((sequence, &log[0].hash), 1), why),
        (insert((sequence, shouted.as_str()), 1), why),
        // Behind one that does.
        (
            insert((sequence, hash), 2)
                .replace(&format!(", {}, 'DATA", sequence + 2), &format!(", {}, 'DATA", sequence + 3)),
            why,
        ),
        // Where one stands already.
        (insert((0, GENESIS), 1), why),
    ] {
        clinic.refuses(&sql, why).await;
    }
    assert_eq!(clinic.log().await, log);
    clinic.is_whole(entries).await;
    // One that does continue it is taken: nothing else was the matter.
    clinic.execute(&insert((sequence, hash), 2)).await;
    clinic.is_whole(entries + 2).await;
}

async fn nobody_moves_a_chains_end_by_hand(database: Database) {
    let clinic = AuditedTenant::with_entries(database).await;
    let log = clinic.log().await;
    let entries = log.len();
    let (tenant, other) = (clinic.literal(clinic.tenant), clinic.make_tenant("other").await);
    let other = clinic.literal(other);
    let (sequence, hash) = (log.last().unwrap().sequence, &log.last().unwrap().hash);
    let zeros = GENESIS;
    let ours = format!("WHERE tenant_id = {tenant}");
    for sql in [
        format!("UPDATE audit_heads SET sequence = 0, hash = '{zeros}' {ours}"),
        format!("UPDATE audit_heads SET sequence = {} {ours}", sequence - 1),
        format!("UPDATE audit_heads SET sequence = {} {ours}", sequence + 2),
        // As an entry does.
        format!("UPDATE audit_heads SET sequence = {}, hash = '{zeros}' {ours}", sequence + 1),
        format!("UPDATE audit_heads SET hash = '{zeros}' {ours}"),
        format!("UPDATE audit_heads SET tenant_id = {other} {ours}"),
        format!("DELETE FROM audit_heads {ours}"),
        "DELETE FROM audit_heads".to_owned(),
    ] {
        clinic.refuses(&sql, "audit_heads is append-only").await;
    }
    let insert = format!("INTO audit_heads (tenant_id, sequence, hash) VALUES ({tenant}, {}, '{hash}')", sequence + 1);
    if clinic.on_postgres() {
        clinic.refuses("TRUNCATE audit_heads", "is append-only").await;
        clinic.refuses(&format!("INSERT {insert}"), "audit_heads_pkey").await;
        let upsert = "ON CONFLICT (tenant_id) DO UPDATE SET sequence = excluded.sequence";
        clinic.refuses(&format!("INSERT {insert} {upsert}"), "audit_heads is append-only").await;
        for right in ["INSERT", "UPDATE", "DELETE", "TRUNCATE"] {
            let sql = format!("SELECT 1 / (NOT has_table_privilege('bulkhead_app', 'audit_heads', '{right}'))::int");
            clinic.execute(&sql).await;
        }
    } else {
        clinic.refuses(&format!("INSERT OR REPLACE {insert}"), "audit_heads").await;
        clinic.refuses(&format!("UPDATE OR REPLACE audit_heads SET tenant_id = {other} {ours}"), "append-only").await;
    }
    clinic.is_whole(entries).await;
}
