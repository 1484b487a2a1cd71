//! Which claims name the tenant and the role.

use super::{BAD_TENANT, GOOD, INVALID, NO_TENANT, ROLE};
use crate::support::TestApp;
use bulkhead::entity::user;
use serde_json::{Value, json};
use test_support::provider::Shape;

#[tokio::test]
async fn a_tenant_is_named_by_the_token_alone() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    let mut claims = app.provider.claims(&app.ada());
    claims.as_object_mut().unwrap().remove("tenant_id");
    let (with, without) = (app.good(), app.provider.token(&claims).encode());
    for (query, header) in [
        ("", "x-tenant-id"),
        ("", "x-tenant"),
        ("", "x-organization-id"),
        ("?tenant_id=on-trial", "x-nothing"),
        ("?tenant=on-trial", "x-nothing"),
    ] {
        let headers = |token: &str| format!("Bearer {token}");
        let answer = app.call(&server, query, &[("authorization", &headers(&with)), (header, "on-trial")]).await;
        assert_eq!((answer.status, &answer.body["tenant_id"]), (200, &app.tenant.to_string().into()), "{header}");
        let answer = app.call(&server, query, &[("authorization", &headers(&without)), (header, "clinic-1")]).await;
        assert_eq!(answer.outcome(), NO_TENANT, "{header} {query}");
    }
}

#[tokio::test]
async fn where_a_claim_is_named_no_other_names_the_tenant() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let ours = app.ada().tenant;
    let claims = |changes: &Value| {
        let mut claims = app.provider.claims(&app.ada());
        claims.as_object_mut().unwrap().remove("tenant_id");
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        claims
    };
    let token = |changes: &Value| app.provider.token(&claims(changes)).encode();
    let nested = app.serve(&[("JWT_TENANT_CLAIM_NAME", "org.tenant")]).await;
    let plain = app.serve(&[("JWT_TENANT_CLAIM_NAME", "tenant_id")]).await;
    for other in ["tenant_id", "organization_id", "org_id", "custom:tenant_id", "x"] {
        for (org, expected) in [
            (json!({"org": {"tenant": ours}}), GOOD),
            (json!({"org.tenant": ours}), GOOD),
            (json!({"org.tenant": ours, "org": {"tenant": "on-trial"}}), GOOD),
            (json!({}), NO_TENANT),
            (json!({"org": {"tenant": null}}), NO_TENANT),
            (json!({"org": {}}), NO_TENANT),
            (json!({"org": null}), NO_TENANT),
            (json!({"org": ours}), NO_TENANT),
            (json!({"org": [{"tenant": ours}]}), NO_TENANT),
            (json!({"org.tenant": null, "org": {"tenant": ours}}), NO_TENANT),
            (json!({"org": {"tenant": ""}}), BAD_TENANT),
            (json!({"org": {"tenant": [ours]}}), BAD_TENANT),
        ] {
            let mut changes = org.clone();
            changes[other] = "on-trial".into();
            let answer = app.validate(&nested, &token(&changes)).await;
            assert_eq!(answer.outcome(), expected, "{changes}");
            if expected == GOOD {
                assert_eq!(answer.body["tenant_id"], app.tenant.to_string(), "{changes}");
            }
        }
        for changes in [json!({other: "on-trial"}), json!({"tenant_id": null, other: "on-trial"})] {
            let expected = if other == "tenant_id" { GOOD } else { NO_TENANT };
            assert_eq!(app.validate(&plain, &token(&changes)).await.outcome(), expected, "{changes}");
        }
    }
    // Whichever of the two a reader takes, the other is there as well.
    let twice = format!(r#"{{"tenant":"on-trial","tenant":"{ours}"}}"#);
    let claims = claims(&json!({"org": "TWICE"}));
    let text = claims.to_string().replace("\"TWICE\"", &twice);
    let answer = app.validate(&nested, &app.provider.token(&claims).raw_claims(text).encode()).await;
    assert_eq!(answer.outcome(), INVALID);
}

#[tokio::test]
async fn unknown_role_claim_gives_no_role() {
    let app = TestApp::on_sqlite(Shape::Plain).await;
    let server = app.serve(&[]).await;
    app.insert_user(app.tenant, &app.ada().subject, user::Role::Admin).await;
    for (role, expected) in [
        (Value::Null, GOOD),
        (json!("viewer"), GOOD),
        (json!(["owner", "viewer"]), GOOD),
        (json!("owner"), ROLE),
        (json!(""), ROLE),
        (json!([]), ROLE),
        (json!(["Everyone", "offline_access"]), ROLE),
        (json!({}), ROLE),
        (json!(false), ROLE),
    ] {
        let mut claims = app.provider.claims(&app.ada());
        claims["role"] = role.clone();
        let answer = app.validate(&server, &app.provider.token(&claims).encode()).await;
        assert_eq!(answer.outcome(), expected, "{role}");
    }
    let mut claims = app.provider.claims(&app.ada());
    claims.as_object_mut().unwrap().remove("role");
    assert_eq!(app.validate(&server, &app.provider.token(&claims).encode()).await.outcome(), GOOD, "no claim");
}
