//! A chain that does not hold is repaired by an operator: what was broken is named for ever, and what is broken later shows.

use super::operations::make;
use crate::support::{AuditedTenant, BEGINNING, chain};
use crate::{stderr, stdout};
use bulkhead::audit::{AuditEntry, SYSTEM_TENANT};
use bulkhead::entity::audit_log::Model;
use sea_orm::{ConnectionTrait, Statement};
use serde_json::json;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(
    tenant_is_served_again_after_a_repair,
    every_break_is_named_for_ever,
    a_repair_covers_what_it_names_and_nothing_else,
    a_repaired_chain_breaks_and_is_repaired_again,
    a_chain_that_holds_is_not_repaired,
    the_systems_chain_is_repaired_like_any_other
);

/// The tables of the audit log.
const GUARDED: [&str; 4] = ["audit_logs", "audit_heads", "audit_nodes", "audit_checkpoints"];

/// A name of a trigger, and the SQL that makes it again.
pub(super) type Triggers = Vec<(String, String)>;

impl AuditedTenant {
    /// The triggers of the log, which are taken away.
    pub(super) async fn disarm(&self) -> Triggers {
        if self.on_postgres() {
            for table in GUARDED {
                self.execute(&format!("ALTER TABLE {table} DISABLE TRIGGER ALL")).await;
            }
            return Vec::new();
        }
        let sql = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'audit_%'";
        let statement = Statement::from_string(self.owner.get_database_backend(), sql);
        let rows = self.owner.query_all_raw(statement).await.unwrap();
        let triggers: Triggers =
            rows.iter().map(|row| (row.try_get("", "name").unwrap(), row.try_get("", "sql").unwrap())).collect();
        for (name, _) in &triggers {
            self.execute(&format!("DROP TRIGGER {name}")).await;
        }
        triggers
    }

    pub(super) async fn arm(&self, triggers: Triggers) {
        if self.on_postgres() {
            for table in GUARDED {
                self.execute(&format!("ALTER TABLE {table} ENABLE TRIGGER ALL")).await;
            }
        }
        for (_, sql) in triggers {
            self.execute(&sql).await;
        }
    }

    /// Does what nobody may.
    pub(super) async fn tamper(&self, sql: &str) {
        let triggers = self.disarm().await;
        self.execute(sql).await;
        self.arm(triggers).await;
    }

    /// Exit code, and the line of this tenant.
    async fn verify(&self, tenant: &str) -> (Option<i32>, String) {
        let output = self.run(&["audit", "verify", "--tenant", tenant]).await;
        assert_eq!(stdout(&output).lines().count(), 1, "{}{}", stdout(&output), stderr(&output));
        (output.status.code(), stdout(&output))
    }

    async fn repair(&self, tenant: &str, reason: &str) -> String {
        self.must(&["audit", "repair", "--tenant", tenant, "--reason", reason]).await
    }
}

async fn tenant_is_served_again_after_a_repair(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let server = clinic.server(&[]).await;
    let admin = clinic.caller(&server, "ada", "admin");
    make(&clinic, &admin, "documents").await;
    let last = clinic.newest().await;
    let after = (last.sequence, last.hash.as_str());
    // As a load of data with the triggers off does.
    let (insert, _) = clinic.made_up(clinic.tenant, after, 2, |_| ());
    clinic.tamper(&insert).await;
    let strange = last.sequence + 2;
    assert_eq!(admin.get("documents").await.outcome(), (500, "SYS_003"), "nothing can be recorded");
    let (code, said) = clinic.verify("clinic").await;
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("entry {strange} was inserted behind the chain's end")), "{said}");

    let told = clinic.repair("clinic", "restored a dump with --disable-triggers, see ticket 7").await;
    let what = format!("entry {strange} was inserted behind the chain's end; repaired by entry {} at ", strange + 1);
    assert!(told.starts_with(&format!("clinic: {what}")), "{told}");
    let entry = clinic.newest().await;
    assert_eq!((entry.action.as_str(), entry.resource_type.as_str()), ("CHAIN_REPAIRED", "audit_logs"));
    assert_eq!((entry.sequence, &entry.prev_hash), (strange + 1, &last.hash));
    let at = json!({"sequence": last.sequence, "hash": last.hash});
    for (name, value) in [
        ("by", json!("operator")),
        ("reason", json!("restored a dump with --disable-triggers, see ticket 7")),
        ("break", json!({"beyond_end": strange})),
        ("head", at.clone()),
        ("intact", at),
    ] {
        assert_eq!(entry.metadata[name], value, "{name}");
    }

    assert_eq!(admin.get("documents").await.status, 200, "the tenant is served again");
    make(&clinic, &admin, "documents").await;
    let log = clinic.log().await;
    let (code, said) = clinic.verify("clinic").await;
    let begins = format!("REPAIRED clinic ({}): {what}", clinic.tenant);
    let ends = format!(
        " by operator: restored a dump with --disable-triggers, see ticket 7; {} entries, head {}\n",
        log.len(),
        log.last().unwrap().hash
    );
    assert!(code == Some(0) && said.starts_with(&begins) && said.ends_with(&ends), "{said}");
    let (status, _) = server.get_json("/api/v1/health/ready").await;
    assert_eq!(status.as_u16(), 200, "the triggers are back");
}

