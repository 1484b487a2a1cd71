//! What a superuser does to the audit log shows to whoever has kept a checkpoint, also where the chain alone holds.

use crate::support::{AuditedTenant, SIGNING, chain};
use crate::{run, stderr, stdout};
use sea_orm::ConnectionTrait;
use std::fmt::Write;
use std::path::Path;
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(every_rewrite_shows_to_who_has_a_checkpoint, guards_that_are_changed_are_named);

/// How many entries each chain has, and each checkpoint.
const ENTRIES: i64 = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Both,
    Postgres,
    Sqlite,
}
use On::{Both, Postgres, Sqlite};

/// What a superuser does to a tenant; the first word that `audit verify` says of it, and the first word with a checkpoint.
const REWRITES: [(&str, &str, On, &str, &str); 19] = [
    ("cut", "The last entries are deleted, and the recorded end is set to the last one left", Both, "good", "CUT"),
    ("cut-one", "The last entry is deleted, and the recorded end is set back", Both, "good", "CUT"),
    ("emptied", "All entries are deleted, and the recorded end is set to 0", Both, "good", "CUT"),
    ("erased", "The tenant is erased: all its rows, its log, its recorded end, its checkpoints", Both, "-", "ERASED"),
    ("rewritten", "All entries from one on are written anew", Both, "good", "REWRITTEN"),
    ("rewritten-all", "The whole chain is written anew", Both, "good", "REWRITTEN"),
    ("shorter", "The whole chain is written anew, one entry shorter", Both, "good", "CUT"),
    ("longer", "The last entries are deleted, and others written in their place, and more", Both, "good", "REWRITTEN"),
    ("edited", "An entry is edited", Both, "BROKEN", "CHANGED"),
    ("edited-repaired", "An entry is edited, and `audit repair` is run", Both, "REPAIRED", "CHANGED"),
    ("removed-repaired", "An entry is deleted, and `audit repair` is run", Both, "REPAIRED", "REWRITTEN"),
    (
        "forgotten",
        "An entry is edited with its hash, the rest is written anew, and the stored checkpoints and nodes are deleted",
        Both,
        "good",
        "REWRITTEN",
    ),
    ("netmask", "An address gets a network's length: `127.0.0.1/8`", Postgres, "BROKEN", "CHANGED"),
    ("metadata-twice", "A name comes twice in the metadata", Sqlite, "BROKEN", "CHANGED"),
    ("metadata-spaces", "Spaces are put into the metadata", Sqlite, "BROKEN", "CHANGED"),
    ("time-digits", "A time gets more digits", Sqlite, "BROKEN", "CHANGED"),
    ("time-zone", "A time is written in another notation", Sqlite, "BROKEN", "CHANGED"),
    ("rows", "Rows of other tables are changed behind the API", Both, "good", "fits"),
    ("renamed", "The tenant gets another external id", Both, "good", "fits"),
];

struct Victim<'c> {
    clinic: &'c AuditedTenant,
    tenant: Uuid,
    id: String,
    hashes: Vec<String>,
}

