//! Disks that are full, slow, fail, or lose what was not synced: nothing that was acknowledged is lost, clients are told 503 and not
//! 500, and all goes on by itself.

#![allow(clippy::print_stdout, reason = "figures, for whoever asks by --nocapture")]

use super::{PROMISED, Writer, assert_try_again};
use crate::support::{Serves, TestApp, TestClient, borrowed, new_document, value};
use futures_util::future::join_all;
use sea_orm::{ConnectOptions, ConnectionTrait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use test_support::provider::Shape;
use test_support::{Cluster, Database, Disk, Part, Signal};
use uuid::Uuid;

/// How many cuts of the power are tried: `POWER_CUTS=1000` tries more.
const POWER_CUTS: usize = 60;

/// How often SQLite's log is to be copied into the file meanwhile: a cut in the midst of that is another one.
const COPIES: usize = 3;

/// Documents of some length, so that the log is copied often.
async fn write_much(admin: &TestClient, user: &Value) -> Result<String, (u16, String)> {
    let mut body = new_document(user);
    // Nothing that PostgreSQL could compress to less than half.
    body["metadata"] = json!({"note": (0..250).map(|_| Uuid::now_v7().simple().to_string()).collect::<String>()});
    let answer = admin.post("documents", &body).await;
    if answer.status == 201 {
        Ok(answer.body["id"].as_str().unwrap().to_owned())
    } else {
        let (status, code) = answer.outcome();
        Err((status, code.to_owned()))
    }
}

/// The database is sound, has these documents, and its audit log holds.
async fn holds(file: &Path, acknowledged: &[String], what: &str) {
    let url = format!("sqlite://{}?mode=rw", file.display());
    let connection = sea_orm::Database::connect(&url).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(value::<String>(&connection, "PRAGMA integrity_check").await, "ok", "{what}");
    for id in acknowledged {
        let there = format!("SELECT count(*) FROM documents WHERE id = x'{}'", id.replace('-', ""));
        assert_eq!(value::<i64>(&connection, &there).await, 1, "{what}: {id} is lost");
    }
    connection.close().await.unwrap();
    let good = crate::must(&["audit", "verify"], &[("DATABASE_URL", &url)]).await;
    assert!(good.contains("good"), "{what}: {good}");
}

/// Numbers that are the same for the same seed (Marsaglia, "Xorshift RNGs", 2003).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % sides
    }
}

#[tokio::test]
async fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let app = TestApp::new(Shape::Plain, Database::migrated_sqlite().await).await;
    app.owner.clone().close().await.unwrap();
    let Some(disk) = Disk::of(&app.database) else { return };
    let environment = disk.environment(Duration::ZERO);
    let mut server = app.server(&borrowed(&environment)).await;
    // Nothing but the server writes, so that the record is whole.
    let ada = app.ada();
    let admin = TestClient::new(&app, &server, &ada.tenant, &ada.subject, "admin");
    let user = admin.make("users", &json!({"email": "owner@example.org"})).await["id"].clone();
    // With how much the disk had been told when the answer came.
    let acknowledged = Mutex::new(Vec::new());
    let copied = AtomicUsize::new(0);
    let writing = async || {
        while copied.load(Ordering::Relaxed) < COPIES {
            let id = write_much(&admin, &user).await.unwrap();
            acknowledged.lock().unwrap().push((id, disk.recorded()));
        }
    };
    let looking = async {
        while copied.load(Ordering::Relaxed) < COPIES {
            tokio::time::sleep(Duration::from_millis(200)).await;
            copied.store(disk.record().copied().len(), Ordering::Relaxed);
        }
    };
    tokio::join!(join_all((0..4).map(|_| writing())), looking);
    server.signal(Signal::KILL);
    let _ = server.ended().await;

    let (record, acknowledged) = (disk.record(), acknowledged.into_inner().unwrap());
    let seed =
        std::env::var("POWER_CUTS_SEED").map_or_else(|_| u64::from(std::process::id()), |seed| seed.parse().unwrap());
    let (mut dice, copied) = (Dice(seed * 2 + 1), record.copied());
    let cuts = std::env::var("POWER_CUTS").map_or(POWER_CUTS, |cuts| cuts.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let mut at_least_one = 0;
    for cut in 0..cuts {
        // Half of them while the log is copied into the file, or just after.
        let events = if cut % 2 == 0 {
            dice.throw(record.len()) + 1
        } else {
            let near = copied[dice.throw(copied.len())] + 60;
            near.saturating_sub(dice.throw(160)).min(record.len())
        };
        let known: Vec<String> = acknowledged
            .iter()
            .filter(|(_, recorded)| *recorded <= record.size_at(events))
            .map(|(id, _)| id.clone())
            .collect();
        at_least_one += usize::from(!known.is_empty());
        let file = folder.path().join("cut.db");
        // Nothing, all, or some of what was on its way.
        let sides = [0, 1, 2, 8][cut % 4];
        record.cut(events, &file, || sides > 0 && dice.throw(sides) == 0);
        holds(&file, &known, &format!("cut {cut} of POWER_CUTS_SEED={seed}, after {events} of {}", record.len())).await;
        std::fs::remove_file(folder.path().join("cut.db-shm")).ok();
    }
    println!("{cuts} cuts, {} documents, the log was copied {} times", acknowledged.len(), copied.len());
    assert!(at_least_one > cuts / 2, "cuts come when something is acknowledged: {at_least_one}");
}

