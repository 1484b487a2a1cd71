//! A POST that is sent again with its Idempotency-Key makes no second row.

use crate::support::{Answer, TestApp, TestClient, TestTenant, at, new_document};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(
    request_sent_again_has_the_first_ones_answer,
    key_belongs_to_caller_tenant_and_kind,
    key_of_another_body_is_refused,
    failed_request_leaves_its_key_free,
    requests_at_once_make_one_row,
    expired_keys_are_removed_by_later_requests,
    keys_of_a_tenant_are_bounded,
    wrong_key_is_refused,
    what_is_stored_says_nothing_of_the_request
);

async fn post(client: &TestClient, path: &str, key: &str, body: &Value) -> Answer {
    let request =
        client.request("POST", path).header("idempotency-key", key).header("content-type", "application/json");
    Answer::read(request.body(body.to_string()).send().await.unwrap()).await
}

fn is_replay(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == "true"
}

async fn keys(app: &TestApp) -> i64 {
    app.value("SELECT count(*) FROM idempotency_keys").await
}

async fn request_sent_again_has_the_first_ones_answer(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let body = json!({"email": "ada@example.org", "full_name": "Ada"});
    let first = post(&clinic.admin, "users", "\"one\"", &body).await;
    first.assert_status(201);
    assert!(!is_replay(&first));
    // Also without quotes.
    for key in ["\"one\"", "one"] {
        let again = post(&clinic.admin, "users", key, &body).await;
        assert_eq!((again.status, &again.body, again.etag()), (201, &first.body, first.etag()));
        assert_eq!(again.header("location"), first.header("location"));
        assert!(is_replay(&again));
    }
    let path = at("users", &first.body);
    let id = first.body["id"].as_str().unwrap();
    let entries = clinic.admin.get("audit-logs?resource_type=users&limit=3").await;
    let entries: Vec<Value> = entries
        .items()
        .iter()
        .map(|entry| json!([entry["action"], entry["resource_id"], entry["metadata"]["replayed"]]))
        .collect();
    assert_eq!(
        entries,
        [json!(["DATA_ACCESS", id, true]), json!(["DATA_ACCESS", id, true]), json!(["CREATED", id, null])]
    );
    // The answer is made from the row, as it is now.
    let changed = clinic.admin.patch(&path, &json!({"full_name": "Ada King"})).await;
    let again = post(&clinic.admin, "users", "one", &body).await;
    assert_eq!((again.status, &again.body, again.etag()), (201, &changed.body, changed.etag()));
    let minimal =
        clinic.admin.request("POST", "users").header("idempotency-key", "one").header("prefer", "return=minimal");
    let minimal = minimal.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    let minimal = Answer::read(minimal).await;
    assert_eq!((minimal.status, &minimal.body, is_replay(&minimal)), (201, &Value::Null, true));
    // What is deleted was made all the same, and there is nothing to show of it.
    clinic.admin.delete(&path).await.assert_status(204);
    let again = post(&clinic.admin, "users", "one", &body).await;
    assert_eq!((again.status, &again.body, again.header("location")), (201, &Value::Null, first.header("location")));
    assert!(is_replay(&again));
    assert_eq!(clinic.admin.all("users").await, Vec::<Value>::new());
    assert_eq!(keys(&app).await, 1);
}

async fn key_belongs_to_caller_tenant_and_kind(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let other = app.new_tenant().await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let body = new_document(&owner);
    let mine = post(&clinic.member, "documents", "one", &body).await;
    let anothers = post(&clinic.admin, "documents", "one", &body).await;
    let user = post(&clinic.admin, "users", "one", &json!({"email": "b@example.org"})).await;
    let owner_there = other.user("ada@example.org").await["id"].clone();
    let there = post(&other.member, "documents", "one", &new_document(&owner_there)).await;
    for answer in [&mine, &anothers, &user, &there] {
        assert_eq!((answer.status, is_replay(answer)), (201, false), "{}", answer.body);
    }
    assert_ne!(mine.body["id"], anothers.body["id"]);
    // The role is asked for each time.
    post(&clinic.viewer, "documents", "one", &body).await.assert_error(403, "AUTH_008");
}

async fn key_of_another_body_is_refused(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let mut body = new_document(&owner);
    post(&clinic.member, "documents", "one", &body).await.assert_status(201);
    body["filename"] = json!("another.pdf");
    post(&clinic.member, "documents", "one", &body).await.assert_error(422, "VAL_007");
    assert_eq!(clinic.member.all("documents").await.len(), 1);
    let entries = clinic.admin.get("audit-logs?limit=2").await;
    assert!(entries.items().iter().any(|entry| entry["metadata"]["code"] == "VAL_007"), "{}", entries.body);
}

async fn failed_request_leaves_its_key_free(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await;
    let body = json!({"email": "ada@example.org"});
    for _ in 0..2 {
        let refused = post(&clinic.admin, "users", "one", &body).await;
        refused.assert_field_error(409, "RES_002", "email");
    }
    post(&clinic.member, "documents", "two", &new_document(&json!(Uuid::now_v7()))).await.assert_error(404, "RES_001");
    assert_eq!(keys(&app).await, 0);
    clinic.admin.delete(&at("users", &owner)).await.assert_status(204);
    let made = post(&clinic.admin, "users", "one", &body).await;
    assert_eq!((made.status, is_replay(&made)), (201, false), "{}", made.body);
}

