//! The end of a tenant, by the command line: all that is kept of it goes into files, and then away.

mod exports;

use crate::support::{AuditedTenant, SIGNING, TestClient, at, new_document};
use crate::{run, stderr, stdout};
use aws_lc_rs::digest::{SHA256, digest};
use bulkhead::administration::LEFT_OUT;
use bulkhead::entity::audit_log;
use sea_orm::{ConnectionTrait, EntityTrait, TransactionTrait};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;
use test_support::{Database, eventually, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(
    an_export_holds_all_that_is_kept_of_the_tenant,
    an_export_of_nobody_or_onto_something_is_refused,
    a_table_that_somebody_adds_is_exported_and_erased,
    what_is_added_to_rows_and_emptied_in_part_goes,
    a_column_of_users_that_must_hold_something_is_refused,
    erasure_is_refused,
    erasure_leaves_the_audit_log_and_other_tenants,
    an_erasure_that_fails_changes_nothing
);

const ERASE: [&str; 8] =
    ["tenant", "erase", "--external-id", "clinic", "--after", "0", "--yes-erase-all-data-of", "clinic"];

/// The tenant `clinic` with a deleted user, two documents and a deleted one; and `other`, whose admin has the same address, with one.
struct Service {
    clinic: AuditedTenant,
    admin: TestClient,
    bob: Value,
    documents: Vec<Value>,
    other: Uuid,
    of_other: TestClient,
    folder: TempDir,
}

impl Deref for Service {
    type Target = AuditedTenant;

    fn deref(&self) -> &AuditedTenant {
        &self.clinic
    }
}

impl Service {
    async fn new(database: Database) -> Self {
        let (clinic, admin) = AuditedTenant::start(database).await;
        let other = clinic.make_tenant("other").await;
        let of_other = clinic.client("other", "ada", "admin");
        let bob = json!({"email": "bob@example.org", "full_name": "Bob Brown", "external_idp_id": "idp-bob"});
        let bob = admin.make("users", &bob).await;
        let mut documents = Vec::new();
        for _ in 0..2 {
            documents.push(admin.make("documents", &new_document(&bob["id"])).await);
        }
        let kept = admin.request("POST", "documents").header("idempotency-key", "a-key-of-a-request");
        let kept = kept.json(&new_document(&bob["id"])).send().await.unwrap().error_for_status().unwrap();
        documents.push(kept.json().await.unwrap());
        for path in [at("documents", &documents[0]), at("users", &bob)] {
            assert_eq!(admin.delete(&path).await.status, 204, "{path}");
        }
        let of_others = of_other.all("users").await[0]["id"].clone();
        of_other.make("documents", &new_document(&of_others)).await;
        Self { clinic, admin, bob, documents, other, of_other, folder: tempfile::tempdir().unwrap() }
    }

    /// A folder that is not there yet.
    fn output(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Exports the clinic with these settings, which succeeds: what the command prints.
    async fn export(&self, folder: &Path, settings: &[(&str, &str)]) -> String {
        let settings = [&[("DATABASE_URL", self.database.url.as_str())], settings].concat();
        let export = ["tenant", "export", "--external-id", "clinic", "--output", folder.to_str().unwrap()];
        crate::must(&export, &settings).await
    }

    /// Runs a command, which is refused with this code in one line that begins so; nothing is recorded.
    async fn refused(&self, arguments: &[&str], code: i32, line: &str) {
        let before = self.entries().await;
        let output = self.run(arguments).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.starts_with(line) && said.lines().count() == 1, "{arguments:?}: {said}");
        assert_eq!(self.entries().await, before, "{arguments:?} is recorded");
    }

    /// How many entries all audit logs have.
    async fn entries(&self) -> usize {
        audit_log::Entity::find().all(&self.owner).await.unwrap().len()
    }

    /// How many rows of a table are the tenant's and such.
    async fn count(&self, table: &str, tenant: Uuid, such: &str) -> i64 {
        let tenant = self.literal(tenant);
        self.value(&format!("SELECT count(*) FROM {table} WHERE tenant_id = {tenant} AND {such}")).await
    }

    /// The tables of the database with a column `tenant_id`.
    async fn tables(&self) -> BTreeSet<String> {
        let sql = if self.on_postgres() {
            "SELECT string_agg(table_name, ' ') FROM information_schema.columns
             WHERE table_schema = current_schema() AND column_name = 'tenant_id'"
        } else {
            "SELECT group_concat(m.name, ' ') FROM sqlite_schema m, pragma_table_xinfo(m.name) c
             WHERE m.type = 'table' AND c.name = 'tenant_id'"
        };
        self.value::<String>(sql).await.split(' ').map(str::to_owned).collect()
    }

    async fn suspend(&self) {
        self.must(&["tenant", "suspend", "--external-id", "clinic"]).await;
    }

    /// Has the clinic's row changed last so many days ago.
    async fn changed_days_ago(&self, days: u32) {
        let id = self.literal(self.tenant);
        let sql = if self.on_postgres() {
            format!(
                "SET session_replication_role = replica;
                 UPDATE tenants SET updated_at = now() - interval '{days} days' WHERE id = {id};
                 SET session_replication_role = origin"
            )
        } else {
            let ago = format!("strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-{days} days')");
            format!("UPDATE tenants SET updated_at = {ago} WHERE id = {id}")
        };
        self.execute(&sql).await;
    }

    /// All of the clinic's is still there.
    async fn assert_untouched(&self) {
        assert_eq!(self.count("documents", self.tenant, "filename = 'scan.pdf'").await, 3);
        assert_eq!(self.count("users", self.tenant, "email LIKE '%@example.org'").await, 2);
        assert_eq!(self.count("idempotency_keys", self.tenant, "1 = 1").await, 1);
        let name: String = self.value("SELECT name FROM tenants WHERE external_id = 'clinic'").await;
        assert_eq!(name, "A clinic");
    }
}

/// The files of a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    fs::read_dir(folder).unwrap().map(|entry| file(entry.unwrap())).collect()
}

