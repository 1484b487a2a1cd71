//! Whoever takes the triggers away can change the log, and `audit verify` says whose and where.

use crate::stderr;
use crate::support::{AuditedTenant, BEGINNING, chain};
use bulkhead::entity::audit_log::Model;
use std::process::Output;
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(
    every_way_to_tamper_is_named_with_tenant_and_entry,
    a_truncated_log_is_missed,
    verify_looks_at_all_tenants_or_at_one
);

/// What `audit verify` says of the chains; it also names each trigger that is disabled.
fn stdout(output: &Output) -> String {
    let (faults, chains): (Vec<_>, Vec<_>) =
        crate::stdout(output).lines().map(str::to_owned).partition(|line| line.starts_with("FAULT "));
    assert!(faults.is_empty() || faults.iter().any(|fault| fault.contains("audit_logs_chain")), "{faults:?}");
    chains.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

/// The first line of what went wrong: how many chains do not hold.
fn not_holding(output: &Output) -> String {
    stderr(output).lines().next().unwrap_or_default().to_owned()
}

/// How many entries each chain has.
const ENTRIES: i64 = 6;

impl AuditedTenant {
    /// A tenant with a chain of [`ENTRIES`].
    pub(super) async fn chained(&self, external_id: &str) -> Uuid {
        let tenant = Uuid::now_v7();
        let id = self.literal(tenant);
        self.execute(&format!("INSERT INTO tenants (id, name, external_id) VALUES ({id}, 'A', '{external_id}')")).await;
        let (insert, _) = self.made_up(tenant, BEGINNING, ENTRIES, |_| ());
        self.execute(&insert).await;
        tenant
    }
}

/// One chain that is tampered with.
struct Victim<'c> {
    clinic: &'c AuditedTenant,
    tenant: Uuid,
    /// As the database's SQL writes it.
    id: String,
    log: Vec<Model>,
}

impl Victim<'_> {
    /// Of one entry.
    fn at(&self, sequence: i64) -> String {
        format!("WHERE tenant_id = {} AND sequence = {sequence}", self.id)
    }

    async fn execute(&self, sql: String) {
        self.clinic.execute(&sql).await;
    }

    async fn set(&self, sequence: i64, change: &str) {
        self.execute(format!("UPDATE audit_logs SET {change} {}", self.at(sequence))).await;
    }

    async fn delete(&self, sequence: i64) {
        self.execute(format!("DELETE FROM audit_logs {}", self.at(sequence))).await;
    }

    async fn head(&self, change: &str) {
        self.execute(format!("UPDATE audit_heads SET {change} WHERE tenant_id = {}", self.id)).await;
    }

    /// Puts an entry after `after` whose hash is right.
    async fn put(&self, after: (i64, &str)) -> String {
        let (insert, hash) = self.clinic.made_up(self.tenant, after, 1, |_| ());
        self.execute(insert).await;
        hash
    }

    /// Writes an entry anew, as its own hash would have it.
    async fn rewrite(&self, sequence: i64) -> String {
        let after = (sequence - 1, self.log[usize::try_from(sequence).unwrap() - 1].prev_hash.as_str());
        self.delete(sequence).await;
        self.put(after).await
    }

    /// Moves an entry, with a hash that fits its new place, but not those around it.
    async fn shift(&self, from: i64, to: i64) {
        let (mut entry, _) =
            bulkhead::audit::AuditEntry::from_row(self.log[usize::try_from(from).unwrap() - 1].clone());
        entry.sequence = to;
        let hash = entry.hash().unwrap();
        self.set(from, &format!("sequence = {to}, hash = '{hash}'")).await;
    }
}

