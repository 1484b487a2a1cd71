//! Changes of one tenant that arrive together share a transaction: one that fails, waits or is given up does so alone, and
//! other tenants do not wait for them.

use crate::support::{TestApp, TestTenant, at, new_document};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use test_support::{Database, eventually, on_migrated_databases};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

on_migrated_databases!(changes_that_fail_fail_alone, changes_given_up_take_nothing_with_them);

/// The ids of rows that entries of the tenant's log with this action name.
async fn ids_in_log(app: &TestApp, clinic: &TestTenant, action: &str) -> BTreeSet<String> {
    let ids = clinic.admin.all(&format!("audit-logs?action={action}&resource_type=documents")).await;
    app.must(&["audit", "verify", "--tenant", &clinic.external_id]).await;
    ids.into_iter().map(|entry| entry["resource_id"].as_str().unwrap().to_owned()).collect()
}

async fn changes_that_fail_fail_alone(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let taken = clinic.document(&owner).await;
    let stale = clinic.document(&owner).await;
    let change = async |number: usize| match number % 4 {
        0 | 1 => clinic.member.post("documents", &new_document(&owner)).await,
        // The file of another document.
        2 => {
            let mut clash = new_document(&owner);
            clash["storage_key"] = taken["storage_key"].clone();
            clash["bucket"] = taken["bucket"].clone();
            clinic.member.post("documents", &clash).await
        }
        _ => {
            let path = at("documents", &stale);
            clinic.member.send("PATCH", &path, Some("\"long-gone\""), Some(&json!({"filename": "new"}))).await
        }
    };
    let before = app.value::<i64>("SELECT count(*) FROM audit_logs").await;
    let answers = join_all((0..48).map(change)).await;
    assert_eq!(app.value::<i64>("SELECT count(*) FROM audit_logs").await, before + 48, "an entry for each");
    let mut made = BTreeSet::new();
    for (number, answer) in answers.iter().enumerate() {
        let expected = [201, 201, 409, 412][number % 4];
        assert_eq!(answer.status, expected, "{number}: {}", answer.body);
        if expected == 201 {
            made.insert(answer.body["id"].as_str().unwrap().to_owned());
        }
    }
    let listed = clinic.viewer.all("documents").await;
    let mut listed: BTreeSet<_> = listed.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids_in_log(&app, &clinic, "CREATED").await, listed);
    for row in [&taken, &stale] {
        assert!(listed.remove(row["id"].as_str().unwrap()));
    }
    assert_eq!(listed, made);
}

async fn changes_given_up_take_nothing_with_them(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let mut answered = BTreeSet::new();
    for round in 1..=10 {
        let changes = (0..24).map(async |number| {
            let document = new_document(&owner);
            let made = clinic.member.post("documents", &document);
            // Some have no time, some have enough.
            let patience =
                if number % 3 == 0 { Duration::from_mins(1) } else { Duration::from_millis(number * round / 4) };
            tokio::time::timeout(patience, made).await.ok()
        });
        for answer in join_all(changes).await.into_iter().flatten() {
            assert_eq!(answer.status, 201, "{}", answer.body);
            answered.insert(answer.body["id"].as_str().unwrap().to_owned());
        }
    }
    // Those that nobody waits for any more end, too.
    let last = clinic.document(&owner).await;
    answered.insert(last["id"].as_str().unwrap().to_owned());
    let agree = async || {
        let listed = clinic.viewer.all("documents").await;
        let listed: BTreeSet<_> = listed.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect();
        assert!(answered.is_subset(&listed), "what was answered is there");
        (listed == ids_in_log(&app, &clinic, "CREATED").await).then_some(())
    };
    eventually("every document has an entry, and every entry a document", agree).await;
}

#[tokio::test]
async fn changes_that_arrive_together_share_a_commit() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let changes = (0..64).map(async |_| clinic.document(&owner).await);
    join_all(changes).await;
    // Entries of one transaction are written by one statement.
    let commits = "SELECT count(DISTINCT xmin::text) FROM audit_logs WHERE resource_type = 'documents'";
    let commits = app.value::<i64>(commits).await;
    assert!(commits < 64, "64 documents took {commits} commits");
}

#[tokio::test]
async fn a_locked_row_holds_up_its_own_changes_alone() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, clinic) = TestTenant::start(database).await;
    let other = app.new_tenant().await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let others_owner = other.user("ada@example.org").await["id"].clone();
    let locked = clinic.document(&owner).await;
    let path = at("documents", &locked);
    let lock = app.owner.begin().await.unwrap();
    let sql = format!("SELECT FROM documents WHERE id = '{}' FOR UPDATE", locked["id"].as_str().unwrap());
    lock.execute_unprepared(&sql).await.unwrap();
    // More than the pool has connections.
    let held_up = join_all(
        (0..24).map(async |number| clinic.member.patch(&path, &json!({"filename": format!("{number}.pdf")})).await),
    );
    let meanwhile = async {
        eventually("a change waits for the lock", async || (app.waiting().await > 0).then_some(())).await;
        let begun = Instant::now();
        let made = join_all((0..8).map(async |_| {
            other.document(&others_owner).await;
            clinic.document(&owner).await
        }));
        made.await;
        assert_eq!(clinic.viewer.get(&path).await.status, 200);
        let elapsed = begun.elapsed();
        lock.rollback().await.unwrap();
        elapsed
    };
    let (answers, elapsed) = tokio::join!(held_up, meanwhile);
    // Each that meets the lock waits for it for 50 ms, once.
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    for answer in &answers {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(ids_in_log(&app, &clinic, "UPDATED").await.len(), 1);
    let updates = "SELECT count(*) FROM audit_logs WHERE action = 'UPDATED'";
    assert_eq!(app.value::<i64>(updates).await, 24);
}

