//! A drill: a backup is recorded, restored into a new server and verified; and each damage to the copy is named.

use super::{backup_role, deployed, dump, program};
use crate::isolation::{Roles, succeed};
use crate::support::{AuditedTenant, BEGINNING, SIGNING, TestApp, TestClient, borrowed, made_up, new_document, value};
use crate::{must, run, stderr, stdout};
use bulkhead::config::Settings;
use bulkhead::database::copy_connection;
use sea_orm::{ConnectionTrait, DatabaseConnection};
use serde_json::Value;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Instant;
use tempfile::TempDir;
use test_support::{Cluster, Database};
use uuid::Uuid;

/// What no output may have.
const PASSWORD: &str = "correct-horse-battery";

/// As tables are filled and damaged by who holds a database's files: without its triggers.
const UNGUARDED: &str = "SET session_replication_role = replica";

/// A backup, and where it is restored.
struct Drill {
    app: TestApp,
    owner: String,
    folder: TempDir,
    dump: PathBuf,
    cluster: Cluster,
}

impl Drill {
    /// Of a deployment, into a new server with the roles that a dump has not.
    async fn begin(app: TestApp, owner: String) -> Self {
        let cluster = Cluster::new().await.unwrap();
        let admin = sea_orm::Database::connect(&cluster.url).await.unwrap();
        for sql in [
            "CREATE ROLE bulkhead_app NOLOGIN".to_owned(),
            format!("CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'"),
            format!("GRANT bulkhead_app TO {owner}"),
        ] {
            admin.execute_unprepared(&sql).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let dump = folder.path().join("bulkhead.dump");
        Self { app, owner, folder, dump, cluster }
    }

    fn roles(&self) -> Roles {
        self.app.roles(&self.owner, &self.owner)
    }

    /// A file in the drill's folder.
    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Makes a record: its file.
    async fn record(&self, name: &str) -> String {
        let file = self.file(name);
        let settings = self.roles();
        let settings = [&borrowed(&settings)[..], &SIGNING].concat();
        must(&["backup", "record", "--output", &file], &settings).await;
        file
    }

    async fn dump(&self) {
        let backup = backup_role(&self.app).await;
        let dumped = dump(&self.app.url(&backup), &self.dump, &[]).await;
        assert!(dumped.status.success(), "{}", stderr(&dumped));
    }

    /// Makes a database of the new server, which its owner has; from `template`, or an empty one.
    async fn database(&self, name: &str, template: &str) {
        let admin = sea_orm::Database::connect(&self.cluster.url).await.unwrap();
        for sql in [
            format!("CREATE DATABASE {name} OWNER {} TEMPLATE {template}", self.owner),
            format!("REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC"),
        ] {
            admin.execute_unprepared(&sql).await.unwrap();
        }
        admin.close().await.unwrap();
    }

    /// The URL of a database of the new server, for this login.
    fn url(&self, name: &str, login: &str) -> String {
        self.cluster.url.replacen("postgres@", &format!("{login}@"), 1).replacen("/postgres?", &format!("/{name}?"), 1)
    }

    /// Restores the dump as the owner, as docs/backup.md says.
    async fn restore(&self, name: &str) {
        self.database(name, "template0").await;
        let url = self.url(name, &self.owner);
        let restore = ["--exit-on-error", "--single-transaction", "--dbname", &url];
        let restored = program("pg_restore").args(restore).arg(&self.dump).output().await.unwrap();
        assert!(restored.status.success(), "{}", stderr(&restored));
    }

    /// A copy of the database `copy`, which these statements of a superuser have damaged.
    async fn damaged(&self, name: &str, statements: &str) {
        self.database(name, "copy").await;
        let superuser = sea_orm::Database::connect(self.url(name, "postgres")).await.unwrap();
        let done = superuser.execute_unprepared(statements).await;
        done.unwrap_or_else(|error| panic!("{statements}: {error}"));
        superuser.close().await.unwrap();
    }

    /// Verifies a copy as its owner, whose URL has a password, with these arguments.
    async fn verify(&self, name: &str, record: &str, more: &[&str]) -> Output {
        let file = self.file("url");
        fs::write(&file, self.url(name, &format!("{}:{PASSWORD}", self.owner))).unwrap();
        let arguments = ["backup", "verify", "--from-file", &file, "--record", record];
        let output = run(&[&arguments[..], more].concat(), &SIGNING).await;
        for text in [stdout(&output), stderr(&output)] {
            assert!(!text.contains(PASSWORD), "{text}");
        }
        output
    }
}

/// What the findings that are wrong are about.
fn wrong(output: &Output) -> BTreeSet<String> {
    let text = stdout(output);
    let wrong = text.lines().filter_map(|line| line.strip_prefix("WRONG  ")?.split_once(": "));
    wrong.map(|(about, _)| about.to_owned()).collect()
}

fn assert_good(output: &Output) {
    assert!(output.status.success() && wrong(output).is_empty(), "{}{}", stdout(output), stderr(output));
}

/// Only these things are wrong, and this is what is said of them.
fn assert_wrong<const N: usize>(output: &Output, abouts: [&str; N], said: &str) {
    let text = stdout(output);
    assert_eq!(output.status.code(), Some(3), "{text}{}", stderr(output));
    assert_eq!(wrong(output), abouts.map(str::to_owned).into(), "{text}");
    assert!(text.contains(&format!("WRONG  {said}")), "{said}: {text}");
    assert!(text.contains("       -> "), "what to do is said, too: {text}");
}

/// Makes a tenant and documents by the API; its id.
async fn fill(app: &TestApp, roles: &Roles, external_id: &str, documents: usize) -> Uuid {
    let create = ["tenant", "create", "--name", "A clinic", "--external-id", external_id];
    let admin = ["--admin-email", "ada@example.org", "--admin-subject", "ada"];
    let id = succeed(roles, &[&create[..], &admin].concat()).await;
    let server = app.server(&borrowed(roles)).await;
    let admin = TestClient::new(app, &server, external_id, "ada", "admin");
    let owner = admin.all("users").await[0]["id"].clone();
    for _ in 0..documents {
        admin.make("documents", &new_document(&owner)).await;
    }
    id.trim().parse().unwrap()
}

#[tokio::test]
async fn a_restored_dump_is_verified_and_each_damage_is_named() {
    let Some((app, owner)) = deployed().await else { return };
    let drill = Drill::begin(app, owner).await;
    let roles = drill.roles();
    let tenant = fill(&drill.app, &roles, "st-marys", 3).await;
    fill(&drill.app, &roles, "st-johns", 1).await;
    let record = drill.record("record").await;
    drill.dump().await;
    drill.restore("copy").await;

    let report = drill.file("report");
    let good = drill.verify("copy", &record, &["--report", &report]).await;
    assert_good(&good);
    for about in
        ["record", "database", "schema", "isolation", "audit log", "tables", "chains", "heads", "checkpoints", "rows"]
    {
        assert!(stdout(&good).lines().any(|line| line.starts_with(&format!("good   {about}: "))), "{}", stdout(&good));
    }
    // The report can be shown to somebody else, who has the instance's keys.
    let keys = drill.file("keys");
    fs::write(&keys, must(&["audit", "key"], &[&borrowed(&roles)[..], &SIGNING].concat()).await).unwrap();
    let read = must(&["backup", "read", &report, "--key", &keys], &[]).await;
    let read: Value = serde_json::from_str(&read).unwrap();
    assert_eq!((&read["wrong"], &read["rows"]["documents"]), (&0.into(), &4.into()), "{read}");
    assert_eq!(read["logs"].as_object().unwrap().len(), 4, "the system's, too: {read}");
    assert!(!read.to_string().contains(PASSWORD));
    let forged = drill.file("forged");
    fs::write(&forged, fs::read_to_string(&report).unwrap().replacen("\"wrong\":0", "\"wrong\":1", 1)).unwrap();
    let forged = run(&["backup", "read", &forged, "--key", &keys], &[]).await;
    assert_eq!(forged.status.code(), Some(1));
    assert!(stderr(&forged).contains("its signature does not fit its text"), "{}", stderr(&forged));

    // Each damage, and what is wrong then, alone.
    let of_tenant = format!("st-marys ({tenant})");
    let last: i64 =
        value(&drill.app.owner, &format!("SELECT sequence FROM audit_heads WHERE tenant_id = '{tenant}'")).await;
    let edit = format!("UPDATE audit_logs SET user_agent = 'x' WHERE tenant_id = '{tenant}' AND sequence = 2");
    drill.damaged("edited", &format!("{UNGUARDED}; {edit}; RESET session_replication_role")).await;
    let output = drill.verify("edited", &record, &[]).await;
    // The root is over the hashes, which are as they were; the checkpoint's entries are looked at, too.
    let said = format!("chains: {of_tenant}: entry 2 is not what its hash was made of");
    assert_wrong(&output, ["chains", "checkpoints"], &said);

    let (insert, head) = made_up(|id| format!("'{id}'"), tenant, BEGINNING, last, |_| ());
    let statements = [
        UNGUARDED,
        &format!("DELETE FROM audit_logs WHERE tenant_id = '{tenant}'"),
        &insert,
        &format!("UPDATE audit_heads SET hash = '{head}' WHERE tenant_id = '{tenant}'"),
        "RESET session_replication_role",
    ];
    drill.damaged("rewritten", &statements.join("; ")).await;
    let output = drill.verify("rewritten", &record, &[]).await;
    let said = format!("heads: {of_tenant}: entry {last} is not the one that was recorded: the log was rewritten");
    assert_wrong(&output, ["heads", "checkpoints"], &said);

    let delete =
        format!("DELETE FROM documents WHERE id = (SELECT id FROM documents WHERE tenant_id = '{tenant}' LIMIT 1)");
    drill.damaged("deleted", &format!("{UNGUARDED}; {delete}; RESET session_replication_role")).await;
    let output = drill.verify("deleted", &record, &[]).await;
    assert_wrong(&output, ["rows"], &format!("rows: {of_tenant}: 2 of 3 rows of documents: 1 missing"));

    drill.damaged("open", "ALTER TABLE documents NO FORCE ROW LEVEL SECURITY").await;
    let output = drill.verify("open", &record, &[]).await;
    assert_wrong(&output, ["isolation"], "isolation: ");
    assert!(stdout(&output).contains("documents"), "{}", stdout(&output));

    // A backup that is older than the record: an entry is missing, and the checkpoint that the record made.
    succeed(&roles, &["user", "list", "--tenant", "st-marys"]).await;
    let later = drill.record("later").await;
    let output = drill.verify("copy", &later, &[]).await;
    let said = format!(
        "heads: {of_tenant}: the log ends with entry {last}, and {} were recorded: 1 entry is missing",
        last + 1
    );
    assert_wrong(&output, ["heads", "checkpoints", "rows"], &said);
    // A copy that is newer is good: rows and entries can only have been added.
    drill.dump().await;
    drill.restore("newer").await;
    assert_good(&drill.verify("newer", &record, &[]).await);

    // A record that somebody has changed.
    let changed = drill.file("changed");
    fs::write(&changed, fs::read_to_string(&record).unwrap().replacen("\"build\":\"", "\"build\":\"9", 1)).unwrap();
    let output = drill.verify("copy", &changed, &[]).await;
    assert_wrong(&output, ["record"], "record: ");
    assert!(stdout(&output).contains("its signature does not fit its text"), "{}", stdout(&output));
    let text = fs::read_to_string(&record).unwrap();
    let (unsigned, _) = text.split_once("\n\n").unwrap();
    fs::write(&changed, unsigned.replacen("\"build\":\"", "\"build\":\"9", 1) + "\n").unwrap();
    let output = drill.verify("copy", &changed, &[]).await;
    assert_wrong(&output, ["record"], "record: ");
    assert!(stdout(&output).contains("it is not signed"), "{}", stdout(&output));

    // No copy at all.
    let output = drill.verify("nowhere", &record, &[]).await;
    assert_wrong(&output, ["database"], "database: cannot use postgres://");
    // The copy is what it was.
    let output = drill.verify("copy", &record, &[]).await;
    assert_eq!(stdout(&output), stdout(&good));
    assert_nothing_changes(&drill.url("copy", &drill.owner)).await;
}

/// What `backup verify` looks through cannot write.
async fn assert_nothing_changes(url: &str) {
    let lookup = |name: &str| (name == "DATABASE_URL").then(|| OsString::from(url));
    let settings = Settings::read(&lookup).0.unwrap();
    let copy = copy_connection(&settings).await.unwrap();
    let error = copy.execute_unprepared("CREATE TABLE something (id int)").await.unwrap_err().to_string();
    assert!(error.contains("read-only") || error.contains("readonly"), "{error}");
    copy.close().await.unwrap();
}

#[tokio::test]
async fn a_copy_of_sqlite_is_verified_and_not_touched() {
    let clinic = AuditedTenant::new(Database::migrated_sqlite().await).await;
    clinic.make_tenant("other").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let record = file("record");
    clinic.signed(&["backup", "record", "--output", &record]).await;
    clinic.execute(&format!("VACUUM INTO '{}'", file("copy.db"))).await;
    let before = fs::read(file("copy.db")).unwrap();

    let copy = format!("sqlite://{}", file("copy.db"));
    let verify =
        async |url: &str, record: &str| run(&["backup", "verify", "--from", url, "--record", record], &SIGNING).await;
    let good = verify(&copy, &record).await;
    assert_good(&good);
    assert!(stdout(&good).contains("good   heads: 3 logs are as they were recorded, or longer"), "{}", stdout(&good));
    assert_nothing_changes(&copy).await;
    assert_eq!(fs::read(file("copy.db")).unwrap(), before);
    assert_eq!(names(folder.path()), ["copy.db", "record"], "no file is made beside it");

    // What only the log beside the file has is looked at: the database itself has the newer tenant.
    clinic.make_tenant("newest").await;
    clinic.signed(&["backup", "record", "--output", &record]).await;
    let live = clinic.database.url.trim_end_matches("?mode=rwc");
    let log = fs::metadata(format!("{}-wal", live.trim_start_matches("sqlite://"))).unwrap();
    assert!(log.len() > 0, "there is a log, or this shows nothing");
    assert_good(&verify(live, &record).await);
    let output = verify(&copy, &record).await;
    assert_wrong(&output, ["rows"], "rows: newest (");
    assert!(stdout(&output).contains("the copy has no such tenant"), "{}", stdout(&output));

    let damaged = sea_orm::Database::connect(&copy).await.unwrap();
    damaged.execute_unprepared("DROP TRIGGER audit_logs_no_update").await.unwrap();
    damaged.execute_unprepared("UPDATE audit_logs SET action = 'UPDATED' WHERE sequence = 1").await.unwrap();
    damaged.close().await.unwrap();
    // Without a record it is looked at, too.
    let output = run(&["backup", "verify", "--from", &copy], &[]).await;
    assert_wrong(&output, ["audit log", "chains"], "audit log: trigger audit_logs_no_update is missing");
    assert!(stdout(&output).contains("risky  record: none is given"), "{}", stdout(&output));
}

#[tokio::test]
async fn a_damaged_page_of_sqlite_shows() {
    let clinic = AuditedTenant::new(Database::migrated_sqlite().await).await;
    let tenant = clinic.literal(clinic.tenant);
    clinic
        .execute(&format!(
            "INSERT INTO users (id, tenant_id, email, full_name)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
             SELECT randomblob(16), {tenant}, 'u' || i || '@example.org', 'Somebody ' || i FROM n"
        ))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let (file, record) = (folder.path().join("copy.db"), folder.path().join("record").display().to_string());
    clinic.signed(&["backup", "record", "--output", &record]).await;
    clinic.execute(&format!("VACUUM INTO '{}'", file.display())).await;
    let copy = format!("sqlite://{}", file.display());
    let verify = async || run(&["backup", "verify", "--from", &copy, "--record", &record], &SIGNING).await;
    assert_good(&verify().await);

    // An index alone tells how many rows there are.
    let mut bytes = fs::read(&file).unwrap();
    let name = b"Somebody 250";
    let damaged = bytes.chunks_mut(4096).filter(|page| page.windows(name.len()).any(|window| window == name));
    assert_eq!(damaged.map(|page| page.fill(0)).count(), 1);
    fs::write(&file, bytes).unwrap();
    assert_wrong(&verify().await, ["file"], "file: it is damaged: ");
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const DOCUMENTS: i64 = 100_000;
const ENTRIES: i64 = 10_000;

/// Adds documents and entries to a tenant.
async fn fill_up(connection: &DatabaseConnection, tenant: Uuid) {
    let user = format!("SELECT id FROM users WHERE tenant_id = '{tenant}' LIMIT 1");
    let documents = format!(
        "INSERT INTO documents (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes, metadata)
         SELECT gen_random_uuid(), '{tenant}', ({user}), '{tenant}/' || n, 'files', 'scan-' || n || '.pdf',
             'application/pdf', n, jsonb_build_object('page', n, 'ward', md5(n::text))
         FROM generate_series(1, {DOCUMENTS}) AS n"
    );
    connection.execute_unprepared(&documents).await.unwrap();
    let mut sequence: i64 =
        value(connection, &format!("SELECT sequence FROM audit_heads WHERE tenant_id = '{tenant}'")).await;
    let mut hash: String =
        value(connection, &format!("SELECT hash FROM audit_heads WHERE tenant_id = '{tenant}'")).await;
    for _ in 0..ENTRIES / 1000 {
        let (insert, head) = made_up(|id| format!("'{id}'"), tenant, (sequence, &hash), 1000, |_| ());
        (sequence, hash) = (sequence + 1000, head);
        let end = format!("UPDATE audit_heads SET sequence = {sequence}, hash = '{hash}' WHERE tenant_id = '{tenant}'");
        let statements = format!("{UNGUARDED}; {insert}; {end}; RESET session_replication_role");
        connection.execute_unprepared(&statements).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "takes longer; a step of scripts/test runs it"]
#[allow(clippy::print_stdout, reason = "what it measures")]
async fn drill_on_more_data() {
    let Some((app, owner)) = deployed().await else { return };
    let drill = Drill::begin(app, owner).await;
    let tenant = fill(&drill.app, &drill.roles(), "st-marys", 1).await;
    fill_up(&drill.app.owner, tenant).await;
    let mut began = Instant::now();
    let mut took = || std::mem::replace(&mut began, Instant::now()).elapsed().as_secs_f64();
    let record = drill.record("record").await;
    let recorded = took();
    drill.dump().await;
    let dumped = took();
    drill.restore("copy").await;
    let restored = took();
    let output = drill.verify("copy", &record, &[]).await;
    let verified = took();
    assert_good(&output);
    assert!(stdout(&output).contains(&format!("documents {}", DOCUMENTS + 1)), "{}", stdout(&output));
    println!(
        "{DOCUMENTS} documents, {ENTRIES} entries: record {recorded:.1} s, dump {dumped:.1} s, \
         restore {restored:.1} s, verify {verified:.1} s"
    );
}
