//! What a start does, and how it fails: one clear line that names the variable to change.

use crate::{bulkhead, ready, run, stderr, stdout};
use futures_util::future::join_all;
use serde_json::Value;
use std::net::TcpListener;
use std::time::Duration;
use test_support::{Database, SOON, Server, Signal, eventually, on_both_databases, send, tables};

on_both_databases!(a_start_migrates_and_becomes_ready, many_starts_at_once_all_become_ready);

async fn a_start_migrates_and_becomes_ready(database: Database) {
    let server = ready(&database, &[]).await;
    assert_eq!(database.tables().await, tables());
    let (_, root) = server.get_json("/").await;
    assert_eq!((&root["name"], &root["docs"]), (&"bulkhead".into(), &"/docs".into()));
}

async fn many_starts_at_once_all_become_ready(database: Database) {
    let servers = join_all((0..8).map(|_| Server::listening(bulkhead(), &[], &database, &[]))).await;
    for server in &servers {
        server.wait_until_ready().await;
    }
    let applied: usize =
        servers.iter().flat_map(Server::log).filter(|line| line.contains("migrations applied")).count();
    assert_eq!(applied, 1, "one start applies the migrations, the others wait for it");
}

#[tokio::test]
async fn without_settings_it_serves_from_a_local_file() {
    let folder = tempfile::tempdir().unwrap();
    let child = Server::command(bulkhead(), &[("PORT", "0")]).current_dir(&folder).spawn().unwrap();
    eventually("the database file is there", async || folder.path().join("bulkhead.db").exists().then_some(())).await;
    send(&child, Signal::TERM);
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it stops").unwrap();
    let output = stdout(&ended);
    assert!(output.contains("environment=development"), "{output}");
    assert!(output.contains("database=sqlite://bulkhead.db"), "{output}");
}

#[tokio::test]
async fn first_lines_say_where_to_look() {
    let database = Database::sqlite();
    let server = ready(&database, &[("LOG_FORMAT", "pretty")]).await;
    let log = server.log().join("\n");
    let migrations = bulkhead_migration::all().len();
    let applied = format!("{migrations} migrations applied");
    for part in ["environment=development", "database=sqlite://", &applied, "ready on http://localhost:", "/docs"] {
        assert!(log.contains(part), "{part} is missing:\n{log}");
    }
    let lines = log.lines().filter(|line| !line.contains("INFO request ")).count();
    assert!(lines <= 3 + 2 * migrations, "more than three lines, and two for each migration:\n{log}");
}

#[tokio::test]
async fn log_lines_are_json_outside_development() {
    let database = Database::sqlite();
    let server = Server::ready(bulkhead(), &database, &[("ENVIRONMENT", "production"), ("LOG_FORMAT", "")]).await;
    for line in server.log() {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert!(event["level"].is_string() && event["message"].is_string() && event["timestamp"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn both_address_families_are_served() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("http://{host}:{}/api/v1/health/live", server.port);
        assert_eq!(reqwest::get(&url).await.unwrap().status(), 200, "{url}");
    }
}

#[tokio::test]
async fn one_address_alone_is_served_when_host_names_it() {
    let database = Database::sqlite();
    let server = ready(&database, &[("HOST", "127.0.0.1")]).await;
    assert!(reqwest::get(format!("http://[::1]:{}/", server.port)).await.is_err());
}

/// Runs `bulkhead` expecting it to fail; its standard error must be one line.
async fn failure(environment: &[(&str, &str)]) -> (i32, String) {
    let ended = tokio::time::timeout(Duration::from_secs(20), run(&[], environment)).await;
    let output = ended.expect("it ends by itself");
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    (output.status.code().unwrap(), text.trim().to_owned())
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_port() {
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let database = Database::sqlite();
    let (code, line) = failure(&[("PORT", &port), ("DATABASE_URL", &database.url)]).await;
    assert_eq!((code, line), (1, format!("PORT: {port} is in use on ::; stop the other process or set PORT")));
}

#[tokio::test]
async fn unmakeable_database_file_is_one_line() {
    let url = "sqlite:///dev/null/bulkhead.db?mode=rwc";
    let (code, line) = failure(&[("PORT", "0"), ("DATABASE_URL", url)]).await;
    assert_eq!(code, 1);
    assert!(line.starts_with("DATABASE_URL: cannot use sqlite:///dev/null/bulkhead.db: "), "{line}");
}

#[tokio::test]
async fn unwritable_database_file_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bulkhead.db");
    std::fs::write(&file, "").unwrap();
    let url = format!("sqlite://{}?mode=ro", file.display());
    let (code, line) = failure(&[("PORT", "0"), ("DATABASE_URL", &url)]).await;
    assert_eq!(code, 1);
    assert!(line.contains("DATABASE_URL: cannot use sqlite://") && line.contains("readonly"), "{line}");
}

#[tokio::test]
async fn absent_database_is_one_line_without_password() {
    // Nothing listens on port 1.
    let url = "postgres://me:hunter2@127.0.0.1:1/app";
    let (code, line) =
        failure(&[("PORT", "0"), ("DATABASE_URL", url), ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1")]).await;
    assert_eq!(code, 1);
    assert!(line.starts_with("DATABASE_URL: cannot use postgres://***@127.0.0.1:1/app: "), "{line}");
    assert!(!line.contains("hunter2"), "{line}");
}

#[tokio::test]
async fn malformed_configuration_is_exit_code_2() {
    let cases = [
        ("DATABASE_URL", "postgres//nope"),
        ("DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("DATABASE_URL", "postgres://me:hunter2@host:port/db"),
        ("DATABASE_URL", "postgres://me:hunter2@host"),
        ("DATABASE_URL", "sqlite::memory:"),
        ("ENVIRONMENT", "prod"),
        ("PORT", "http"),
        ("HOST", "localhost:80"),
        ("MIGRATE_ON_START", "yes"),
        ("SHUTDOWN_DRAIN_SECONDS", "-1"),
        ("LOG_LEVEL", "info,bulkhead=loud"),
        ("LOG_LEVEL", "inof"),
    ];
    for (name, value) in cases {
        let (code, line) = failure(&[(name, value)]).await;
        assert_eq!(code, 2, "{name}={value}: {line}");
        assert!(line.starts_with(&format!("{name}: ")), "{name}={value}: {line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}
