//! Kills, hangs, lost sessions: nothing is left half-done, nobody waits for ever.

use crate::{
    FIRST, SECOND, command, count, fail, fixture, history, spawn, stderr, succeed, succeed_when_free, with_seeds,
};
use bulkhead_migrator::{AfterFailure, Migration, MigrationError, Migrations, Mode, Options, Runner, Sql, Target};
use futures_util::future::join_all;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, TransactionTrait};
use std::str::FromStr;
use std::time::{Duration, Instant};
use test_support::{Database, SOON, Server, Signal, eventually, on_both_databases};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

on_both_databases!(
    a_kill_in_the_middle_leaves_no_trace,
    when_the_holder_is_killed_one_of_those_who_wait_takes_over,
    those_who_wait_for_one_that_hangs_stop_at_their_deadline,
    a_migration_that_fails_leaves_no_trace,
    a_start_told_to_stop_in_the_middle_stops_at_once_and_leaves_no_trace
);

/// Starts the fixture that hangs in its migration and waits until it does.
async fn hanging(database: &Database, connection: &DatabaseConnection) -> Child {
    let mut child = spawn(database, "hang", &["migrate", "up"]);
    if connection.get_database_backend() == DbBackend::Postgres {
        eventually("it hangs", async || (sleeping(connection).await == 1).then_some(())).await;
    } else {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let begun = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("applying") && line.contains(FIRST) {
                    return;
                }
            }
            panic!("it ended");
        };
        tokio::time::timeout(SOON, begun).await.expect("it hangs");
    }
    child
}

/// How many sessions of this database sleep.
async fn sleeping(connection: &DatabaseConnection) -> i64 {
    count(
        connection,
        "pg_stat_activity WHERE query LIKE '%SELECT pg_sleep(600)' AND state = 'active' AND datname = current_database()",
    )
    .await
}

async fn a_kill_in_the_middle_leaves_no_trace(database: Database) {
    let connection = with_seeds(&database).await;
    let mut child = hanging(&database, &connection).await;
    child.kill().await.unwrap();
    let started = Instant::now();
    succeed(&database, "seed", &["migrate", "up"]).await;
    assert!(started.elapsed() < Duration::from_secs(10), "the lock was free after {:?}", started.elapsed());
    assert_eq!(count(&connection, "seeds").await, 1, "only the second run's");
}

async fn when_the_holder_is_killed_one_of_those_who_wait_takes_over(database: Database) {
    let connection = with_seeds(&database).await;
    let mut holder = hanging(&database, &connection).await;
    let waiting: Vec<_> = (0..8).map(|_| spawn(&database, "seed", &["migrate", "up"])).collect();
    if connection.get_database_backend() == DbBackend::Postgres {
        let asking = "pg_stat_activity WHERE application_name = 'bulkhead migrate' AND datname = current_database()";
        eventually("all wait", async || (count(&connection, asking).await >= 9).then_some(())).await;
    }
    holder.kill().await.unwrap();
    let killed = Instant::now();
    for output in join_all(waiting.into_iter().map(Child::wait_with_output)).await {
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    assert_eq!(count(&connection, "seeds").await, 1);
}

async fn those_who_wait_for_one_that_hangs_stop_at_their_deadline(database: Database) {
    let connection = with_seeds(&database).await;
    let mut holder = hanging(&database, &connection).await;
    let output = command(&database, "seed", &["migrate", "up"]).env("MIGRATION_LOCK_TIMEOUT_SECONDS", "2").output();
    let output = tokio::time::timeout(SOON, output).await.expect("it gives up").unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let holder_is = if connection.get_database_backend() == DbBackend::Postgres {
        "held by process "
    } else {
        "held by another process that writes to this file"
    };
    assert!(stderr(&output).contains(holder_is), "{}", stderr(&output));
    holder.kill().await.unwrap();
}

async fn a_migration_that_fails_leaves_no_trace(database: Database) {
    let connection = with_seeds(&database).await;
    let (code, line) = fail(&database, "fail", &["migrate", "up"]).await;
    assert_eq!(code, 1);
    assert!(line.starts_with(&format!("{FIRST} failed: ")) && line.contains("nothing of it is left"), "{line}");
    assert_eq!(count(&connection, "seeds").await, 0);
    succeed(&database, "seed", &["migrate", "up"]).await;
    assert_eq!(count(&connection, "seeds").await, 1);
}

async fn a_start_told_to_stop_in_the_middle_stops_at_once_and_leaves_no_trace(database: Database) {
    let connection = with_seeds(&database).await;
    let mut server = Server::listening(fixture(), &[], &database, &[("FIXTURE", "hang")]).await;
    eventually("it hangs, and says so", async || {
        let (_, body) = server.get_json("/api/v1/health/startup").await;
        let begun = server.log().iter().any(|line| line.contains("applying") && line.contains(FIRST));
        (begun && body["status"] == "migrating").then_some(())
    })
    .await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(Duration::from_secs(10)).await.code(), Some(0), "{:#?}", server.log());
    succeed(&database, "seed", &["migrate", "up"]).await;
    assert_eq!(count(&connection, "seeds").await, 1);
}

