//! A database that is away, hangs, ends its sessions or takes no changes: what clients are told, how soon, and that all
//! goes on by itself.

mod disks;

use crate::support::{Answer, Serves, TestApp, TestTenant, new_document};
use crate::{bulkhead, run, stderr};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use test_support::provider::Shape;
use test_support::{Cluster, Database, Relay, Server, Signal, eventually};

/// How soon a fault is known, and how soon all goes on after its end, as docs/reliability.md promises.
const PROMISED: Duration = Duration::from_secs(5);

/// Somebody who makes documents, and looks whether the server is ready.
struct Writer<'s, S> {
    server: &'s S,
    clinic: TestTenant,
    user: Value,
}

impl<'s, S: Serves> Writer<'s, S> {
    async fn new(app: &TestApp, server: &'s S) -> Self {
        let clinic = TestTenant::open(app, server).await;
        let user = clinic.user("ada@example.org").await["id"].clone();
        Self { server, clinic, user }
    }

    async fn write(&self) -> Answer {
        self.clinic.admin.post("documents", &new_document(&self.user)).await
    }

    async fn readiness(&self) -> (u16, Value) {
        self.server.json("/api/v1/health/ready").await
    }

    /// How long it takes until readiness has this status.
    async fn until_readiness_is(&self, status: u16) -> Duration {
        let begun = Instant::now();
        eventually(&format!("readiness is {status}"), async || (self.readiness().await.0 == status).then_some(()))
            .await;
        begun.elapsed()
    }

    /// How long it takes until a change is taken.
    async fn until_written(&self) -> Duration {
        let begun = Instant::now();
        eventually("a change is taken", async || (self.write().await.status == 201).then_some(())).await;
        begun.elapsed()
    }
}

/// What a client may try again: 503 with this code, and when.
fn assert_try_again(answer: &Answer, code: &str) {
    assert_eq!((answer.outcome(), answer.header("retry-after")), ((503, code), "1"), "{}", answer.body);
}

#[tokio::test]
async fn what_the_database_says_of_itself_is_a_503() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::start(database).await;
    let writer = Writer::new(&app, app.own()).await;
    for (state, code) in [
        ("57P01", "SYS_001"),
        ("57P02", "SYS_001"),
        ("57P03", "SYS_001"),
        ("08006", "SYS_001"),
        ("53300", "SYS_001"),
        ("25006", "SYS_008"),
        ("53100", "SYS_008"),
        ("53200", "SYS_008"),
        ("58030", "SYS_008"),
        ("57014", "SYS_006"),
        ("55P03", "SYS_006"),
        ("40P01", "SYS_006"),
        ("40001", "SYS_006"),
    ] {
        // As a statement fails, as COMMIT does, and as the audit log's recorder does.
        for (table, constraint) in [("documents", false), ("documents", true), ("audit_logs", false)] {
            let trigger = if constraint { "CONSTRAINT TRIGGER fails AFTER" } else { "TRIGGER fails BEFORE" };
            let late = if constraint { "DEFERRABLE INITIALLY DEFERRED" } else { "" };
            let fault = format!(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
                     $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END $$;
                 CREATE {trigger} INSERT ON {table} {late} FOR EACH ROW EXECUTE FUNCTION fail()"
            );
            app.execute(&fault).await;
            let answer =
                if table == "documents" { writer.write().await } else { writer.clinic.admin.get("documents").await };
            assert_try_again(&answer, code);
            app.execute(&format!("DROP TRIGGER fails ON {table}; DROP FUNCTION fail()")).await;
        }
    }
    assert_eq!(writer.write().await.status, 201);
}

#[tokio::test]
async fn ended_sessions_are_replaced() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::start(database).await;
    let writer = Writer::new(&app, app.own()).await;
    // So that there always is a statement at work.
    app
        .execute(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON documents FOR EACH ROW EXECUTE FUNCTION slow()",
        )
        .await;
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE application_name = 'bulkhead' AND datname = current_database()";
    let mut lost = 0;
    for _ in 0..10 {
        let writing = join_all((0..8).map(|_| writer.write()));
        let ending = async {
            let busy =
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
            eventually("a statement is at work", async || (app.value::<i64>(busy).await > 0).then_some(())).await;
            app.execute(ended).await;
        };
        let (answers, ()) = tokio::join!(writing, ending);
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            assert_try_again(answer, "SYS_001");
            lost += 1;
        }
        let after = writer.write().await;
        assert_eq!(after.status, 201, "all sessions are new: {}", after.body);
    }
    assert!(lost > 0, "no request lost its session");
}

