//! Which requests leave which entry.

use super::operations::{Operation, a_document, a_user, make, operation, secured};
use crate::support::{ADDRESS, Answer, AuditedTenant, PROGRAM, Request, SAMPLES, TestClient, chain};
use bulkhead::audit::{SYSTEM_TENANT, id_end};
use bulkhead::entity::audit_log::Model;
use bulkhead::entity::user;
use sea_orm::EntityTrait;
use serde_json::json;
use std::collections::BTreeSet;
use test_support::{Database, Signal, on_migrated_databases};
use uuid::Uuid;

on_migrated_databases!(
    each_operation_leaves_one_entry,
    failed_requests_are_recorded,
    role_refusals_are_recorded,
    suspended_tenants_callers_are_recorded,
    refusals_that_repeat_are_one_entry_and_a_count,
    unknown_tenant_is_recorded_in_the_system_log
);

/// What a request adds to the chain of `clinic`.
async fn added(clinic: &AuditedTenant, caller: &TestClient, request: &Request) -> (Answer, Vec<Model>) {
    let before = clinic.log().await.len();
    let answer = request.by(caller).await;
    (answer, clinic.log().await.split_off(before))
}

/// The one entry that a request adds, which is from here and Ada's.
async fn one(clinic: &AuditedTenant, caller: &TestClient, request: &Request) -> (Answer, Model) {
    let (answer, mut entries) = added(clinic, caller, request).await;
    assert_eq!(entries.len(), 1, "{request:?} has left {entries:#?}");
    let entry = entries.remove(0);
    assert_eq!(entry.user_id, Some(clinic.ada.into()), "{request:?}");
    assert_from_here(&entry);
    (answer, entry)
}

fn assert_from_here(entry: &Model) {
    // PostgreSQL writes an address with the length of its network.
    let ip = entry.ip.as_deref().map(|ip| ip.trim_end_matches("/32"));
    assert_eq!((ip, entry.user_agent.as_deref()), (Some(ADDRESS), Some(PROGRAM)), "{entry:?}");
}

fn names(entry: &Model) -> Vec<&str> {
    entry.metadata.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn each_operation_leaves_one_entry(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    for sample in SAMPLES {
        make(&clinic, &admin, &sample.path()).await;
    }
    for name in secured() {
        let Operation { request, status, action, resource, mut id, metadata, .. } =
            operation(&clinic, &admin, &name).await;
        let (answer, entry) = one(&clinic, &admin, &request).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.body);
        if action == "CREATED" {
            id = Some(answer.body["id"].as_str().unwrap().parse().unwrap());
        }
        assert_eq!((entry.action.as_str(), entry.resource_type.as_str()), (action, resource), "{name}");
        assert_eq!((entry.resource_id, names(&entry)), (id, metadata.to_vec()), "{name}");
        // A page's entry names all that was on it.
        if let Some(items) = answer.body["items"].as_array() {
            assert!(!items.is_empty(), "{name}");
            if resource == "audit_logs" {
                let numbers = [items.last().unwrap()["sequence"].clone(), items[0]["sequence"].clone()];
                assert_eq!(entry.metadata, json!({"sequences": numbers}), "{name}");
            } else {
                let ends = items.iter().map(|item| id_end(item["id"].as_str().unwrap().parse().unwrap()));
                assert_eq!(entry.metadata["id_ends"], json!(ends.collect::<String>()), "{name}");
                assert_eq!(entry.metadata["count"], json!(items.len()), "{name}");
            }
        }
        if let (Some(fields), Some(body)) = (entry.metadata["fields"].as_array(), &request.body) {
            // In the order of the columns.
            let fields: BTreeSet<_> = fields.iter().map(|field| field.as_str().unwrap()).collect();
            let sent: BTreeSet<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(fields, sent, "{name}");
        }
    }
}

