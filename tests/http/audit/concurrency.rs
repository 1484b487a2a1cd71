//! Many at once: the chain stays whole, and readers wait for their record, not for each other's reading.

use super::operations::{Request, a_document, a_user, make};
use super::tenant::AuditedTenant;
use crate::support::Serves;
use reqwest::Method;
use sea_orm::{ConnectionTrait, Statement, TransactionTrait};
use serde_json::json;
use std::time::{Duration, Instant};
use test_support::{Database, eventually, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(concurrent_writers_leave_no_gap);

/// How long many write.
const LONG: Duration = Duration::from_secs(10);

async fn concurrent_writers_leave_no_gap(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let server = clinic.serve().await;
    let admin = clinic.admin();
    let before = clinic.log().await.len();
    let user = make(&clinic, &server, &admin, "users").await;
    let begun = Instant::now();
    let client = async |number: u32| {
        let (mut answered, mut turn) = (0, number);
        while begun.elapsed() < LONG {
            turn += 1;
            let request = match turn % 6 {
                0 => Request::new(Method::POST, "/api/v1/users", Some(a_user(&Uuid::now_v7().to_string()))),
                1 => Request::new(Method::POST, "/api/v1/documents", Some(a_document())),
                // All of them the same row.
                2 => {
                    let body = Some(json!({"full_name": format!("Grace the {turn}.")}));
                    Request::new(Method::PATCH, format!("/api/v1/users/{user}"), body)
                }
                3 => Request::get("/api/v1/users?limit=5"),
                4 => Request::get(format!("/api/v1/users/{user}")),
                _ => Request::get("/api/v1/documents?limit=5"),
            };
            let answer = clinic.call(&server, &admin, &request).await;
            assert!(answer.status < 300, "{request:?}: {} {}", answer.status, answer.body);
            answered += 1;
        }
        answered
    };
    let answered: usize = futures_util::future::join_all((0..32).map(client)).await.into_iter().sum();
    let log = clinic.log().await;
    // Each has left one, and the user's making another.
    assert_eq!(log.len(), before + 1 + answered, "{answered} were answered");
    assert!(log.iter().map(|entry| entry.sequence).eq(1..=i64::try_from(log.len()).unwrap()), "there is a gap");
    assert!(answered > 200, "{answered} in {LONG:?}");
    let said = clinic.must(&["audit", "verify", "--tenant", "clinic"]).await;
    assert!(said.contains(&format!(": {} entries, head ", log.len())), "{said}");
}

/// How many of the database's sessions wait for a lock.
async fn waiting(clinic: &AuditedTenant) -> i64 {
    let sql = "SELECT count(*) AS waiting FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let statement = Statement::from_string(clinic.owner.get_database_backend(), sql);
    clinic.owner.query_one_raw(statement).await.unwrap().unwrap().try_get("", "waiting").unwrap()
}

async fn until_waiting(clinic: &AuditedTenant, what: &str) {
    eventually(what, async || (waiting(clinic).await > 0).then_some(())).await;
}

#[tokio::test]
async fn slow_reader_blocks_nobody_of_its_tenant() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let clinic = AuditedTenant::new(database).await;
    let server = clinic.serve().await;
    let admin = clinic.admin();
    let user = make(&clinic, &server, &admin, "users").await;
    let lock = clinic.owner.begin().await.unwrap();
    lock.execute_unprepared("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let slow = tokio::spawn(get(&clinic, server.base(), &admin, "/api/v1/documents"));
    until_waiting(&clinic, "a read of documents waits").await;
    let log = clinic.log().await.len();
    // Meanwhile reads and writes of users go on: the slow reader has no part of the chain.
    for request in [
        Request::get("/api/v1/users"),
        Request::get(format!("/api/v1/users/{user}")),
        Request::get("/api/v1/audit-logs"),
        Request::new(Method::PATCH, format!("/api/v1/users/{user}"), Some(json!({"role": "admin"}))),
    ] {
        let answer = clinic.call(&server, &admin, &request).await;
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.body);
    }
    assert_eq!(clinic.log().await.len(), log + 4);
    assert!(!slow.is_finished() && waiting(&clinic).await > 0, "the slow one still waits");
    lock.commit().await.unwrap();
    assert_eq!(slow.await.unwrap(), 200);
    assert_eq!(clinic.log().await.len(), log + 5);
}

#[tokio::test]
async fn readers_are_recorded_before_the_answer() {
    const READERS: usize = 24;
    let Some(database) = Database::migrated_postgres().await else { return };
    let clinic = AuditedTenant::new(database).await;
    let server = clinic.server(&[("LOG_LEVEL", "info,sqlx=trace")]).await;
    let admin = clinic.admin();
    let other = clinic.make_tenant("other").await;
    let of_other = clinic.app.token("other", "ada", "admin");
    let log = clinic.log().await.len();
    let head = clinic.owner.begin().await.unwrap();
    let sql = format!("SELECT FROM audit_heads WHERE tenant_id = '{}' FOR UPDATE", clinic.tenant);
    head.execute_unprepared(&sql).await.unwrap();
    let readers: Vec<_> =
        (0..READERS).map(|_| tokio::spawn(get(&clinic, server.base(), &admin, "/api/v1/users"))).collect();
    until_waiting(&clinic, "the recorder waits for the chain").await;
    // The statements that read are logged as they end.
    eventually("all have read", async || {
        let reads = server.log().iter().filter(|line| line.contains("FROM \\\"users\\\"")).count();
        (reads >= READERS).then_some(())
    })
    .await;
    assert!(readers.iter().all(|reader| !reader.is_finished()), "an answer before its record");
    // Another tenant's readers do not care.
    assert_eq!(get(&clinic, server.base(), &of_other, "/api/v1/users").await, 200);
    assert_eq!(super::tenant::chain(&clinic.owner, other).await.last().unwrap().action, "DATA_ACCESS");
    assert!(readers.iter().all(|reader| !reader.is_finished()), "an answer before its record");
    head.commit().await.unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 200);
    }
    assert_eq!(clinic.log().await.len(), log + READERS);
    let sql = format!(
        "SELECT count(DISTINCT xmin::text) AS transactions FROM audit_logs WHERE tenant_id = '{}' AND sequence > {log}",
        clinic.tenant
    );
    let statement = Statement::from_string(clinic.owner.get_database_backend(), sql);
    let row = clinic.owner.query_one_raw(statement).await.unwrap().unwrap();
    let transactions: i64 = row.try_get("", "transactions").unwrap();
    // The first of them, those who came meanwhile, and perhaps a straggler.
    assert!((1..=4).contains(&transactions), "{transactions} transactions for {READERS} readers");
    clinic.must(&["audit", "verify"]).await;
}

/// GETs a path, on a task of its own: the status.
fn get(clinic: &AuditedTenant, base: &str, token: &str, path: &str) -> impl Future<Output = u16> + use<> {
    let request = clinic.http.get(format!("{base}{path}")).bearer_auth(token);
    async move { request.send().await.unwrap().status().as_u16() }
}
