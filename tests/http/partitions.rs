//! What docs/scaling.md says of an audit log that is partitioned by month: it becomes so while requests are served, its chains and
//! the isolation of tenants stay whole, and old months are archived with their proof.

use crate::isolation::{CREATE, Roles, deployment, succeed};
use crate::support::{SIGNING, TestApp, TestClient, at, borrowed, new_document};
use crate::{must, run, stderr, stdout};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, DbErr, TransactionTrait};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use test_support::{eventually, postgres_program, skip};
use tokio::process::Command;
use uuid::Uuid;

const TEST_CLOCK: &str = "public.test_clock()";

/// A deployment with a tenant in it, whose owner is no superuser.
struct Deployment {
    app: TestApp,
    roles: Roles,
    owner: String,
    tenant: Uuid,
    /// Whether the scripts read [`Deployment::turn_the_clock`]'s time.
    clock: bool,
}

impl Deployment {
    async fn new() -> Option<Self> {
        if ["psql", "pg_dump", "pg_restore"].iter().any(|name| postgres_program(name).is_none()) {
            skip("no psql, pg_dump or pg_restore beside initdb");
            return None;
        }
        let app = deployment().await?;
        let owner = app.owning_login("").await;
        let roles = app.roles(&owner, &owner);
        succeed(&roles, &["migrate", "up"]).await;
        let tenant = succeed(&roles, &CREATE).await.trim().parse().unwrap();
        Some(Self { app, roles, owner, tenant, clock: false })
    }

    /// Runs one of deploy/postgres's scripts as the owner.
    async fn script(&self, name: &str, variables: &[&str]) -> Output {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/postgres").join(name);
        let mut sql = std::fs::read_to_string(file).unwrap();
        if self.clock {
            sql = sql.replace("clock_timestamp()", "test_clock()");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, sql).unwrap();
        let mut psql = Command::new(postgres_program("psql").unwrap());
        psql.args(["-X", "-d", &self.app.url(&self.owner), "-f"]).arg(&file);
        psql.args(variables.iter().flat_map(|variable| ["-v", variable]));
        psql.output().await.unwrap()
    }

    /// As [`Deployment::script`]; it succeeds, and this is what it says.
    async fn must(&self, name: &str, variables: &[&str]) -> String {
        let output = self.script(name, variables).await;
        assert!(output.status.success(), "{name}: {}{}", stdout(&output), stderr(&output));
        stdout(&output) + &stderr(&output)
    }

    async fn partition(&self) -> String {
        self.must("partition-audit-logs.sql", &["months=3"]).await
    }

    /// Every chain holds, and the database keeps tenants apart.
    async fn assert_whole(&self) {
        let verified = succeed(&self.roles, &["audit", "verify"]).await;
        assert!(verified.lines().all(|line| line.starts_with("good ")), "{verified}");
        succeed(&self.roles, &["migrate", "verify"]).await;
    }

    /// The partitions, oldest first.
    async fn partitions(&self) -> Vec<String> {
        let sql = "SELECT string_agg(c.relname, ' ' ORDER BY c.relname LIKE '%later', pg_get_expr(c.relpartbound, c.oid) NOT LIKE '%MINVALUE%', c.relname)
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'audit_logs'::regclass";
        self.app.value::<String>(sql).await.split(' ').map(str::to_owned).collect()
    }

    /// From now on the database's default and trigger, and the scripts, read a clock that can be set.
    async fn turn_the_clock(&mut self) {
        self.clock = true;
        let owner = sea_orm::Database::connect(self.app.url(&self.owner)).await.unwrap();
        let sql = "CREATE TABLE test_offset (ahead interval NOT NULL);
            INSERT INTO test_offset VALUES ('0');
            CREATE FUNCTION test_clock() RETURNS timestamptz LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
                AS 'SELECT clock_timestamp() + ahead FROM public.test_offset';
            REVOKE ALL ON FUNCTION test_clock() FROM PUBLIC;
            GRANT EXECUTE ON FUNCTION test_clock() TO bulkhead_app";
        owner.execute_unprepared(sql).await.unwrap();
        owner.close().await.unwrap();
        self.read_from("clock_timestamp()", TEST_CLOCK).await;
    }

    /// Does this with the functions of the migrations, which `audit verify` knows.
    async fn without_the_clock(&self, work: impl Future<Output = ()>) {
        self.read_from(TEST_CLOCK, "clock_timestamp()").await;
        work.await;
        self.read_from("clock_timestamp()", TEST_CLOCK).await;
    }

