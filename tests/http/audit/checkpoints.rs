//! Checkpoints: made by command and on a schedule, served to the tenant's admins, kept, and never contradictory.

use crate::round_trips::{Trips, listen};
use crate::support::{AuditedTenant, SIGNING, TestClient};
use crate::{must, run, stderr, stdout};
use bulkhead::note::{Checkpoint, SigningKey};
use reqwest::Client;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use test_support::{Database, Server, on_migrated_databases};

on_migrated_databases!(
    a_server_makes_checkpoints_of_what_it_writes,
    one_command_makes_and_another_verifies,
    checkpoints_cross_the_levels_of_the_tree,
    checkpoints_are_for_their_tenant,
    what_is_asked_for_has_bounds,
    checkpoints_and_nodes_cannot_be_changed
);

/// The newest checkpoint by the API: status, type and text.
async fn newest(admin: &TestClient) -> (u16, String, String) {
    let answer = admin.request("GET", "audit-logs/checkpoint").send().await.unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), kind, answer.text().await.unwrap())
}

fn size_of(note: &str) -> i64 {
    note.lines().nth(1).unwrap().parse().unwrap()
}

/// A file with this text.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

async fn a_server_makes_checkpoints_of_what_it_writes(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let settings = [&SIGNING[..], &[("AUDIT_CHECKPOINT_MINUTES", "1")]].concat();
    let (one, other) = (clinic.server(&settings).await, clinic.server(&settings).await);
    let admin = clinic.caller(&one, "ada", "admin");
    let began = Instant::now();
    let note = loop {
        let (status, kind, text) = newest(&admin).await;
        if status == 200 {
            assert_eq!(kind, "text/plain; charset=utf-8");
            break text;
        }
        assert_eq!(status, 404, "{text}");
        assert!(began.elapsed() < Duration::from_secs(20), "no checkpoint was made");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    // The other replica writes, too, and the newest one is young.
    clinic.caller(&other, "ada", "admin").get("tenant").await.assert_status(200);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(newest(&admin).await.2, note, "one for both, within a minute");
    assert!(note.starts_with(&format!("api.example.org/{}\n", clinic.tenant)), "{note}");
    let count = clinic.value::<i64>("SELECT count(*) FROM audit_checkpoints").await;
    assert_eq!(count, 1);
    let saved = file(&note);
    let path = saved.path().to_str().unwrap();
    let said = clinic.signed(&["audit", "verify", "--tenant", "clinic", "--since", path]).await;
    assert!(said.contains(&format!("checkpoint of {} entr", size_of(&note))) && said.contains("fits "), "{said}");

    let body: Value = admin
        .request("GET", "audit-logs/checkpoint")
        .header("accept", "application/json")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!((body["note"].as_str(), body["size"].as_i64()), (Some(note.as_str()), Some(size_of(&note))));
    assert_eq!(body["root"].as_str(), note.lines().nth(2));
}

async fn one_command_makes_and_another_verifies(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    clinic.make_tenant("other").await;
    let refused = clinic.run(&["audit", "checkpoint"]).await;
    assert_eq!(
        (refused.status.code(), stderr(&refused).trim()),
        (Some(2), "AUDIT_SIGNING_KEY: is required for checkpoints")
    );
    // The system's log is empty.
    let notes = clinic.signed(&["audit", "checkpoint"]).await;
    assert_eq!(notes.lines().filter(|line| line.starts_with("api.example.org/")).count(), 2, "{notes}");
    assert_eq!(clinic.signed(&["audit", "checkpoint"]).await, notes, "nothing was added");
    let one = clinic.signed(&["audit", "checkpoint", "--tenant", "clinic"]).await;
    assert!(notes.contains(&one) && size_of(&one) == 2);
    let keys = clinic.signed(&["audit", "key"]).await;
    assert_eq!(keys.lines().count(), 5, "the system's, and those for exports and backups, too: {keys}");
    assert!(keys.contains("api.example.org/backup+") && keys.contains("api.example.org/export+"), "{keys}");

    // From a file, with the instance's own key; and from standard input, with the key of one tenant.
    let (saved, keys) = (file(&notes), file(&keys));
    let path = saved.path().to_str().unwrap();
    let said = clinic.signed(&["audit", "verify", "--since", path]).await;
    assert_eq!(said.lines().filter(|line| line.starts_with("fits ")).count(), 2, "{said}");
    let one = clinic.signed(&["audit", "verify", "--tenant", "other", "--since", path]).await;
    assert_eq!(one.lines().filter(|line| line.starts_with("fits ")).count(), 1, "{one}");
    let all = keys.path().to_str().unwrap();
    let none = clinic.run(&["audit", "verify", "--tenant", "system", "--since", path, "--key", all]).await;
    assert_eq!(none.status.code(), Some(2), "{}", stdout(&none));
    assert_eq!(stderr(&none).trim(), "--since: there is no checkpoint of this tenant");
    let key = std::fs::read_to_string(keys.path()).unwrap();
    let key = key.lines().find(|line| line.contains(&clinic.tenant.to_string())).unwrap();
    let output = clinic.run(&["audit", "verify", "--since", path, "--key", key]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("UNSIGNED ") && stdout(&output).contains("none of the keys that are given"),
        "{}",
        stdout(&output)
    );
    assert_eq!(stderr(&output).trim(), "1 of 2 checkpoints does not fit");

    let input = std::process::Stdio::from(std::fs::File::open(path).unwrap());
    let mut command = Server::command(crate::bulkhead(), &[("DATABASE_URL", &clinic.database.url)]);
    let output = command.args(["audit", "verify", "--since", "-", "--key", keys.path().to_str().unwrap()]).stdin(input);
    let output = output.output().await.unwrap();
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));

    // A note that was changed, a file that is none, no key.
    let changed = file(&notes.replacen("\n2\n", "\n1\n", 1));
    let output = clinic
        .run(&["audit", "verify", "--since", changed.path().to_str().unwrap(), "--key", keys.path().to_str().unwrap()])
        .await;
    assert!(stdout(&output).contains("its signature does not fit its text"), "{}", stdout(&output));
    let empty = file("");
    let output = clinic.run(&["audit", "verify", "--since", empty.path().to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let output = clinic.run(&["audit", "verify", "--since", path]).await;
    assert_eq!(output.status.code(), Some(1), "nobody's key is known");
    let output = run(&["audit", "verify", "--entries", path, "--since", path], &[]).await;
    assert_eq!(output.status.code(), Some(2), "without a database, the key must be named");

    // The log goes on, and the checkpoint still fits.
    clinic.must(&["user", "list", "--tenant", "clinic"]).await;
    let said = clinic.signed(&["audit", "verify", "--since", path]).await;
    assert_eq!(said.lines().filter(|line| line.starts_with("fits ")).count(), 2, "{said}");
    let next = clinic.signed(&["audit", "checkpoint", "--tenant", "clinic"]).await;
    assert_eq!(size_of(&next), 3);
}

async fn checkpoints_cross_the_levels_of_the_tree(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let mut notes = String::new();
    // Around the first group, around sixteen of them, which one transaction reads, and beyond the second level: that one is the
    // same for both databases, and long.
    let lengths = [255, 256, 257, 4_095, 4_097, 65_535, 65_536, 66_001];
    let lengths = if clinic.on_postgres() { &lengths[..] } else { &lengths[..5] };
    for &length in lengths {
        let end = clinic.log_end().await;
        clinic.fill(clinic.tenant, end.clone(), length - end.0, |_| ()).await;
        notes.push_str(&clinic.signed(&["audit", "checkpoint", "--tenant", "clinic"]).await);
    }
    let of_level = |level: i64| format!("SELECT count(*) FROM audit_nodes WHERE level = {level}");
    let counts =
        [clinic.value::<i64>(&of_level(1)).await, clinic.value(&of_level(2)).await, clinic.value(&of_level(3)).await];
    let groups = lengths.last().unwrap() / 256;
    assert_eq!(counts, [groups, groups / 256, 0]);
    // From the entries alone; the nodes are not looked at.
    let saved = file(&notes);
    let said = clinic.signed(&["audit", "verify", "--since", saved.path().to_str().unwrap()]).await;
    assert_eq!(said.lines().filter(|line| line.starts_with("fits ")).count(), lengths.len(), "{said}");
    // A node that somebody has made up ahead is noticed.
    let (tenant, hash) =
        (clinic.literal(clinic.tenant), if clinic.on_postgres() { "sha256('')" } else { "zeroblob(32)" });
    clinic
        .execute(&format!(
            "INSERT INTO audit_nodes (tenant_id, level, position, hash) VALUES ({tenant}, 1, {groups}, {hash})"
        ))
        .await;
    let end = clinic.log_end().await;
    clinic.fill(clinic.tenant, end, 300, |_| ()).await;
    let output =
        run(&["audit", "checkpoint"], &[&[("DATABASE_URL", clinic.database.url.as_str())][..], &SIGNING].concat())
            .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output)
            .contains(&format!("node {groups} of level 1 of the Merkle tree is not what the entries make it")),
        "{}",
        stderr(&output)
    );
}