fn lines(text: &[u8]) -> Vec<Value> {
    str::from_utf8(text).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// Ids of rows.
fn ids(rows: &[Value]) -> BTreeSet<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

async fn an_export_holds_all_that_is_kept_of_the_tenant(database: Database) {
    let service = Service::new(database).await;
    let without_key = service.output("without-key");
    service.export(&without_key, &[]).await;
    let names: Vec<String> = files(&without_key).into_keys().collect();
    assert!(names.contains(&"manifest.json".to_owned()) && !names.contains(&"checkpoint".to_owned()), "{names:?}");

    let folder = service.output("exports/clinic");
    let said = service.export(&folder, &SIGNING).await;
    let newest = service.newest().await;
    let recorded = (newest.action.as_str(), newest.resource_type.as_str(), newest.resource_id, newest.metadata);
    let metadata = json!({"by": "operator", "export": true});
    assert_eq!(recorded, ("DATA_ACCESS", "tenants", Some(service.tenant), metadata));

    // What there is, and that nobody else may read it.
    let mut files = files(&folder);
    assert_eq!(mode(&folder), 0o700);
    for name in files.keys() {
        assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
    }
    let manifest = files.remove("manifest.json").unwrap();
    let note = String::from_utf8(files.remove("manifest.note").unwrap()).unwrap();
    assert!(
        note.starts_with(str::from_utf8(&manifest).unwrap()) && note.contains("\n\n\u{2014} api.example.org/export ")
    );
    let manifest_is = format!("manifest.json is sha256:{}\n", sha256(&manifest));
    assert!(said.starts_with("clinic is exported to ") && said.ends_with(&manifest_is), "{said}");
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    assert_eq!((&manifest["tenant_id"], &manifest["external_id"]), (&json!(service.tenant), &json!("clinic")));
    let said: BTreeMap<&str, &Value> =
        manifest["files"].as_array().unwrap().iter().map(|file| (file["name"].as_str().unwrap(), file)).collect();
    assert!(said.keys().copied().eq(files.keys().map(String::as_str)), "{said:?}");
    for (name, content) in &files {
        assert_eq!(
            (&said[&**name]["sha256"], &said[&**name]["bytes"]),
            (&json!(sha256(content)), &json!(content.len()))
        );
        if name != "checkpoint" {
            assert_eq!(said[&**name]["rows"], lines(content).len(), "{name}");
        }
        let text = str::from_utf8(content).unwrap();
        assert!(!text.contains(&service.other.to_string()), "{name} has something of another tenant");
    }

    // Each table, or why not.
    let exported = files.keys().filter_map(|name| name.strip_suffix(".jsonl"));
    let mut exported: BTreeSet<String> = exported.map(str::to_owned).collect();
    let left_out = manifest["left_out"].as_array().unwrap();
    let left_out: Vec<&str> = left_out.iter().map(|table| table["table"].as_str().unwrap()).collect();
    assert_eq!(left_out, LEFT_OUT.map(|(table, _)| table));
    exported.extend(left_out.into_iter().map(str::to_owned));
    let mut expected = service.tables().await;
    expected.insert("tenants".to_owned());
    assert_eq!(exported, expected);

    // Deleted rows, too; each with all columns.
    let (users, documents) = (lines(&files["users.jsonl"]), lines(&files["documents.jsonl"]));
    let (ada, bob) = (service.ada.to_string(), service.bob["id"].as_str().unwrap());
    assert_eq!(ids(&users), BTreeSet::from([ada.as_str(), bob]));
    let bob = users.iter().find(|user| user["id"] == bob).unwrap();
    assert_eq!((&bob["full_name"], &bob["external_idp_id"]), (&json!("Bob Brown"), &json!("idp-bob")));
    assert!(bob["deleted_at"].is_string() && bob["last_login_at"].is_null(), "{bob}");
    assert_eq!(ids(&documents), ids(&service.documents));
    for row in users.iter().chain(&documents) {
        assert_eq!(row["tenant_id"], json!(service.tenant));
    }
    assert_eq!(lines(&files["tenants.jsonl"])[0]["id"], json!(service.tenant));

    // The log, which anybody can verify.
    let log = service.must(&["audit", "export", "--tenant", "clinic"]).await;
    assert_eq!(str::from_utf8(&files["audit_logs.jsonl"]).unwrap(), log);
    let verified = verify(&service, &folder).await;
    assert!(verified.status.success(), "{}{}", stdout(&verified), stderr(&verified));
    let said = stdout(&verified);
    assert!(said.contains("good ") && said.contains("fits "), "{said}");
    fs::write(folder.join("audit_logs.jsonl"), log.replacen("DATA_ACCESS", "UPDATED", 1)).unwrap();
    assert_eq!(verify(&service, &folder).await.status.code(), Some(1), "what is changed is noticed");
    fs::write(folder.join("audit_logs.jsonl"), log.replacen('{', "{\"note\":\"x\",", 1)).unwrap();
    let added = verify(&service, &folder).await;
    assert!(stderr(&added).contains("line 1: no entry has a member `note`"), "{}", stderr(&added));
}

/// Verifies an exported log with the exported checkpoint and the clinic's key, without a database.
async fn verify(service: &Service, folder: &Path) -> Output {
    let settings = [&[("DATABASE_URL", service.database.url.as_str())], &SIGNING[..]].concat();
    let keys = crate::must(&["audit", "key", "--tenant", "clinic"], &settings).await;
    let [key, of_exports] = keys.lines().collect::<Vec<_>>()[..] else { panic!("{keys}") };
    assert!(of_exports.starts_with("api.example.org/export+"), "{keys}");
    let path = |name| folder.join(name).into_os_string().into_string().unwrap();
    let (checkpoint, log) = (path("checkpoint"), path("audit_logs.jsonl"));
    run(&["audit", "verify", "--since", &checkpoint, "--key", key, "--entries", &log], &[]).await
}

async fn an_export_of_nobody_or_onto_something_is_refused(database: Database) {
    let service = Service::new(database).await;
    let folder = service.output("full");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("letter"), "kept").unwrap();
    let path = folder.to_str().unwrap();
    let onto_something = ["tenant", "export", "--external-id", "clinic", "--output", path];
    service.refused(&onto_something, 2, &format!("--output: {path} is not empty")).await;
    assert_eq!(files(&folder).into_keys().collect::<Vec<_>>(), ["letter"]);

    let nowhere = service.output("nowhere");
    let of_nobody = ["tenant", "export", "--external-id", "nobody", "--output", nowhere.to_str().unwrap()];
    service.refused(&of_nobody, 2, "--external-id: there is no tenant nobody").await;
    assert!(!nowhere.exists());
}

