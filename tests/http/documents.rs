//! /api/v1/documents: where a file lies, whose it is, and what is kept of its metadata.

use crate::support::{TestTenant, at, new_document};
use crate::validation::long;
use serde_json::{Value, json};
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(storage_key_is_under_its_tenant, owner_is_a_live_user, metadata_is_returned_unchanged);

async fn storage_key_is_under_its_tenant(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let conflict = (409, "RES_002", "storage_key");
    let owner = clinic.user("owner@example.org").await["id"].clone();
    let tenant = clinic.id;
    let document = clinic.document(&owner).await;
    assert_eq!(document["storage_key"], format!("{tenant}/{}", document["id"].as_str().unwrap()));
    let at_key = |key: &str| {
        let mut body = new_document(&owner);
        body["storage_key"] = json!(key);
        body
    };
    let other = app.tenant;
    let simple = tenant.simple();
    let refused = [
        format!("{other}/scan.pdf"),
        "scan.pdf".to_owned(),
        format!("{tenant}"),
        format!("{tenant}/"),
        format!("/{tenant}/scan.pdf"),
        format!("{simple}/scan.pdf"),
        format!("{}/scan.pdf", tenant.to_string().to_uppercase()),
        format!("x{tenant}/scan.pdf"),
        format!("{tenant}/../{other}/scan.pdf"),
        format!("{tenant}/a/.."),
        format!("{tenant}/./scan.pdf"),
        format!("{tenant}//scan.pdf"),
        format!("{tenant}/{}", long(1024)),
        format!("{tenant}/a\u{0}b"),
    ];
    for key in refused {
        let answer = clinic.member.post("documents", &at_key(&key)).await;
        assert_eq!(answer.refusal(), (400, "VAL_001", "storage_key"), "{key:?}");
    }
    let key = format!("{tenant}/scans/..2026/{}", long(1024 - 36 - 1 - 6 - 7));
    let made = clinic.member.make("documents", &at_key(&key)).await;
    assert_eq!(made["storage_key"], key);
    assert_eq!(clinic.member.post("documents", &at_key(&key)).await.refusal(), conflict, "one file, one row");
    let mut elsewhere = at_key(&key);
    elsewhere["bucket"] = json!("another");
    clinic.member.make("documents", &elsewhere).await;
    clinic.member.delete(&at("documents", &made)).await.assert_status(204);
    clinic.member.make("documents", &at_key(&key)).await;
    assert_eq!(clinic.member.restore(&at("documents", &made)).await.refusal(), conflict);
}

async fn owner_is_a_live_user(database: Database) {
    let (app, clinic) = TestTenant::start(database).await;
    let body = json!({"email": "ada@example.org", "external_idp_id": "provider|ada", "role": "viewer"});
    let ada = clinic.admin.make("users", &body).await;
    let caller = app.client(&clinic.external_id, "provider|ada", "member");
    let mut body = new_document(&ada["id"]);
    body.as_object_mut().unwrap().remove("user_id");
    let made = caller.make("documents", &body).await;
    assert_eq!(made["user_id"], ada["id"], "the caller's, where nobody says whose");

    let gone = clinic.user("gone@example.org").await;
    clinic.admin.delete(&at("users", &gone)).await.assert_status(204);
    for owner in [&gone["id"], &json!(Uuid::now_v7())] {
        let answer = clinic.member.post("documents", &new_document(owner)).await;
        answer.assert_field_error(404, "RES_001", "user_id");
        let answer = clinic.member.patch(&at("documents", &made), &json!({"user_id": owner})).await;
        answer.assert_field_error(404, "RES_001", "user_id");
    }
    assert_eq!(clinic.viewer.get(&at("documents", &made)).await.body, made);
    // Who is deleted leaves documents behind, which are still there to be read and given away.
    clinic.admin.delete(&at("users", &ada)).await.assert_status(204);
    assert_eq!(clinic.viewer.get(&at("documents", &made)).await.body, made);
    let bob = clinic.user("bob@example.org").await;
    let given = clinic.member.patch(&at("documents", &made), &json!({"user_id": bob["id"]})).await;
    assert_eq!((given.status, &given.body["user_id"]), (200, &bob["id"]));
}

async fn metadata_is_returned_unchanged(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    let send = async |metadata: &str| {
        let text = new_document(&owner).to_string().replacen('{', &format!("{{\"metadata\":{metadata},"), 1);
        clinic.member.send_text("POST", "documents", None, Some(&text)).await
    };
    let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let good = [
        "{}".to_owned(),
        r#"{"z": 1, "a": [null, true, "x", {"": ""}]}"#.to_owned(),
        r#"{"most": 9007199254740991, "least": -9007199254740991, "large": 1e308, "small": 5e-324, "third": 0.3333333333333333, "one": 1.0}"#.to_owned(),
        r#"{"no U+0000": "\\u0000", "\\u0000": 1, "pair": "\ud83e\ude7a", "line": "\u2028"}"#.to_owned(),
        nested(32),
    ];
    for metadata in &good {
        let made = send(metadata).await;
        assert_eq!(made.status, 201, "{metadata}: {}", made.body);
        let expected: Value = serde_json::from_str(metadata).unwrap();
        let read = clinic.viewer.get(&at("documents", &made.body)).await;
        assert_eq!((&made.body["metadata"], &read.body["metadata"]), (&expected, &expected));
    }
    for metadata in [r#"{"a": "\u0000"}"#, r#"{"\u0000": 1}"#, r#"{"a": [{"b": "x\u0000y"}]}"#, r#"{"a": "\\\u0000"}"#]
    {
        assert_eq!(send(metadata).await.refusal(), (400, "VAL_001", "metadata"), "{metadata}");
    }
    for metadata in [r#"{"a": NaN}"#, r#"{"a": "\ud800"}"#] {
        assert_eq!(send(metadata).await.refusal(), (400, "VAL_003", "metadata"), "{metadata}");
    }
}