#[tokio::test]
async fn a_disk_that_fails_is_a_503_and_loses_nothing() {
    let app = TestApp::new(Shape::Plain, Database::migrated_sqlite().await).await;
    let Some(disk) = Disk::of(&app.database) else { return };
    let environment = disk.environment(Duration::ZERO);
    let mut server = app.server(&borrowed(&environment)).await;
    let writer = Writer::new(&app, &server).await;
    let mut acknowledged = Vec::new();
    for _ in 0..3 {
        let failing = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            disk.fail(true);
        };
        let (written, ()) =
            tokio::join!(join_all((0..8).map(|_| write_much(&writer.clinic.admin, &writer.user))), failing);
        for outcome in written {
            match outcome {
                Ok(id) => acknowledged.push(id),
                Err(refused) => assert_eq!(refused, (503, "SYS_008".to_owned())),
            }
        }
        for _ in 0..5 {
            assert_try_again(&writer.write().await, "SYS_008");
            assert_try_again(&writer.clinic.viewer.get("documents").await, "SYS_008");
        }
        let (status, body) = writer.readiness().await;
        assert_eq!((status, &body["checks"]["database"]["error"]), (503, &"SYS_008".into()), "{body}");
        disk.fail(false);
        let back = tokio::join!(writer.until_readiness_is(200), writer.until_written());
        assert!(back.0 < PROMISED && back.1 < PROMISED, "{back:?}");
        for outcome in join_all((0..8).map(|_| write_much(&writer.clinic.admin, &writer.user))).await {
            acknowledged.push(outcome.unwrap());
        }
    }
    assert!(!server.log().iter().any(|line| line.contains("request failed")), "{:#?}", server.log());
    server.signal(Signal::TERM);
    assert!(server.ended().await.success());
    holds(Path::new(app.database.file()), &acknowledged, "afterwards").await;
}

/// A sync takes a second, as on a disk that others wear out.
#[tokio::test]
async fn a_slow_disk_makes_requests_wait_together() {
    const SYNC: Duration = Duration::from_secs(1);
    let app = TestApp::new(Shape::Plain, Database::migrated_sqlite().await).await;
    let Some(disk) = Disk::of(&app.database) else { return };
    let environment = disk.environment(SYNC);
    let server = app.server(&borrowed(&environment)).await;
    let writer = Writer::new(&app, &server).await;
    let begun = Instant::now();
    let readiness = async {
        for _ in 0..5 {
            let (status, body) = writer.readiness().await;
            assert_eq!(status, 200, "{body}");
            let asked = Instant::now();
            assert_eq!(writer.server.json("/api/v1/health/live").await.0, 200);
            assert!(asked.elapsed() < SYNC, "nobody waits for the disk to say that it lives: {:?}", asked.elapsed());
        }
    };
    let reads = join_all((0..32).map(|_| writer.clinic.viewer.get("documents")));
    let (written, read, ()) = tokio::join!(join_all((0..32).map(|_| writer.write())), reads, readiness);
    let took = begun.elapsed();
    for (answer, status) in written.iter().map(|answer| (answer, 201)).chain(read.iter().map(|answer| (answer, 200))) {
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    println!("64 requests took {took:?}, with {SYNC:?} for a sync");
    assert!(took < 32 * SYNC, "each waits for a sync of its own: {took:?}");
}

#[tokio::test]
async fn another_writer_of_the_file_is_waited_for() {
    let app = TestApp::new(Shape::Plain, Database::migrated_sqlite().await).await;
    let server = app.server(&[]).await;
    let writer = Writer::new(&app, &server).await;
    let mut options = ConnectOptions::new(&app.database.url);
    options.max_connections(1);
    let other = sea_orm::Database::connect(options).await.unwrap();
    // For less than the five seconds that a statement waits: nobody notices.
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let ending = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        other.execute_unprepared("COMMIT").await.unwrap();
    };
    let (answers, ()) = tokio::join!(join_all((0..8).map(|_| writer.write())), ending);
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    // For longer.
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let begun = Instant::now();
    let (answers, readiness) = tokio::join!(join_all((0..8).map(|_| writer.write())), writer.readiness());
    for answer in &answers {
        assert_try_again(answer, "SYS_006");
    }
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert_eq!(readiness.0, 200, "{}", readiness.1);
    other.execute_unprepared("COMMIT").await.unwrap();
    let back = tokio::join!(writer.until_readiness_is(200), writer.until_written());
    assert!(back.0 < PROMISED && back.1 < PROMISED, "{back:?}");
}

