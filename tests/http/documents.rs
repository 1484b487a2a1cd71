//! /api/v1/documents: where a file lies, whose it is, and what is kept of its metadata.

use crate::support::{TestTenant, at, new_document};
use crate::validation::long;
use sea_orm::{ConnectionTrait, Statement};
use serde_json::{Value, json};
use test_support::{Database, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(
    storage_key_is_under_its_tenant,
    bucket_is_a_plain_name,
    database_checks_the_place_of_a_file,
    owner_is_a_live_user,
    metadata_is_returned_unchanged
);

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
        format!("{tenant}/%2e%2e/{other}/scan.pdf"),
        format!("{tenant}/..%2f{other}"),
        format!("{tenant}/..\\{other}\\scan.pdf"),
        format!("{tenant}/..;/{other}"),
        format!("{tenant}/\u{ff0e}\u{ff0e}/{other}"),
        format!("{tenant}/\u{2024}\u{2024}/{other}"),
        format!("{tenant}/scan.pdf?versionId=1"),
        format!("{tenant}/.../scan.pdf"),
        format!("{tenant}/a b"),
        format!("{tenant}/é"),
    ];
    for key in refused {
        let answer = clinic.member.post("documents", &at_key(&key)).await;
        assert_eq!(answer.refusal(), (400, "VAL_001", "storage_key"), "{key:?}");
    }
    let key = format!("{tenant}/scans/..2026/{}", "x".repeat(1024 - 36 - 1 - 6 - 7));
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

async fn bucket_is_a_plain_name(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    let in_bucket = |name: &str| {
        let mut body = new_document(&owner);
        body["bucket"] = json!(name);
        body
    };
    let long = "x".repeat(64);
    for name in [
        "..",
        "../b",
        "s3://other",
        "scans/../../x",
        "a/b",
        "a\\b",
        "a%2fb",
        "a..b",
        ".ab",
        "ab.",
        "-ab",
        "ab-",
        "Scans",
        "ab",
        "a b",
        "a;b",
        "a?b",
        "äbc",
        &long,
    ] {
        let answer = clinic.member.post("documents", &in_bucket(name)).await;
        assert_eq!(answer.refusal(), (400, "VAL_001", "bucket"), "{name}");
    }
    for name in ["abc", "clinic-documents", "clinic.example_org", "1x1", &long[1..]] {
        clinic.member.make("documents", &in_bucket(name)).await;
    }
}

/// Whoever writes past the API is bound by the same rule.
async fn database_checks_the_place_of_a_file(database: Database) {
    let connection = database.connect().await;
    let (_app, clinic) = TestTenant::start(database).await;
    let owner = clinic.user("owner@example.org").await["id"].clone();
    let tenant = clinic.id;
    let backend = connection.get_database_backend();
    let insert = async |key: &str, bucket: &str| {
        let sql =
            "INSERT INTO documents (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes)
            VALUES ($1, $2, $3, $4, $5, 'f', 'c', 1)";
        let owner: Uuid = owner.as_str().unwrap().parse().unwrap();
        let values = [Uuid::now_v7().into(), tenant.into(), owner.into(), key.into(), bucket.into()];
        connection.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await
    };
    insert(&format!("{tenant}/scans/..2026/a_b-c.pdf"), "clinic-documents").await.unwrap();
    for path in ["../x", "a/..", "./a", "a//b", "", "a/", "%2e", "a\\b", "a;b", "a?b", "a b", "\u{ff0e}", ".../a"] {
        assert!(insert(&format!("{tenant}/{path}"), "clinic-documents").await.is_err(), "{path}");
    }
    for bucket in ["..", "a..b", "a/b", "Abc", "ab", "-abc", "abc.", "äbc"] {
        assert!(insert(&format!("{tenant}/{}", Uuid::now_v7()), bucket).await.is_err(), "{bucket}");
    }
    connection.close().await.unwrap();
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