#[tokio::test]
async fn sessions_that_end_between_requests_fail_none() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::start(database).await;
    let writer = Writer::new(&app, app.own()).await;
    let of_pool = "FROM pg_stat_activity WHERE application_name = 'bulkhead' AND datname = current_database()";
    let count = async || app.value::<i64>(&format!("SELECT count(*) {of_pool}")).await;
    for _ in 0..5 {
        // Several at once, so that the pool has several sessions.
        let written = join_all((0..8).map(|_| writer.write())).await;
        assert!(written.iter().all(|answer| answer.status == 201), "{written:?}");
        assert!(count().await > 1);
        app.execute(&format!("SELECT pg_terminate_backend(pid) {of_pool}")).await;
        eventually("all sessions have ended", async || (count().await == 0).then_some(())).await;
        let reads = join_all((0..8).map(|_| writer.clinic.viewer.get("documents")));
        let (written, read) = tokio::join!(join_all((0..8).map(|_| writer.write())), reads);
        let outcomes: Vec<u16> = written.iter().chain(&read).map(|answer| answer.status).collect();
        assert!(written.iter().all(|answer| answer.status == 201), "{outcomes:?}");
        assert!(read.iter().all(|answer| answer.status == 200), "{outcomes:?}");
    }
}

#[tokio::test]
async fn read_only_database_is_not_ready() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::start(database).await;
    let writer = Writer::new(&app, app.own()).await;
    let default = |value: &str| {
        format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {value}', current_database()); END $$"
        )
    };
    let owner = app.owner.begin().await.unwrap();
    owner.execute_unprepared(&default("on")).await.unwrap();
    owner.commit().await.unwrap();
    // All sessions but the test's are opened anew, as they are when a server becomes a standby.
    app
        .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'bulkhead%' AND datname = current_database()")
        .await;
    let told = writer.until_readiness_is(503).await;
    assert!(told < PROMISED, "{told:?}");
    let (_, body) = writer.readiness().await;
    assert_eq!(body["checks"]["database"]["status"], "read-only", "{body}");
    assert_eq!(body["checks"]["database"]["error"], "SYS_008", "{body}");
    for answer in join_all((0..20).map(|_| writer.write())).await {
        assert_try_again(&answer, "SYS_008");
    }
    // What reads cannot be recorded.
    assert_try_again(&writer.clinic.admin.get("documents").await, "SYS_008");

    app.execute(&format!("SET default_transaction_read_only = off; {}", default("off"))).await;
    let back = tokio::join!(writer.until_readiness_is(200), writer.until_written());
    assert!(back.0 < PROMISED && back.1 < PROMISED, "{back:?}");
    // Every session is as good as the first, at the latest once a second one has been found not to be.
    eventually("twenty changes at once are taken", async || {
        let answers = join_all((0..20).map(|_| writer.write())).await;
        answers.iter().all(|answer| answer.status == 201).then_some(())
    })
    .await;
}

#[tokio::test]
async fn locked_table_or_full_pool_stays_ready() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::new(Shape::Plain, database).await;
    let server = app.server(&[("DATABASE_MAX_CONNECTIONS", "2")]).await;
    let writer = Writer::new(&app, &server).await;
    // The look at the catalogue waits for the lock of either.
    for table in ["documents", "seaql_migrations"] {
        let lock = app.owner.begin().await.unwrap();
        lock.execute_unprepared(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")).await.unwrap();
        let writing = join_all((0..4).map(|_| writer.write()));
        let asking = async {
            let end = Instant::now() + Duration::from_secs(4);
            let mut seen = Vec::new();
            while Instant::now() < end {
                let (code, body) = writer.readiness().await;
                assert_eq!((code, &body["status"]), (200, &"degraded".into()), "{table}: {body}");
                seen.push(body);
            }
            lock.rollback().await.unwrap();
            seen.len()
        };
        let (answers, looks) = tokio::join!(writing, asking);
        assert!(looks >= 2);
        for answer in answers {
            assert_eq!(answer.status, 201, "{table}: {}", answer.body);
        }
        eventually("it is ready", async || (writer.readiness().await.1["status"] == "ready").then_some(())).await;
    }
    assert!(!server.log().iter().any(|line| line.contains("the database is away")), "it was there all the time");
}

