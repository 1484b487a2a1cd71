//! A tenant keeps an admin: whoever takes the last one away is refused, however many try at the same moment.

use crate::support::{Answer, TestApp, TestClient, TestTenant, at, chain};
use bulkhead::entity::user;
use futures_util::future::join;
use sea_orm::{ConnectionTrait, TransactionTrait};
use serde_json::{Value, json};
use test_support::{Database, eventually, on_migrated_databases};

on_migrated_databases!(
    the_last_admin_is_neither_deleted_nor_demoted,
    an_admin_who_cannot_log_in_takes_nobodys_place,
    of_two_admins_who_demote_each_other_one_stays
);

const LAST: (u16, &str, &str) = (409, "RES_005", "-");

/// Roles are those of the users' rows: no token has this claim.
const BY_ROW: [(&str, &str); 1] = [("JWT_ROLE_CLAIM_NAME", "no_such_claim")];

fn an_admin(name: &str) -> Value {
    json!({"email": format!("{name}@example.org"), "external_idp_id": format!("idp|{name}"), "role": "admin"})
}

async fn the_last_admin_is_neither_deleted_nor_demoted(database: Database) {
    // The callers' roles are their tokens' alone, and another tenant's admin is no help.
    let (app, clinic) = TestTenant::start(database).await;
    app.new_tenant().await.admin.make("users", &an_admin("eve")).await;
    let ada = clinic.admin.make("users", &an_admin("ada")).await;
    let path = at("users", &ada);

    let deleted = clinic.admin.delete(&path).await;
    assert_eq!(deleted.refusal(), LAST);
    assert_eq!(deleted.body["error"]["message"], "The tenant would have no admin left.");
    let entry = chain(&app.owner, clinic.id).await.pop().unwrap();
    assert_eq!((entry.action.as_str(), entry.resource_type.as_str()), ("DATA_ACCESS", "users"));
    assert_eq!(entry.resource_id.map(|id| json!(id)).as_ref(), Some(&ada["id"]));
    assert_eq!((&entry.metadata["code"], &entry.metadata["found"]), (&json!("RES_005"), &json!(true)));
    for role in ["member", "viewer"] {
        let demoted = clinic.admin.patch(&path, &json!({"role": role, "full_name": "Ada"})).await;
        demoted.assert_field_error(409, "RES_005", "role");
    }
    let unnamed = clinic.admin.patch(&path, &json!({"external_idp_id": null})).await;
    unnamed.assert_field_error(409, "RES_005", "external_idp_id");
    // A version does not matter where there is nothing to change.
    assert_eq!(clinic.admin.send("DELETE", &path, Some("\"1\""), None).await.refusal(), LAST);
    assert_eq!(clinic.viewer.get(&path).await.body, ada, "nothing has changed");
    let changes = json!({"role": "admin", "email": "ada@example.com", "external_idp_id": "idp|countess"});
    clinic.admin.patch(&path, &changes).await.assert_status(200);

    // Neither a member nor an admin who is deleted takes the place of the last one.
    let bob = clinic.admin.make("users", &an_admin("bob")).await;
    let member = clinic.user("member@example.org").await;
    clinic.admin.delete(&at("users", &bob)).await.assert_status(204);
    assert_eq!(clinic.admin.delete(&path).await.refusal(), LAST);
    clinic.admin.delete(&at("users", &member)).await.assert_status(204);
    clinic.admin.delete(&at("users", &member)).await.assert_error(404, "RES_001");

    // Another admin does, and is the last one then.
    clinic.admin.restore(&at("users", &bob)).await.assert_status(200);
    clinic.admin.send("DELETE", &path, Some("\"1\""), None).await.assert_error(412, "RES_003");
    clinic.admin.delete(&path).await.assert_status(204);
    assert_eq!(clinic.admin.delete(&at("users", &bob)).await.refusal(), LAST);
    clinic.admin.restore(&path).await.assert_status(200);
    clinic.admin.patch(&at("users", &bob), &json!({"role": "member"})).await.assert_status(200);
    assert_eq!(clinic.admin.delete(&path).await.refusal(), LAST);
}