async fn requests_at_once_make_one_row(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    // Two processes on one database, and other changes of the tenant beside them.
    let second = app.serve(&[]).await;
    let elsewhere = TestClient::new(&app, &second, &clinic.external_id, "provider|a-member", "member");
    for round in 0..8 {
        let (key, body) = (format!("key {round}"), new_document(&owner));
        let keyed =
            (0..8).map(|n| post(if n % 2 == 0 { &clinic.member } else { &elsewhere }, "documents", &key, &body));
        let plain_body = new_document(&owner);
        let plain = (0..4).map(|_| clinic.member.post("documents", &plain_body));
        let (keyed, plain) = futures_util::future::join(join_all(keyed), join_all(plain)).await;
        assert!(plain.iter().all(|answer| answer.status == 201));
        let made: Vec<&Answer> = keyed.iter().filter(|answer| answer.status == 201).collect();
        assert_eq!(made.iter().filter(|answer| !is_replay(answer)).count(), 1, "round {round}");
        assert!(made.iter().all(|answer| answer.body == made[0].body), "round {round}");
        for refused in keyed.iter().filter(|answer| answer.status != 201) {
            refused.assert_error(409, "RES_006");
            assert_eq!(refused.header("retry-after"), "1");
        }
        let again = post(&elsewhere, "documents", &key, &body).await;
        assert_eq!((again.status, &again.body["id"], is_replay(&again)), (201, &made[0].body["id"], true));
    }
    assert_eq!(clinic.member.all("documents").await.len(), 8 * 5);
    assert_eq!(keys(&app).await, 8);
}

async fn expired_keys_are_removed_by_later_requests(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let body = new_document(&owner);
    let mut first = Vec::new();
    for n in 0..6 {
        first.push(post(&clinic.member, "documents", &format!("key {n}"), &body).await.body);
    }
    app.execute("UPDATE idempotency_keys SET expires_at = expires_at - 24 * 60 * 60 + 5").await;
    assert!(is_replay(&post(&clinic.member, "documents", "key 0", &body).await), "24 hours are not over");
    app.execute("UPDATE idempotency_keys SET expires_at = expires_at - 6").await;
    // An expired key is another one's, and four others are gone with it.
    let anew = post(&clinic.member, "documents", "key 0", &body).await;
    assert!(anew.status == 201 && !is_replay(&anew) && anew.body["id"] != first[0]["id"]);
    assert_eq!(keys(&app).await, 2);
    post(&clinic.member, "documents", "another", &body).await.assert_status(201);
    assert_eq!(keys(&app).await, 2);
    assert!(is_replay(&post(&clinic.member, "documents", "key 0", &body).await));
}

async fn keys_of_a_tenant_are_bounded(database: Database) {
    const MOST: i64 = 100_000;
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("ada@example.org").await["id"].clone();
    let (tenant, hash) = (
        app.literal(clinic.id),
        if app.on_postgres() { "sha256(n::text::bytea)" } else { "CAST(printf('%032d', n) AS blob)" },
    );
    app.execute(&format!(
        "INSERT INTO idempotency_keys (tenant_id, key_hash, fingerprint, resource_id, expires_at)
         WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {})
         SELECT {tenant}, {hash}, {hash}, {tenant}, 9000000000 + n FROM numbers",
        MOST + 50
    ))
    .await;
    // One in 16 looks.
    for n in 0..400 {
        post(&clinic.member, "documents", &format!("key {n}"), &new_document(&owner)).await.assert_status(201);
        if keys(&app).await <= MOST + 1 {
            return;
        }
    }
    panic!("{} keys", keys(&app).await);
}

async fn wrong_key_is_refused(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let body = json!({"email": "ada@example.org"});
    let long = "x".repeat(256);
    for key in ["", "\"\"", "\"one", &long] {
        let refused = post(&clinic.admin, "users", key, &body).await;
        refused.assert_field_error(400, "VAL_003", "Idempotency-Key");
    }
    let twice = clinic.admin.request("POST", "users").header("idempotency-key", "a").header("idempotency-key", "b");
    let twice = twice.header("content-type", "application/json").body(body.to_string()).send().await.unwrap();
    Answer::read(twice).await.assert_field_error(400, "VAL_003", "Idempotency-Key");
    post(&clinic.admin, "users", &long[1..], &body).await.assert_status(201);
    assert_eq!(keys(&app).await, 1);
}

async fn what_is_stored_says_nothing_of_the_request(database: Database) {
    let connection = database.connect().await;
    let (_app, clinic) = TestTenant::start(database).await;
    let body = json!({"email": "ada@example.org", "full_name": "Ada Lovelace"});
    post(&clinic.admin, "users", "a key of ada@example.org", &body).await.assert_status(201);
    let statement = Statement::from_string(connection.get_database_backend(), "SELECT * FROM idempotency_keys");
    let row = connection.query_one_raw(statement).await.unwrap().unwrap();
    let mut columns = row.column_names();
    columns.sort();
    assert_eq!(columns, ["expires_at", "fingerprint", "key_hash", "resource_id", "tenant_id"]);
    for hash in ["key_hash", "fingerprint"] {
        assert_eq!(row.try_get::<Vec<u8>>("", hash).unwrap().len(), 32);
    }
    connection.close().await.unwrap();
}
