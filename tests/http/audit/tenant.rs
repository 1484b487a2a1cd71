//! A tenant with its audit log, and entries to plant in it.

use crate::support::{Answer, LocalServer, Serves, TestApp};
use crate::{run_on, stderr, stdout};
use bulkhead::audit::{AuditEntry, GENESIS};
use bulkhead::entity::audit_log::{Column, Entity, Model};
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderValue};
use sea_orm::sqlx::types::time::OffsetDateTime;
use sea_orm::{ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, QueryFilter, QueryOrder};
use serde_json::json;
use std::fmt::Write;
use std::process::Output;
use test_support::provider::Shape;
use test_support::{Database, Server, http_client};
use uuid::Uuid;

/// Where the requests seem to come from, by the word of a proxy that is trusted.
pub(super) const ADDRESS: &str = "203.0.113.7";

/// The setting that trusts it.
const PROXY: [(&str, &str); 1] = [("TRUSTED_PROXIES", "127.0.0.1")];

/// What the requests' program calls itself.
pub(super) const PROGRAM: &str = "clinic/1.0";

/// A tenant `clinic`, whose admin is Ada, and what its audit log holds.
pub(super) struct AuditedTenant {
    pub(super) app: TestApp,
    /// Reads and writes whatever the database's owner may.
    pub(super) owner: DatabaseConnection,
    pub(super) tenant: Uuid,
    pub(super) ada: Uuid,
    pub(super) http: Client,
}

impl AuditedTenant {
    pub(super) async fn new(database: Database) -> Self {
        let app = TestApp::without_tenants(Shape::Plain, database).await;
        let owner = app.database.connect().await;
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static(ADDRESS));
        let http = http_client().user_agent(PROGRAM).default_headers(headers).build().unwrap();
        let mut clinic = Self { app, owner, tenant: Uuid::nil(), ada: Uuid::nil(), http };
        clinic.tenant = clinic.make_tenant("clinic").await;
        clinic.ada = clinic.log().await.last().unwrap().resource_id.unwrap();
        clinic
    }

    /// Makes a tenant whose admin is Ada.
    pub(super) async fn make_tenant(&self, external_id: &str) -> Uuid {
        let tenant = ["tenant", "create", "--name", "A clinic", "--external-id", external_id];
        let admin = ["--admin-email", "ada@example.org", "--admin-subject", "ada"];
        self.must(&[&tenant[..], &admin].concat()).await.trim().parse().unwrap()
    }

    /// The API in the test's own process.
    pub(super) async fn serve(&self) -> LocalServer {
        self.app.serve(&PROXY).await
    }

    /// The program as a process.
    pub(super) async fn server(&self, more: &[(&str, &str)]) -> Server<'_> {
        self.app.server(&[&PROXY[..], more].concat()).await
    }

    /// Runs a command to its end.
    pub(super) async fn run(&self, arguments: &[&str]) -> Output {
        run_on(&self.app.database, arguments).await
    }

    /// Runs a command, which succeeds: what it prints.
    pub(super) async fn must(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}{}", stdout(&output), stderr(&output));
        stdout(&output)
    }

    /// A token for Ada as an admin.
    pub(super) fn admin(&self) -> String {
        self.token("ada", "admin")
    }

    /// A token for somebody of `clinic`.
    pub(super) fn token(&self, subject: &str, role: &str) -> String {
        self.app.token("clinic", subject, role)
    }

    /// The chain of `clinic`, oldest first.
    pub(super) async fn log(&self) -> Vec<Model> {
        chain(&self.owner, self.tenant).await
    }

    pub(super) async fn call(&self, server: &impl Serves, token: &str, request: &super::operations::Request) -> Answer {
        let url = format!("{}{}", server.base(), request.path);
        let mut builder = self.http.request(request.method.clone(), url).bearer_auth(token);
        if let Some(body) = &request.body {
            builder = builder.json(body);
        }
        if let Some(version) = &request.if_match {
            builder = builder.header("if-match", version);
        }
        Answer::read(builder.send().await.unwrap()).await
    }

    /// Executes statements as the database's owner.
    pub(super) async fn execute(&self, sql: &str) {
        self.owner.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(super) fn on_postgres(&self) -> bool {
        self.owner.get_database_backend() == DbBackend::Postgres
    }

    /// An id as the database's SQL writes it.
    pub(super) fn literal(&self, id: impl Into<Uuid>) -> String {
        literal(self.owner.get_database_backend(), id.into())
    }
}

fn literal(backend: DbBackend, id: Uuid) -> String {
    if backend == DbBackend::Postgres { format!("'{id}'") } else { format!("x'{}'", id.simple()) }
}

/// A tenant's chain, oldest first.
pub(super) async fn chain(connection: &DatabaseConnection, tenant: impl Into<Uuid>) -> Vec<Model> {
    let entries = Entity::find().filter(Column::TenantId.eq(tenant.into())).order_by_asc(Column::Sequence);
    entries.all(connection).await.unwrap()
}

/// Entries that continue a chain at `after` (0 begins it), as an INSERT takes them; and the last one's hash.
pub(super) fn made_up(
    backend: DbBackend,
    tenant: impl Into<Uuid>,
    after: (i64, &str),
    how_many: i64,
    change: impl Fn(&mut AuditEntry),
) -> (String, String) {
    let mut insert = "INSERT INTO audit_logs (id, tenant_id, sequence, action, resource_type, resource_id, ip, \
                      user_agent, metadata, created_at, prev_hash, hash) VALUES "
        .to_owned();
    let tenant = tenant.into();
    let (mut sequence, mut prev_hash) = (after.0, after.1.to_owned());
    let id = |id: Option<Uuid>| id.map_or("NULL".to_owned(), |id| literal(backend, id));
    for at in 0..how_many {
        sequence += 1;
        let mut entry = AuditEntry {
            tenant_id: tenant.into(),
            sequence,
            id: Uuid::now_v7().into(),
            user_id: None,
            action: "DATA_ACCESS".to_owned(),
            resource_type: "documents".to_owned(),
            resource_id: Some(Uuid::now_v7()),
            ip: Some("192.0.2.1".to_owned()),
            user_agent: Some(PROGRAM.to_owned()),
            metadata: json!({"found": true}),
            created_at: created_at(sequence),
            prev_hash,
        };
        change(&mut entry);
        let hash = entry.hash().unwrap();
        if at > 0 {
            insert.push(',');
        }
        write!(
            insert,
            "({}, {}, {}, '{}', '{}', {}, '{}', '{}', '{}', '{}', '{}', '{hash}')",
            id(Some(entry.id.into())),
            id(Some(tenant)),
            entry.sequence,
            entry.action,
            entry.resource_type,
            id(entry.resource_id),
            entry.ip.unwrap(),
            entry.user_agent.unwrap(),
            entry.metadata,
            entry.created_at,
            entry.prev_hash,
        )
        .unwrap();
        prev_hash = hash;
    }
    (insert, prev_hash)
}

/// One second after another, from 2026 on.
fn created_at(sequence: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(1_767_225_600 + sequence).unwrap();
    let (date, (hour, minute, second)) = (at.date(), at.to_hms());
    format!("{date}T{hour:02}:{minute:02}:{second:02}.000001Z")
}

/// The empty chain's end.
pub(super) const BEGINNING: (i64, &str) = (0, GENESIS);