#[tokio::test]
async fn a_statement_that_runs_too_long_is_ended() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let output =
        command(&database, "hang", &["migrate", "up"]).env("MIGRATION_STATEMENT_TIMEOUT_SECONDS", "1").output();
    let output = tokio::time::timeout(SOON, output).await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("statement timeout"), "{}", stderr(&output));
    assert_eq!(count(&connection, "seeds").await, 0);
}

#[tokio::test]
async fn a_migration_killed_outside_a_transaction_is_dirty_until_a_person_says_what_is_true() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let mut child = spawn(&database, "non-transactional", &["migrate", "up"]);
    eventually("it hangs", async || (sleeping(&connection).await == 1).then_some(())).await;
    child.kill().await.unwrap();
    for arguments in [["migrate", "verify"], ["migrate", "up"]] {
        let (code, line) = fail(&database, "non-transactional", &arguments).await;
        assert_eq!(code, 3, "{line}");
        assert!(line.contains(FIRST) && line.contains("migrate repair NAME --applied or --pending"), "{line}");
    }
    assert!(
        succeed(&database, "non-transactional", &["migrate", "status"])
            .await
            .contains(&format!("dirty         {FIRST}"))
    );
    // The build that mends it begins where the person says.
    succeed(&database, "seed", &["migrate", "repair", FIRST, "--pending"]).await;
    succeed(&database, "seed", &["migrate", "up"]).await;
    assert_eq!(count(&connection, "seeds").await, 1);
    // What was not interrupted is not to be repaired.
    for truth in ["--pending", "--applied"] {
        let (code, line) = fail(&database, "seed", &["migrate", "repair", FIRST, truth]).await;
        assert_eq!((code, line), (1, format!("{FIRST} was not interrupted: it is applied")));
    }
    assert_eq!(count(&connection, "seeds").await, 1);
}

#[tokio::test]
async fn a_migration_that_was_done_when_it_was_killed_can_be_said_to_be_applied() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let mut child = spawn(&database, "non-transactional", &["migrate", "up"]);
    eventually("it hangs", async || (sleeping(&connection).await == 1).then_some(())).await;
    child.kill().await.unwrap();
    succeed(&database, "non-transactional", &["migrate", "repair", FIRST, "--applied"]).await;
    assert_eq!(succeed(&database, "non-transactional", &["migrate", "up"]).await.trim(), "nothing to do");
    succeed(&database, "non-transactional", &["migrate", "verify"]).await;
}

#[tokio::test]
async fn while_a_migration_runs_outside_a_transaction_others_wait_for_it() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let first = spawn(&database, "non-transactional-short", &["migrate", "up"]);
    let running =
        "pg_stat_activity WHERE query = 'SELECT pg_sleep(3)' AND state = 'active' AND datname = current_database()";
    eventually("it runs", async || (count(&connection, running).await == 1).then_some(())).await;
    let others: Vec<_> = (0..4).map(|_| spawn(&database, "non-transactional-short", &["migrate", "up"])).collect();
    let server = Server::listening(fixture(), &[], &database, &[("FIXTURE", "non-transactional-short")]).await;
    for output in join_all(others.into_iter().map(Child::wait_with_output)).await {
        let output = output.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(
            history(&connection).await.iter().any(|line| line.contains(FIRST)),
            "it ended before the migration did"
        );
    }
    server.wait_until_ready().await;
    let output = first.wait_with_output().await.unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("applied  {FIRST}")), "{}", stderr(&output));
}

#[tokio::test]
async fn those_who_wait_for_a_migration_outside_a_transaction_find_it_dirty_when_it_is_killed() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let mut child = spawn(&database, "non-transactional", &["migrate", "up"]);
    eventually("it hangs", async || (sleeping(&connection).await == 1).then_some(())).await;
    let waiting = spawn(&database, "non-transactional", &["migrate", "up"]);
    let asking = "pg_stat_activity WHERE application_name = 'bulkhead migrate' AND datname = current_database()";
    eventually("it waits", async || (count(&connection, asking).await >= 2).then_some(())).await;
    child.kill().await.unwrap();
    let output = tokio::time::timeout(SOON, waiting.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("migrate repair"), "{}", stderr(&output));
}

