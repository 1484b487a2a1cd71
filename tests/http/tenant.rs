//! /api/v1/tenant, and what becomes of a tenant's callers once it is suspended.

use crate::changes::with;
use crate::support::{TestTenant, at};
use serde_json::json;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(only_its_name_is_changeable, suspended_tenant_is_refused);

async fn only_its_name_is_changeable(database: Database) {
    let (_app, clinic) = TestTenant::start(database).await;
    let read = clinic.viewer.get("tenant").await;
    assert_eq!(read.status, 200);
    let members: Vec<&str> = read.body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members.len(), 6, "no key of the operator's: {members:?}");
    assert_eq!((&read.body["id"], &read.body["external_id"]), (&json!(clinic.id), &json!(clinic.external_id)));

    let changes = json!({"name": "Saint Mary's"});
    let renamed = clinic.admin.send("PATCH", "tenant", Some(read.etag()), Some(&changes)).await;
    assert_eq!((renamed.status, with(&renamed.body, &json!({}))), (200, with(&read.body, &changes)));
    let stale = clinic.admin.send("PATCH", "tenant", Some(read.etag()), Some(&changes)).await;
    stale.assert_error(412, "RES_003");
    for member in ["status", "external_id", "kms_key_arn", "id", "deleted_at"] {
        let refused = clinic.admin.patch("tenant", &json!({"name": "X", member: "active"})).await;
        assert_eq!(refused.outcome(), (400, "VAL_001"), "{member}");
    }
    assert_eq!(clinic.viewer.get("tenant").await.body, renamed.body);
    clinic.admin.delete("tenant").await.assert_error(405, "RES_004");
}

async fn suspended_tenant_is_refused(database: Database) {
    let (app, clinic, user, document) = TestTenant::with_rows(database).await;
    let set = async |status: &str| {
        let sql = format!("UPDATE tenants SET status = '{status}' WHERE external_id = '{}'", clinic.external_id);
        app.execute(&sql).await;
    };
    let paths = ["tenant", "users", "documents", "audit-logs", &at("users", &user), &at("documents", &document)];
    set("suspended").await;
    for path in paths {
        for method in ["GET", "PATCH", "POST", "DELETE"] {
            let answer = clinic.admin.send(method, path, None, Some(&json!({}))).await;
            assert!(
                matches!(answer.outcome(), (403, "AUTH_009") | (405, "RES_004")),
                "{method} {path}: {}",
                answer.body
            );
            assert!(method != "GET" || answer.status == 403, "{path}");
        }
    }
    set("trial").await;
    for path in paths {
        assert_eq!(clinic.admin.get(path).await.status, 200, "{path}");
    }
}
