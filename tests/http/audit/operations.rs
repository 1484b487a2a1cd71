//! Every operation of the API that asks for a token: how it is asked, and what it leaves in the log.

use crate::support::{AuditedTenant, Request, SAMPLES, Sample, TestClient};
use bulkhead::server::api_document;
use serde_json::{Value, json};
use uuid::Uuid;

/// An operation, and what it leaves.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    /// `get /api/v1/users/{id}`, as the document has it.
    pub(super) name: String,
    pub(super) request: Request,
    pub(super) status: u16,
    pub(super) action: &'static str,
    pub(super) resource: &'static str,
    /// What of; none where it is a list, or what the operation makes.
    pub(super) id: Option<Uuid>,
    /// The names of the metadata's members.
    pub(super) metadata: &'static [&'static str],
}

/// Operations that look at no data of the tenant but who the caller is.
const LEAVE_NOTHING: [&str; 1] = ["get /api/v1/auth/validate"];

/// The names of all operations that ask for a token and look at a tenant's data, as the document lists them.
pub(super) fn secured() -> Vec<String> {
    let document = serde_json::to_value(api_document()).unwrap();
    let mut names = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let name = format!("{method} {path}");
            if operation["security"] == json!([{"bearer": []}]) && !LEAVE_NOTHING.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    assert!(names.len() >= 15, "the document lists operations: {names:?}");
    names
}

pub(super) fn a_user(name: &str) -> Value {
    json!({"email": format!("{name}@example.org"), "full_name": "Grace Hopper"})
}

pub(super) fn a_document() -> Value {
    json!({"bucket": "clinic", "filename": "scan.pdf", "content_type": "application/pdf", "size_bytes": 1})
}

/// Makes a row by the API: its id.
pub(super) async fn make(clinic: &AuditedTenant, admin: &TestClient, kind: &str) -> Uuid {
    let sample = SAMPLES.iter().find(|sample| sample.path() == kind).unwrap();
    let row = admin.make(kind, &(sample.new)(&json!(clinic.ada))).await;
    row["id"].as_str().unwrap().parse().unwrap()
}

/// Makes a row, and deletes it where it is to be restored.
async fn prepare(clinic: &AuditedTenant, admin: &TestClient, kind: &str, name: &str) -> Uuid {
    let id = make(clinic, admin, kind).await;
    if name.ends_with("/restore") {
        admin.delete(&format!("{kind}/{id}")).await.assert_status(204);
    }
    id
}

/// The operation of this name, ready to succeed once: what it needs is made. A new operation of another kind fails the tests
/// until it has a line here.
pub(super) async fn operation(clinic: &AuditedTenant, admin: &TestClient, name: &str) -> Operation {
    let (method, path) = name.split_once(' ').unwrap();
    let kind = path.split('/').nth(3).unwrap();
    let sample = SAMPLES.iter().find(|sample| sample.path() == kind);
    let resource = match (sample, kind) {
        (Some(sample), _) => sample.name,
        (_, "tenant") => "tenants",
        (_, "audit-logs") => "audit_logs",
        _ => panic!("tests/http/support/samples.rs has no sample for {name}"),
    };
    let mut id = None;
    if kind == "audit-logs" && path.contains("{id}") {
        id = Some(clinic.log().await[0].id.into());
    } else if path.contains("{id}") {
        id = Some(prepare(clinic, admin, kind, name).await);
    }
    let query = match path {
        "/api/v1/audit-logs/checkpoint" | "/api/v1/audit-logs/proof" => {
            clinic.signed(&["audit", "checkpoint", "--tenant", "clinic"]).await;
            if path.ends_with("/proof") {
                id = Some(clinic.log().await[0].id.into());
            }
            if path.ends_with("/proof") { "?sequence=1" } else { "" }
        }
        _ => "",
    };
    let address = path.replace("{id}", &id.unwrap_or_default().to_string());
    let body_of = |of: fn(&Sample, &Value) -> Value| sample.map(|sample| of(sample, &json!(clinic.ada)));
    let (status, action, body, metadata): (u16, _, _, &[&str]) = match (method, kind, &path[8 + kind.len()..]) {
        ("get", "audit-logs", "") => (200, "DATA_ACCESS", None, &["sequences"]),
        ("get", "tenant", "") | ("get", _, "/{id}") | ("get", "audit-logs", "/checkpoint" | "/proof") => {
            (200, "DATA_ACCESS", None, &["found"])
        }
        ("get", _, "") => (200, "DATA_ACCESS", None, &["count", "id_ends", "newest_ms", "oldest_ms"]),
        ("patch", "tenant", "") => (200, "UPDATED", Some(json!({"name": "Saint Mary's"})), &["fields"]),
        ("patch", _, "/{id}") => (200, "UPDATED", body_of(|sample, _| (sample.changes)()), &["fields"]),
        ("post", _, "") => (201, "CREATED", body_of(|sample, ada| (sample.new)(ada)), &[]),
        ("delete", _, "/{id}") => (204, "DELETED", None, &[]),
        ("post", _, "/{id}/restore") => (200, "RESTORED", None, &[]),
        _ => panic!("{name} is new: say here what it leaves in the audit log"),
    };
    if kind == "tenant" {
        id = Some(clinic.tenant);
    }
    let path = format!("{}{query}", address.strip_prefix("/api/v1/").unwrap());
    let request = Request { body, ..Request::new(&method.to_uppercase(), path) };
    Operation { name: name.to_owned(), request, status, action, resource, id, metadata }
}