#[tokio::test]
async fn when_the_lock_session_is_ended_no_further_migration_begins() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let child = spawn(&database, "hang,second", &["migrate", "up"]);
    eventually("it hangs", async || (sleeping(&connection).await == 1).then_some(())).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%SELECT pg_sleep(600)' AND datname = current_database()";
    connection.execute_unprepared(end).await.unwrap();
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends").unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(count(&connection, "seeds").await, 0);
    assert!(!history(&connection).await.iter().any(|line| line.contains(SECOND)));
}

#[tokio::test]
async fn a_session_that_has_lost_the_lock_begins_no_migration() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let (code, line) = fail(&database, "unlock,second", &["migrate", "up"]).await;
    assert_eq!(code, 1);
    assert!(line.contains("the session that held the migration lock has ended") && line.contains(SECOND), "{line}");
    assert_eq!(count(&connection, "seeds").await, 0);
}

#[tokio::test]
async fn an_index_whose_concurrent_build_failed_is_built_again() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    connection.execute_unprepared("INSERT INTO seeds VALUES (1), (1)").await.unwrap();
    let (code, line) = fail(&database, "index", &["migrate", "up"]).await;
    assert_eq!(code, 1, "{line}");
    let invalid = "pg_index WHERE indexrelid = 'seeds_n'::regclass AND NOT indisvalid";
    assert_eq!(count(&connection, invalid).await, 1, "PostgreSQL leaves it behind");

    connection.execute_unprepared("DELETE FROM seeds WHERE ctid = (SELECT min(ctid) FROM seeds)").await.unwrap();
    succeed(&database, "index", &["migrate", "up"]).await;
    let valid = "pg_index WHERE indexrelid = 'seeds_n'::regclass AND indisvalid";
    assert_eq!(count(&connection, valid).await, 1);
}

#[tokio::test]
async fn a_failure_in_a_living_process_keeps_no_lock() {
    let Some(database) = Database::postgres().await else { return };
    let connection = database.connect().await;
    let target = Target::Postgres(Box::new(PgConnectOptions::from_str(&database.url).unwrap()));
    let runner = |sql: &'static str| {
        let sql = Sql { postgres: sql, sqlite: sql };
        let migration =
            Migration { name: "m1", min_compatible_version: "m1", up: sql, down: sql, mode: Mode::Transaction };
        let options = Options { lock_timeout: Duration::from_secs(5), ..Options::default() };
        Runner::new(Migrations::new(vec![migration]), options)
    };
    let failure = runner("SELECT nonsense").up(&target, None).await;
    assert!(matches!(failure, Err(MigrationError::Failed { after: AfterFailure::RolledBack, .. })), "{failure:?}");
    let free = async || {
        let locks = "pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory' AND datname = current_database()";
        (count(&connection, locks).await == 0).then_some(())
    };
    eventually("the lock is free while the process lives", free).await;
    assert_eq!(runner("SELECT 1").up(&target, None).await.unwrap().applied, ["m1"]);
    eventually("the lock is free while the process lives", free).await;
}

#[tokio::test]
async fn a_migration_that_does_not_get_its_locks_is_rolled_back_and_tried_again() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let reader = connection.begin().await.unwrap();
    reader.execute_unprepared("SELECT * FROM seeds").await.unwrap();
    succeed_when_free(&database, "alter", reader.rollback()).await;
    assert_eq!(
        count(&connection, "information_schema.columns WHERE table_name = 'seeds' AND column_name = 'added'").await,
        1
    );
}

#[tokio::test]
async fn a_long_migration_says_every_ten_seconds_what_it_waits_for() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let reader = connection.begin().await.unwrap();
    reader.execute_unprepared("SELECT * FROM seeds").await.unwrap();
    let mut child = command(&database, "alter", &["migrate", "up"])
        .env("MIGRATION_DDL_LOCK_TIMEOUT_SECONDS", "60")
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("still running") {
                return line;
            }
        }
        panic!("it ended");
    };
    let line = tokio::time::timeout(SOON, said).await.expect("it says so");
    assert!(line.contains(FIRST) && line.contains("locks of process "), "{line}");
    reader.rollback().await.unwrap();
    let status = tokio::time::timeout(SOON, child.wait()).await.expect("it ends").unwrap();
    assert!(status.success());
}