async fn failed_requests_are_recorded(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let call = async |request: &Request| one(&clinic, &admin, request).await;
    for name in secured() {
        if !name.contains("{id}") {
            continue;
        }
        let Operation { request, resource, id, .. } = operation(&clinic, &admin, &name).await;
        let (known, unknown) = (id.unwrap().to_string(), Uuid::now_v7());
        let request = Request { path: request.path.replace(&known, &unknown.to_string()), ..request };
        let (answer, entry) = call(&request).await;
        assert_eq!(answer.outcome(), (404, "RES_001"), "{name}");
        assert_eq!((entry.action.as_str(), entry.resource_type.as_str()), ("DATA_ACCESS", resource), "{name}");
        assert_eq!((entry.resource_id, &entry.metadata["found"]), (Some(unknown), &json!(false)), "{name}");

        // A lost race tells that the row is there, and that it has another version.
        if matches!(request.method.as_str(), "PATCH" | "DELETE") {
            let path = request.path.replace(&unknown.to_string(), &known);
            let request = Request { path, ..request }.if_match("\"1\"");
            let (answer, entry) = call(&request).await;
            assert_eq!(answer.outcome(), (412, "RES_003"), "{name}");
            assert_eq!((entry.action.as_str(), entry.resource_type.as_str()), ("DATA_ACCESS", resource), "{name}");
            assert_eq!((entry.resource_id, &entry.metadata["found"]), (id, &json!(true)), "{name}");
        }
    }

    // A conflict tells that there is such a row.
    let grace = make(&clinic, &admin, "users").await;
    let taken = a_user("ada");
    let (answer, entry) = call(&Request::new("POST", "users").body(taken.clone())).await;
    answer.assert_error(409, "RES_002");
    assert_eq!(
        (entry.action.as_str(), entry.resource_id, &entry.metadata),
        ("DATA_ACCESS", None, &json!({"code": "RES_002"}))
    );
    let (answer, entry) = call(&Request::new("PATCH", format!("users/{grace}")).body(taken)).await;
    answer.assert_error(409, "RES_002");
    assert_eq!((entry.resource_id, &entry.metadata), (Some(grace), &json!({"code": "RES_002"})));
    let delete = Request::new("DELETE", format!("users/{grace}"));
    assert_eq!(call(&delete).await.0.status, 204);
    let mut again = a_user("again");
    again["email"] = json!(user::Entity::find_by_id(grace).one(&clinic.owner).await.unwrap().unwrap().email);
    assert_eq!(call(&Request::new("POST", "users").body(again)).await.0.status, 201);
    let restore = Request::new("POST", format!("users/{grace}/restore"));
    let (answer, entry) = call(&restore).await;
    answer.assert_error(409, "RES_002");
    assert_eq!((entry.resource_id, &entry.metadata), (Some(grace), &json!({"code": "RES_002"})));

    // So does the owner whom a document names in vain.
    let nobody = Uuid::now_v7();
    let mut body = a_document();
    body["user_id"] = json!(nobody);
    let (answer, entry) = call(&Request::new("POST", "documents").body(body)).await;
    answer.assert_error(404, "RES_001");
    assert_eq!((entry.resource_type.as_str(), entry.resource_id), ("users", Some(nobody)));
    let document = make(&clinic, &admin, "documents").await;
    let give = Request::new("PATCH", format!("documents/{document}")).body(json!({"user_id": nobody}));
    let (answer, entry) = call(&give).await;
    answer.assert_error(404, "RES_001");
    assert_eq!((entry.resource_type.as_str(), entry.resource_id), ("users", Some(nobody)));
}

/// The one refusal that a request leaves, and what it says.
fn assert_refusal(entry: &Model, name: &str, code: &str) {
    let (method, path) = name.split_once(' ').unwrap();
    assert_eq!((entry.action.as_str(), entry.resource_type.as_str()), ("ACCESS_REFUSED", "api"), "{name}");
    let said = (&entry.metadata["code"], &entry.metadata["method"], &entry.metadata["route"]);
    assert_eq!(said, (&json!(code), &json!(method.to_uppercase()), &json!(path)), "{name}");
    assert_eq!(entry.resource_id, None, "{name}");
}

async fn role_refusals_are_recorded(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let mut refused = [0, 0];
    for (role, refused) in ["viewer", "member"].iter().zip(&mut refused) {
        // One of its own for each: refusals that repeat are counted.
        let server = clinic.serve().await;
        let caller = clinic.caller(&server, "ada", role);
        for name in secured() {
            let Operation { request, status, .. } = operation(&clinic, &admin, &name).await;
            let (answer, entry) = one(&clinic, &caller, &request).await;
            if answer.status == status {
                assert_ne!(entry.action, "ACCESS_REFUSED", "{name}");
                continue;
            }
            assert_eq!(answer.outcome(), (403, "AUTH_008"), "{name} as a {role}");
            assert_refusal(&entry, &name, "AUTH_008");
            *refused += 1;
        }
    }
    assert!(refused[0] > refused[1] && refused[1] > 0, "viewers and members are refused some: {refused:?}");
}