impl Victim<'_> {
    async fn execute(&self, sql: &str) {
        self.clinic.execute(&sql.replace("TENANT", &self.id)).await;
    }

    async fn set(&self, sequence: i64, change: &str) {
        self.execute(&format!("UPDATE audit_logs SET {change} WHERE tenant_id = TENANT AND sequence = {sequence}"))
            .await;
    }

    /// Deletes the entries behind this one, and writes others in their place until there are `last`.
    async fn rewrite(&self, after: i64, last: i64) {
        let end = after.checked_sub(1).map_or("0".repeat(64), |at| match usize::try_from(at) {
            Ok(at) => self.hashes[at].clone(),
            Err(_) => "0".repeat(64),
        });
        self.execute(&format!("DELETE FROM audit_logs WHERE tenant_id = TENANT AND sequence > {after}")).await;
        let mut head = end.clone();
        if last > after {
            let (insert, hash) = self
                .clinic
                .made_up(self.tenant, (after, &end), last - after, |entry| "CREATED".clone_into(&mut entry.action));
            self.execute(&insert).await;
            head = hash;
        }
        self.execute(&format!("UPDATE audit_heads SET sequence = {last}, hash = '{head}' WHERE tenant_id = TENANT"))
            .await;
    }

    async fn suffer(&self, way: &str) {
        match way {
            "cut" => self.rewrite(3, 3).await,
            "cut-one" => self.rewrite(ENTRIES - 1, ENTRIES - 1).await,
            "emptied" => self.rewrite(0, 0).await,
            "erased" => {
                for table in ["audit_checkpoints", "audit_nodes", "audit_logs", "audit_heads", "documents", "users"] {
                    self.execute(&format!("DELETE FROM {table} WHERE tenant_id = TENANT")).await;
                }
                self.execute("DELETE FROM tenants WHERE id = TENANT").await;
            }
            "rewritten" => self.rewrite(4, ENTRIES).await,
            "rewritten-all" => self.rewrite(0, ENTRIES).await,
            "shorter" => self.rewrite(0, ENTRIES - 1).await,
            "longer" => self.rewrite(4, ENTRIES + 2).await,
            "forgotten" => {
                self.rewrite(2, ENTRIES).await;
                self.execute("DELETE FROM audit_checkpoints WHERE tenant_id = TENANT").await;
                self.execute("DELETE FROM audit_nodes WHERE tenant_id = TENANT").await;
            }
            "edited" | "edited-repaired" => self.set(2, "action = 'CREATED'").await,
            "removed-repaired" => {
                self.execute("DELETE FROM audit_logs WHERE tenant_id = TENANT AND sequence = 2").await;
            }
            "netmask" => self.set(2, "ip = '127.0.0.1/8'").await,
            "metadata-twice" => self.set(2, r#"metadata = '{"found":false,"found":true}'"#).await,
            "metadata-spaces" => self.set(2, r#"metadata = '{"found": true}'"#).await,
            "time-digits" => self.set(2, "created_at = replace(created_at, 'Z', '9Z')").await,
            "time-zone" => self.set(2, "created_at = replace(created_at, 'Z', '+00:00')").await,
            "rows" => {
                let user = self.clinic.literal(Uuid::now_v7());
                self.execute(&format!(
                    "INSERT INTO users (id, tenant_id, email) VALUES ({user}, TENANT, 'x@example.org')"
                ))
                .await;
                self.execute("UPDATE users SET email = 'y@example.org' WHERE tenant_id = TENANT").await;
            }
            "renamed" => {
                self.execute("UPDATE tenants SET external_id = 'renamed-' || external_id WHERE id = TENANT").await;
            }
            _ => panic!("{way}"),
        }
    }
}

/// The first word of the line of this tenant; `-` where there is none.
fn word(said: &str, tenant: Uuid) -> &str {
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(&tenant.to_string())).collect();
    assert!(lines.len() <= 1, "{lines:?}");
    lines.first().map_or("-", |line| line.split(' ').next().unwrap())
}

