//! The verbs: what they print, with which code they end, and that they ask before they destroy.

use crate::{FIRST, command, fail, fixture, run, stderr, succeed, with_seeds};
use bulkhead_migrator::{Migration, Mode, Sql};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use std::process::Stdio;
use test_support::{Database, measure_locks, newest_migration, on_both_databases, skip, tables};
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

/// What `plan` prints above the ALTER TABLE of the fixture, with these locks measured.
async fn above_the_alter(database: &Database, locks: &str) -> String {
    let output = command(database, "alter", &["migrate", "plan"]).env("FIXTURE_LOCKS", locks).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (above, _) = text.split_once("\nALTER TABLE seeds").unwrap_or_else(|| panic!("{text}{:?}", output.stderr));
    above.lines().last().unwrap().to_owned()
}

#[tokio::test]
async fn a_plan_names_each_lock_what_it_blocks_and_the_rows() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    let migration = |name, sql| {
        let sql = Sql { postgres: sql, sqlite: sql };
        Migration { name, min_compatible_version: name, up: sql, down: sql, mode: Mode::Transaction }
    };
    let before = migration("m1", "CREATE TABLE seeds (n int)");
    let alter = migration(FIRST, "ALTER TABLE seeds ADD COLUMN added int");
    let measured = measure_locks(&[before, alter], &[]).await.unwrap();
    let locks = measured[1].lines.join("\n");
    assert_eq!(
        (measured[0].lines.join("\n").as_str(), locks.as_str()),
        ("m1", &*format!("{FIRST} 1 seeds AccessExclusiveLock"))
    );

    let line = |size| format!("-- locks seeds ({size}) in ACCESS EXCLUSIVE mode: blocks reads and writes");
    assert_eq!(above_the_alter(&database, &locks).await, line("no rows"));
    let fill = "ALTER TABLE seeds SET (autovacuum_enabled = false); INSERT INTO seeds SELECT generate_series(1, 20000)";
    connection.execute_unprepared(fill).await.unwrap();
    let above = above_the_alter(&database, &locks).await;
    assert!(
        above.starts_with("-- locks seeds (unknown rows in 7") && above.contains(" kB, never analysed)"),
        "{above}"
    );
    connection.execute_unprepared("ANALYZE seeds").await.unwrap();
    assert_eq!(above_the_alter(&database, &locks).await, line("about 20000 rows"));
    assert_eq!(above_the_alter(&database, "").await, "-- locks: not measured");
}

#[tokio::test]
async fn a_plan_has_no_lock_of_a_table_that_a_pending_migration_creates() {
    let Some(database) = Database::postgres().await else { return };
    let locks = async || {
        let plan = succeed(&database, "", &["migrate", "plan"]).await;
        assert!(!plan.contains("not measured"), "{plan}");
        plan.lines().map(str::to_owned).filter(|line| line.starts_with("-- locks")).collect::<Vec<_>>()
    };
    assert!(locks().await.is_empty(), "{:?}", locks().await);
    succeed(&database, "", &["migrate", "up", "-n", "2"]).await;
    let found = locks().await;
    assert_eq!(found[0], "-- locks users (no rows) in SHARE UPDATE EXCLUSIVE mode: blocks nothing");
    assert!(
        found.iter().all(|line| line.starts_with("-- locks users ") || line.starts_with("-- locks tenants ")),
        "{found:?}"
    );
    let plan = succeed(&database, "", &["migrate", "plan"]).await;
    let above = "-- locks users (no rows) in SHARE ROW EXCLUSIVE mode: blocks writes\nCREATE TRIGGER users_updated_at";
    assert!(plan.contains(above), "{plan}");
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
