//! Many at once: each migration exactly once, nobody fails.

use crate::{FIRST, count, fixture, spawn, succeed, with_seeds};
use futures_util::future::join_all;
use sea_orm::ConnectionTrait;
use test_support::{Database, Server, Signal, on_both_databases};

/// How many start at once.
const MANY: usize = 32;

on_both_databases!(
    many_starts_on_an_empty_database_migrate_it_once,
    many_starts_with_a_seed_pending_run_it_once,
    many_ups_with_a_seed_pending_run_it_once
);

async fn many_starts_on_an_empty_database_migrate_it_once(database: Database) {
    many_starts(&database).await;
}

async fn many_starts_with_a_seed_pending_run_it_once(database: Database) {
    succeed(&database, "", &["migrate", "up"]).await;
    many_starts(&database).await;
}

async fn many_starts(database: &Database) {
    let connection = with_seeds(database).await;
    let environment = [("FIXTURE", "seed"), ("DATABASE_MAX_CONNECTIONS", "2")];
    let mut servers = join_all((0..MANY).map(|_| Server::listening(fixture(), &[], database, &environment))).await;
    join_all(servers.iter().map(Server::wait_until_ready)).await;
    assert_eq!(count(&connection, "seeds").await, 1, "side effects");
    let all = i64::try_from(bulkhead_migration::all().len() + 1).unwrap();
    assert_eq!(count(&connection, "seaql_migrations").await, all);
    for server in &servers {
        server.signal(Signal::TERM);
    }
    for server in &mut servers {
        assert_eq!(server.ended().await.code(), Some(0), "{:#?}", server.log());
    }
}

async fn many_ups_with_a_seed_pending_run_it_once(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "", &["migrate", "up"]).await;
    let running: Vec<_> = (0..MANY).map(|_| spawn(&database, "seed", &["migrate", "up"])).collect();
    let outputs = join_all(running.into_iter().map(tokio::process::Child::wait_with_output)).await;
    let mut applied = 0;
    for output in outputs {
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        applied += usize::from(String::from_utf8_lossy(&output.stdout).contains(&format!("applied  {FIRST}")));
    }
    assert_eq!((applied, count(&connection, "seeds").await), (1, 1));
}

#[tokio::test]
async fn an_index_is_built_concurrently_while_others_wait_without_a_deadlock() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = with_seeds(&database).await;
    connection.execute_unprepared("INSERT INTO seeds SELECT generate_series(1, 200000)").await.unwrap();
    let running: Vec<_> = (0..9).map(|_| spawn(&database, "index", &["migrate", "up"])).collect();
    for output in join_all(running.into_iter().map(tokio::process::Child::wait_with_output)).await {
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let valid = "pg_index WHERE indexrelid = 'seeds_n'::regclass AND indisvalid";
    assert_eq!(count(&connection, valid).await, 1);
}