/// What is done to a chain, and what `audit verify` says of it.
const WAYS: [(&str, &str); 29] = [
    ("edit-id", "entry 2 is not what its hash was made of"),
    ("edit-user", "entry 2 is not what its hash was made of"),
    ("edit-action", "entry 2 is not what its hash was made of"),
    ("edit-resource-type", "entry 2 is not what its hash was made of"),
    ("edit-resource-id", "entry 2 is not what its hash was made of"),
    ("edit-ip", "entry 2 is not what its hash was made of"),
    ("edit-user-agent", "entry 2 is not what its hash was made of"),
    ("edit-metadata", "entry 2 is not what its hash was made of"),
    ("edit-time", "entry 2 is not what its hash was made of"),
    ("edit-link", "entry 2 is not what its hash was made of"),
    ("edit-hash", "entry 2 is not what its hash was made of"),
    ("edit-last", "entry 6 is not what its hash was made of"),
    ("rewrite", "entry 4 does not continue entry 3"),
    ("rewrite-first", "entry 2 does not continue entry 1"),
    ("rewrite-last", "entry 6 is not the one that the chain's end was recorded with"),
    ("delete-middle", "entry 3 is missing"),
    ("delete-several", "entries 2 to 4 are missing"),
    ("delete-first", "entry 1 is missing"),
    ("delete-last", "entry 6 is missing"),
    ("delete-all", "entries 1 to 6 are missing"),
    ("delete-and-close-up", "entry 3 is not what its hash was made of"),
    ("swap", "entry 2 is not what its hash was made of"),
    ("swap-with-hashes", "entry 2 does not continue entry 1"),
    ("insert", "entry 5 is not what its hash was made of"),
    ("insert-with-hashes", "entry 5 does not continue entry 4"),
    ("insert-behind", "entry 7 was inserted behind the chain's end"),
    ("head-forward", "entry 7 is missing"),
    ("head-back", "entry 6 was inserted behind the chain's end"),
    ("head-gone", "the record of where the chain ends is missing"),
];

async fn tamper(way: &str, victim: &Victim<'_>) {
    let log = &victim.log;
    let other = victim.clinic.literal(Uuid::now_v7());
    let hash_of = |sequence: usize| log[sequence - 1].hash.as_str();
    match way {
        "edit-id" => victim.set(2, &format!("id = {other}")).await,
        "edit-user" => {
            let user = format!("INSERT INTO users (id, tenant_id, email) VALUES ({other}, {}, 'a@b.org')", victim.id);
            victim.execute(user).await;
            victim.set(2, &format!("user_id = {other}")).await;
        }
        "edit-action" => victim.set(2, "action = 'CREATED'").await,
        "edit-resource-type" => victim.set(2, "resource_type = 'users'").await,
        "edit-resource-id" => victim.set(2, &format!("resource_id = {other}")).await,
        "edit-ip" => victim.set(2, "ip = '192.0.2.2'").await,
        "edit-user-agent" => victim.set(2, "user_agent = NULL").await,
        "edit-metadata" => victim.set(2, "metadata = '{\"found\": false}'").await,
        "edit-time" => victim.set(2, "created_at = '2026-01-01T00:00:02.000002Z'").await,
        "edit-link" => victim.set(2, &format!("prev_hash = '{}'", hash_of(3))).await,
        "edit-hash" => victim.set(2, &format!("hash = '{}'", hash_of(3))).await,
        "edit-last" => victim.set(6, "action = 'CREATED'").await,
        "rewrite" => drop(victim.rewrite(3).await),
        "rewrite-first" => drop(victim.rewrite(1).await),
        "rewrite-last" => drop(victim.rewrite(6).await),
        "delete-middle" => victim.delete(3).await,
        "delete-several" => {
            for sequence in 2..=4 {
                victim.delete(sequence).await;
            }
        }
        "delete-first" => victim.delete(1).await,
        "delete-last" => victim.delete(6).await,
        "delete-all" => victim.execute(format!("DELETE FROM audit_logs WHERE tenant_id = {}", victim.id)).await,
        "delete-and-close-up" => {
            victim.delete(3).await;
            for sequence in 4..=6 {
                victim.set(sequence, &format!("sequence = {}", sequence - 1)).await;
            }
            victim.head("sequence = 5").await;
        }
        "swap" => {
            for (from, to) in [(2, 9), (3, 2), (9, 3)] {
                victim.set(from, &format!("sequence = {to}")).await;
            }
        }
        "swap-with-hashes" => {
            victim.set(2, "sequence = 9").await;
            victim.shift(3, 2).await;
            let (mut entry, _) = bulkhead::audit::AuditEntry::from_row(log[1].clone());
            entry.sequence = 3;
            victim.set(9, &format!("sequence = 3, hash = '{}'", entry.hash().unwrap())).await;
        }
        "insert" => {
            for sequence in [6, 5, 4] {
                victim.set(sequence, &format!("sequence = {}", sequence + 1)).await;
            }
            victim.put((3, hash_of(3))).await;
            victim.head("sequence = 7").await;
        }
        "insert-with-hashes" => {
            for sequence in [6, 5, 4] {
                victim.shift(sequence, sequence + 1).await;
            }
            victim.put((3, hash_of(3))).await;
            victim.head("sequence = 7").await;
        }
        "insert-behind" => drop(victim.put((6, hash_of(6))).await),
        "head-forward" => victim.head("sequence = 7").await,
        "head-back" => victim.head(&format!("sequence = 5, hash = '{}'", hash_of(5))).await,
        "head-gone" => victim.execute(format!("DELETE FROM audit_heads WHERE tenant_id = {}", victim.id)).await,
        _ => panic!("{way}"),
    }
}

