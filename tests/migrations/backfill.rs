//! Backfills in batches: they go on where they were interrupted, beside writers, and for all tenants.

use crate::{FIRST, command, count, fail, fixture, spawn, stderr, succeed, succeed_when_free, with_seeds};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, TransactionTrait};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use test_support::{Database, SOON, Server, Signal, eventually, on_both_databases};

/// More than 20 batches of 500.
const ROWS: i64 = 10_250;

on_both_databases!(a_backfill_fills_every_row_and_is_done, a_backfill_that_finds_the_same_rows_for_ever_is_stopped);

/// Rows to fill, as [`ROWS`] says.
async fn with_rows(database: &Database) -> DatabaseConnection {
    let connection = with_seeds(database).await;
    let statements = format!(
        "ALTER TABLE seeds ADD COLUMN done int; ALTER TABLE seeds ADD COLUMN touched int NOT NULL DEFAULT 0;
         CREATE UNIQUE INDEX seeds_n ON seeds (n);
         INSERT INTO seeds (n)
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {ROWS}) SELECT n FROM numbers"
    );
    connection.execute_unprepared(&statements).await.unwrap();
    connection
}

/// Makes each batch take some time, and notes the transaction that fills a row, each time that one does.
async fn watched(database: &Database) -> DatabaseConnection {
    let connection = with_rows(database).await;
    let watch = "
        CREATE TABLE filled (n int NOT NULL, batch bigint NOT NULL);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.done IS NOT NULL THEN INSERT INTO filled VALUES (NEW.n, txid_current()); END IF;
            RETURN NULL;
        END $$;
        CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END $$;
        REVOKE ALL ON FUNCTION note(), wait() FROM PUBLIC;
        CREATE TRIGGER note AFTER UPDATE OF done ON seeds FOR EACH ROW EXECUTE FUNCTION note();
        CREATE TRIGGER wait BEFORE UPDATE OF done ON seeds FOR EACH STATEMENT EXECUTE FUNCTION wait()";
    connection.execute_unprepared(watch).await.unwrap();
    connection
}

async fn half_done(connection: &DatabaseConnection) {
    eventually("some batches are done", async || (count(connection, "filled").await >= 2000).then_some(())).await;
}

/// Each row was filled once, in as many batches as its number asks for.
async fn assert_filled_once(connection: &DatabaseConnection) {
    assert_eq!(count(connection, "seeds WHERE done = n * 2").await, ROWS);
    assert_eq!(count(connection, "filled").await, ROWS, "no batch was done again");
    assert_eq!(count(connection, "(SELECT DISTINCT batch FROM filled) b").await, (ROWS + 499) / 500, "batches");
}

async fn a_backfill_fills_every_row_and_is_done(database: Database) {
    let connection = with_rows(&database).await;
    let plan = succeed(&database, "fill", &["migrate", "plan"]).await;
    assert!(plan.contains(&format!("-- {FIRST} (in batches, until it changes no row)")), "{plan}");
    assert!(succeed(&database, "fill", &["migrate", "up"]).await.contains(&format!("applied  {FIRST}")));
    assert_eq!(count(&connection, "seeds WHERE done = n * 2").await, ROWS);
    assert_eq!(succeed(&database, "fill", &["migrate", "up"]).await.trim(), "nothing to do");
    succeed(&database, "fill", &["migrate", "verify"]).await;
    assert!(succeed(&database, "fill", &["migrate", "down"]).await.contains(&format!("reverted  {FIRST}")));
    succeed(&database, "fill", &["migrate", "up"]).await;
}

async fn a_backfill_that_finds_the_same_rows_for_ever_is_stopped(database: Database) {
    let connection = with_rows(&database).await;
    let (code, line) = fail(&database, "fill-for-ever", &["migrate", "up"]).await;
    assert_eq!(code, 1);
    assert!(line.contains("more than the tables hold") && line.contains("its WHERE must leave out"), "{line}");
    let status = succeed(&database, "fill", &["migrate", "status"]).await;
    assert!(status.contains(&format!("pending       {FIRST}")), "{status}");
    succeed(&database, "fill", &["migrate", "up"]).await;
    assert_eq!(count(&connection, "seeds WHERE done = n * 2").await, ROWS);
}

