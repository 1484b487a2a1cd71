//! Builds and schemas of different age: each combination does the right thing, or says why not.

use crate::{FIRST, SECOND, command, count, fail, fixture, history, succeed, with_seeds};
use sea_orm::ConnectionTrait;
use test_support::{Database, Server, Signal, eventually, on_both_databases};

const OK: u16 = 200;
const UNAVAILABLE: u16 = 503;

on_both_databases!(
    an_older_build_serves_a_newer_schema_that_allows_it,
    an_older_build_on_a_newer_schema_that_does_not_allow_it_stays_alive_and_not_ready,
    a_start_that_only_verifies_waits_for_the_schema,
    an_edited_migration_is_refused_by_name_before_anything_runs,
    a_pending_migration_out_of_order_is_refused_unless_allowed,
    an_unknown_applied_migration_is_refused_unless_allowed,
    off_looks_only_at_pending_migrations_and_verify_at_all,
    a_history_that_sea_orm_alone_has_written_is_adopted
);

async fn an_older_build_serves_a_newer_schema_that_allows_it(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "seed", &["migrate", "up"]).await;
    let before = history(&connection).await;
    // Nor does it revert what lies beneath the newer one.
    for verb in ["down", "reset", "refresh"] {
        let (code, line) = fail(&database, "", &["migrate", verb]).await;
        assert_eq!(code, 3, "{line}");
        assert!(line.contains("ahead of this build") && line.contains(FIRST), "{line}");
    }
    let mut server = Server::ready(fixture(), &database, &[]).await;
    assert!(server.log().iter().any(|line| line.contains("ahead of this build") && line.contains(FIRST)));
    assert!(succeed(&database, "", &["migrate", "verify"]).await.contains("ahead"));
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0));
    assert_eq!(history(&connection).await, before);
}

async fn an_older_build_on_a_newer_schema_that_does_not_allow_it_stays_alive_and_not_ready(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "breaking", &["migrate", "up"]).await;
    let before = history(&connection).await;
    let mut server = Server::listening(fixture(), &[], &database, &[]).await;
    eventually("it says why", async || {
        server.log().iter().any(|line| line.contains("ahead of this build") && line.contains(FIRST)).then_some(())
    })
    .await;
    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert_eq!((status.as_u16(), &body["checks"]["schema"]["status"]), (UNAVAILABLE, &"ahead".into()));
    assert_eq!(server.get_json("/api/v1/health/live").await.0, OK);
    for arguments in [["migrate", "up"], ["migrate", "verify"]] {
        let (code, line) = fail(&database, "", &arguments).await;
        assert_eq!(code, 3);
        assert!(line.contains(&format!("run a build that has {FIRST}")), "{line}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0), "not a crash");
    assert_eq!(history(&connection).await, before);
}

async fn a_start_that_only_verifies_waits_for_the_schema(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "", &["migrate", "up"]).await;
    for mode in ["verify", "off"] {
        let environment = [("FIXTURE", "seed"), ("MIGRATE_ON_START", mode)];
        let server = Server::listening(fixture(), &[], &database, &environment).await;
        eventually("it says what it waits for", async || {
            let (_, body) = server.get_json("/api/v1/health/startup").await;
            (body["status"] == "waiting-for-schema").then_some(())
        })
        .await;
        let (status, body) = server.get_json("/api/v1/health/ready").await;
        assert_eq!((status.as_u16(), &body["checks"]["schema"]["status"]), (UNAVAILABLE, &"behind".into()));
        assert_eq!(server.get_json("/api/v1/health/live").await.0, OK);
        let (status, body) = server.get_json("/api/v1/anything").await;
        assert_eq!((status.as_u16(), &body["error"]["code"]), (UNAVAILABLE, &"SYS_005".into()));
        assert_eq!(count(&connection, "seeds").await, 0, "it changes nothing");

        succeed(&database, "seed", &["migrate", "up"]).await;
        server.wait_until_ready().await;
        eventually("the API answers", async || (server.get("/api/v1/anything").await?.0 == 404).then_some(())).await;
        drop(server);
        succeed(&database, "seed", &["migrate", "down"]).await;
        connection.execute_unprepared("DELETE FROM seeds").await.unwrap();
    }
}

async fn an_edited_migration_is_refused_by_name_before_anything_runs(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "", &["migrate", "up"]).await;
    for arguments in [&["migrate", "up"][..], &["migrate", "verify"], &["start"]] {
        let (code, line) = fail(&database, "edited,seed", arguments).await;
        assert_eq!(code, 3, "{line}");
        assert!(line.contains("edited after they had been applied: m20261101_000001_create_tenants"), "{line}");
    }
    assert_eq!(count(&connection, "seeds").await, 0);
    let status = succeed(&database, "edited", &["migrate", "status"]).await;
    assert!(status.contains("edited        m20261101_000001_create_tenants"), "{status}");
}

