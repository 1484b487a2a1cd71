//! Somebody who sends requests.

use super::{Answer, Serves, TestApp, page};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// A token, and the server to send it to.
#[derive(Clone)]
pub(crate) struct TestClient {
    http: Client,
    base: String,
    token: String,
}

impl TestClient {
    pub(crate) fn new(app: &TestApp, server: &impl Serves, tenant: &str, subject: &str, role: &str) -> Self {
        Self::with_token(&app.http, server, app.token(tenant, subject, role))
    }

    pub(crate) fn with_token(http: &Client, server: &impl Serves, token: impl Into<String>) -> Self {
        Self { http: http.clone(), base: server.base().to_owned(), token: token.into() }
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
        let mut request = self.request(method, path);
        if let Some(tag) = if_match {
            request = request.header("if-match", tag);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_owned());
        }
        Answer::read(request.send().await.unwrap()).await
    }

    /// A request to add to.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        self.http.request(method, format!("{}/api/v1/{path}", self.base)).bearer_auth(&self.token)
    }

    /// The text of what is at a path.
    pub(crate) async fn text(&self, path: &str) -> String {
        self.request("GET", path).send().await.unwrap().text().await.unwrap()
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

/// A request of the API, to a path below `/api/v1/`.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) if_match: Option<String>,
    pub(crate) body: Option<Value>,
}

impl Request {
    pub(crate) fn new(method: &str, path: impl Into<String>) -> Self {
        Self { method: method.to_owned(), path: path.into(), if_match: None, body: None }
    }

    pub(crate) fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    pub(crate) fn if_match(self, tag: &str) -> Self {
        Self { if_match: Some(tag.to_owned()), ..self }
    }

    /// Has a client send it.
    pub(crate) async fn by(&self, client: &TestClient) -> Answer {
        client.send(&self.method, &self.path, self.if_match.as_deref(), self.body.as_ref()).await
    }
}