/// What is done to a chain of six, and what `audit verify` says of it before and after the repair.
const BREAKS: [(&str, &str); 9] = [
    ("edited", "entry 2 is not what its hash was made of: it was edited or moved"),
    ("middle-missing", "entries 3 to 4 are missing"),
    ("first-missing", "entry 1 is missing"),
    ("all-missing", "entries 1 to 6 are missing"),
    ("tail-missing", "entry 6 is missing"),
    ("head-back", "entry 6 was inserted behind the chain's end"),
    ("head-forward", "entries 7 to 9 are missing"),
    ("head-other", "entry 6 is not the one that the chain's end was recorded with"),
    ("head-gone", "the record of where the chain ends is missing"),
];

fn breaks(way: &str, id: &str, log: &[Model]) -> String {
    let entries = |which: &str| format!("FROM audit_logs WHERE tenant_id = {id} AND {which}");
    let head = |change: &str| format!("UPDATE audit_heads SET {change} WHERE tenant_id = {id}");
    match way {
        "edited" => format!("UPDATE audit_logs SET action = 'x' WHERE tenant_id = {id} AND sequence = 2"),
        "middle-missing" => format!("DELETE {}", entries("sequence IN (3, 4)")),
        "first-missing" => format!("DELETE {}", entries("sequence = 1")),
        "all-missing" => format!("DELETE {}", entries("sequence > 0")),
        "tail-missing" => format!("DELETE {}", entries("sequence = 6")),
        "head-back" => head(&format!("sequence = 4, hash = '{}'", log[3].hash)),
        "head-forward" => head("sequence = 9"),
        "head-other" => head(&format!("hash = '{}'", log[3].hash)),
        "head-gone" => format!("DELETE FROM audit_heads WHERE tenant_id = {id}"),
        _ => panic!("{way}"),
    }
}

async fn every_break_is_named_for_ever(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    for (way, _) in BREAKS {
        let tenant = clinic.chained(way).await;
        let log = chain(&clinic.owner, tenant).await;
        clinic.tamper(&breaks(way, &clinic.literal(tenant), &log)).await;
    }
    let output = clinic.run(&["audit", "verify"]).await;
    assert_eq!(output.status.code(), Some(1));
    for (way, what) in BREAKS {
        let line =
            stdout(&output).lines().find(|line| line.starts_with(&format!("BROKEN  {way} ("))).map(str::to_owned);
        assert!(line.as_ref().is_some_and(|line| line.ends_with(what)), "{way}: {line:?}");
        clinic.repair(way, "tested").await;
    }
    // It goes on from there, as commands and requests write it.
    for (way, _) in BREAKS {
        clinic.must(&["user", "list", "--tenant", way]).await;
    }
    let said = clinic.must(&["audit", "verify"]).await;
    for (way, what) in BREAKS {
        let line = said.lines().find(|line| line.starts_with(&format!("REPAIRED {way} ("))).unwrap_or_default();
        assert!(line.contains(&format!(": {what}; repaired by entry ")), "{way}: {line:?}");
    }
    assert!(said.contains("good    clinic ("), "{said}");
}

async fn a_repair_covers_what_it_names_and_nothing_else(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    // What is done to the chain after its entry 4 was edited, and entry 7 repaired that; entry 8 follows.
    let edit = |sequence: i64, change: &str| (sequence, change.to_owned());
    let other = |text: &str| text.to_owned();
    let ways = [
        ("before", edit(2, "action = 'y'"), other("entry 2 is not what its hash was made of")),
        ("the-break", edit(4, "action = 'y'"), other("entry 7 repairs something else")),
        ("between", edit(5, "user_agent = 'y'"), other("entry 7 repairs something else")),
        ("between-hash", edit(6, "hash = upper(hash)"), other("entry 7 repairs something else")),
        ("the-repair", edit(7, "user_agent = 'y'"), other("entry 7 is not what its hash was made of")),
        ("its-action", edit(7, "action = 'y'"), other("entry 4 is not what its hash was made of")),
        ("after", edit(8, "action = 'y'"), other("entry 8 is not what its hash was made of")),
    ];
    let mut tenants = Vec::new();
    for (way, ..) in &ways {
        let tenant = clinic.chained(way).await;
        let id = clinic.literal(tenant);
        clinic.tamper(&format!("UPDATE audit_logs SET action = 'x' WHERE tenant_id = {id} AND sequence = 4")).await;
        clinic.repair(way, "tested").await;
        clinic.must(&["user", "list", "--tenant", way]).await;
        assert_eq!(clinic.verify(way).await.0, Some(0), "{way}");
        tenants.push((tenant, id));
    }
    for ((way, (sequence, change), what), (tenant, id)) in ways.iter().zip(&tenants) {
        let sql = format!("UPDATE audit_logs SET {change} WHERE tenant_id = {id} AND sequence = {sequence}");
        clinic.tamper(&sql).await;
        let (code, said) = clinic.verify(way).await;
        assert_eq!(code, Some(1), "{way}: {said}");
        assert!(said.starts_with(&format!("BROKEN  {way} ({tenant}): {what}")), "{way}: {said}");
    }
    // What is missing between, and a repair that is missing itself.
    for (way, gone, what) in
        [("gone", 5, "entry 7 repairs something else"), ("repair-gone", 7, "entry 4 is not what its hash was made of")]
    {
        let tenant = clinic.chained(way).await;
        let id = clinic.literal(tenant);
        clinic.tamper(&format!("UPDATE audit_logs SET action = 'x' WHERE tenant_id = {id} AND sequence = 4")).await;
        clinic.repair(way, "tested").await;
        clinic.tamper(&format!("DELETE FROM audit_logs WHERE tenant_id = {id} AND sequence = {gone}")).await;
        let (code, said) = clinic.verify(way).await;
        assert!(code == Some(1) && said.starts_with(&format!("BROKEN  {way} ({tenant}): {what}")), "{way}: {said}");
    }
}