#[tokio::test]
async fn a_backfill_killed_in_the_middle_goes_on_at_the_next_start_beside_writers() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = watched(&database).await;
    let stop = AtomicBool::new(false);
    // Those of the release that still serves: it knows nothing of the new column.
    let writers = async |first: i64| {
        let (mut written, mut n) = (0, first);
        while !stop.load(Ordering::Relaxed) {
            let sql = format!("UPDATE seeds SET touched = touched + 1 WHERE n = {n}");
            let done = connection.execute_unprepared(&sql).await.unwrap();
            written += i64::try_from(done.rows_affected()).unwrap();
            n = (n + 97) % ROWS + 1;
        }
        written
    };
    let migrate = async {
        let mut child = spawn(&database, "fill", &["migrate", "up"]);
        half_done(&connection).await;
        child.kill().await.unwrap();
        let sessions = "pg_stat_activity WHERE application_name = 'bulkhead migrate' AND datname = current_database()";
        eventually("its session ends", async || (count(&connection, sessions).await == 0).then_some(())).await;
        let before = count(&connection, "filled").await;
        assert!((2000..ROWS).contains(&before) && before % 500 == 0, "{before}");
        let status = succeed(&database, "fill", &["migrate", "status"]).await;
        assert!(status.contains(&format!("pending       {FIRST}")), "{status}");
        let server = Server::ready(fixture(), &database, &[("FIXTURE", "fill")]).await;
        stop.store(true, Ordering::Relaxed);
        drop(server);
    };
    let (written, also_written, ()) = tokio::join!(writers(1), writers(5000), migrate);
    assert_filled_once(&connection).await;
    assert!(written > 0 && also_written > 0);
    let touched = format!("seeds, generate_series(1, touched) WHERE n <= {ROWS}");
    assert_eq!(count(&connection, &touched).await, written + also_written, "no write is lost");
    assert!(succeed(&database, "fill", &["migrate", "status"]).await.contains(&format!("applied       {FIRST}")));
}

#[tokio::test]
async fn a_start_told_to_stop_during_a_backfill_keeps_the_batches_that_are_done() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = watched(&database).await;
    let mut server = Server::listening(fixture(), &[], &database, &[("FIXTURE", "fill")]).await;
    half_done(&connection).await;
    server.signal(Signal::TERM);
    assert_eq!(server.ended_within(Duration::from_secs(2)).await.code(), Some(0), "{:#?}", server.log());
    assert!(count(&connection, "filled").await >= 2000);
    succeed(&database, "fill", &["migrate", "up"]).await;
    assert_filled_once(&connection).await;
}

#[tokio::test]
async fn a_batch_that_waits_for_a_row_is_rolled_back_and_tried_again() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = watched(&database).await;
    let writer = connection.begin().await.unwrap();
    writer.execute_unprepared("UPDATE seeds SET touched = 1 WHERE n = 700").await.unwrap();
    succeed_when_free(&database, "fill", writer.commit()).await;
    assert_filled_once(&connection).await;
    assert_eq!(count(&connection, "seeds WHERE touched = 1").await, 1);
}

