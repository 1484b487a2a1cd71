//! What the tests of resources and of isolation share: clinics on one server, and callers of every role.

use crate::identity::{Answer, World};
use bulkhead::entity::tenant;
use reqwest::{Client, Method};
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, DatabaseConnection};
use serde_json::{Value, json};
use test_support::Server;
use test_support::provider::{Person, Shape};
use uuid::Uuid;

/// A tenant, and someone of every role who has no user of their own there.
pub(crate) struct Clinic {
    pub(crate) id: Uuid,
    pub(crate) external_id: String,
    pub(crate) viewer: Caller,
    pub(crate) member: Caller,
    pub(crate) admin: Caller,
}

impl Clinic {
    /// Makes the tenant.
    pub(crate) async fn open(connection: &DatabaseConnection, world: &World, server: &Server<'_>) -> Self {
        let id = Uuid::now_v7();
        let external_id = format!("clinic-{}", id.simple());
        let row = tenant::ActiveModel {
            id: Set(id),
            name: Set("A clinic".to_owned()),
            external_id: Set(external_id.clone()),
            ..Default::default()
        };
        row.insert(connection).await.unwrap();
        let caller = |role: &str| Caller::new(world, server, &external_id, &format!("provider|a-{role}"), role);
        Self { id, viewer: caller("viewer"), member: caller("member"), admin: caller("admin"), external_id }
    }

    /// Makes a user; its body.
    pub(crate) async fn user(&self, email: &str) -> Value {
        self.admin.make("users", &json!({"email": email})).await
    }

    /// Makes a document of this user; its body.
    pub(crate) async fn document(&self, owner: &Value) -> Value {
        self.admin.make("documents", &a_document(owner)).await
    }
}

/// What a document of this user takes, and no more.
pub(crate) fn a_document(owner: &Value) -> Value {
    json!({"user_id": owner, "bucket": "files", "filename": "scan.pdf", "content_type": "application/pdf", "size_bytes": 7})
}

/// Someone with a token.
#[derive(Clone)]
pub(crate) struct Caller {
    http: Client,
    base: String,
    token: String,
}

impl Caller {
    pub(crate) fn new(world: &World, server: &Server<'_>, tenant: &str, subject: &str, role: &str) -> Self {
        let person = Person {
            subject: subject.to_owned(),
            tenant: tenant.to_owned(),
            role: role.to_owned(),
            ..Person::ada(Shape::Plain)
        };
        Self::with_token(&world.http, server, world.provider.token(&world.provider.claims(&person)).encode())
    }

    pub(crate) fn with_token(http: &Client, server: &Server<'_>, token: impl Into<String>) -> Self {
        Self { http: http.clone(), base: server.base.clone(), token: token.into() }
    }

    /// Sends a request to a path below `/api/v1/`.
    pub(crate) async fn send(&self, method: &str, path: &str, if_match: Option<&str>, body: Option<&Value>) -> Answer {
        let text = body.map(Value::to_string);
        self.send_text(method, path, if_match, text.as_deref()).await
    }

    /// The same with a body that need not be JSON.
    pub(crate) async fn send_text(
        &self,
        method: &str,
        path: &str,
        if_match: Option<&str>,
        body: Option<&str>,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}/api/v1/{path}", self.base)).bearer_auth(&self.token);
        if let Some(tag) = if_match {
            request = request.header("if-match", tag);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        Answer::read(request.send().await.unwrap()).await
    }

    /// The text of what is at a path.
    pub(crate) async fn text(&self, path: &str) -> String {
        let request = self.http.get(format!("{}/api/v1/{path}", self.base)).bearer_auth(&self.token);
        request.send().await.unwrap().text().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, None, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, None, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, None, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None, None).await
    }

    pub(crate) async fn restore(&self, path: &str) -> Answer {
        self.send("POST", &format!("{path}/restore"), None, None).await
    }

    /// Makes a row, which must succeed; its body.
    pub(crate) async fn make(&self, kind: &str, body: &Value) -> Value {
        let answer = self.post(kind, body).await;
        assert_eq!(answer.status, 201, "{kind} of {body}: {}", answer.body);
        answer.body
    }

    /// Every row of a list, page by page.
    pub(crate) async fn all(&self, list: &str) -> Vec<Value> {
        let (mut rows, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let answer = self.get(&page(list, 200, &cursor)).await;
            assert_eq!(answer.status, 200, "{list}: {}", answer.body);
            rows.extend(answer.items().iter().cloned());
            cursor = answer.body["next_cursor"].clone();
            if cursor.is_null() {
                return rows;
            }
        }
    }
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

impl Answer {
    /// A page's rows.
    pub(crate) fn items(&self) -> &[Value] {
        self.body["items"].as_array().map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn etag(&self) -> &str {
        self.header("etag")
    }

    /// Status, code, and the field that is named; `-` where there is none.
    pub(crate) fn refusal(&self) -> (u16, &str, &str) {
        (self.status, self.code(), self.body["error"]["field"].as_str().unwrap_or("-"))
    }
}
