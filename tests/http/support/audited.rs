//! A tenant with its audit log, and entries to plant in it.

use super::{LocalServer, Serves, TestApp, TestClient};
use crate::must;
use bulkhead::audit::{AuditEntry, GENESIS};
use bulkhead::entity::audit_log::{Column, Entity, Model};
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderValue};
use sea_orm::sqlx::types::time::OffsetDateTime;
use sea_orm::{ColumnTrait, DatabaseConnection, EntityTrait, QueryFilter, QueryOrder};
use serde_json::json;
use std::fmt::Write;
use std::ops::Deref;
use test_support::provider::Shape;
use test_support::{Database, Server, http_client};
use uuid::Uuid;

/// Where the requests seem to come from, by the word of a proxy that is trusted.
pub(crate) const ADDRESS: &str = "203.0.113.7";

/// The setting that trusts it.
const PROXY: [(&str, &str); 1] = [("TRUSTED_PROXIES", "127.0.0.1")];

/// What the requests' program calls itself.
pub(crate) const PROGRAM: &str = "clinic/1.0";

/// The settings that sign checkpoints.
pub(crate) const SIGNING: [(&str, &str); 2] =
    [("AUDIT_SIGNING_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("AUDIT_ORIGIN", "api.example.org")];

/// The empty chain's end.
pub(crate) const BEGINNING: (i64, &str) = (0, GENESIS);

/// A tenant `clinic`, whose admin is Ada, and what its audit log holds. It is the tenant of its app.
pub(crate) struct AuditedTenant {
    app: TestApp,
    pub(crate) ada: Uuid,
    /// Sends [`ADDRESS`] and [`PROGRAM`].
    pub(crate) http: Client,
}

impl Deref for AuditedTenant {
    type Target = TestApp;

    fn deref(&self) -> &TestApp {
        &self.app
    }
}

impl AuditedTenant {
    /// One without a server.
    pub(crate) async fn new(database: Database) -> Self {
        let mut app = TestApp::without_tenants(Shape::Plain, database).await;
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", HeaderValue::from_static(ADDRESS));
        let http = http_client().user_agent(PROGRAM).default_headers(headers).build().unwrap();
        app.tenant = app.make_tenant("clinic").await;
        let ada = chain(&app.owner, app.tenant).await.last().unwrap().resource_id.unwrap();
        Self { app, ada, http }
    }

    /// One with a server in the test's own process, and Ada as an admin.
    pub(crate) async fn start(database: Database) -> (Self, TestClient) {
        let mut clinic = Self::new(database).await;
        clinic.app.serve_itself(&PROXY).await;
        let admin = clinic.caller(clinic.own(), "ada", "admin");
        (clinic, admin)
    }

    /// Another server in the test's own process.
    pub(crate) async fn serve(&self) -> LocalServer {
        self.app.serve(&PROXY).await
    }

    /// Runs a command that signs, which succeeds: what it prints.
    pub(crate) async fn signed(&self, arguments: &[&str]) -> String {
        let database = [("DATABASE_URL", self.database.url.as_str())];
        must(arguments, &[&database[..], &SIGNING].concat()).await
    }

    /// The program as a process.
    pub(crate) async fn server(&self, more: &[(&str, &str)]) -> Server<'_> {
        self.app.server(&[&PROXY[..], more].concat()).await
    }

    /// Somebody of `clinic`, who asks this server.
    pub(crate) fn caller(&self, server: &impl Serves, subject: &str, role: &str) -> TestClient {
        TestClient::with_token(&self.http, server, self.token("clinic", subject, role))
    }

    /// The chain of `clinic`, oldest first.
    pub(crate) async fn log(&self) -> Vec<Model> {
        chain(&self.owner, self.tenant).await
    }

    /// The newest entry of the chain of `clinic`.
    pub(crate) async fn newest(&self) -> Model {
        self.log().await.pop().unwrap()
    }

    /// Where the chain of `clinic` ends.
    pub(crate) async fn log_end(&self) -> (i64, String) {
        let last = self.newest().await;
        (last.sequence, last.hash)
    }

    /// Continues a tenant's chain by so many entries: its new end. On PostgreSQL without the triggers, which would take
    /// minutes for a long one.
    pub(crate) async fn fill(
        &self,
        tenant: Uuid,
        mut end: (i64, String),
        how_many: i64,
        change: impl Fn(&mut AuditEntry),
    ) -> (i64, String) {
        const BATCH: i64 = 2000;
        // Without triggers nothing moves the recorded end.
        let (before, after) = if self.on_postgres() {
            ("SET session_replication_role = replica;", "; SET session_replication_role = origin")
        } else {
            ("", "")
        };
        let last = end.0 + how_many;
        while end.0 < last {
            let batch = BATCH.min(last - end.0);
            let (insert, hash) = self.made_up(tenant, (end.0, &end.1), batch, &change);
            self.execute(&format!("{before}{insert}{after}")).await;
            end = (end.0 + batch, hash);
        }
        if self.on_postgres() {
            let head = format!("sequence = {}, hash = '{}' WHERE tenant_id = '{tenant}'", end.0, end.1);
            self.execute(&format!("{before}UPDATE audit_heads SET {head}{after}")).await;
        }
        end
    }

    /// Entries that continue a tenant's chain at `after` (0 begins it), as an INSERT takes them; and the last one's hash.
    pub(crate) fn made_up(
        &self,
        tenant: impl Into<Uuid>,
        after: (i64, &str),
        how_many: i64,
        change: impl Fn(&mut AuditEntry),
    ) -> (String, String) {
        made_up(|id| self.literal(id), tenant.into(), after, how_many, change)
    }
}

/// A tenant's chain, oldest first.
pub(crate) async fn chain(connection: &DatabaseConnection, tenant: impl Into<Uuid>) -> Vec<Model> {
    let entries = Entity::find().filter(Column::TenantId.eq(tenant.into())).order_by_asc(Column::Sequence);
    entries.all(connection).await.unwrap()
}

/// Entries that continue a tenant's chain, as [`AuditedTenant::made_up`] has them, with ids as `literal` writes them.
pub(crate) fn made_up(
    literal: impl Fn(Uuid) -> String,
    tenant: Uuid,
    after: (i64, &str),
    how_many: i64,
    change: impl Fn(&mut AuditEntry),
) -> (String, String) {
    let mut insert = "INSERT INTO audit_logs (id, tenant_id, sequence, action, resource_type, resource_id, ip, \
                      user_agent, metadata, created_at, prev_hash, hash) VALUES "
        .to_owned();
    let (mut sequence, mut prev_hash) = (after.0, after.1.to_owned());
    let id = |id: Option<Uuid>| id.map_or("NULL".to_owned(), &literal);
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