/// Only PostgreSQL lets others write while it reads.
#[tokio::test]
async fn an_export_is_of_one_moment() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let service = Service::new(database).await;
    let folder = service.output("clinic");
    // It waits for the documents, and comes to the users after them.
    let holder = service.database.connect().await;
    let transaction = holder.begin().await.unwrap();
    transaction.execute_unprepared("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let late = async {
        eventually("the export waits", async || (service.waiting().await > 0).then_some(())).await;
        let (id, tenant) = (service.literal(Uuid::now_v7()), service.literal(service.tenant));
        let late = format!("INSERT INTO users (id, tenant_id, email) VALUES ({id}, {tenant}, 'late@example.org')");
        transaction.execute_unprepared(&late).await.unwrap();
        transaction.commit().await.unwrap();
    };
    tokio::join!(service.export(&folder, &[]), late);
    assert_eq!(service.count("users", service.tenant, "email = 'late@example.org'").await, 1);
    let users = lines(&files(&folder)["users.jsonl"]);
    assert_eq!(users.len(), 2, "{users:?}");
}

async fn a_table_that_somebody_adds_is_exported_and_erased(database: Database) {
    let service = Service::new(database).await;
    let id = if service.on_postgres() { "uuid" } else { "blob" };
    service
        .execute(&format!(
            "CREATE TABLE wards (
                 number integer PRIMARY KEY, tenant_id {id} NOT NULL REFERENCES tenants (id) ON DELETE RESTRICT,
                 document_id {id} REFERENCES documents (id) ON DELETE RESTRICT,
                 user_id {id} REFERENCES users (id) ON DELETE RESTRICT, note text, bed integer, price double precision)"
        ))
        .await;
    service.execute("ALTER TABLE users ADD COLUMN phone text").await;
    service.execute("UPDATE users SET phone = '555-0100'").await;
    let (clinic, other) = (service.literal(service.tenant), service.literal(service.other));
    let document: Uuid = service.documents[0]["id"].as_str().unwrap().parse().unwrap();
    let (document, user) = (service.literal(document), service.literal(service.ada));
    let rows = format!(
        "(1, {clinic}, {document}, {user}, 'it''s \"bed\" \\7\nleft', 7, 0.5), (2, {other}, NULL, NULL, 'x', 8, 1)"
    );
    service
        .execute(&format!(
            "INSERT INTO wards (number, tenant_id, document_id, user_id, note, bed, price) VALUES {rows}"
        ))
        .await;

    let folder = service.output("clinic");
    service.export(&folder, &[]).await;
    let files = files(&folder);
    let row = json!({
        "number": 1, "tenant_id": service.tenant, "document_id": service.documents[0]["id"], "user_id": service.ada,
        "note": "it's \"bed\" \\7\nleft", "bed": 7, "price": 0.5
    });
    assert_eq!(lines(&files["wards.jsonl"]), [row]);
    assert!(lines(&files["users.jsonl"]).iter().all(|user| user["phone"] == "555-0100"));

    service.suspend().await;
    let said = service.must(&ERASE).await;
    assert!(said.contains("documents 3") && said.contains("wards 1"), "{said}");
    assert_eq!(
        service.value::<i64>("SELECT number FROM (SELECT CAST(number AS bigint) AS number FROM wards) w").await,
        2
    );
    assert_eq!(service.count("users", service.tenant, "phone IS NOT NULL").await, 0);
    assert_eq!(service.count("users", service.other, "phone = '555-0100'").await, 1);
}