async fn suspended_tenants_callers_are_recorded(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    let mut operations = Vec::new();
    for name in secured() {
        operations.push(operation(&clinic, &admin, &name).await);
    }
    operations.push(Operation {
        name: "get /api/v1/auth/validate".to_owned(),
        request: Request::new("GET", "auth/validate"),
        ..operations[0].clone()
    });
    for how in ["status = 'suspended'", "status = 'active', deleted_at = updated_at"] {
        // One of its own for each: refusals that repeat are counted.
        let server = clinic.serve().await;
        let admin = clinic.caller(&server, "ada", "admin");
        clinic.execute(&format!("UPDATE tenants SET {how} WHERE external_id = 'clinic'")).await;
        for Operation { name, request, .. } in &operations {
            let (answer, entry) = one(&clinic, &admin, request).await;
            assert_eq!(answer.outcome(), (403, "AUTH_009"), "{name}");
            assert_refusal(&entry, name, "AUTH_009");
        }
    }
}

async fn refusals_that_repeat_are_one_entry_and_a_count(database: Database) {
    let clinic = AuditedTenant::new(database).await;
    let mut server = clinic.server(&[]).await;
    let caller = |subject, role| clinic.caller(&server, subject, role);
    let (viewer, admin, other) = (caller("ada", "viewer"), caller("ada", "admin"), caller("grace", "viewer"));
    let (lists, makes) = (Request::new("GET", "audit-logs"), Request::new("POST", "users"));
    let before = clinic.log().await.len();
    // Each differs from the ones before: by what was asked for, by who asked.
    for (caller, request) in [(&viewer, &lists), (&viewer, &makes), (&other, &lists)] {
        let (answer, entries) = added(&clinic, caller, request).await;
        assert_eq!((answer.outcome(), entries.len()), ((403, "AUTH_008"), 1), "{request:?}");
    }
    let all = futures_util::future::join_all((0..50).map(|_| lists.by(&viewer))).await;
    assert!(all.iter().all(|answer| answer.outcome() == (403, "AUTH_008")), "counted or not, they are refused");
    let elsewhere = other.request("GET", &lists.path).header("x-forwarded-for", "192.0.2.1");
    assert_eq!(elsewhere.send().await.unwrap().status(), 403);
    lists.by(&other).await.assert_status(403);
    assert_eq!(clinic.log().await.len(), before + 3);
    // What is read is no refusal, and is recorded each time.
    for _ in 0..2 {
        assert_eq!(added(&clinic, &admin, &lists).await.1.len(), 1);
    }
    let now = clinic.log().await.len();
    server.signal(Signal::TERM);
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log().join("\n"));
    let counts = clinic.log().await.split_off(now);
    assert_eq!(counts.len(), 2, "{counts:?}");
    for entry in counts {
        assert_refusal(&entry, "get /api/v1/audit-logs", "AUTH_008");
        if let Some(user) = entry.user_id {
            assert_eq!((user, &entry.metadata["count"]), (clinic.ada.into(), &json!(50)));
            assert_from_here(&entry);
        } else {
            assert_eq!((&entry.metadata["subject"], &entry.metadata["count"]), (&json!("grace"), &json!(2)));
            assert_eq!((entry.ip, entry.user_agent.as_deref()), (None, Some(PROGRAM)), "not from one address");
        }
    }
    clinic.must(&["audit", "verify"]).await;
}

async fn unknown_tenant_is_recorded_in_the_system_log(database: Database) {
    let (clinic, admin) = AuditedTenant::start(database).await;
    clinic.execute("UPDATE tenants SET external_id = 'renamed' WHERE external_id = 'clinic'").await;
    for (at, name) in ["get /api/v1/tenant", "post /api/v1/users", "get /api/v1/auth/validate"].iter().enumerate() {
        let (method, path) = name.split_once(" /api/v1/").unwrap();
        let (answer, entries) = added(&clinic, &admin, &Request::new(&method.to_uppercase(), path)).await;
        assert_eq!((answer.outcome(), entries), ((403, "AUTH_009"), Vec::new()), "{name}");
        let entries = chain(&clinic.owner, SYSTEM_TENANT).await;
        assert_eq!(entries.len(), at + 1, "{name}");
        let entry = entries.last().unwrap();
        assert_refusal(entry, name, "AUTH_009");
        assert_from_here(entry);
        assert_eq!(
            (entry.user_id, &entry.metadata["tenant"], &entry.metadata["subject"]),
            (None, &json!("clinic"), &json!("ada"))
        );
    }
    // Who has no token at all is for the access log.
    let answer = clinic.http.get(format!("{}/api/v1/tenant", clinic.own().base)).send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(chain(&clinic.owner, SYSTEM_TENANT).await.len(), 3);
}