    async fn read_from(&self, one: &str, other: &str) {
        for function in ["continue_audit_chain()", "append_entries(jsonb)"] {
            let text = format!("replace(pg_get_functiondef('{function}'::regprocedure), '{one}', '{other}')");
            self.app.execute(&format!("DO $do$ BEGIN EXECUTE {text}; END $do$")).await;
        }
    }

    /// Sets the clock to this moment, which is SQL; `BOUND` is where the first partition ends.
    async fn set_clock(&self, moment: &str) {
        let bound = "(SELECT substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \\(''([^'']+)''')::timestamptz
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = 'audit_logs'::regclass AND pg_get_expr(c.relpartbound, c.oid) LIKE '%MINVALUE%')";
        let moment = moment.replace("BOUND", bound);
        self.app.execute(&format!("UPDATE test_offset SET ahead = {moment} - clock_timestamp()")).await;
    }

    /// An entry of the tenant's, as the API's role makes it, in a transaction of its own.
    async fn record(&self, action: &str) -> Result<(), DbErr> {
        let sql = format!(
            "SELECT record_entries(jsonb_build_array(jsonb_build_object('id', '{}', 'tenant_id', '{}', 'action', '{action}',
                'resource_type', 'documents', 'metadata', '{{}}'::jsonb)), '1min')",
            Uuid::now_v7(),
            self.tenant
        );
        self.app.owner.execute_unprepared(&sql).await.map(drop)
    }

    /// As `record`, by a statement that inserts it.
    async fn insert(&self, action: &str) -> Result<(), DbErr> {
        let transaction = self.app.owner.begin().await?;
        let sql = format!(
            "SET LOCAL app.current_tenant_id = '{0}';
             INSERT INTO audit_logs (id, tenant_id, action, resource_type) VALUES (gen_random_uuid(), '{0}', '{action}', 'documents')",
            self.tenant
        );
        transaction.execute_unprepared(&sql).await?;
        transaction.commit().await
    }
}