async fn every_rewrite_shows_to_who_has_a_checkpoint(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let ours = if clinic.on_postgres() { Postgres } else { Sqlite };
    let rewrites: Vec<_> = REWRITES.iter().filter(|(_, _, on, ..)| [Both, ours].contains(on)).collect();
    let mut victims = Vec::new();
    for (way, ..) in &rewrites {
        let tenant = clinic.chained(way).await;
        let hashes = chain(&clinic.owner, tenant).await.into_iter().map(|entry| entry.hash).collect();
        victims.push(Victim { clinic: &clinic, tenant, id: clinic.literal(tenant), hashes });
    }
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let notes = file("notes", &clinic.signed(&["audit", "checkpoint"]).await);
    let keys = file("keys", &clinic.signed(&["audit", "key"]).await);
    let since = ["--since", &notes, "--key", &keys];
    let good = clinic.must(&[&["audit", "verify"], &since[..]].concat()).await;
    assert_eq!(good.lines().filter(|line| line.starts_with("fits ")).count(), rewrites.len() + 1, "{good}");

    let triggers = clinic.disarm().await;
    for ((way, ..), victim) in rewrites.iter().zip(&victims) {
        victim.suffer(way).await;
    }
    clinic.arm(triggers).await;
    for (way, ..) in &rewrites {
        if way.ends_with("-repaired") {
            clinic.must(&["audit", "repair", "--tenant", way, "--reason", "nothing to see here"]).await;
        }
    }
    let alone = clinic.run(&["audit", "verify"]).await;
    let with = clinic.run(&[&["audit", "verify"], &since[..]].concat()).await;
    let broken = rewrites.iter().filter(|(.., alone, _)| *alone == "BROKEN").count();
    assert_eq!(alone.status.code(), Some(1));
    assert!(
        stderr(&alone).starts_with(&format!("{broken} of {} audit logs do not hold", rewrites.len() + 1)),
        "{}",
        stderr(&alone)
    );
    let misfits = rewrites.iter().filter(|(.., with)| *with != "fits").count();
    let expected = format!("{misfits} of {} checkpoints do not fit", rewrites.len() + 1);
    assert!(stderr(&with).contains(&expected), "{}", stderr(&with));
    assert_eq!(with.status.code(), Some(1));
    // The lines of the checkpoints come behind those of the chains.
    let (alone, with) = (stdout(&alone), stdout(&with));
    let with: String = with.strip_prefix(&alone).unwrap_or_else(|| panic!("{alone}\n{with}")).to_owned();
    let found: Vec<_> = rewrites
        .iter()
        .zip(&victims)
        .map(|((way, ..), victim)| (*way, word(&alone, victim.tenant), word(&with, victim.tenant)))
        .collect();
    let expected: Vec<_> = rewrites.iter().map(|(way, _, _, alone, with)| (*way, *alone, *with)).collect();
    assert_eq!(found, expected, "{alone}\n{with}");
    assert!(
        with.contains("entries 4 to 6 were cut off") && with.contains("there is no such tenant any more"),
        "{with}"
    );

    // Whoever has the export of then needs no database.
    let now = file("now.jsonl", &clinic.must(&["audit", "export"]).await);
    let offline = run(&["audit", "verify", "--entries", &now, "--since", &notes, "--key", &keys], &[]).await;
    let said = stdout(&offline);
    assert_eq!(offline.status.code(), Some(1), "{said}{}", stderr(&offline));
    for ((way, _, _, _, with), victim) in rewrites.iter().zip(&victims) {
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(&victim.tenant.to_string())).collect();
        // Without a database, a tenant of whom nothing is there has no entries any more.
        let with = if *with == "ERASED" { "CUT" } else { with };
        assert_eq!(lines.last().unwrap().split(' ').next(), Some(with), "{way}: {lines:?}");
    }
    // Who rewrites can have no checkpoint signed that contradicts one before it.
    let refused =
        run(&["audit", "checkpoint"], &[&[("DATABASE_URL", clinic.database.url.as_str())][..], &SIGNING].concat())
            .await;
    assert_eq!(refused.status.code(), Some(1));
    for way in ["cut", "emptied", "shorter"] {
        let begins = format!("{way} (");
        let line = stderr(&refused).lines().find(|line| line.starts_with(&begins)).map(str::to_owned);
        assert!(line.is_some_and(|line| line.contains("entries are missing")), "{way}: {}", stderr(&refused));
    }
    for way in ["rewritten", "rewritten-all", "longer"] {
        let begins = format!("{way} (");
        let line = stderr(&refused).lines().find(|line| line.starts_with(&begins)).map(str::to_owned);
        assert!(line.is_some_and(|line| line.contains("they were changed")), "{way}: {}", stderr(&refused));
    }
}