async fn what_is_added_to_rows_and_emptied_in_part_goes(database: Database) {
    let service = Service::new(database).await;
    let id = if service.on_postgres() { "uuid" } else { "blob" };
    let (clinic, other) = (service.literal(service.tenant), service.literal(service.other));
    for sql in [
        "ALTER TABLE tenants ADD COLUMN contact text",
        "UPDATE tenants SET contact = 'jane@clinic.example'",
        // One database folds the case of a name, the other takes any.
        &format!("CREATE TABLE beds (number integer PRIMARY KEY, Tenant_ID {id} NOT NULL REFERENCES tenants (id))"),
        &format!("INSERT INTO beds VALUES (1, {clinic}), (2, {other})"),
        "UPDATE users SET email = 'erased' WHERE email = 'bob@example.org'",
    ] {
        service.execute(sql).await;
    }
    service.suspend().await;
    let said = service.must(&ERASE).await;
    assert!(said.contains("beds 1, ") && said.ends_with(" users 2\n"), "{said}");
    assert_eq!(service.count("users", service.tenant, "full_name IS NOT NULL").await, 0);
    assert_eq!(service.count("beds", service.other, "number = 2").await, 1);
    let contacts = "SELECT count(contact) FROM tenants WHERE external_id";
    assert_eq!(service.value::<i64>(&format!("{contacts} = 'clinic'")).await, 0);
    assert_eq!(service.value::<i64>(&format!("{contacts} = 'other'")).await, 1);
    let again = service.must(&ERASE).await;
    assert_eq!(again, "nothing to do: nothing is left of clinic but its audit log\n");
}

