//! /api/v1/users: an e-mail address and a subject belong to one live user.

use crate::support::{TestTenant, at};
use bulkhead::entity::user;
use bulkhead::resources::documents as document;
use bulkhead::tenancy::Table;
use sea_orm::{ConnectionTrait, DbBackend, Statement};
use serde_json::json;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(email_is_unique_among_live_users, subject_is_unique_among_live_users);

async fn email_is_unique_among_live_users(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let conflict = (409, "RES_002", "email");
    let first = clinic.user("ada@example.org").await;
    let other = clinic.user("other@example.org").await;
    let (first, other) = (at("users", &first), at("users", &other));
    let shouted = json!({"email": "ADA@Example.ORG"});
    let clash = clinic.admin.post("users", &shouted).await;
    assert_eq!(clash.refusal(), conflict);
    assert_eq!(clash.body["error"]["detail"], "another one of the users has this email");
    assert_eq!(clinic.admin.patch(&other, &shouted).await.refusal(), conflict);
    assert_eq!(clinic.viewer.get(&other).await.body["email"], "other@example.org");
    assert_eq!(clinic.admin.patch(&first, &shouted).await.status, 200, "one's own, in another case");

    clinic.admin.delete(&first).await.assert_status(204);
    let second = clinic.user("ada@example.org").await;
    assert_eq!(clinic.admin.restore(&first).await.refusal(), conflict, "somebody has it meanwhile");
    assert_eq!(clinic.viewer.get(&first).await.outcome(), (404, "RES_001"), "and it stays deleted");
    clinic.admin.delete(&at("users", &second)).await.assert_status(204);
    clinic.admin.restore(&first).await.assert_status(200);
}

async fn subject_is_unique_among_live_users(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let conflict = (409, "RES_002", "external_idp_id");
    let body = |email: &str| json!({"email": email, "external_idp_id": "idp|ada"});
    let first = clinic.admin.make("users", &body("one@example.org")).await;
    assert_eq!(clinic.admin.post("users", &body("two@example.org")).await.refusal(), conflict);
    let other = at("users", &clinic.user("three@example.org").await);
    assert_eq!(clinic.admin.patch(&other, &json!({"external_idp_id": "idp|ada"})).await.refusal(), conflict);
    clinic.admin.delete(&at("users", &first)).await.assert_status(204);
    clinic.admin.make("users", &body("two@example.org")).await;
    assert_eq!(clinic.admin.restore(&at("users", &first)).await.refusal(), conflict);
}

#[tokio::test]
async fn unique_index_names_its_field() {
    let database = Database::migrated_sqlite().await;
    let connection = database.connect().await;
    let sql =
        "SELECT tbl_name || '.' || name AS name FROM sqlite_master WHERE sql LIKE 'CREATE UNIQUE INDEX%' ORDER BY 1";
    let rows = connection.query_all_raw(Statement::from_string(DbBackend::Sqlite, sql)).await.unwrap();
    let indexes: Vec<String> = rows.iter().map(|row| row.try_get("", "name").unwrap()).collect();
    let named = |table: &str, unique: &[(&str, &str)]| -> Vec<String> {
        unique.iter().map(|(index, _)| format!("{table}.{index}")).collect()
    };
    let documents = named(document::Entity::NAME, document::Entity::UNIQUE);
    let users = named(user::Entity::NAME, user::Entity::UNIQUE);
    assert_eq!([documents, users].concat(), indexes, "src/tenancy/table.rs and src/resources/ list them");
}
