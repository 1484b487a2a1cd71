//! Every operation of the API that asks for a token: how it is asked, and what it leaves in the log.

use super::tenant::AuditedTenant;
use crate::support::{SAMPLES, Sample, Serves};
use bulkhead::server::api_document;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// A request of the API.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) if_match: Option<String>,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>, body: Option<Value>) -> Self {
        Self { method, path: path.into(), body, if_match: None }
    }

    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, None)
    }
}

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
pub(super) async fn make(clinic: &AuditedTenant, server: &impl Serves, token: &str, kind: &str) -> Uuid {
    let sample = SAMPLES.iter().find(|sample| sample.path() == kind).unwrap();
    let body = (sample.new)(&json!(clinic.ada));
    let answer = clinic.call(server, token, &Request::new(Method::POST, format!("/api/v1/{kind}"), Some(body))).await;
    answer.assert_status(201);
    answer.body["id"].as_str().unwrap().parse().unwrap()
}

/// Makes a row, and deletes it where it is to be restored.
async fn prepare(clinic: &AuditedTenant, server: &impl Serves, token: &str, kind: &str, name: &str) -> Uuid {
    let id = make(clinic, server, token, kind).await;
    if name.ends_with("/restore") {
        let delete = Request::new(Method::DELETE, format!("/api/v1/{kind}/{id}"), None);
        clinic.call(server, token, &delete).await.assert_status(204);
    }
    id
}

/// The operation of this name, ready to succeed once: what it needs is made. A new operation of another kind fails the tests
/// until it has a line here.
pub(super) async fn operation(clinic: &AuditedTenant, server: &impl Serves, admin: &str, name: &str) -> Operation {
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
        id = Some(prepare(clinic, server, admin, kind, name).await);
    }
    let address = path.replace("{id}", &id.unwrap_or_default().to_string());
    let body_of = |of: fn(&Sample, &Value) -> Value| sample.map(|sample| of(sample, &json!(clinic.ada)));
    let (status, action, body, metadata): (u16, _, _, &[&str]) = match (method, kind, &path[8 + kind.len()..]) {
        ("get", "audit-logs", "") => (200, "DATA_ACCESS", None, &["sequences"]),
        ("get", "tenant", "") | ("get", _, "/{id}") => (200, "DATA_ACCESS", None, &["found"]),
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
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
    let request = Request::new(method, address, body);
    Operation { name: name.to_owned(), request, status, action, resource, id, metadata }
}
