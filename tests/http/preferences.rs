//! What a client says of the answer: whether it has the row already (If-None-Match), and whether it wants it (Prefer).

use crate::support::{Answer, TestClient, TestTenant, at, new_document};
use serde_json::{Value, json};
use test_support::{Database, on_migrated_databases};

on_migrated_databases!(
    unchanged_row_is_not_sent_again,
    precondition_of_another_operation_is_refused,
    minimal_answer_has_headers_alone
);

async fn ask(client: &TestClient, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Answer {
    let mut request = client.request(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    Answer::read(request.send().await.unwrap()).await
}

async fn unchanged_row_is_not_sent_again(database: Database) {
    let (app, clinic, user, document) = TestTenant::with_rows(database).await;
    for path in [at("users", &user), at("documents", &document), "tenant".to_owned()] {
        let row = clinic.viewer.get(&path).await;
        let (tag, weak) = (row.etag().to_owned(), format!("W/{}", row.etag()));
        let list = format!("\"x\" , {weak}");
        for method in ["GET", "HEAD"] {
            for known in [&tag, &weak, &list, "*"] {
                let before = app.value::<i64>("SELECT count(*) FROM audit_logs WHERE action = 'DATA_ACCESS'").await;
                let answer = ask(&clinic.viewer, method, &path, &[("if-none-match", known)], None).await;
                assert_eq!((answer.status, &answer.body, answer.etag()), (304, &Value::Null, &*tag), "{path} {known}");
                assert_eq!(answer.header("cache-control"), row.header("cache-control"));
                let after = app.value::<i64>("SELECT count(*) FROM audit_logs WHERE action = 'DATA_ACCESS'").await;
                assert_eq!(after, before + 1, "{method} {path}: it is a read all the same");
            }
            for known in ["\"x\"", "W/\"x\", \"y\""] {
                let answer = ask(&clinic.viewer, method, &path, &[("if-none-match", known)], None).await;
                assert_eq!((answer.status, answer.etag()), (200, &*tag), "{path} {known}");
            }
            let refused = ask(&clinic.viewer, method, &path, &[("if-none-match", "x")], None).await;
            assert_eq!(refused.status, 400, "{path}");
        }
        let refused = ask(&clinic.viewer, "GET", &path, &[("if-none-match", "x")], None).await;
        refused.assert_field_error(400, "VAL_003", "If-None-Match");
        let change = if path == "tenant" {
            json!({"name": "new"})
        } else if path.starts_with("users") {
            json!({"full_name": "new"})
        } else {
            json!({"filename": "new"})
        };
        clinic.admin.patch(&path, &change).await.assert_status(200);
        ask(&clinic.viewer, "GET", &path, &[("if-none-match", &tag)], None).await.assert_status(200);
    }
    let gone = at("documents", &document);
    clinic.admin.delete(&gone).await.assert_status(204);
    ask(&clinic.viewer, "GET", &gone, &[("if-none-match", "*")], None).await.assert_error(404, "RES_001");
}

async fn precondition_of_another_operation_is_refused(database: Database) {
    let (_app, clinic, user, document) = TestTenant::with_rows(database).await;
    let path = at("documents", &document);
    let body = new_document(&user["id"]);
    let change = json!({"filename": "new"});
    for (method, path, header, name, body) in [
        ("POST", "documents", "if-none-match", "If-None-Match", Some(&body)),
        ("POST", "documents", "if-match", "If-Match", Some(&body)),
        ("PATCH", &path, "if-none-match", "If-None-Match", Some(&change)),
        ("PATCH", "tenant", "if-none-match", "If-None-Match", Some(&json!({"name": "new"}))),
        ("DELETE", &path, "if-none-match", "If-None-Match", None),
        ("POST", &format!("{path}/restore"), "if-match", "If-Match", None),
        ("POST", &format!("{path}/restore"), "if-none-match", "If-None-Match", None),
    ] {
        let refused = ask(&clinic.admin, method, path, &[(header, "*")], body).await;
        assert_eq!(refused.refusal(), (400, "VAL_001", name), "{method} {path}");
    }
    assert_eq!(clinic.viewer.all("documents").await, [document]);
}

async fn minimal_answer_has_headers_alone(database: Database) {
    let (_app, clinic, user, document) = TestTenant::with_rows(database).await;
    let minimal = ("prefer", "respond-async, return=minimal");
    let made = ask(&clinic.admin, "POST", "documents", &[minimal], Some(&new_document(&user["id"]))).await;
    assert_eq!((made.status, &made.body, made.header("preference-applied")), (201, &Value::Null, "return=minimal"));
    let path = made.header("location").strip_prefix("/api/v1/").unwrap().to_owned();
    assert_eq!(clinic.viewer.get(&path).await.etag(), made.etag());
    let changes = [
        (at("documents", &document), json!({"filename": "new"})),
        (at("users", &user), json!({"full_name": "new"})),
        ("tenant".to_owned(), json!({"name": "new"})),
    ];
    for (path, change) in &changes {
        let answer = ask(&clinic.admin, "PATCH", path, &[minimal], Some(change)).await;
        assert_eq!((answer.status, &answer.body), (204, &Value::Null), "{path}");
        assert_eq!(answer.header("preference-applied"), "return=minimal");
        let now = clinic.viewer.get(path).await;
        assert_eq!(now.etag(), answer.etag(), "{path}");
        let whole = ask(&clinic.admin, "PATCH", path, &[("prefer", "return=representation")], Some(change)).await;
        assert_eq!((whole.status, whole.header("preference-applied")), (200, "return=representation"), "{path}");
        assert_eq!(whole.body, clinic.viewer.get(path).await.body);
        let plain = ask(&clinic.admin, "PATCH", path, &[("prefer", "wait=10")], Some(change)).await;
        assert_eq!((plain.status, plain.header("preference-applied")), (200, ""), "{path}");
    }
    clinic.admin.delete(&path).await.assert_status(204);
    let restored = ask(&clinic.admin, "POST", &format!("{path}/restore"), &[minimal], None).await;
    assert_eq!(
        (restored.status, &restored.body, restored.header("preference-applied")),
        (204, &Value::Null, "return=minimal")
    );
    // An error is told all the same.
    let refused = ask(&clinic.admin, "PATCH", &path, &[minimal], Some(&json!({"nonsense": 1}))).await;
    refused.assert_error(400, "VAL_001");
}