async fn every_way_to_tamper_is_named_with_tenant_and_entry(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    clinic.chained("untouched").await;
    let mut victims = Vec::new();
    for (way, _) in WAYS {
        let tenant = clinic.chained(way).await;
        let log = chain(&clinic.owner, tenant).await;
        victims.push(Victim { clinic: &clinic, tenant, id: clinic.literal(tenant), log });
    }
    clinic.must(&["audit", "verify"]).await;
    clinic.disarm().await;
    for ((way, _), victim) in WAYS.iter().zip(&victims) {
        tamper(way, victim).await;
    }
    let output = clinic.run(&["audit", "verify"]).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for ((way, what), victim) in WAYS.iter().zip(&victims) {
        let begins = format!("BROKEN  {way} ({}): {what}", victim.tenant);
        assert!(said.lines().any(|line| line.starts_with(&begins)), "{begins} is missing:\n{said}");
    }
    // The system's, the clinic's own, and the one that nobody has touched.
    for good in ["good    system (", "good    clinic (", "good    untouched ("] {
        assert!(said.lines().any(|line| line.starts_with(good)), "{good} is missing:\n{said}");
    }
    assert_eq!(said.lines().count(), WAYS.len() + 3, "{said}");
    assert_eq!(not_holding(&output), format!("{} of {} audit logs do not hold", WAYS.len(), WAYS.len() + 3));
}

async fn a_truncated_log_is_missed(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let tenant = clinic.chained("truncated").await;
    clinic.disarm().await;
    clinic.execute(if clinic.on_postgres() { "TRUNCATE audit_logs" } else { "DELETE FROM audit_logs" }).await;
    let output = clinic.run(&["audit", "verify"]).await;
    let said = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("BROKEN  truncated ({tenant}): entries 1 to 6 are missing")), "{said}");
    assert!(said.contains(&format!("BROKEN  clinic ({}): entries 1 to 2 are missing", clinic.tenant)), "{said}");
    assert!(said.contains("good    system ("), "nothing was there: {said}");
}

async fn verify_looks_at_all_tenants_or_at_one(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let tenant = clinic.chained("edited").await;
    clinic.disarm().await;
    clinic.execute(&format!("UPDATE audit_logs SET action = 'x' WHERE tenant_id = {}", clinic.literal(tenant))).await;
    let verify = async |arguments: &[&str]| {
        let output = clinic.run(&[&["audit", "verify"], arguments].concat()).await;
        (output.status.code(), stdout(&output), not_holding(&output))
    };
    let (code, said, why) = verify(&[]).await;
    assert_eq!((code, said.lines().count(), why.trim()), (Some(1), 3, "1 of 3 audit logs does not hold"));
    let (code, said, _) = verify(&["--tenant", "edited"]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1));
    assert!(said.starts_with(&format!("BROKEN  edited ({tenant}): entry 1 ")), "{said}");
    let (code, said, why) = verify(&["--tenant", "clinic"]).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "triggers are disabled");
    assert!(why.starts_with("the database does not guard the audit log"), "{why}");
    assert!(said.starts_with(&format!("good    clinic ({}): 2 entries, head ", clinic.tenant)), "{said}");
    assert!(said.trim().ends_with(&clinic.log().await.last().unwrap().hash), "{said}");
    let (code, said, why) = verify(&["--tenant", "nobody"]).await;
    assert_eq!((code, said.as_str(), why.trim()), (Some(2), "", "--tenant: there is no tenant nobody"));
    // A deleted or suspended tenant's log is still looked at.
    clinic
        .execute("UPDATE tenants SET status = 'suspended', deleted_at = created_at WHERE external_id = 'edited'")
        .await;
    assert_eq!(verify(&[]).await.0, Some(1));
}