async fn an_admin_who_cannot_log_in_takes_nobodys_place(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let ada = at("users", &clinic.admin.make("users", &an_admin("ada")).await);
    let nameless = json!({"email": "bob@example.org", "role": "admin"});
    let bob = at("users", &clinic.admin.make("users", &nameless).await);
    assert_eq!(clinic.admin.delete(&ada).await.refusal(), LAST);
    assert_eq!(clinic.admin.patch(&bob, &json!({"external_idp_id": null})).await.status, 200, "he has none");
    clinic.admin.patch(&bob, &json!({"external_idp_id": "idp|bob"})).await.assert_status(200);
    clinic.admin.patch(&ada, &json!({"external_idp_id": null})).await.assert_status(200);
    assert_eq!(clinic.admin.delete(&bob).await.refusal(), LAST);
    assert_eq!(clinic.admin.delete(&ada).await.status, 204, "Bob is left");
}

/// Two admins by their rows, as themselves.
async fn two_admins(app: &TestApp, clinic: &TestTenant) -> [(TestClient, String); 2] {
    let admin = async |subject: &str| {
        let id = app.insert_user(clinic.id, subject, user::Role::Admin).await;
        (app.client(&clinic.external_id, subject, "viewer"), format!("users/{id}"))
    };
    [admin("ada").await, admin("bob").await]
}

/// Exactly one of two changes was made, and the other refused for it: whether it was the first.
fn one_of(first: &Answer, second: &Answer) -> bool {
    // Who is demoted before the request comes is an admin no more.
    let refused = |answer: &Answer| matches!(answer.outcome(), (409, "RES_005") | (403, "AUTH_008"));
    let (won, lost) = (first.status < 300, second.status < 300);
    assert!(won != lost, "{} and {}", first.body, second.body);
    assert!(refused(if won { second } else { first }), "{} and {}", first.body, second.body);
    won
}

async fn of_two_admins_who_demote_each_other_one_stays(database: Database) {
    let (app, clinic) = TestTenant::start_with(database, &BY_ROW).await;
    let [(ada, ada_at), (bob, bob_at)] = two_admins(&app, &clinic).await;
    for round in 0..20 {
        let (member, admin) = (json!({"role": "member"}), json!({"role": "admin"}));
        let demote_or_delete = async |caller: &TestClient, path: &str| {
            if round % 2 == 0 { caller.patch(path, &member).await } else { caller.delete(path).await }
        };
        let (by_ada, by_bob) = join(demote_or_delete(&ada, &bob_at), demote_or_delete(&bob, &ada_at)).await;
        let (winner, lost) = if one_of(&by_ada, &by_bob) { (&ada, &bob_at) } else { (&bob, &ada_at) };
        let back = if round % 2 == 0 { winner.patch(lost, &admin).await } else { winner.restore(lost).await };
        assert_eq!(back.status, 200, "the one who stays is an admin: {}", back.body);
    }
}

#[tokio::test]
async fn second_of_two_crossing_demotions_is_refused() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, clinic) = TestTenant::start_with(database, &BY_ROW).await;
    let [(ada, ada_at), (_, bob_at)] = two_admins(&app, &clinic).await;
    // Changes of one process wait for each other before they have a transaction.
    let other_process = app.serve(&BY_ROW).await;
    let bob = TestClient::new(&app, &other_process, &clinic.external_id, "bob", "viewer");
    // No change is kept while the end of the audit log is held: both requests have begun, and wait.
    let held = app.owner.begin().await.unwrap();
    let sql = format!("SELECT FROM audit_heads WHERE tenant_id = '{}' FOR UPDATE", clinic.id);
    held.execute_unprepared(&sql).await.unwrap();
    let member = json!({"role": "member"});
    let demote = async { join(ada.patch(&bob_at, &member), bob.delete(&ada_at)).await };
    let release = async {
        eventually("both wait", async || (app.waiting().await == 2).then_some(())).await;
        held.commit().await.unwrap();
    };
    let ((by_ada, by_bob), ()) = join(demote, release).await;
    let loser = if one_of(&by_ada, &by_bob) { by_bob } else { by_ada };
    loser.assert_error(409, "RES_005");
}

#[tokio::test]
async fn removing_an_admin_blocks_no_document() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let (app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await;
    // What a deletion holds.
    let held = app.owner.begin().await.unwrap();
    let sql = format!("SELECT FROM tenants WHERE id = '{}' FOR NO KEY UPDATE", clinic.id);
    held.execute_unprepared(&sql).await.unwrap();
    clinic.document(&owner["id"]).await;
    let path = at("users", &owner);
    let delete = clinic.admin.delete(&path);
    let release = async {
        eventually("a deletion waits", async || (app.waiting().await == 1).then_some(())).await;
        held.commit().await.unwrap();
    };
    assert_eq!(join(delete, release).await.0.status, 204);
}