async fn guards_that_are_changed_are_named(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    clinic.must(&["audit", "verify"]).await;
    let postgres = clinic.on_postgres();
    let ways: &[(&str, &str)] = if postgres {
        &[
            (
                "ALTER TABLE audit_logs DISABLE TRIGGER audit_logs_append_only",
                "trigger audit_logs_append_only is disabled",
            ),
            (
                "ALTER TABLE audit_nodes DISABLE TRIGGER audit_nodes_append_only",
                "trigger audit_nodes_append_only is disabled",
            ),
            (
                "DROP TRIGGER audit_checkpoints_append_only ON audit_checkpoints",
                "no trigger runs refuse_change before every change",
            ),
            (
                "DROP TRIGGER audit_heads_stay ON audit_heads;
                 CREATE TRIGGER audit_heads_stay BEFORE DELETE OR TRUNCATE ON audit_heads
                     FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION refuse_change()",
                "table audit_heads: no trigger runs refuse_change before every deletion",
            ),
            ("GRANT UPDATE (hash) ON audit_heads TO bulkhead_app", "table audit_heads: bulkhead_app may update hash"),
            (
                "GRANT UPDATE (note) ON audit_checkpoints TO bulkhead_app",
                "table audit_checkpoints: bulkhead_app may update note",
            ),
            (
                "ALTER TABLE audit_nodes DISABLE ROW LEVEL SECURITY",
                "table audit_nodes: row-level security is not enabled",
            ),
            (
                "DROP POLICY repairs ON audit_logs",
                "table audit_logs: bulkhead_app may record that a chain was repaired",
            ),
            (
                "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
                "function refuse_change is not the one that the migrations made",
            ),
            (
                "ALTER FUNCTION append_entries(jsonb) RENAME TO append_some_entries",
                "function append_entries is missing",
            ),
        ]
    } else {
        &[
            ("DROP TRIGGER audit_logs_no_update", "trigger audit_logs_no_update is missing"),
            ("DROP TRIGGER audit_nodes_no_delete", "trigger audit_nodes_no_delete is missing"),
            (
                "DROP TRIGGER audit_heads_stay;
                 CREATE TRIGGER audit_heads_stay BEFORE DELETE ON audit_heads BEGIN SELECT 1; END",
                "trigger audit_heads_stay is not the one that the migrations made",
            ),
            ("DROP TRIGGER tenants_audit_chain", "trigger tenants_audit_chain is missing"),
        ]
    };
    for (sql, _) in ways {
        clinic.execute(sql).await;
    }
    let output = clinic.run(&["audit", "verify"]).await;
    assert_eq!(output.status.code(), Some(1));
    let expected = format!("the database does not guard the audit log as it should: {} faults\n", ways.len());
    assert_eq!(stderr(&output), expected, "{}", stdout(&output));
    for (_, fault) in ways {
        assert!(
            stdout(&output).lines().any(|line| line.starts_with("FAULT ") && line.contains(fault)),
            "{fault}: {}",
            stdout(&output)
        );
    }
}

/// The bodies of functions name their schema.
#[tokio::test]
async fn guards_are_known_in_a_schema_whose_name_needs_quotes() {
    let Some(database) = Database::postgres_of_our_own().await else { return };
    let connection = sea_orm::Database::connect(&database.url).await.unwrap();
    let sql = "CREATE SCHEMA \"Audit logs\";
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = \"Audit logs\"', current_database()); END $$";
    connection.execute_unprepared(sql).await.unwrap();
    connection.close().await.unwrap();
    let settings = [("DATABASE_URL", database.url.as_str())];
    for arguments in [&["migrate", "up"][..], &["audit", "verify"], &["evidence"]] {
        let output = run(arguments, &settings).await;
        assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
    }
    let output = run(&["doctor"], &settings).await;
    assert!(stdout(&output).contains("good   audit log: "), "{}", stdout(&output));
}

/// The table of docs/audit.md is the one that the tests hold the program to.
#[test]
fn page_has_the_table_of_rewrites() {
    let mut table = "| what a superuser does | `audit verify` | with a checkpoint |\n|---|---|---|\n".to_owned();
    for (_, what, on, alone, with) in REWRITES {
        let on = match on {
            Both => "",
            Postgres => " (PostgreSQL)",
            Sqlite => " (SQLite)",
        };
        let alone = if alone == "-" { "no line" } else { alone };
        writeln!(table, "| {what}{on} | {alone} | {with} |").unwrap();
    }
    table.push_str("| Triggers stay disabled, a function, a right or a policy is changed | FAULT | FAULT |\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let start = page.find("| what a superuser does |").unwrap();
    let end = start + page[start..].find("\n\n").unwrap() + 1;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, [&page[..start], &table, &page[end..]].concat()).unwrap();
        return;
    }
    assert_eq!(&page[start..end], table, "UPDATE_DOCS=1 cargo test --test http -- page_has_the_table writes it anew");
}