/// Of a file that is open already, SQLite's connections may still be written to: what counts is how it is opened.
#[tokio::test]
async fn a_start_on_a_read_only_file_ends_with_the_cause() {
    let database = Database::migrated_sqlite().await;
    let url = format!("sqlite://{}?mode=ro", database.file());
    let output = crate::run(&[], &[("PORT", "0"), ("DATABASE_URL", &url)]).await;
    let told = crate::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.starts_with("DATABASE_URL: cannot use sqlite://") && told.contains("readonly database"), "{told}");
}

/// How many requests a full disk refuses before there is space again.
const REFUSALS: usize = 60;

/// PostgreSQL fails a statement where its data find no place, and ends itself where its log finds none.
async fn a_full_disk_refuses_and_loses_nothing(part: Part, megabytes: u32) {
    let Some(cluster) = Cluster::on_small_disk(part, megabytes).await else { return };
    let app = TestApp::new(Shape::Plain, Database::of(&cluster)).await;
    let server = app.server(&[]).await;
    let writer = Writer::new(&app, &server).await;
    let mut acknowledged = Vec::new();
    for _ in 0..2 {
        let (refusals, refused) = (AtomicUsize::new(0), Mutex::new(BTreeMap::<(u16, String), usize>::new()));
        cluster.fill_disk();
        let until_refused = async || {
            let mut ids = Vec::new();
            while refusals.load(Ordering::Relaxed) < REFUSALS {
                match write_much(&writer.clinic.admin, &writer.user).await {
                    Ok(id) => ids.push(id),
                    Err(refusal) => {
                        refusals.fetch_add(1, Ordering::Relaxed);
                        *refused.lock().unwrap().entry(refusal).or_default() += 1;
                    }
                }
                // What reads writes, too: an entry of the audit log.
                let read = writer.clinic.viewer.get("documents?limit=1").await;
                if read.status != 200 {
                    let (status, code) = read.outcome();
                    *refused.lock().unwrap().entry((status, code.to_owned())).or_default() += 1;
                }
            }
            ids
        };
        let ids = join_all((0..4).map(|_| until_refused())).await.concat();
        let readiness = writer.readiness().await;
        cluster.free_disk();
        let freed = Instant::now();
        let back = tokio::join!(writer.until_readiness_is(200), writer.until_written());
        let refused = refused.into_inner().unwrap();
        println!(
            "{part:?} full: {} taken before, refused {refused:?}, readiness {} {}; then back after {back:?}",
            ids.len(),
            readiness.0,
            readiness.1
        );
        let known = |code: &str| ["SYS_001", "SYS_006", "SYS_008"].contains(&code);
        assert!(refused.keys().all(|(status, code)| *status == 503 && known(code)), "{refused:?}");
        assert!(freed.elapsed() < PROMISED, "{:?}", freed.elapsed());
        acknowledged.extend(ids);
        for outcome in join_all((0..8).map(|_| write_much(&writer.clinic.admin, &writer.user))).await {
            acknowledged.push(outcome.unwrap());
        }
    }
    for id in &acknowledged {
        assert_eq!(writer.clinic.viewer.get(&format!("documents/{id}")).await.status, 200, "{id} is lost");
    }
    let good = app.must(&["audit", "verify"]).await;
    assert!(good.contains("good"), "{good}");
}

#[tokio::test]
async fn a_full_disk_of_postgres_refuses_and_loses_nothing() {
    a_full_disk_refuses_and_loses_nothing(Part::Data, 128).await;
}

#[tokio::test]
async fn a_full_disk_of_postgres_log_refuses_and_loses_nothing() {
    a_full_disk_refuses_and_loses_nothing(Part::Log, 32).await;
}