/// Reads, makes and changes documents until `stop`; how many requests were answered.
async fn work(admin: &TestClient, stop: &AtomicBool, answered: &AtomicUsize) {
    let owner = admin.all("users").await[0]["id"].clone();
    while !stop.load(Ordering::Relaxed) {
        let document = admin.make("documents", &new_document(&owner)).await;
        let path = at("documents", &document);
        assert_eq!(admin.get(&path).await.status, 200);
        assert_eq!(admin.patch(&path, &json!({"filename": "new"})).await.status, 200);
        assert_eq!(admin.get("documents?limit=5").await.status, 200);
        answered.fetch_add(4, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn log_is_partitioned_while_requests_are_served() {
    let Some(clinic) = Deployment::new().await else { return };
    let (server, admin) = clinic.app.served_by(&clinic.roles).await;
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let change = async {
        let more = async |what: &str| {
            let before = answered.load(Ordering::Relaxed);
            eventually(what, async || (answered.load(Ordering::Relaxed) > before + 40).then_some(())).await;
        };
        more("requests are answered before").await;
        let said = clinic.partition().await;
        assert_eq!(said.matches("FOR VALUES").count(), 5, "{said}");
        more("requests are answered after").await;
        // Once more: the same months, then more of them.
        let partitions = clinic.partitions().await;
        clinic.partition().await;
        assert_eq!(clinic.partitions().await, partitions);
        clinic.must("partition-audit-logs.sql", &["months=5"]).await;
        assert_eq!(clinic.partitions().await.len(), partitions.len() + 2);
        more("requests are answered at the end").await;
        stop.store(true, Ordering::Relaxed);
    };
    let workers = join_all((0..6).map(|_| work(&admin, &stop, &answered)));
    tokio::join!(workers, change);
    clinic.assert_whole().await;
    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert_eq!((status.as_u16(), &body["checks"]["isolation"]["status"]), (200, &json!("database")), "{body}");

    // A search between two moments reads the partition of that time alone.
    let plan = format!(
        "EXPLAIN (FORMAT JSON) SELECT * FROM audit_logs WHERE tenant_id = '{}' AND created_at >= now() - interval '1 hour'
            AND created_at < now() ORDER BY sequence DESC LIMIT 50",
        clinic.tenant
    );
    let plan = clinic.app.value::<serde_json::Value>(&plan).await.to_string();
    let first = &clinic.partitions().await[0];
    assert!(plan.contains(first.as_str()) && !plan.contains("audit_logs_2"), "{plan}");
    assert!(!admin.get("audit-logs?limit=5&since=2026-01-01T00:00:00Z").await.items().is_empty());

    // What a partition says to a statement that names it.
    for (role, sql, refusal) in [
        ("bulkhead_app", format!("SELECT FROM {first}"), "permission denied"),
        ("bulkhead_app", format!("INSERT INTO {first} (id) VALUES (gen_random_uuid())"), "permission denied"),
        ("bulkhead_app", "INSERT INTO audit_logs (created_at) VALUES (now())".to_owned(), "permission denied"),
        (&clinic.owner, format!("DELETE FROM {first}"), "append-only"),
        (&clinic.owner, format!("UPDATE {first} SET action = 'x'"), "append-only"),
        (&clinic.owner, "TRUNCATE audit_logs".to_owned(), "append-only"),
        (&clinic.owner, "TRUNCATE audit_logs_later".to_owned(), "append-only"),
    ] {
        let transaction = clinic.app.owner.begin().await.unwrap();
        transaction.execute_unprepared(&format!("SET LOCAL ROLE {role}")).await.unwrap();
        let refused = transaction.execute_unprepared(&sql).await.unwrap_err().to_string();
        assert!(refused.contains(refusal), "{sql} as {role}: {refused}");
    }
}

#[tokio::test]
async fn partitions_are_as_protected_as_the_whole() {
    let Some(clinic) = Deployment::new().await else { return };
    clinic.partition().await;
    for (fault, mend, said) in [
        (
            "GRANT SELECT ON audit_logs_later TO bulkhead_app",
            "REVOKE SELECT ON audit_logs_later FROM bulkhead_app",
            "table audit_logs_later: it is a partition of audit_logs, and bulkhead_app may SELECT it by its own name",
        ),
        (
            "ALTER TABLE audit_logs_later NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE audit_logs_later FORCE ROW LEVEL SECURITY",
            "table audit_logs_later: row-level security is not forced on its owner",
        ),
        (
            "ALTER TABLE audit_logs_later DISABLE TRIGGER audit_logs_append_only",
            "ALTER TABLE audit_logs_later ENABLE TRIGGER audit_logs_append_only",
            "table audit_logs_later: trigger audit_logs_append_only is disabled",
        ),
        (
            "DROP TRIGGER audit_logs_append_only ON audit_logs_later",
            "CREATE TRIGGER audit_logs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_logs_later
                FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()",
            "table audit_logs_later: no trigger runs refuse_change before every change",
        ),
        (
            "ALTER TABLE audit_logs_later DROP CONSTRAINT audit_logs_later_tenant_id_sequence_key",
            "ALTER TABLE audit_logs_later ADD CONSTRAINT audit_logs_later_tenant_id_sequence_key UNIQUE (tenant_id, sequence)",
            "table audit_logs_later: no primary or unique key begins with tenant_id",
        ),
        (
            "CREATE SCHEMA elsewhere; ALTER TABLE audit_logs_later SET SCHEMA elsewhere",
            "ALTER TABLE elsewhere.audit_logs_later SET SCHEMA public",
            "table audit_logs: its partition elsewhere.audit_logs_later is in another schema",
        ),
    ] {
        clinic.app.execute(fault).await;
        let output = run(&["migrate", "verify"], &borrowed(&clinic.roles)).await;
        assert_eq!(output.status.code(), Some(3), "{fault}");
        assert!(stderr(&output).contains(said), "{fault}: {}", stderr(&output));
        clinic.app.execute(mend).await;
        succeed(&clinic.roles, &["migrate", "verify"]).await;
    }
}

#[tokio::test]
async fn entry_that_waits_over_the_end_of_a_month_stays_in_it() {
    let Some(mut clinic) = Deployment::new().await else { return };
    clinic.turn_the_clock().await;
    clinic.partition().await;
    clinic.record("FIRST").await.unwrap();
    clinic.set_clock("BOUND - interval '1 minute'").await;
    // Each waits for the end of the chain while the month ends. Before the second one, another entry is of the new month. One that
    // is inserted stays in the month; one that is appended is of the next.
    for (action, other) in [("STAYS", None), ("REFUSED", Some("OF_THE_NEXT_MONTH")), ("APPENDED", None)] {
        let head = clinic.app.owner.begin().await.unwrap();
        let lock = format!("SELECT FROM audit_heads WHERE tenant_id = '{}' FOR UPDATE", clinic.tenant);
        head.execute_unprepared(&lock).await.unwrap();
        let waiting = async {
            eventually("the entry waits", async || (clinic.app.waiting().await > 0).then_some(())).await;
            clinic.set_clock("BOUND + interval '1 minute'").await;
            if let Some(other) = other {
                let insert = format!(
                    "SET LOCAL app.current_tenant_id = '{0}'; INSERT INTO audit_logs (id, tenant_id, action, resource_type)
                        VALUES (gen_random_uuid(), '{0}', '{other}', 'documents')",
                    clinic.tenant
                );
                head.execute_unprepared(&insert).await.unwrap();
            }
            head.commit().await.unwrap();
        };
        let entry =
            async { if action == "APPENDED" { clinic.record(action).await } else { clinic.insert(action).await } };
        let (recorded, ()) = tokio::join!(entry, waiting);
        if other.is_none() {
            recorded.unwrap();
        } else {
            let refused = recorded.unwrap_err();
            assert_eq!(bulkhead_migrator::code(&refused).as_deref(), Some("40001"), "{refused}");
        }
        clinic.set_clock("BOUND - interval '1 minute'").await;
    }
    clinic.set_clock("BOUND + interval '1 minute'").await;
    clinic.record("LAST").await.unwrap();
    let entries = "SELECT string_agg(action || ' ' || (to_char(created_at AT TIME ZONE 'UTC', 'HH24:MI:SS.US') = '23:59:59.999999')::text || ' '
            || (tableoid::regclass::text LIKE '%before%')::text, ', ' ORDER BY sequence)
        FROM audit_logs WHERE action = upper(action) AND sequence > 2";
    let found: String = clinic.app.value(entries).await;
    let expected =
        "FIRST false true, STAYS true true, OF_THE_NEXT_MONTH false false, APPENDED false false, LAST false false";
    assert_eq!(found, expected);
    clinic.without_the_clock(clinic.assert_whole()).await;
    // Nobody writes into a month that is over.
    let past = format!(
        "SET app.current_tenant_id = '{0}'; INSERT INTO audit_logs (id, tenant_id, action, resource_type, created_at)
            VALUES (gen_random_uuid(), '{0}', 'PAST', 'documents', '2026-01-01')",
        clinic.tenant
    );
    let refused = clinic.app.owner.execute_unprepared(&past).await.unwrap_err().to_string();
    assert!(refused.contains("the time of an entry is not for its writer to choose"), "{refused}");
}

/// What is missing at the border, and what is edited behind it, shows.
async fn verify_begins_behind_the_archive(clinic: &Deployment, archived: &str) {
    let of_tenant = format!("WHERE tenant_id = '{}'", clinic.tenant);
    let last: i64 = clinic.app.value(&format!("SELECT max(sequence) FROM {archived} {of_tenant}")).await;
    let good = format!("good    clinic-1 ({}): entries 1 to {last} are archived; ", clinic.tenant);
    let verified = succeed(&clinic.roles, &["audit", "verify"]).await;
    assert!(verified.contains(&good), "{verified}");
    let edit =
        |action: &str| format!("UPDATE audit_logs SET action = {action} {of_tenant} AND sequence = {}", last + 1);
    for (change, back, broken) in [
        (
            format!("UPDATE audit_archive.ends SET sequence = sequence - 1 {of_tenant}"),
            format!("UPDATE audit_archive.ends SET sequence = sequence + 1 {of_tenant}"),
            format!("entry {last} is missing"),
        ),
        (edit("'x' || action"), edit("substr(action, 2)"), format!("entry {} is not what its hash", last + 1)),
    ] {
        let apply = async |change: &str| {
            let sql = format!("SET session_replication_role = replica; {change}; RESET session_replication_role");
            clinic.app.execute(&sql).await;
        };
        apply(&change).await;
        let output = run(&["audit", "verify"], &borrowed(&clinic.roles)).await;
        let broken = format!("BROKEN  clinic-1 ({}): {broken}", clinic.tenant);
        assert!(output.status.code() == Some(1) && stdout(&output).contains(&broken), "{}", stdout(&output));
        apply(&back).await;
    }
}

/// No checkpoint can be made of this short log any more. Nobody is told that it was changed, and backups are recorded and verified.
async fn archived_entries_are_no_tampering(clinic: &Deployment, settings: &[(&str, &str)]) {
    let made = run(&["audit", "checkpoint", "--tenant", "clinic-1"], settings).await;
    assert!(made.status.success() && stdout(&made).is_empty(), "{}{}", stdout(&made), stderr(&made));
    let said = format!("warning: no checkpoint of clinic-1 ({}): entries 1 to ", clinic.tenant);
    assert!(stderr(&made).starts_with(&said) && stderr(&made).contains("are archived"), "{}", stderr(&made));
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record").display().to_string();
    must(&["backup", "record", "--output", &record], settings).await;
    must(&["backup", "verify", "--record", &record], settings).await;
    let evidence = run(&["evidence"], settings).await;
    let evidence: serde_json::Value = serde_json::from_str(&stdout(&evidence)).unwrap();
    let logs = evidence["audit_logs"].as_array().unwrap();
    let log = logs.iter().find(|log| log["tenant"] == "clinic-1").unwrap();
    assert!(log["archived"].as_i64().is_some_and(|archived| archived > 0), "{log}");
}

/// An export has the rest of the log, and says where it begins: with the checkpoint it fits what is archived alone.
async fn an_export_begins_behind_the_archive(clinic: &Deployment) {
    let folder = tempfile::tempdir().unwrap();
    let (export, keys) = (folder.path().join("export"), folder.path().join("keys"));
    let (export, keys) = (export.to_str().unwrap(), keys.to_str().unwrap());
    let signing = [&borrowed(&clinic.roles)[..], &SIGNING].concat();
    must(&["tenant", "export", "--external-id", "clinic-1", "--output", export], &signing).await;
    std::fs::write(keys, must(&["audit", "key", "--tenant", "clinic-1"], &signing).await).unwrap();
    let said = must(&["tenant", "verify-export", export, "--key", keys], &[]).await;
    assert!(said.contains("good    audit_logs.jsonl: ") && said.contains(" entries in a chain"), "{said}");
    assert!(said.contains("are archived, and only with them"), "{said}");
}

#[tokio::test]
async fn months_are_archived_with_their_proof() {
    let Some(mut clinic) = Deployment::new().await else { return };
    clinic.turn_the_clock().await;
    clinic.partition().await;
    let (_server, admin) = clinic.app.served_by(&clinic.roles).await;
    let owner = admin.all("users").await[0]["id"].clone();
    admin.make("documents", &new_document(&owner)).await;
    let said = clinic.must("archive-audit-logs.sql", &[]).await;
    assert!(said.contains("nothing is detached"), "{said}");
    clinic.set_clock("BOUND + interval '3 days'").await;
    admin.make("documents", &new_document(&owner)).await;
    clinic.partition().await;

    let settings = [&borrowed(&clinic.roles)[..], &SIGNING].concat();
    let note = must(&["audit", "checkpoint", "--tenant", "clinic-1"], &settings).await;
    let proof = format!("audit-logs/proof?sequence={}", note.lines().nth(1).unwrap());
    assert_eq!(admin.get(&proof).await.status, 200);

    let first = clinic.partitions().await.remove(0);
    let archived = format!("audit_archive.{first}");
    let log = |table: &str| format!("log={table}");
    let count = async |table: &str| clinic.app.value::<i64>(&format!("SELECT count(*) FROM {table}")).await;
    let (all, of_month) = (count("audit_logs").await, count(&first).await);
    assert!(0 < of_month && of_month < all, "{of_month} of {all}");
    // A chain that is not whole at the border stays as it is.
    let link = format!(
        "WHERE tenant_id = '{0}' AND sequence = (SELECT max(sequence) FROM {first} WHERE tenant_id = '{0}') + 1",
        clinic.tenant
    );
    let tamper = async |prev_hash: &str| {
        let change = format!("UPDATE audit_logs SET prev_hash = {prev_hash} {link}");
        clinic
            .app
            .execute(&format!("SET session_replication_role = replica; {change}; RESET session_replication_role"))
            .await;
    };
    let link_of: String = clinic.app.value(&format!("SELECT prev_hash FROM audit_logs {link}")).await;
    tamper("hash").await;
    let refused = clinic.script("archive-audit-logs.sql", &[]).await;
    assert!(stderr(&refused).contains("the audit log of clinic-1 does not continue"), "{}", stderr(&refused));
    assert_eq!(clinic.partitions().await[0], first);
    tamper(&format!("'{link_of}'")).await;

    must(&["audit", "checkpoint"], &[&borrowed(&clinic.roles)[..], &SIGNING].concat()).await;
    clinic.must("archive-audit-logs.sql", &[]).await;
    assert_eq!((count("audit_logs").await, count(&archived).await), (all - of_month, of_month));

    // The service goes on, and both parts hold.
    admin.make("documents", &new_document(&owner)).await;
    succeed(&clinic.roles, &["migrate", "verify"]).await;
    for table in ["audit_logs", &archived] {
        let said = clinic.must("check-audit-logs.sql", &[&log(table)]).await;
        assert!(said.contains(&format!("good    {}", clinic.tenant)), "{said}");
    }
    clinic.without_the_clock(verify_begins_behind_the_archive(&clinic, &archived)).await;
    clinic.without_the_clock(archived_entries_are_no_tampering(&clinic, &settings)).await;
    // What its hashes would be made of is archived.
    admin.get(&proof).await.assert_error(404, "RES_001");
    an_export_begins_behind_the_archive(&clinic).await;

    // The owner dumps the month, drops it, and has it again.
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("month.dump");
    let program = |name: &str| Command::new(postgres_program(name).unwrap());
    let url = clinic.app.url(&clinic.owner);
    let dump = ["--format=custom", "--table", &archived, "--table=audit_archive.ends", "--file"];
    let dumped = program("pg_dump").args(dump).arg(&file).arg(&url).output().await.unwrap();
    assert!(dumped.status.success(), "{}", stderr(&dumped));
    clinic.app.execute(&format!("DROP TABLE {archived}")).await;
    clinic.must("check-audit-logs.sql", &[&log("audit_logs")]).await;
    let restore = ["--exit-on-error", "--table", &first, "--dbname", &url];
    let restored = program("pg_restore").args(restore).arg(&file).output().await.unwrap();
    assert!(restored.status.success(), "{}", stderr(&restored));
    assert_eq!(count(&archived).await, of_month);
    clinic.must("check-audit-logs.sql", &[&log(&archived)]).await;

    // What was changed in it shows.
    let broken = async |change: &str, what: &str| {
        clinic
            .app
            .execute(&format!("SET session_replication_role = replica; {change}; RESET session_replication_role"))
            .await;
        let output = clinic.script("check-audit-logs.sql", &[&log(&archived)]).await;
        assert_eq!(output.status.code(), Some(3), "{change}");
        assert!(stderr(&output).contains(&format!("BROKEN  {}: {what}", clinic.tenant)), "{}", stderr(&output));
    };
    clinic.app.execute(&format!("CREATE TABLE kept AS TABLE {archived}")).await;
    let of_tenant = format!("WHERE tenant_id = '{}'", clinic.tenant);
    let end = format!("(SELECT max(sequence) FROM kept {of_tenant})");
    for (change, what) in [
        (format!("UPDATE {archived} SET action = 'x' {of_tenant} AND sequence = 2"), "entry 2: it was edited"),
        (format!("DELETE FROM {archived} {of_tenant} AND sequence = 2"), "entry 3: entries before it are missing"),
        (
            format!("UPDATE {archived} SET prev_hash = hash {of_tenant} AND sequence = 2"),
            "entry 2: it does not continue",
        ),
        (format!("DELETE FROM {archived} {of_tenant} AND sequence = {end}"), "entry "),
    ] {
        broken(&change, what).await;
        clinic.app.execute(&format!("DELETE FROM {archived}; INSERT INTO {archived} SELECT * FROM kept")).await;
    }
    clinic.must("check-audit-logs.sql", &[&log(&archived)]).await;

    // Elsewhere, years later.
    let elsewhere = Deployment::new().await.unwrap();
    elsewhere.app.execute(&format!("CREATE SCHEMA audit_archive AUTHORIZATION {}", elsewhere.owner)).await;
    let url = elsewhere.app.url(&elsewhere.owner);
    let restore = ["--exit-on-error", "--section=pre-data", "--section=data", "--no-owner", "--dbname", &url];
    let restored = program("pg_restore").args(restore).arg(&file).output().await.unwrap();
    assert!(restored.status.success(), "{}", stderr(&restored));
    let said = elsewhere.must("check-audit-logs.sql", &[&log(&archived)]).await;
    assert!(said.contains(&format!("good    {}", clinic.tenant)), "{said}");
}