async fn a_column_of_users_that_must_hold_something_is_refused(database: Database) {
    let service = Service::new(database).await;
    service.execute("ALTER TABLE users ADD COLUMN badge text NOT NULL DEFAULT 'b-7'").await;
    service.suspend().await;
    service.refused(&ERASE, 1, "column badge of users: nothing empties it; nothing is erased").await;
    service.assert_untouched().await;
    service.execute("ALTER TABLE users DROP COLUMN badge").await;
    service.must(&ERASE).await;
}

async fn erasure_is_refused(database: Database) {
    let service = Service::new(database).await;
    service.refused(&ERASE, 1, "--external-id: clinic is not suspended: `bulkhead tenant suspend` comes first").await;
    service.suspend().await;
    let flag = "--yes-erase-all-data-of: must be clinic, too: its rows are then erased for good";
    service.refused(&ERASE[..6], 2, flag).await;
    for other in ["other", "Clinic", ""] {
        service.refused(&[&ERASE[..7], &[other]].concat(), 2, flag).await;
    }
    let mut nobody = ERASE;
    (nobody[3], nobody[7]) = ("nobody", "nobody");
    service.refused(&nobody, 2, "--external-id: there is no tenant nobody").await;
    (nobody[3], nobody[7]) = ("system", "system");
    assert_eq!(
        service.run(&nobody).await.status.code(),
        Some(2),
        "the log of what belongs to no tenant is no customer"
    );

    let mut later = ERASE;
    later[5] = "90";
    service.refused(&later, 1, "--after: clinic may be erased from ").await;
    service.changed_days_ago(89).await;
    service.refused(&later, 1, "--after: clinic may be erased from ").await;
    service.assert_untouched().await;
    service.changed_days_ago(91).await;
    service.must(&later).await;
    assert_eq!(service.newest().await.metadata["after_days"], 90);
}

