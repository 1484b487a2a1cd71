//! Many at once: the chain stays whole, and readers wait for their record, not for each other's reading.

use super::operations::{a_document, a_user, make};
use crate::support::{AuditedTenant, Request, TestClient, chain};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::json;
use test_support::{Database, eventually, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(concurrent_writers_leave_no_gap);

/// How many write, and how often each.
const WRITERS: usize = 32;
const TURNS: usize = 24;

async fn concurrent_writers_leave_no_gap(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let user = make(&clinic, &admin, "users").await;
    let before = clinic.log().await.len();
    let client = async |number: usize| {
        for turn in number..number + TURNS {
            let request = match turn % 6 {
                0 => Request::new("POST", "users").body(a_user(&Uuid::now_v7().to_string())),
                1 => Request::new("POST", "documents").body(a_document()),
                // All of them the same row.
                2 => {
                    Request::new("PATCH", format!("users/{user}")).body(json!({"full_name": format!("Grace {turn}.")}))
                }
                3 => Request::new("GET", "users?limit=5"),
                4 => Request::new("GET", format!("users/{user}")),
                _ => Request::new("GET", "documents?limit=5"),
            };
            let answer = request.by(&admin).await;
            assert!(answer.status < 300, "{request:?}: {} {}", answer.status, answer.body);
        }
    };
    join_all((0..WRITERS).map(client)).await;
    let log = clinic.log().await;
    // Each request has left one.
    assert_eq!(log.len(), before + WRITERS * TURNS);
    assert!(log.iter().map(|entry| entry.sequence).eq(1..=i64::try_from(log.len()).unwrap()), "there is a gap");
    let said = clinic.must(&["audit", "verify", "--tenant", "clinic"]).await;
    assert!(said.contains(&format!(": {} entries, head ", log.len())), "{said}");
}

async fn until_waiting(clinic: &AuditedTenant, what: &str) {
    eventually(what, async || (clinic.waiting().await > 0).then_some(())).await;
}

#[tokio::test]
async fn slow_reader_blocks_nobody_of_its_tenant() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (clinic, admin) = AuditedTenant::start(database).await;
    let user = make(&clinic, &admin, "users").await;
    let lock = clinic.owner.begin().await.unwrap();
    lock.execute_unprepared("LOCK TABLE documents IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let slow = tokio::spawn(status(admin.clone(), "documents"));
    until_waiting(&clinic, "a read of documents waits").await;
    let log = clinic.log().await.len();
    // Meanwhile reads and writes of users go on: the slow reader has no part of the chain.
    for request in [
        Request::new("GET", "users"),
        Request::new("GET", format!("users/{user}")),
        Request::new("GET", "audit-logs"),
        Request::new("PATCH", format!("users/{user}")).body(json!({"role": "admin"})),
    ] {
        let answer = request.by(&admin).await;
        assert_eq!(answer.status, 200, "{request:?}: {}", answer.body);
    }
    assert_eq!(clinic.log().await.len(), log + 4);
    assert!(!slow.is_finished() && clinic.waiting().await > 0, "the slow one still waits");
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
    let admin = clinic.caller(&server, "ada", "admin");
    let other = clinic.make_tenant("other").await;
    let of_other = TestClient::new(&clinic, &server, "other", "ada", "admin");
    let log = clinic.log().await.len();
    let head = clinic.owner.begin().await.unwrap();
    let sql = format!("SELECT FROM audit_heads WHERE tenant_id = '{}' FOR UPDATE", clinic.tenant);
    head.execute_unprepared(&sql).await.unwrap();
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(status(admin.clone(), "users"))).collect();
    until_waiting(&clinic, "the recorder waits for the chain").await;
    // The statements that read are logged as they end.
    eventually("all have read", async || {
        let reads = server.log().iter().filter(|line| line.contains("FROM \\\"users\\\"")).count();
        (reads >= READERS).then_some(())
    })
    .await;
    assert!(readers.iter().all(|reader| !reader.is_finished()), "an answer before its record");
    // Another tenant's readers do not care.
    of_other.get("users").await.assert_status(200);
    assert_eq!(chain(&clinic.owner, other).await.last().unwrap().action, "DATA_ACCESS");
    assert!(readers.iter().all(|reader| !reader.is_finished()), "an answer before its record");
    head.commit().await.unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 200);
    }
    assert_eq!(clinic.log().await.len(), log + READERS);
    let sql = format!(
        "SELECT count(DISTINCT xmin::text) FROM audit_logs WHERE tenant_id = '{}' AND sequence > {log}",
        clinic.tenant
    );
    let transactions: i64 = clinic.value(&sql).await;
    // The first of them, those who came meanwhile, and perhaps a straggler.
    assert!((1..=4).contains(&transactions), "{transactions} transactions for {READERS} readers");
    clinic.must(&["audit", "verify"]).await;
}

/// What a GET is answered, on a task of its own.
async fn status(client: TestClient, path: &'static str) -> u16 {
    client.get(path).await.status
}