#[tokio::test]
async fn a_batch_that_is_the_victim_of_a_deadlock_is_tried_again() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let connection = watched(&database).await;
    let writer = connection.begin().await.unwrap();
    // The batch finds the deadlock, after a second of waiting.
    let first = "SET LOCAL deadlock_timeout = '1h'; UPDATE seeds SET touched = 1 WHERE n = 300";
    writer.execute_unprepared(first).await.unwrap();
    let child = spawn(&database, "fill", &["migrate", "up"]);
    let waits = "pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND a.application_name = 'bulkhead migrate' AND a.datname = current_database()";
    eventually("it waits for the row", async || (count(&connection, waits).await > 0).then_some(())).await;
    writer.execute_unprepared("UPDATE seeds SET touched = 1 WHERE n = 1").await.unwrap();
    writer.commit().await.unwrap();
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends").unwrap();
    assert!(output.status.success() && stderr(&output).contains("deadlock detected"), "{}", stderr(&output));
    assert_filled_once(&connection).await;
    assert_eq!(count(&connection, "seeds WHERE touched = 1").await, 2);
}

/// Three tenants with five users each, in a database whose tables belong to a role that is no superuser.
async fn tenants_of_an_owner(database: &mut Database, connection: &DatabaseConnection, owner: &str) {
    assert_eq!(connection.get_database_backend(), DbBackend::Postgres);
    let name = database.url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    connection
        .execute_unprepared(&format!(
            "CREATE ROLE {owner} LOGIN CREATEROLE; ALTER DATABASE {name} OWNER TO {owner};
             DO $$ BEGIN GRANT bulkhead_app TO {owner} WITH ADMIN OPTION; EXCEPTION WHEN undefined_object THEN NULL; END $$"
        ))
        .await
        .unwrap();
    database.url = database.url.replacen("postgres://postgres", &format!("postgres://{owner}"), 1);
    succeed(database, "", &["migrate", "up"]).await;
    let rows = "INSERT INTO tenants (id, name, external_id) SELECT gen_random_uuid(), 'Tenant', n FROM generate_series(1, 3) n;
        INSERT INTO users (id, tenant_id, email)
            SELECT gen_random_uuid(), t.id, n || '@example.org' FROM tenants t, generate_series(1, 5) n WHERE t.name = 'Tenant'";
    connection.execute_unprepared(rows).await.unwrap();
}

#[tokio::test]
async fn a_backfill_reaches_the_rows_of_every_tenant_or_says_that_policies_hide_them() {
    let Some(mut database) = Database::postgres_of_our_own().await else { return };
    let connection = database.connect().await;
    let owner = format!("owner_{}", std::process::id());
    let superuser = database.url.clone();
    tenants_of_an_owner(&mut database, &connection, &owner).await;
    let named = "users WHERE full_name = email";

    let (code, line) = fail(&database, "name-users", &["migrate", "up"]).await;
    assert_eq!(code, 1);
    assert!(line.contains("row-level security policy for table \"users\""), "{line}");
    assert_eq!(count(&connection, named).await, 0);
    // Tenants that it cannot list are not tenants that are done.
    connection.execute_unprepared("ALTER POLICY directory ON tenants TO CURRENT_USER").await.unwrap();
    let (code, line) = fail(&database, "name-users-of-each-tenant", &["migrate", "up"]).await;
    assert_eq!((code, line), (1, format!("{FIRST} has no scope to run for: is this the role that may list them?")));
    connection.execute_unprepared(&format!("ALTER POLICY directory ON tenants TO {owner}")).await.unwrap();
    succeed(&database, "name-users-of-each-tenant", &["migrate", "up"]).await;
    assert_eq!(count(&connection, named).await, 15);

    // Policies do not hold for a superuser.
    database.url = superuser;
    for fixture_name in ["name-users", "name-users-of-each-tenant"] {
        succeed(&database, fixture_name, &["migrate", "down"]).await;
        connection.execute_unprepared("UPDATE users SET full_name = NULL").await.unwrap();
        let output = command(&database, fixture_name, &["migrate", "up"]).output().await.unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(count(&connection, named).await, 15);
    }
    connection
        .execute_unprepared(&format!(
            "REASSIGN OWNED BY {owner} TO CURRENT_USER; DROP OWNED BY {owner}; DROP ROLE {owner}"
        ))
        .await
        .unwrap();
}
