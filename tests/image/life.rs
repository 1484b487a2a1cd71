//! Its life: started, alone or many at once; healthy; told to stop, idle, at work, or before it was ready.

use crate::container::{Container, PROMPT, Run};
use crate::engine::{engine, is_podman, succeed};
use crate::world::World;
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, Statement, TransactionTrait};
use serde_json::Value;
use std::time::{Duration, Instant};
use test_support::{Database, eventually, tables};

#[tokio::test]
async fn confined_it_migrates_becomes_ready_and_stops_in_order() {
    let Some(database) = Database::postgres().await else { return };
    let container = Run::with(&database).start();
    container.ready().await;
    assert_eq!(database.tables().await, tables());
    assert_eq!(user_and_group(&container), (65532, 65532));
    let health = container.exec(&[], &["healthcheck", "--ready"]);
    assert!(health.status.success(), "{health:?}");

    // The signal is the image's own to name.
    let told = Instant::now();
    succeed(&mut engine(&["stop", "--time", "30", &container.id]));
    assert_eq!(container.ended().await, 0, "{}", container.log());
    // It serves until balancers have noticed, and then has nothing to finish.
    let delay = Duration::from_secs(5);
    assert!(told.elapsed() >= delay && told.elapsed() < delay + PROMPT, "it took {:?}", told.elapsed());
    container.log_line(r#""message":"stopped""#, "").await;
}

/// The user and group the server runs as, seen from inside its user namespace.
fn user_and_group(container: &Container) -> (u32, u32) {
    let process = container.process();
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let seen = |field: &str, map: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let outside: u32 = line.split_whitespace().next().unwrap().parse().unwrap();
        // Lines of: first id inside, first id outside, how many.
        let map = std::fs::read_to_string(process.join(map)).unwrap();
        let inside = map.lines().find_map(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().unwrap());
            let (first, start, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            let offset = outside.checked_sub(start).filter(|offset| *offset < count)?;
            Some(first + offset)
        });
        inside.unwrap()
    };
    (seen("Uid:", "uid_map"), seen("Gid:", "gid_map"))
}

#[tokio::test]
async fn its_log_is_json_lines() {
    let Some(database) = Database::postgres().await else { return };
    let container = Run::with(&database).start();
    container.ready().await;
    let log = container.log();
    assert!(log.lines().count() > 2, "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

#[tokio::test]
async fn eight_containers_started_at_once_on_one_database_all_become_ready() {
    let Some(database) = Database::postgres().await else { return };
    let containers: Vec<Container> = (0..8).map(|_| Run::with(&database).start()).collect();
    for container in &containers {
        container.ready().await;
    }
    let count = async || containers.iter().filter(|one| one.log().contains("migrations applied")).count();
    let applied = eventually("one says that it applied the migrations", async || {
        let count = count().await;
        (count > 0).then_some(count)
    });
    assert_eq!(applied.await, 1);
}

#[tokio::test]
async fn the_engine_finds_it_healthy() {
    let container = Run::by_itself().option("--health-interval", "1s").start();
    eventually("its state of health is healthy", async || {
        // podman leaves the timer to systemd, which is not everywhere.
        if is_podman() {
            let _ = engine(&["healthcheck", "run", &container.id]).output();
        }
        let state = container.inspect()["State"].clone();
        assert_eq!(state["Running"], true, "{}", container.log());
        let health = if state["Health"].is_null() { &state["Healthcheck"] } else { &state["Health"] };
        (health["Status"] == "healthy").then_some(())
    })
    .await;
    // Where nobody listens, the same check fails.
    assert_eq!(container.exec(&[("PORT", "1")], &["healthcheck"]).status.code(), Some(1));
}

#[tokio::test]
async fn a_request_at_work_when_it_is_told_to_stop_is_answered() {
    let Some(world) = World::start(|run| run).await else { return };
    let connection = world.database.connect().await;
    let lock = lock_tenants(&connection).await;
    let request = world.request(&reqwest::Client::new(), "/api/v1/tenant").send();
    let request = tokio::spawn(request);
    eventually("the request waits for the lock", async || {
        let waiting = "SELECT 1 AS one FROM pg_locks WHERE NOT granted AND relation = 'tenants'::regclass";
        lock.query_one_raw(Statement::from_string(DbBackend::Postgres, waiting)).await.unwrap().map(drop)
    })
    .await;
    world.container.signal("TERM");
    world.container.log_line("stopping", "SIGTERM").await;
    assert!(!request.is_finished());
    lock.rollback().await.unwrap();

    let answer = request.await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["connection"]), (200, &"close".parse().unwrap()));
    assert_eq!(answer.json::<Value>().await.unwrap()["name"], "A clinic");
    assert_eq!(world.container.ended().await, 0, "{}", world.container.log());
}

/// Holds the tenants so that nobody can read them.
async fn lock_tenants(connection: &DatabaseConnection) -> DatabaseTransaction {
    let transaction = connection.begin().await.unwrap();
    transaction.execute_unprepared("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE").await.unwrap();
    transaction
}

#[tokio::test]
async fn it_stops_at_once_while_it_waits_for_another_ones_migrations() {
    let Some(database) = Database::postgres().await else { return };
    let connection = database.connect().await;
    let other = connection.begin().await.unwrap();
    let lock =
        "SELECT pg_advisory_lock(hashtextextended('sea-orm-migration/' || current_schema() || '/seaql_migrations', 0))";
    other.execute_unprepared(lock).await.unwrap();
    let container = Run::with(&database).start();
    eventually("it waits for the lock", async || {
        let (_, body) = container.get("/api/v1/health/startup").await?;
        body.contains("waiting-for-lock").then_some(())
    })
    .await;
    let told = Instant::now();
    container.signal("TERM");
    assert_eq!(container.ended().await, 0, "{}", container.log());
    assert!(told.elapsed() < PROMPT, "it took {:?}", told.elapsed());
    other.rollback().await.unwrap();
    assert!(database.tables().await.is_empty());
}