async fn a_repaired_chain_breaks_and_is_repaired_again(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let tenant = clinic.chained("twice").await;
    let id = clinic.literal(tenant);
    let edit = |sequence: i64| {
        format!("UPDATE audit_logs SET user_agent = 'x' WHERE tenant_id = {id} AND sequence = {sequence}")
    };
    clinic.tamper(&edit(3)).await;
    clinic.repair("twice", "one").await; // entry 7
    clinic.must(&["user", "list", "--tenant", "twice"]).await; // entry 8
    clinic.tamper(&edit(8)).await;
    clinic.repair("twice", "two").await; // entry 9
    let (code, said) = clinic.verify("twice").await;
    let (one, two) =
        ("repaired by entry 7 at ", "; entry 8 is not what its hash was made of: it was edited or moved; ");
    assert!(code == Some(0) && said.contains(one) && said.contains(two) && said.contains(": two; 9 entries"), "{said}");
    // What the first repair does not name any more, a third one does.
    clinic.tamper(&edit(5)).await;
    assert!(clinic.verify("twice").await.1.contains("entry 7 repairs something else"));
    clinic.repair("twice", "three").await;
    let (code, said) = clinic.verify("twice").await;
    assert!(code == Some(0) && said.contains("entry 7 repairs something else"), "{said}");
    assert!(said.contains("; repaired by entry 10 at "), "{said}");
    // The repair itself.
    clinic.tamper(&edit(10)).await;
    assert!(clinic.verify("twice").await.1.starts_with("BROKEN"));
    clinic.repair("twice", "four").await;
    assert_eq!(clinic.verify("twice").await.0, Some(0));
    clinic.tamper(&edit(11)).await;
    assert_eq!(clinic.verify("twice").await.0, Some(1));
}

async fn a_chain_that_holds_is_not_repaired(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let before = clinic.log().await;
    let refused = async |arguments: &[&str], code: i32, line: &str| {
        let output = clinic.run(&[&["audit", "repair"], arguments].concat()).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(line), "{arguments:?}: {said}");
    };
    let holds = "--tenant: the audit log of clinic holds: there is nothing to repair";
    refused(&["--tenant", "clinic", "--reason", "why"], 1, holds).await;
    refused(&["--tenant", "nobody", "--reason", "why"], 2, "--tenant: there is no tenant nobody").await;
    refused(&["--tenant", "clinic"], 2, "--reason").await;
    refused(&["--tenant", "clinic", "--reason", ""], 2, "--reason").await;
    refused(&["--reason", "why"], 2, "--tenant").await;
    assert_eq!(clinic.log().await, before);
    let literal = clinic.literal(clinic.tenant);
    clinic.tamper(&format!("UPDATE audit_logs SET action = 'x' WHERE tenant_id = {literal} AND sequence = 1")).await;
    clinic.repair("clinic", "SSN 078-05-1120 \u{e9}").await;
    refused(&["--tenant", "clinic", "--reason", "why"], 1, holds).await;
    let entry = clinic.newest().await;
    assert!(!entry.metadata.to_string().contains("078-05-1120"), "{}", entry.metadata);
    let (entry, hash) = AuditEntry::from_row(entry);
    assert_eq!(entry.hash().unwrap(), hash);
}

async fn the_systems_chain_is_repaired_like_any_other(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let (insert, _) = clinic.made_up(SYSTEM_TENANT, BEGINNING, 1, |_| ());
    clinic.tamper(&insert).await;
    assert_eq!(clinic.verify("system").await.0, Some(1));
    clinic.repair("system", "tested").await;
    let (code, said) = clinic.verify("system").await;
    assert!(code == Some(0) && said.starts_with("REPAIRED system ("), "{said}");
}
