//! A tenant with a client of every role.

use super::{Serves, TestApp, TestClient, new_document};
use bulkhead::entity::tenant;
use sea_orm::ActiveModelTrait;
use sea_orm::ActiveValue::Set;
use serde_json::{Value, json};
use test_support::Database;
use uuid::Uuid;

/// A tenant, and a client of every role, which has no user row there.
pub(crate) struct TestTenant {
    pub(crate) id: Uuid,
    pub(crate) external_id: String,
    pub(crate) viewer: TestClient,
    pub(crate) member: TestClient,
    pub(crate) admin: TestClient,
}

impl TestTenant {
    /// A tenant of an app that serves in the test's own process.
    pub(crate) async fn start(database: Database) -> (TestApp, Self) {
        Self::start_with(database, &[]).await
    }

    /// As [`TestTenant::start`], with these settings.
    pub(crate) async fn start_with(database: Database, settings: &[(&str, &str)]) -> (TestApp, Self) {
        let app = TestApp::start_with(database, settings).await;
        let tenant = app.new_tenant().await;
        (app, tenant)
    }

    /// As [`TestTenant::start`], with a user and a document of theirs.
    pub(crate) async fn with_rows(database: Database) -> (TestApp, Self, Value, Value) {
        let (app, tenant) = Self::start(database).await;
        let user = tenant.user("ada@example.org").await;
        let document = tenant.document(&user["id"]).await;
        (app, tenant, user, document)
    }

    /// Makes the tenant; its clients ask this server.
    pub(crate) async fn open(app: &TestApp, server: &impl Serves) -> Self {
        let id = Uuid::now_v7();
        let external_id = format!("clinic-{}", id.simple());
        let row = tenant::ActiveModel {
            id: Set(id.into()),
            name: Set("A clinic".to_owned()),
            external_id: Set(external_id.clone()),
            ..Default::default()
        };
        row.insert(&app.owner).await.unwrap();
        let client = |role: &str| TestClient::new(app, server, &external_id, &format!("provider|a-{role}"), role);
        Self { id, viewer: client("viewer"), member: client("member"), admin: client("admin"), external_id }
    }

    /// Makes a user; its body.
    pub(crate) async fn user(&self, email: &str) -> Value {
        self.admin.make("users", &json!({"email": email})).await
    }

    /// Makes a document of this user; its body.
    pub(crate) async fn document(&self, owner: &Value) -> Value {
        self.admin.make("documents", &new_document(owner)).await
    }
}
