//! Reads of one tenant that wait for each other use one transaction after another: each sees what was committed before it came,
//! and one that fails or is given up leaves nothing to the next.

use crate::support::{TestApp, TestTenant, at};
use futures_util::future::{join, join_all};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use test_support::provider::Shape;
use test_support::{Database, eventually};

/// How many reads come at once: more than a tenant's share of the pool.
const READS: usize = 64;

/// Also where the operator has made transactions keep what they saw first.
#[tokio::test]
async fn reads_see_what_was_committed_before_them() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let app = TestApp::new(Shape::Plain, database).await;
    app.execute(
        "DO $$ BEGIN EXECUTE format(
            'ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database()); END $$",
    )
    .await;
    let server = app.serve(&[("RATE_LIMIT_PER_MINUTE", "0")]).await;
    let clinic = TestTenant::open(&app, &server).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let path = at("documents", &clinic.document(&owner).await);
    let over = AtomicBool::new(false);
    // One client may have 64 requests at once.
    let others = join_all((1..READS).map(async |_| {
        while !over.load(Ordering::Relaxed) {
            clinic.viewer.get(&path).await.assert_status(200);
        }
    }));
    let changes = async {
        for number in 0..40 {
            let filename = format!("{number}.pdf");
            clinic.member.patch(&path, &json!({"filename": filename})).await.assert_status(200);
            assert_eq!(clinic.viewer.get(&path).await.body["filename"], filename);
        }
        over.store(true, Ordering::Relaxed);
    };
    join(others, changes).await;
}

#[tokio::test]
async fn a_read_that_fails_leaves_nothing_to_the_next() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let (good, bad) = (clinic.document(&owner).await, clinic.document(&owner).await);
    // PostgreSQL fails as it reads this row.
    app.execute(&format!(
        "CREATE POLICY broken ON documents AS RESTRICTIVE FOR SELECT
         USING (id <> '{}' OR 1 / (length(filename) - length(filename)) = 0)",
        bad["id"].as_str().unwrap()
    ))
    .await;
    let reads = (0..READS).map(async |number| {
        let row = if number % 4 == 0 { &bad } else { &good };
        clinic.viewer.get(&at("documents", row)).await
    });
    for (number, answer) in join_all(reads).await.iter().enumerate() {
        assert_eq!(answer.status, if number % 4 == 0 { 500 } else { 200 }, "{number}: {}", answer.body);
    }
}

#[tokio::test]
async fn reads_given_up_keep_no_place() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, clinic) = TestTenant::start_with(database, &[("RATE_LIMIT_PER_MINUTE", "0")]).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let path = at("documents", &clinic.document(&owner).await);
    for round in 1..=20 {
        let patience = Duration::from_millis(round);
        join_all((0..READS).map(|_| tokio::time::timeout(patience, clinic.viewer.get(&path)))).await;
    }
    for answer in join_all((0..READS).map(|_| clinic.viewer.get(&path))).await {
        answer.assert_status(200);
    }
    let open = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    eventually("no transaction is open", async || (app.value::<i64>(open).await == 0).then_some(())).await;
}