#[tokio::test]
async fn hanging_database_fails_requests_at_once() {
    let Some(cluster) = Cluster::new().await else { return };
    let app = TestApp::new(Shape::Plain, Database::of(&cluster)).await;
    let server = app.server(&[]).await;
    let writer = Writer::new(&app, &server).await;
    cluster.signal(Signal::STOP);
    let hung = Instant::now();
    // Those at work when it begins fail as soon as it is known.
    let (answers, told) = tokio::join!(join_all((0..20).map(|_| writer.write())), writer.until_readiness_is(503));
    assert!(told < PROMISED, "{told:?}");
    assert!(hung.elapsed() < PROMISED, "{:?}", hung.elapsed());
    for answer in &answers {
        assert_try_again(answer, "SYS_001");
    }
    // Each would wait for half a second, if it were not known.
    let begun = Instant::now();
    for _ in 0..20 {
        assert_try_again(&writer.write().await, "SYS_001");
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    cluster.signal(Signal::CONT);
    let back = tokio::join!(writer.until_readiness_is(200), writer.until_written());
    assert!(back.0 < PROMISED && back.1 < PROMISED, "{back:?}");
}

#[tokio::test]
async fn stopped_database_fails_requests_at_once() {
    let Some(mut cluster) = Cluster::new().await else { return };
    let app = TestApp::new(Shape::Plain, Database::of(&cluster)).await;
    let server = app.server(&[]).await;
    let writer = Writer::new(&app, &server).await;
    cluster.stop().await;
    let gone = Instant::now();
    for _ in 0..20 {
        assert_try_again(&writer.write().await, "SYS_001");
    }
    assert!(gone.elapsed() < PROMISED, "{:?}", gone.elapsed());
    assert_eq!(writer.readiness().await.0, 503);
    cluster.start_again().await;
    let back = tokio::join!(writer.until_readiness_is(200), writer.until_written());
    assert!(back.0 < PROMISED && back.1 < PROMISED, "{back:?}");
    server.log_line("the database is back", "INFO").await;
}

/// As a managed PostgreSQL fails over: its address leads to another server, which was a standby until then.
#[tokio::test]
async fn a_promoted_standby_has_every_acknowledged_document() {
    let Some(cluster) = Cluster::new().await else { return };
    let relay = Relay::start(cluster.port).await;
    let app = TestApp::new(Shape::Plain, Database::of(&cluster)).await;
    // Sessions that are open already would not wait for it.
    let standby = cluster.standby().await;
    let url = cluster.url.replace(&cluster.port.to_string(), &relay.port.to_string());
    let server = app.server(&[("DATABASE_URL", &url)]).await;
    let writer = Writer::new(&app, &server).await;

    let (acknowledged, promoted) = (AtomicUsize::new(0), AtomicBool::new(false));
    let writing = async || {
        let (mut ids, mut after) = (Vec::new(), 0);
        while after < 20 {
            let answer = writer.write().await;
            if answer.status == 201 {
                ids.push(answer.body["id"].clone());
                acknowledged.fetch_add(1, Ordering::Relaxed);
                after += usize::from(promoted.load(Ordering::Relaxed));
            } else {
                assert!(["SYS_001", "SYS_006", "SYS_008"].contains(&answer.outcome().1), "{}", answer.body);
                assert_eq!(answer.status, 503);
            }
        }
        ids
    };
    let failing_over = async {
        eventually("documents are made", async || (acknowledged.load(Ordering::Relaxed) > 50).then_some(())).await;
        cluster.signal(Signal::KILL);
        // First the address, as managed ones do: the instance meets the standby as one.
        relay.lead_to(standby.port);
        let told = writer.until_readiness_is(503).await;
        standby.promote().await;
        promoted.store(true, Ordering::Relaxed);
        (told, writer.until_readiness_is(200).await)
    };
    let (documents, (told, back)) = tokio::join!(join_all((0..4).map(|_| writing())), failing_over);
    assert!(told < PROMISED && back < PROMISED, "{told:?} {back:?}");
    for id in documents.iter().flatten() {
        assert_eq!(writer.clinic.viewer.get(&format!("documents/{}", id.as_str().unwrap())).await.status, 200, "{id}");
    }
}

/// As behind a firewall that forgets connections without a word: no answer comes, and no end either.
#[tokio::test]
async fn sessions_that_fall_silent_are_replaced() {
    let Some(cluster) = Cluster::new().await else { return };
    let relay = Relay::start(cluster.port).await;
    let app = TestApp::new(Shape::Plain, Database::of(&cluster)).await;
    let url = cluster.url.replace(&cluster.port.to_string(), &relay.port.to_string());
    let server = app.server(&[("DATABASE_URL", &url), ("DATABASE_MAX_CONNECTIONS", "4")]).await;
    let writer = Writer::new(&app, &server).await;
    for _ in 0..3 {
        join_all((0..8).map(|_| writer.write())).await;
        relay.fall_silent();
        // Those that are at work when it is noticed may fail; what comes then is served.
        let begun = Instant::now();
        let (answers, readiness) = tokio::join!(join_all((0..8).map(|_| writer.write())), writer.readiness());
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            assert_try_again(answer, "SYS_001");
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(readiness.0, 200, "{}", readiness.1);
        let answers = join_all((0..8).map(|_| writer.write())).await;
        let outcomes: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        assert!(answers.iter().all(|answer| answer.status == 201), "{outcomes:?}");
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn open_sessions_serve_when_no_more_are_accepted() {
    let Some(cluster) = Cluster::new().await else { return };
    let app = TestApp::new(Shape::Plain, Database::of(&cluster)).await;
    let server = app.server(&[("DATABASE_MAX_CONNECTIONS", "1")]).await;
    let writer = Writer::new(&app, &server).await;
    // Every connection that is left but those of the server and of the test.
    let mut others = Vec::new();
    while let Ok(connection) = sea_orm::Database::connect(limited(&cluster.url)).await {
        others.push(connection);
    }
    assert!(!others.is_empty());
    assert_eq!(writer.write().await.status, 201);
    let (status, body) = writer.readiness().await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(writer.write().await.status, 201);
    drop(others);
}

/// An address whose pools give up soon.
fn limited(url: &str) -> sea_orm::ConnectOptions {
    let mut options = sea_orm::ConnectOptions::new(url);
    options.max_connections(1).acquire_timeout(Duration::from_millis(300)).sqlx_logging(false);
    options
}

#[tokio::test]
async fn a_start_waits_for_the_database_and_says_why() {
    let Some(mut cluster) = Cluster::new().await else { return };
    let database = Database::of(&cluster);
    cluster.stop().await;
    let server = Server::listening(bulkhead(), &[], &database, &[]).await;
    let line = server.log_line("waiting for the database", "WARN").await;
    assert!(line.contains("refused"), "{line}");
    cluster.start_again().await;
    let begun = Instant::now();
    server.wait_until_ready().await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn start_ends_with_the_cause_after_its_wait() {
    let ends = async |(url, cause): (&str, &str)| {
        let begun = Instant::now();
        let environment = [("PORT", "0"), ("DATABASE_URL", url), ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "5")];
        let output = run(&[], &environment).await;
        assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(1));
        let told = stderr(&output);
        assert!(told.starts_with("DATABASE_URL: cannot use postgres://***@") && told.contains(cause), "{told}");
        let log = crate::stdout(&output);
        assert!(log.matches("waiting for the database").count() >= 2 && log.contains(cause), "{log}");
    };
    let urls = [
        ("postgres://me:hunter2@database.invalid/app", "unknown host database.invalid: "),
        ("postgres://me:hunter2@127.0.0.1:1/app", "refused"),
    ];
    join_all(urls.map(ends)).await;
}
