//! What all tests here share: [`TestApp`] is a database with an identity provider and servers on both, [`TestTenant`] is a
//! tenant with a client of every role, [`AuditedTenant`] one whose audit log is looked at, [`TestClient`] sends requests with a token, [`Answer`] is what comes back.
//!
//! Most tests serve the API in their own process (`TestApp::start`, `TestApp::serve`). Tests of the start and the end of the
//! process, its signals, its log, its limits and its database logins start the program itself (`TestApp::server`).

mod answer;
mod app;
mod audited;
mod client;
mod local;
mod samples;
mod tenant;

pub(crate) use answer::Answer;
pub(crate) use app::{TestApp, borrowed, value};
pub(crate) use audited::{ADDRESS, AuditedTenant, BEGINNING, PROGRAM, SIGNING, chain, made_up};
pub(crate) use client::{Request, TestClient};
pub(crate) use local::LocalServer;
pub(crate) use samples::{SAMPLES, Sample};
pub(crate) use tenant::TestTenant;

use serde_json::{Value, json};
use std::path::Path;
use test_support::{Server, get_json};

/// A server that can be asked, in a process of its own or in the test's.
pub(crate) trait Serves {
    /// `http://127.0.0.1:PORT`.
    fn base(&self) -> &str;

    /// GETs a path: status and body as JSON.
    async fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = get_json(self.base(), path).await;
        (status.as_u16(), body)
    }
}

impl Serves for Server<'_> {
    fn base(&self) -> &str {
        &self.base
    }
}

impl Serves for LocalServer {
    fn base(&self) -> &str {
        &self.base
    }
}

/// The least that a new document of this owner takes.
pub(crate) fn new_document(owner: &Value) -> Value {
    json!({"user_id": owner, "bucket": "files", "filename": "scan.pdf", "content_type": "application/pdf", "size_bytes": 7})
}

/// The path of a list's page: `users` or `users?role=admin`.
pub(crate) fn page(list: &str, limit: usize, cursor: &Value) -> String {
    let separator = if list.contains('?') { '&' } else { '?' };
    let cursor = cursor.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    format!("{list}{separator}limit={limit}{cursor}")
}

/// The path of a row.
pub(crate) fn at(kind: &str, row: &Value) -> String {
    format!("{kind}/{}", row["id"].as_str().unwrap())
}

/// The ids of these rows.
pub(crate) fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

/// Where the development issuer keeps its key in this folder.
pub(crate) fn key_file(folder: &Path) -> String {
    folder.join("development.key").display().to_string()
}

/// The log holds none of the secrets, and nothing that begins like a token.
pub(crate) fn assert_log_without<'s>(server: &Server<'_>, secrets: impl IntoIterator<Item = &'s str>) {
    let log = server.log().join("\n");
    assert!(!log.contains("eyJ"), "the log holds a token, or a part of one:\n{log}");
    for secret in secrets.into_iter().filter(|secret| secret.len() >= 8) {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}
