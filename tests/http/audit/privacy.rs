//! No patient's data is in the log, wherever a client puts it.

use super::operations::{a_document, a_user, make};
use crate::support::{AuditedTenant, Request};
use bulkhead::entity::audit_log::Entity;
use sea_orm::{EntityTrait, PaginatorTrait};
use serde_json::json;
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(audit_log_holds_no_patient_data);

/// What must not be found: in names, addresses, files, metadata, headers and addresses.
const PATIENT: [&str; 7] =
    ["219-09-9999", "219099999", "patient@example.org", "Grace", "mrn-4711", "leukaemia", "555-867-5309"];

async fn audit_log_holds_no_patient_data(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let viewer = clinic.caller(clinic.own(), "ada", "viewer");
    let (user, document) = (make(&clinic, &admin, "users").await, make(&clinic, &admin, "documents").await);
    let mut new_user = a_user("patient");
    new_user["full_name"] = json!("Grace 219-09-9999");
    new_user["external_idp_id"] = json!("mrn-4711 219-09-9999");
    let mut new_document = a_document();
    new_document["filename"] = json!("Grace mrn-4711.pdf");
    new_document["content_type"] = json!("text/leukaemia");
    new_document["bucket"] = json!("patient-grace");
    new_document["storage_key"] = json!(format!("{}/219-09-9999", clinic.tenant));
    new_document["metadata"] = json!({"219-09-9999": "leukaemia", "ssn": "219-09-9999", "notes": ["Grace"]});
    let mut changes = new_document.clone();
    for name in ["storage_key", "bucket"] {
        changes.as_object_mut().unwrap().remove(name);
    }
    let unknown = json!({"ssn 219-09-9999": "Grace", "full_name": 219_099_999});
    let requests = [
        (201, Request::new("POST", "users").body(new_user.clone())),
        (409, Request::new("POST", "users").body(new_user.clone())),
        (201, Request::new("POST", "documents").body(new_document.clone())),
        (409, Request::new("POST", "documents").body(new_document)),
        (409, Request::new("PATCH", format!("users/{user}")).body(new_user.clone())),
        (200, Request::new("PATCH", format!("users/{user}")).body(json!({"full_name": "Grace"}))),
        (400, Request::new("PATCH", format!("users/{user}")).body(unknown)),
        (200, Request::new("PATCH", format!("documents/{document}")).body(changes)),
        (200, Request::new("PATCH", "tenant").body(json!({"name": "Grace of 219-09-9999"}))),
        (200, Request::new("GET", "users")),
        (200, Request::new("GET", "documents")),
        (200, Request::new("GET", "audit-logs?resource_type=Grace%20219-09-9999")),
        (400, Request::new("GET", "users?patient=Grace%20219-09-9999")),
        (400, Request::new("GET", "users/219-09-9999")),
        (400, Request::new("GET", "documents/patient@example.org")),
        (400, Request::new("GET", "documents?cursor=219-09-9999")),
        (404, Request::new("GET", "patients/219-09-9999")),
        (405, Request::new("PUT", "users/219-09-9999?name=Grace")),
    ];
    let agents = [
        "clinic/1.0".to_owned(),
        "clinic/v (219-09-9999; patient@example.org; ssn=219099999; 555-867-5309)".to_owned(),
        // Cut off in the middle of what is taken out.
        format!("clinic/1.0 {}patient@example.org", "x".repeat(256 - 18)),
        format!("clinic/1.0 {} 219-09-9999", "x".repeat(256 - 18)),
    ];
    let before = clinic.log().await.len();
    for (status, request) in &requests {
        let answer = request.by(&admin).await;
        assert_eq!(answer.status, *status, "{request:?}: {}", answer.body);
    }
    for agent in &agents {
        for caller in [&admin, &viewer] {
            let send = caller.request("GET", "audit-logs?limit=1");
            // Nor what a proxy says that knows no better.
            let send = send.header("user-agent", agent).header("x-forwarded-for", "patient@example.org, 219-09-9999");
            assert!(matches!(send.send().await.unwrap().status().as_u16(), 200 | 403));
        }
    }
    let log = clinic.log().await;
    assert!(log.len() >= before + 11 + 5, "what was asked is recorded, and what was refused again is counted");
    let kept: Vec<&str> = log.iter().rev().take(5).map(|entry| entry.user_agent.as_deref().unwrap()).collect();
    assert!(kept.iter().all(|agent| agent.starts_with("clinic/")), "a program's name is kept: {kept:?}");
    assert!(kept.iter().all(|agent| agent.chars().count() <= 256), "and not more than is worth it: {kept:?}");
    assert!(kept.iter().any(|agent| agent.contains("[redacted]")), "{kept:?}");

    // All columns of all chains.
    let dump = format!("{:?}", Entity::find().all(&clinic.owner).await.unwrap());
    assert!(dump.contains(&clinic.ada.to_string()) && dump.contains("full_name"), "the dump shows what there is");
    assert!(Entity::find().count(&clinic.owner).await.unwrap() >= log.len() as u64);
    for secret in PATIENT {
        assert!(!dump.contains(secret), "{secret} is in the audit log: {dump}");
    }
    // And an export holds no more.
    let export = clinic.must(&["audit", "export"]).await;
    for secret in PATIENT {
        assert!(!export.contains(secret), "{secret} is in the export");
    }
}
