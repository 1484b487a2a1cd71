//! A tenant with a client of every role.

use super::{Serves, TestApp, TestClient, new_document};
use bulkhead::entity::tenant;
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, DatabaseConnection};
use serde_json::{Value, json};
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
    /// Makes the tenant.
    pub(crate) async fn open(connection: &DatabaseConnection, app: &TestApp, server: &impl Serves) -> Self {
        let id = Uuid::now_v7();
        let external_id = format!("clinic-{}", id.simple());
        let row = tenant::ActiveModel {
            id: Set(id.into()),
            name: Set("A clinic".to_owned()),
            external_id: Set(external_id.clone()),
            ..Default::default()
        };
        row.insert(connection).await.unwrap();
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