async fn checkpoints_are_for_their_tenant(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    clinic.make_tenant("other").await;
    clinic.signed(&["audit", "checkpoint", "--tenant", "clinic"]).await;
    let other = TestClient::with_token(&Client::new(), clinic.own(), clinic.token("other", "ada", "admin"));
    for path in ["audit-logs/checkpoint", "audit-logs/proof?sequence=1", "audit-logs/proof?from=1"] {
        admin.request("GET", path).send().await.unwrap().error_for_status().unwrap();
        assert_eq!(other.get(path).await.outcome(), (404, "RES_001"), "{path}");
    }
}

async fn what_is_asked_for_has_bounds(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    assert_eq!(admin.get("audit-logs/proof?sequence=1").await.outcome(), (404, "RES_001"), "there is none yet");
    let size = size_of(&clinic.signed(&["audit", "checkpoint", "--tenant", "clinic"]).await);
    for (query, code) in [
        ("", "VAL_002"),
        ("sequence=1&from=1", "VAL_002"),
        ("sequence=0", "VAL_001"),
        ("from=0", "VAL_001"),
        (&format!("sequence={}", size + 1), "VAL_001"),
        (&format!("from={}", size + 1), "VAL_001"),
        (&format!("sequence=1&size={}", size + 1), "VAL_001"),
        ("sequence=1&size=0", "VAL_001"),
        ("sequence=18446744073709551615", "VAL_001"),
        ("sequence=18446744073709551616", "VAL_003"),
        ("sequence=x", "VAL_003"),
        ("sequence=1&root=x", "VAL_001"),
    ] {
        assert_eq!(admin.get(&format!("audit-logs/proof?{query}")).await.outcome(), (400, code), "{query}");
    }
    let proof = admin.get("audit-logs/proof?sequence=2").await;
    assert_eq!(proof.status, 200);
    let newest = clinic.newest().await;
    assert_eq!(newest.resource_id, proof.body["id"].as_str().map(|id| id.parse().unwrap()), "who asked is in the log");
    assert_eq!(newest.metadata, serde_json::json!({"found": true}));
}