async fn a_pending_migration_out_of_order_is_refused_unless_allowed(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "", &["migrate", "up"]).await;
    let (code, line) = fail(&database, "between", &["migrate", "up"]).await;
    assert_eq!(code, 3);
    assert!(line.contains("m20261101_000001_create_tenants_more") && line.contains("--allow-out-of-order"), "{line}");
    assert_eq!(count(&connection, "seeds").await, 0);
    succeed(&database, "between", &["migrate", "up", "--allow-out-of-order"]).await;
    assert_eq!(count(&connection, "seeds").await, 1);
    succeed(&database, "between", &["migrate", "verify"]).await;
}

async fn an_unknown_applied_migration_is_refused_unless_allowed(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "", &["migrate", "up"]).await;
    let elsewhere = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20200101_000001_elsewhere', 0)";
    connection.execute_unprepared(elsewhere).await.unwrap();
    let (code, line) = fail(&database, "seed", &["migrate", "up"]).await;
    assert_eq!(code, 3);
    assert!(line.contains("m20200101_000001_elsewhere") && line.contains("--allow-unknown"), "{line}");
    assert_eq!(count(&connection, "seeds").await, 0);
    succeed(&database, "seed", &["migrate", "up", "--allow-unknown"]).await;
    assert_eq!(count(&connection, "seeds").await, 1);
    // A start needs to be told as well, each time.
    assert_eq!(fail(&database, "seed", &["start"]).await.0, 3);
    let environment = [("FIXTURE", "seed"), ("MIGRATION_ALLOW_UNKNOWN", "true")];
    drop(Server::ready(fixture(), &database, &environment).await);
}

async fn off_looks_only_at_pending_migrations_and_verify_at_all(database: Database) {
    succeed(&database, "", &["migrate", "up"]).await;
    let off = [("FIXTURE", "edited"), ("MIGRATE_ON_START", "off")];
    drop(Server::ready(fixture(), &database, &off).await);
    let verify = command(&database, "edited", &["migrate", "verify"]).env("MIGRATE_ON_START", "off").output().await;
    assert_eq!(verify.unwrap().status.code(), Some(3));
    let server =
        Server::listening(fixture(), &[], &database, &[("FIXTURE", "edited"), ("MIGRATE_ON_START", "verify")]).await;
    let (status, body) = server.get_json("/api/v1/health/ready").await;
    assert_eq!((status.as_u16(), &body["checks"]["schema"]["status"]), (UNAVAILABLE, &"edited".into()));
}

async fn a_history_that_sea_orm_alone_has_written_is_adopted(database: Database) {
    let connection = with_seeds(&database).await;
    succeed(&database, "", &["migrate", "up"]).await;
    connection.execute_unprepared("DROP TABLE seaql_migrations_meta").await.unwrap();
    succeed(&database, "", &["migrate", "verify"]).await;
    succeed(&database, "seed", &["migrate", "up"]).await;
    let checksums = history(&connection).await.into_iter().filter(|line| line.trim_end().contains(' ')).count();
    assert_eq!(
        checksums,
        bulkhead_migration::all().len() + 1,
        "every migration has its checksum: {:?}",
        history(&connection).await
    );
    assert_eq!(fail(&database, "edited,seed", &["migrate", "up"]).await.0, 3);
}

#[tokio::test]
async fn a_plan_says_what_would_run_in_order_and_runs_nothing() {
    let Some(database) = Database::postgres().await else { return };
    let plan = succeed(&database, "hang,second", &["migrate", "plan"]).await;
    let headings: Vec<&str> = plan.lines().filter(|line| line.starts_with("-- m")).collect();
    let names: Vec<&str> = headings.iter().map(|heading| heading.split(' ').nth(1).unwrap()).collect();
    let own = bulkhead_migration::all();
    assert_eq!(names, [own.iter().map(|migration| migration.name).collect::<Vec<_>>(), vec![FIRST, SECOND]].concat());
    assert_eq!(headings[0], "-- m20261101_000001_create_tenants (in a transaction)");
    for part in ["CREATE TABLE tenants (", "CREATE INDEX CONCURRENTLY", "INSERT INTO seeds"] {
        assert!(plan.contains(part), "{part} is missing:\n{plan}");
    }
    assert!(database.tables().await.is_empty());
    succeed(&database, "", &["migrate", "up"]).await;
    assert_eq!(succeed(&database, "", &["migrate", "plan"]).await.trim(), "-- nothing to do");
}
