//! What the tests of tokens and logins share: a provider, tenants of every state, a server that knows both.

use crate::{ready, run_on};
use bulkhead::entity::tenant;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use sea_orm::ActiveModelTrait;
use sea_orm::ActiveValue::Set;
use sea_orm::sqlx::types::time::OffsetDateTime;
use serde_json::Value;
use test_support::provider::{Person, Shape};
use test_support::{Database, Provider, Server};
use uuid::Uuid;

/// A provider, and a database whose tenants it knows.
pub(crate) struct World {
    pub(crate) provider: Provider,
    pub(crate) database: Database,
    /// The id of the tenant of [`World::ada`].
    pub(crate) tenant: Uuid,
    pub(crate) shape: Shape,
    /// Follows no redirect, and keeps no cookie.
    pub(crate) http: Client,
}

impl World {
    pub(crate) async fn new(shape: Shape, database: Database) -> Self {
        assert!(run_on(&database, &["migrate", "up"]).await.status.success());
        let tenant = insert(&database, &Person::ada(shape).tenant, tenant::Status::Active, false).await;
        insert(&database, "on-trial", tenant::Status::Trial, false).await;
        insert(&database, "suspended", tenant::Status::Suspended, false).await;
        insert(&database, "deleted", tenant::Status::Active, true).await;
        // `system` is a row, too, which the migrations have made, and nobody may claim it.
        let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self { provider: Provider::start(shape), database, tenant, shape, http }
    }

    pub(crate) async fn on_sqlite(shape: Shape) -> Self {
        Self::new(shape, Database::sqlite()).await
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

    /// A server that is ready.
    pub(crate) async fn server(&self, more: &[(&str, &str)]) -> Server<'_> {
        let environment = self.environment(more);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        ready(&self.database, &environment).await
    }

    /// A good token for Ada.
    pub(crate) fn good(&self) -> String {
        self.provider.token(&self.provider.claims(&self.ada())).encode()
    }

    /// What the server says of a token.
    pub(crate) async fn validate(&self, server: &Server<'_>, token: &str) -> Answer {
        self.call(server, "", &[("authorization", &format!("Bearer {token}"))]).await
    }

    /// Asks for the validation with these headers, and `query` behind the path.
    pub(crate) async fn call(&self, server: &Server<'_>, query: &str, headers: &[(&str, &str)]) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let url = format!("{}/api/v1/auth/validate{query}", server.base);
        Answer::read(self.http.get(url).headers(map).send().await.unwrap()).await
    }
}

async fn insert(database: &Database, external_id: &str, status: tenant::Status, deleted: bool) -> Uuid {
    let tenant = tenant::ActiveModel {
        id: Set(Uuid::now_v7()),
        name: Set("A clinic".to_owned()),
        external_id: Set(external_id.to_owned()),
        status: Set(status),
        deleted_at: Set(deleted.then(OffsetDateTime::now_utc)),
        ..Default::default()
    };
    let connection = database.connect().await;
    let id = tenant.insert(&connection).await.unwrap().id;
    connection.close().await.unwrap();
    id
}

/// An answer of the server.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
        Self { status, headers, body }
    }

    /// The error code, or `-` where there is none.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("-")
    }

    /// Status and error code.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        (self.status, self.code())
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// No line of the log holds one of the secrets, or anything that begins like a token.
pub(crate) fn assert_log_without<'s>(server: &Server<'_>, secrets: impl IntoIterator<Item = &'s str>) {
    let log = server.log().join("\n");
    assert!(!log.contains("eyJ"), "the log holds a token, or a part of one:\n{log}");
    for secret in secrets.into_iter().filter(|secret| secret.len() >= 8) {
        assert!(!log.contains(secret), "the log holds {secret}");
    }
}