async fn checkpoints_and_nodes_cannot_be_changed(database: Database) {
    use sea_orm::ConnectionTrait;
    let clinic = AuditedTenant::new(database).await;
    let tenant = clinic.literal(clinic.tenant);
    let hash = if clinic.on_postgres() { "sha256('')" } else { "zeroblob(32)" };
    clinic
        .execute(&format!("INSERT INTO audit_nodes (tenant_id, level, position, hash) VALUES ({tenant}, 1, 0, {hash})"))
        .await;
    clinic.signed(&["audit", "checkpoint", "--tenant", "clinic"]).await;
    let replace = if clinic.on_postgres() {
        "TRUNCATE TABLE".to_owned()
    } else {
        "REPLACE INTO TABLE SELECT * FROM TABLE".to_owned()
    };
    for table in ["audit_nodes", "audit_checkpoints"] {
        for sql in ["UPDATE TABLE SET tenant_id = tenant_id", "DELETE FROM TABLE", &replace] {
            let error =
                clinic.owner.execute_unprepared(&sql.replace("TABLE audit", "audit").replace("TABLE", table)).await;
            let error = error.expect_err(sql).to_string();
            assert!(error.contains(&format!("{table} is append-only")), "{sql}: {error}");
        }
    }
}

/// How many entries the large log has.
const MILLION: i64 = 1_000_000;

/// Continues the log of the clinic to a million entries, of which a proof looks at the hashes alone. Not through the indexes that
/// are there for searches, which are made again.
async fn fill_to_a_million(clinic: &AuditedTenant) {
    let (last, _) = clinic.log_end().await;
    let (tenant, hash) = (clinic.tenant, "encode(sha256(n::text::bytea), 'hex')");
    clinic
        .execute(&format!(
            "SET session_replication_role = replica;
             CREATE TEMPORARY TABLE searches AS
                 SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
                 FROM pg_index i WHERE i.indrelid = 'audit_logs'::regclass AND NOT i.indisunique;
             DO $$ DECLARE name text; BEGIN
                 FOR name IN SELECT s.name FROM searches s LOOP EXECUTE 'DROP INDEX ' || name; END LOOP; END $$;
             INSERT INTO audit_logs (id, tenant_id, sequence, action, resource_type, created_at, prev_hash, hash)
                 SELECT lpad(to_hex(n), 32, '0')::uuid, '{tenant}', n, 'DATA_ACCESS', 'documents', now(), hash, hash
                 FROM (SELECT n, {hash} AS hash FROM generate_series({last} + 1, {MILLION}) AS n) AS entries;
             DO $$ DECLARE definition text; BEGIN
                 FOR definition IN SELECT s.definition FROM searches s LOOP EXECUTE definition; END LOOP; END $$;
             UPDATE audit_heads SET sequence = n, hash = {hash} FROM (SELECT {MILLION} AS n) AS last WHERE tenant_id = '{tenant}';
             SET session_replication_role = origin; ANALYZE audit_logs"
        ))
        .await;
}

