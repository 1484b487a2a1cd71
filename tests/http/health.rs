//! Liveness, readiness, start-up: each tells the truth about this instance and nothing of its insides.

use crate::{bulkhead, ready, run_on};
use serde_json::Value;
use std::time::{Duration, Instant};
use test_support::{Database, Server, eventually, on_both_databases};

on_both_databases!(a_served_schema_is_ready, serve_waits_for_the_schema, a_schema_that_falls_behind_is_not_ready);

async fn a_served_schema_is_ready(database: Database) {
    let server = ready(&database, &[]).await;
    let (status, live) = server.get_json("/api/v1/health/live").await;
    assert_eq!((status.as_u16(), &live["status"]), (200, &"ok".into()));
    assert!(live["timestamp"].as_u64().unwrap() > 1_700_000_000, "{live}");

    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert_eq!((status.as_u16(), &body["status"]), (200, &"ready".into()));
    for check in ["process", "database", "schema"] {
        assert_eq!(body["checks"][check]["status"], "ok", "{body}");
        assert_eq!(body["checks"][check]["error"], Value::Null, "{body}");
    }
    assert!(body["checks"]["database"]["latency_ms"].as_f64().unwrap() > 0.0);
    for check in ["database", "schema", "isolation"] {
        let latency = body["checks"][check]["latency_ms"].to_string();
        assert!(latency.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 3), "{check}: {latency}");
    }

    let (status, body) = server.get_json("/api/v1/health/startup").await;
    assert_eq!((status.as_u16(), &body["status"]), (200, &"started".into()));
}

async fn serve_waits_for_the_schema(database: Database) {
    // The file itself, or the database, is there; the tables are not.
    run_on(&database, &["migrate", "status"]).await;
    let server = Server::listening(bulkhead(), &["serve"], &database, &[]).await;
    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert_eq!((status.as_u16(), &body["status"]), (503, &"unavailable".into()));
    assert_eq!(
        (&body["checks"]["schema"]["status"], &body["checks"]["schema"]["error"]),
        (&"behind".into(), &"SYS_005".into())
    );
    assert_eq!(server.get_json("/api/v1/health/live").await.0, 200);
    assert_eq!(server.get_json("/api/v1/health/startup").await.0, 503);
    assert!(database.tables().await.is_empty(), "serve changes nothing");

    database.migrate().await;
    server.wait_until_ready().await;
    assert_eq!(server.get_json("/api/v1/health/startup").await.0, 200);
}

async fn a_schema_that_falls_behind_is_not_ready(database: Database) {
    let server = ready(&database, &[]).await;
    database.migrate_one_down().await;
    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert_eq!((status.as_u16(), &body["checks"]["schema"]["error"]), (503, &"SYS_005".into()));
    // It has started, and goes on living.
    assert_eq!(server.get_json("/api/v1/health/startup").await.0, 200);
    assert_eq!(server.get_json("/api/v1/health/live").await.0, 200);
}

#[tokio::test]
async fn absent_database_is_a_code_in_readiness() {
    let database = Database::sqlite();
    // Nothing listens on port 1.
    let away = [("DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/app")];
    let server = Server::listening(bulkhead(), &["serve"], &database, &away).await;
    let asked = Instant::now();
    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert!(asked.elapsed() < Duration::from_secs(3), "each check is bounded to a second");
    assert_eq!((status.as_u16(), &body["checks"]["database"]["error"]), (503, &"SYS_001".into()));
    let text = body.to_string();
    assert!(!text.contains("hunter2") && !text.contains("127.0.0.1") && !text.contains("refused"), "{text}");
    assert_eq!(server.get_json("/api/v1/health/live").await.0, 200);
}

#[tokio::test]
async fn hanging_check_is_given_up_after_a_second() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let server = ready(&database, &[]).await;
    let connection = database.connect().await;
    let lock = sea_orm_lock(&connection).await;
    let asked = Instant::now();
    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert_eq!((status.as_u16(), &body["status"]), (200, &"degraded".into()));
    assert_eq!(body["checks"]["schema"]["status"], "timeout");
    // One that has never seen the schema cannot say that it fits.
    let other = Server::listening(bulkhead(), &["serve"], &database, &[]).await;
    let (status, body) = other.get_json("/api/v1/health/ready").await;
    assert_eq!((status.as_u16(), &body["checks"]["schema"]["status"]), (503, &"timeout".into()));
    lock.rollback().await.unwrap();
    eventually("it is ready again", async || {
        (server.get_json("/api/v1/health/ready").await.1["status"] == "ready").then_some(())
    })
    .await;
}

/// Holds the migration history so that nobody can read it.
pub(crate) async fn sea_orm_lock(connection: &sea_orm::DatabaseConnection) -> sea_orm::DatabaseTransaction {
    use sea_orm::{ConnectionTrait, TransactionTrait};
    let transaction = connection.begin().await.unwrap();
    transaction.execute_unprepared("LOCK TABLE seaql_migrations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    transaction
}
