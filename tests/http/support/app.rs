//! A database, an identity provider, and servers on both.

use super::{Answer, LocalServer, Serves, TestClient, TestTenant};
use crate::{must, ready, run_on};
use axum::Router;
use bulkhead::app::AppState;
use bulkhead::entity::{tenant, user};
use bulkhead::server::router;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use sea_orm::ActiveValue::Set;
use sea_orm::sqlx::types::time::OffsetDateTime;
use sea_orm::{ActiveModelTrait, ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use std::process::Output;
use test_support::provider::{Person, Shape};
use test_support::{Database, Provider, Server, http_client};
use uuid::Uuid;

/// A migrated database with a tenant in every state, a provider that knows them, and a server that runs in the test's process.
pub(crate) struct TestApp {
    pub(crate) provider: Provider,
    pub(crate) database: Database,
    /// Reads and writes whatever the database's owner may.
    pub(crate) owner: DatabaseConnection,
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
        app.serve_itself(settings).await;
        app
    }

    /// Starts the server in the test's own process.
    pub(crate) async fn serve_itself(&mut self, settings: &[(&str, &str)]) {
        self.local = Some(self.serve(settings).await);
    }

    /// One without a server.
    pub(crate) async fn new(shape: Shape, database: Database) -> Self {
        let mut app = Self::without_tenants(shape, database).await;
        app.tenant = app.insert_tenant(&Person::ada(shape).tenant, tenant::Status::Active, false).await;
        app.insert_tenant("on-trial", tenant::Status::Trial, false).await;
        app.insert_tenant("suspended", tenant::Status::Suspended, false).await;
        app.insert_tenant("deleted", tenant::Status::Active, true).await;
        app
    }

    /// One without a server, and with no tenant but `system`, which the migrations make and nobody may claim.
    pub(crate) async fn without_tenants(shape: Shape, database: Database) -> Self {
        database.migrate().await;
        Self::not_migrated(shape, database).await
    }

    /// One without a server, on a database as it is.
    pub(crate) async fn not_migrated(shape: Shape, database: Database) -> Self {
        let http = http_client().redirect(redirect::Policy::none()).build().unwrap();
        let owner = database.connect().await;
        Self { provider: Provider::start(shape), database, owner, tenant: Uuid::nil(), shape, http, local: None }
    }

    /// One without a server, on SQLite.
    pub(crate) async fn on_sqlite(shape: Shape) -> Self {
        Self::new(shape, Database::migrated_sqlite().await).await
    }

    /// A new tenant, whose clients ask the server of [`TestApp::start`].
    pub(crate) async fn new_tenant(&self) -> TestTenant {
        TestTenant::open(self, self.own()).await
    }

    /// Somebody of a tenant, who asks the server of [`TestApp::start`].
    pub(crate) fn client(&self, tenant: &str, subject: &str, role: &str) -> TestClient {
        TestClient::new(self, self.own(), tenant, subject, role)
    }

    /// The server of [`TestApp::start`].
    pub(crate) fn own(&self) -> &LocalServer {
        self.local.as_ref().expect("TestApp::start has started a server")
    }

    /// Executes statements as the database's owner.
    pub(crate) async fn execute(&self, sql: &str) -> u64 {
        let done = self.owner.execute_unprepared(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error}")).rows_affected()
    }

    /// The value that a statement selects as the database's owner.
    pub(crate) async fn value<T: sea_orm::TryGetable>(&self, sql: &str) -> T {
        value(&self.owner, sql).await
    }

    pub(crate) fn on_postgres(&self) -> bool {
        self.owner.get_database_backend() == DbBackend::Postgres
    }

    /// An id as the database's SQL writes it.
    pub(crate) fn literal(&self, id: impl Into<Uuid>) -> String {
        let id = id.into();
        if self.on_postgres() { format!("'{id}'") } else { format!("x'{}'", id.simple()) }
    }

    /// How many of the database's sessions wait for a lock (PostgreSQL).
    pub(crate) async fn waiting(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.value(sql).await
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        run_on(&self.database, arguments).await
    }

    /// Runs a command, which succeeds: what it prints.
    pub(crate) async fn must(&self, arguments: &[&str]) -> String {
        must(arguments, &[("DATABASE_URL", &self.database.url)]).await
    }

    /// Makes a tenant by the command line, whose admin is Ada.
    pub(crate) async fn make_tenant(&self, external_id: &str) -> Uuid {
        let tenant = ["tenant", "create", "--name", "A clinic", "--external-id", external_id];
        let admin = ["--admin-email", "ada@example.org", "--admin-subject", "ada"];
        self.must(&[&tenant[..], &admin].concat()).await.trim().parse().unwrap()
    }

    /// A row of a user; its id.
    pub(crate) async fn insert_user(&self, tenant: Uuid, subject: &str, role: user::Role) -> Uuid {
        let row = user::ActiveModel {
            id: Set(Uuid::now_v7().into()),
            tenant_id: Set(tenant.into()),
            email: Set(format!("{subject}@example.org")),
            external_idp_id: Set(Some(subject.to_owned())),
            role: Set(role),
            ..Default::default()
        };
        row.insert(&self.owner).await.unwrap().id.into()
    }

    async fn insert_tenant(&self, external_id: &str, status: tenant::Status, deleted: bool) -> Uuid {
        let row = tenant::ActiveModel {
            id: Set(Uuid::now_v7().into()),
            name: Set("A clinic".to_owned()),
            external_id: Set(external_id.to_owned()),
            status: Set(status),
            deleted_at: Set(deleted.then(OffsetDateTime::now_utc)),
            ..Default::default()
        };
        row.insert(&self.owner).await.unwrap().id.into()
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
        self.serve_routes(more, router).await
    }

    /// Other routes over the state of the API, in the test's own process.
    pub(crate) async fn serve_routes(
        &self,
        more: &[(&str, &str)],
        routes: impl FnOnce(AppState) -> Router,
    ) -> LocalServer {
        let environment = self.environment(&[&[("DATABASE_URL", self.database.url.as_str())], more].concat());
        LocalServer::with_routes(&borrowed(&environment), routes).await
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

/// The value that a statement selects.
pub(crate) async fn value<T: sea_orm::TryGetable>(connection: &impl ConnectionTrait, sql: &str) -> T {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    row.unwrap_or_else(|| panic!("no row: {sql}")).try_get_by_index(0).unwrap()
}

/// Settings as a process takes them.
pub(crate) fn borrowed<'s>(settings: &'s [(&str, String)]) -> Vec<(&'s str, &'s str)> {
    settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