/// Proofs of a log of a million entries, of each kind, from all over it.
fn proofs_of_a_million(how_many: i64) -> impl Iterator<Item = String> {
    let place = |number: i64| 1 + (number * 618_033) % MILLION;
    let of = move |what: &'static str| {
        (0..how_many).map(move |number| format!("audit-logs/proof?{what}={}&size={MILLION}", place(number)))
    };
    of("sequence").chain(of("from"))
}

/// The most rows that a proof of a million entries reads: of the tree's bottom and of its second level the siblings in one node, and
/// what the last node, which is not whole, has of them; all of the third level. A few more belong to the caller and to the request's
/// own entry in the log.
const MOST_ROWS: i64 = (255 + 64) + (255 + 66) + 15 + 10;

/// The most statements of a request for a proof of inclusion, and of consistency: those of any read (tests/http/round_trips.rs), one for
/// the newest checkpoint, two for the tree's hashes, and of inclusion one for the entry.
const MOST_STATEMENTS: [usize; 2] = [9, 8];

/// What a proof costs does not depend on the machine when it is counted.
#[tokio::test]
async fn a_proof_of_a_million_entries_reads_some_hundred_rows() {
    let Some(mut database) = Database::migrated_postgres().await else { return };
    let trips = Trips::default();
    database.url = listen(&database, Duration::ZERO, Arc::clone(&trips)).await;
    let (clinic, admin) = AuditedTenant::start(database).await;
    fill_to_a_million(&clinic).await;
    let (tenant, hash) = (clinic.tenant, "sha256(n::text::bytea)");
    let key = SigningKey::new(SIGNING[1].1, SIGNING[0].1).unwrap();
    let note = key.sign(&Checkpoint { origin: key.origin(tenant), size: MILLION.unsigned_abs(), root: [0; 32] });
    clinic
        .execute(&format!(
            "INSERT INTO audit_nodes SELECT '{tenant}', 1, n, {hash} FROM generate_series(0, {MILLION} / 256 - 1) AS n;
             INSERT INTO audit_nodes SELECT '{tenant}', 2, n, {hash} FROM generate_series(0, {MILLION} / 65536 - 1) AS n;
             INSERT INTO audit_checkpoints (tenant_id, size, note) VALUES ('{tenant}', {MILLION}, '{note}');
             ANALYZE audit_nodes, audit_checkpoints"
        ))
        .await;
    // A session counts what it has read when it ends, at the latest (postgresql.org/docs/current/monitoring-stats.html).
    let rows = async || {
        clinic.execute("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'bulkhead' AND datname = current_database()").await;
        let read = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables";
        clinic.value::<i64>(read).await
    };
    let paths: Vec<String> = proofs_of_a_million(20).collect();
    let mut each = i64::MAX;
    // Others read now and then, too, such as the process for itself: the fewest count.
    for _ in 0..3 {
        let before = rows().await;
        for path in &paths {
            admin.get(path).await.assert_status(200);
        }
        each = each.min((rows().await - before) / i64::try_from(paths.len()).unwrap());
    }
    assert!((100..=MOST_ROWS).contains(&each), "{each} rows");
    for (paths, most) in paths.chunks(20).zip(MOST_STATEMENTS) {
        let mut fewest = usize::MAX;
        // What a session does after the answer may be counted for the next request: the fewest of several count.
        for path in &paths[..8] {
            trips.lock().unwrap().clear();
            admin.get(path).await.assert_status(200);
            fewest = fewest.min(trips.lock().unwrap().iter().map(|trip| trip.statements).sum());
        }
        assert!((5..=most).contains(&fewest), "{fewest} statements for such as {}", paths[0]);
    }
}

/// `cargo test --profile quick --test http -- --ignored a_proof_of_a_million --nocapture` prints how long a proof takes.
#[tokio::test]
#[ignore = "a time depends on the machine, which it needs for itself, and on an optimised build; the test above counts what is read"]
#[allow(clippy::print_stdout, reason = "what it measures")]
async fn a_proof_of_a_million_entries_takes_milliseconds() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (clinic, admin) = AuditedTenant::start(database).await;
    fill_to_a_million(&clinic).await;
    let began = Instant::now();
    must(
        &["audit", "checkpoint", "--tenant", "clinic"],
        &[&[("DATABASE_URL", clinic.database.url.as_str())][..], &SIGNING].concat(),
    )
    .await;
    println!("the first checkpoint of {MILLION} entries: {:?}", began.elapsed());
    let mut times = Vec::new();
    for path in proofs_of_a_million(200) {
        let began = Instant::now();
        let proof = admin.get(&path).await;
        times.push(began.elapsed());
        assert_eq!(proof.status, 200, "{}", proof.body);
    }
    times.sort();
    println!("a proof in {MILLION} entries, whole request: median {:?}, 95 of 100 {:?}", times[200], times[380]);
    let most = Duration::from_millis(if cfg!(debug_assertions) { 30 } else { 10 });
    assert!(times[200] < most, "{times:?}");
}