/// The 90th percentile of the time that reads of this tenant take while `writers` write: of 200 reads, the machine itself holds
/// a few up.
async fn p90_of_reads(reader: &TestTenant, path: &str, writers: &[(&TestTenant, &serde_json::Value)]) -> Duration {
    let over = AtomicBool::new(false);
    let writing = join_all(writers.iter().map(async |(clinic, owner)| {
        while !over.load(Ordering::Relaxed) {
            clinic.document(owner).await;
        }
    }));
    let reading = async {
        let mut times = Vec::new();
        for _ in 0..200 {
            let begun = Instant::now();
            assert_eq!(reader.viewer.get(path).await.status, 200);
            times.push(begun.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        times.sort();
        times[180]
    };
    tokio::join!(writing, reading).1
}

/// Writers of one tenant are no worse for another one than as many of as many tenants: what they cost is work, not waiting.
#[tokio::test]
async fn writers_of_one_tenant_do_not_hold_up_another() {
    const WRITERS: usize = 16;
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, reader) = TestTenant::start(database).await;
    let owner = reader.user("ada@example.org").await["id"].clone();
    let path = at("documents", &reader.document(&owner).await);
    let mut clinics = Vec::new();
    for _ in 0..WRITERS {
        let clinic = app.new_tenant().await;
        let owner = clinic.user("ada@example.org").await["id"].clone();
        clinics.push((clinic, owner));
    }
    let many: Vec<_> = clinics.iter().map(|(clinic, owner)| (clinic, owner)).collect();
    let one = vec![many[0]; WRITERS];
    let mut ratios = Vec::new();
    for _ in 0..5 {
        let spread = p90_of_reads(&reader, &path, &many).await;
        let together = p90_of_reads(&reader, &path, &one).await;
        ratios.push(together.as_secs_f64() / spread.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[2] < 2.0, "{ratios:?}");
}

/// Passes sessions on to the database. While `cut` is set, each ends when the database has answered its COMMIT, and the answer is
/// lost. The URL that leads through it.
async fn lossy(database: &Database, cut: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut url = Url::parse(&database.url).unwrap();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap());
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    url.query_pairs_mut().append_pair("sslmode", "disable");
    let cut = Arc::clone(cut);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut server, cut) = (TcpStream::connect(&server).await.unwrap(), Arc::clone(&cut));
            tokio::spawn(async move {
                let (mut asked, mut told) = (vec![0; 65536], vec![0; 65536]);
                loop {
                    tokio::select! {
                        read = client.read(&mut asked) => {
                            let read = read.ok().filter(|read| *read > 0)?;
                            server.write_all(&asked[..read]).await.ok()?;
                            let commits = asked[..read].windows(6).any(|text| text == b"COMMIT");
                            if commits && cut.load(Ordering::SeqCst) {
                                let _answer = server.read(&mut told).await.ok()?;
                                return Some(());
                            }
                        }
                        read = server.read(&mut told) => {
                            let read = read.ok().filter(|read| *read > 0)?;
                            client.write_all(&told[..read]).await.ok()?;
                        }
                    }
                }
            });
        }
    });
    url.into()
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_no_success() {
    let Some(mut database) = Database::migrated_postgres().await else { return };
    let cut = Arc::new(AtomicBool::new(false));
    database.url = lossy(&database, &cut).await;
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let before = clinic.admin.all("documents").await.len();
    cut.store(true, Ordering::SeqCst);
    let document = new_document(&owner);
    let answers = join_all((0..16).map(|_| clinic.member.post("documents", &document))).await;
    cut.store(false, Ordering::SeqCst);
    for answer in &answers {
        // Nobody knows whether it is there; so it may be asked for, and not be sent again blindly.
        answer.assert_error(503, "SYS_001");
    }
    // What was committed has its entry, and what has an entry was committed.
    let made = eventually("requests are served again", async || {
        let made = clinic.member.post("documents", &document).await;
        (made.status == 201).then_some(made)
    })
    .await;
    let ids = |rows: Vec<serde_json::Value>| -> BTreeSet<String> {
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    };
    let listed = ids(clinic.viewer.all("documents").await);
    assert!(listed.contains(made.body["id"].as_str().unwrap()));
    assert!(listed.len() > before + 1, "the database had committed them");
    assert_eq!(ids_in_log(&app, &clinic, "CREATED").await, listed);
}