async fn erasure_leaves_the_audit_log_and_other_tenants(database: Database) {
    let service = Service::new(database).await;
    let of_other = async || (service.of_other.all("users").await, service.of_other.all("documents").await);
    let others = of_other().await;
    service.suspend().await;
    let log = service.must(&["audit", "export", "--tenant", "clinic"]).await;
    let said = service.must(&ERASE).await;
    assert_eq!(said, "clinic is erased, but its audit log; rows: documents 3, idempotency_keys 1, users 2\n");

    for table in service.tables().await {
        if !["users", "audit_logs", "audit_heads", "audit_nodes", "audit_checkpoints"].contains(&table.as_str()) {
            assert_eq!(service.count(&table, service.tenant, "1 = 1").await, 0, "{table}");
        }
    }
    let empty = "email = 'erased' AND full_name IS NULL AND external_idp_id IS NULL AND last_login_at IS NULL
                 AND deleted_at IS NOT NULL";
    assert_eq!(service.count("users", service.tenant, empty).await, 2);
    assert_eq!(service.count("users", service.tenant, "1 = 1").await, 2);
    let name = "SELECT name FROM tenants WHERE external_id = 'clinic' AND deleted_at IS NOT NULL";
    assert_eq!(service.value::<String>(name).await, "erased");

    // The log goes on.
    let verified = service.must(&["audit", "verify"]).await;
    assert_eq!(verified.lines().filter(|line| line.starts_with("good ")).count(), 3, "{verified}");
    let now = service.must(&["audit", "export", "--tenant", "clinic"]).await;
    assert_eq!(now.strip_prefix(&log).map(|more| more.lines().count()), Some(1), "{now}");
    let newest = service.newest().await;
    let recorded = (newest.action.as_str(), newest.resource_type.as_str(), newest.resource_id, newest.metadata);
    let rows = json!({"documents": 3, "idempotency_keys": 1, "users": 2});
    let metadata = json!({"by": "operator", "after_days": 0, "rows": rows});
    assert_eq!(recorded, ("ERASED", "tenants", Some(service.tenant), metadata));

    // Nobody of it gets in again, and all others do.
    for path in ["users", "documents", "tenant", "auth/validate"] {
        service.admin.get(path).await.assert_error(403, "AUTH_009");
    }
    service.refused(&["tenant", "resume", "--external-id", "clinic"], 1, "--external-id: clinic is deleted").await;
    let again = ["tenant", "create", "--name", "Again", "--external-id", "clinic"];
    service.refused(&again, 1, "--external-id: there is a tenant clinic already").await;
    assert_eq!(of_other().await, others);

    let before = service.entries().await;
    let said = service.must(&ERASE).await;
    assert_eq!(said, "nothing to do: nothing is left of clinic but its audit log\n");
    assert_eq!(service.entries().await, before);
    let folder = service.output("what-is-left");
    service.export(&folder, &[]).await;
    for (name, content) in files(&folder) {
        let text = str::from_utf8(&content).unwrap();
        for word in ["@example.org", "Bob", "idp-bob", "scan.pdf", "A clinic"] {
            assert!(!text.contains(word), "{name} has {word}");
        }
    }

    // As after a restore of an older backup: what is there again goes again.
    let (id, tenant) = (service.literal(Uuid::now_v7()), service.literal(service.tenant));
    let back = format!("INSERT INTO users (id, tenant_id, email) VALUES ({id}, {tenant}, 'back@example.org')");
    service.execute(&back).await;
    assert_eq!(service.must(&ERASE).await, "clinic is erased, but its audit log; rows: users 1\n");
    service.must(&["audit", "verify"]).await;
}

/// SQLite has one writer at a time.
#[tokio::test]
async fn an_erasure_waits_for_those_who_write() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let service = Service::new(database).await;
    service.suspend().await;
    let holder = service.database.connect().await;
    let transaction = holder.begin().await.unwrap();
    let (id, tenant, user) = (Uuid::now_v7(), service.tenant, service.ada);
    let late = format!(
        "INSERT INTO documents (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes)
         VALUES ('{id}', '{tenant}', '{user}', '{tenant}/late', 'files', 'late.pdf', 'application/pdf', 1)"
    );
    transaction.execute_unprepared(&late).await.unwrap();
    let commit = async {
        eventually("the erasure waits", async || (service.waiting().await > 0).then_some(())).await;
        transaction.commit().await.unwrap();
    };
    let (said, ()) = tokio::join!(service.must(&ERASE), commit);
    assert!(said.contains("documents 4"), "{said}");
    assert_eq!(service.count("documents", service.tenant, "1 = 1").await, 0);
}

async fn an_erasure_that_fails_changes_nothing(database: Database) {
    let service = Service::new(database).await;
    service.suspend().await;
    let (before, after) = if service.on_postgres() {
        let body = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'held'; END $$";
        service.execute(&format!("CREATE FUNCTION hold() RETURNS trigger {body}")).await;
        (
            "BEFORE DELETE ON idempotency_keys FOR EACH ROW EXECUTE FUNCTION hold()",
            "DROP TRIGGER hold ON idempotency_keys",
        )
    } else {
        ("BEFORE DELETE ON idempotency_keys BEGIN SELECT RAISE(ABORT, 'held'); END", "DROP TRIGGER hold")
    };
    service.execute(&format!("CREATE TRIGGER hold {before}")).await;
    let entries = service.entries().await;
    let output = service.run(&ERASE).await;
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("held"), "{}", stderr(&output));
    assert_eq!(service.entries().await, entries);
    service.assert_untouched().await;
    service.execute(after).await;
    service.must(&ERASE).await;
}
