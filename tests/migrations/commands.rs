//! The verbs: what they print, with which code they end, and that they ask before they destroy.

use crate::{fail, fixture, run, stderr, succeed};
use serde_json::{Value, json};
use std::process::Stdio;
use test_support::{Database, newest_migration, on_both_databases, skip, tables};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

on_both_databases!(verify_tells_its_reasons_apart, status_is_a_table_or_json);

async fn verify_tells_its_reasons_apart(database: Database) {
    let (code, line) = fail(&database, "", &["migrate", "verify"]).await;
    assert_eq!((code, line.as_str()), (3, "the database has never been migrated: run migrate up"));
    succeed(&database, "older", &["migrate", "up"]).await;
    let (code, line) = fail(&database, "", &["migrate", "verify"]).await;
    assert_eq!((code, line), (3, format!("migrations are pending: {}: run migrate up", newest_migration())));
    succeed(&database, "", &["migrate", "up"]).await;
    succeed(&database, "", &["migrate", "verify"]).await;
}

async fn status_is_a_table_or_json(database: Database) {
    succeed(&database, "older", &["migrate", "up"]).await;
    let output = run(&database, "", &["migrate", "status", "--json", "--exit-code"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let steps: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(steps[1], json!({"name": "m20261101_000002_create_users", "state": "applied"}));
    assert_eq!(steps.as_array().unwrap().last(), Some(&json!({"name": newest_migration(), "state": "pending"})));
    let table = succeed(&database, "", &["migrate", "status"]).await;
    assert!(table.contains(&format!("pending       {}", newest_migration())), "{table}");
}

#[tokio::test]
async fn at_a_terminal_it_asks_before_it_destroys() {
    if cfg!(target_os = "macos") {
        skip("macOS: its script has other options than util-linux's");
        return;
    }
    let database = Database::sqlite();
    succeed(&database, "", &["migrate", "up"]).await;
    for (answer, tables) in [("n\n", tables().len()), ("\n", tables().len()), ("y\n", 0)] {
        // util-linux's script gives it a terminal.
        let command = format!("{} migrate reset", fixture().display());
        let child = Command::new("script")
            .args(["--quiet", "--return", "--command", &command, "/dev/null"])
            .env("DATABASE_URL", &database.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            skip("no script: install util-linux (bsdutils)");
            return;
        };
        child.stdin.take().unwrap().write_all(answer.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("destroys data in sqlite://") && text.contains("Go on? [y/N]"), "{text}");
        assert_eq!(database.tables().await.len(), tables, "{answer:?}: {text}");
    }
}

#[tokio::test]
async fn a_repair_names_what_there_is_and_what_it_needs() {
    let database = Database::sqlite();
    succeed(&database, "", &["migrate", "up"]).await;
    let (code, line) = fail(&database, "", &["migrate", "repair", "m1", "--applied"]).await;
    assert_eq!((code, line.as_str()), (1, "there is no migration m1 in this build"));
    assert_eq!(fail(&database, "", &["migrate", "repair", newest_migration()]).await.0, 2);
    assert_eq!(fail(&database, "", &["migrate", "repair", newest_migration(), "--applied", "--pending"]).await.0, 2);
}
