//! A database, an identity provider, and servers on both.

use super::{Answer, LocalServer, Serves, TestClient, TestTenant};
use crate::ready;
use bulkhead::entity::tenant;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use sea_orm::ActiveModelTrait;
use sea_orm::ActiveValue::Set;
use sea_orm::sqlx::types::time::OffsetDateTime;
use test_support::provider::{Person, Shape};
use test_support::{Database, Provider, Server, http_client};
use uuid::Uuid;

/// A migrated database with a tenant in every state, a provider that knows them, and a server that runs in the test's process.
pub(crate) struct TestApp {
    pub(crate) provider: Provider,
    pub(crate) database: Database,
    /// The id of the tenant of [`TestApp::ada`].
    pub(crate) tenant: Uuid,
    pub(crate) shape: Shape,
    /// Follows no redirect, and keeps no cookie.
    pub(crate) http: Client,
    local: Option<LocalServer>,
}

impl TestApp {
    /// One with a server in the test's own process.
    pub(crate) async fn start(database: Database) -> Self {
        Self::start_with(database, &[]).await
    }

    /// As [`TestApp::start`], with these settings.
    pub(crate) async fn start_with(database: Database, settings: &[(&str, &str)]) -> Self {
        let mut app = Self::new(Shape::Plain, database).await;
        app.local = Some(app.serve(settings).await);
        app
    }

    /// One without a server.
    pub(crate) async fn new(shape: Shape, database: Database) -> Self {
        let mut app = Self::without_tenants(shape, database).await;
        app.tenant = insert(&app.database, &Person::ada(shape).tenant, tenant::Status::Active, false).await;
        insert(&app.database, "on-trial", tenant::Status::Trial, false).await;
        insert(&app.database, "suspended", tenant::Status::Suspended, false).await;
        insert(&app.database, "deleted", tenant::Status::Active, true).await;
        app
    }

    /// One without a server, and with no tenant but `system`, which the migrations make and nobody may claim.
    pub(crate) async fn without_tenants(shape: Shape, database: Database) -> Self {
        database.migrate().await;
        let http = http_client().redirect(redirect::Policy::none()).build().unwrap();
        Self { provider: Provider::start(shape), database, tenant: Uuid::nil(), shape, http, local: None }
    }

    /// One without a server, on SQLite.
    pub(crate) async fn on_sqlite(shape: Shape) -> Self {
        Self::new(shape, Database::migrated_sqlite().await).await
    }

    /// A new tenant, whose clients ask the server of [`TestApp::start`].
    pub(crate) async fn new_tenant(&self) -> TestTenant {
        let connection = self.database.connect().await;
        let tenant = TestTenant::open(&connection, self, self.own()).await;
        connection.close().await.unwrap();
        tenant
    }

    /// Somebody of a tenant, who asks the server of [`TestApp::start`].
    pub(crate) fn client(&self, tenant: &str, subject: &str, role: &str) -> TestClient {
        TestClient::new(self, self.own(), tenant, subject, role)
    }

    fn own(&self) -> &LocalServer {
        self.local.as_ref().expect("TestApp::start has started a server")
    }

    pub(crate) fn ada(&self) -> Person {
        Person::ada(self.shape)
    }

    /// The settings that the provider asks for, then `more`.
    pub(crate) fn environment<'e>(&self, more: &[(&'e str, &'e str)]) -> Vec<(&'e str, String)> {
        let mut environment: Vec<(&str, String)> = self.provider.environment();
        environment.push(("ALLOWED_ORIGINS", "http://localhost:3000".to_owned()));
        environment.push(("RATE_LIMIT_PER_MINUTE", "0".to_owned()));
        environment.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        environment
    }

    /// The program as a process, which is ready.
    pub(crate) async fn server(&self, more: &[(&str, &str)]) -> Server<'_> {
        ready(&self.database, &borrowed(&self.environment(more))).await
    }

    /// The API in the test's own process.
    pub(crate) async fn serve(&self, more: &[(&str, &str)]) -> LocalServer {
        let mut environment = self.environment(more);
        environment.push(("DATABASE_URL", self.database.url.clone()));
        LocalServer::start(&borrowed(&environment)).await
    }

    /// A good token for Ada.
    pub(crate) fn good(&self) -> String {
        self.provider.token(&self.provider.claims(&self.ada())).encode()
    }

    /// A good token for somebody of a tenant.
    pub(crate) fn token(&self, tenant: &str, subject: &str, role: &str) -> String {
        let (subject, tenant, role) = (subject.to_owned(), tenant.to_owned(), role.to_owned());
        let person = Person { subject, tenant, role, ..self.ada() };
        self.provider.token(&self.provider.claims(&person)).encode()
    }

    /// What the server says of a token.
    pub(crate) async fn validate(&self, server: &impl Serves, token: &str) -> Answer {
        self.call(server, "", &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// Asks for the validation with these headers, and `query` behind the path.
    pub(crate) async fn call(&self, server: &impl Serves, query: &str, headers: &[(&str, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let url = format!("{}/api/v1/auth/validate{query}", server.base());
        Answer::read(self.http.get(url).headers(map).send().await.unwrap()).await
    }
}

async fn insert(database: &Database, external_id: &str, status: tenant::Status, deleted: bool) -> Uuid {
    let tenant = tenant::ActiveModel {
        id: Set(Uuid::now_v7().into()),
        name: Set("A clinic".to_owned()),
        external_id: Set(external_id.to_owned()),
        status: Set(status),
        deleted_at: Set(deleted.then(OffsetDateTime::now_utc)),
        ..Default::default()
    };
    let connection = database.connect().await;
    let id = tenant.insert(&connection).await.unwrap().id.into();
    connection.close().await.unwrap();
    id
}

/// Settings as a process takes them.
pub(crate) fn borrowed<'s>(settings: &'s [(&str, String)]) -> Vec<(&'s str, &'s str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
