//! The documentation page and document: served from inside the binary, shown by a real browser.

use crate::browser::final_document;
use crate::{ready, run, stdout};
use serde_json::Value;
use test_support::Database;

#[tokio::test]
async fn the_document_is_the_same_from_the_command_line_and_over_http() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let (code, document) = server.get_json("/openapi.json").await;
    assert_eq!(code, 200);
    let printed: Value = serde_json::from_str(&stdout(&run(&["openapi"], &[]).await)).unwrap();
    assert_eq!(document, printed);
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    let expected = [
        "/api/v1/audit-logs",
        "/api/v1/auth/callback",
        "/api/v1/auth/login",
        "/api/v1/auth/logout",
        "/api/v1/auth/validate",
        "/api/v1/documents",
        "/api/v1/documents/{id}",
        "/api/v1/documents/{id}:restore",
        "/api/v1/health/live",
        "/api/v1/health/ready",
        "/api/v1/health/startup",
        "/api/v1/tenant",
        "/api/v1/users",
        "/api/v1/users/{id}",
        "/api/v1/users/{id}:restore",
        "/api/v1/version",
    ];
    assert_eq!(paths, expected);
}

#[tokio::test]
async fn in_production_there_are_no_docs_unless_asked_for() {
    let production = ("ENVIRONMENT", "production");
    let database = Database::sqlite();
    let server = ready(&database, &[production]).await;
    for path in ["/docs", "/docs/", "/openapi.json"] {
        assert_eq!(server.get(path).await.unwrap().0, 404, "{path}");
    }
    let database = Database::sqlite();
    let server = ready(&database, &[production, ("DOCS_ENABLED", "true")]).await;
    assert_eq!(server.get("/openapi.json").await.unwrap().0, 200);
}

#[tokio::test]
async fn a_browser_shows_every_operation_without_asking_any_other_host() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let Some(page) = final_document(&format!("http://localhost:{}/docs", server.port)).await else { return };
    for operation in ["/api/v1/health/live", "/api/v1/health/ready", "/api/v1/health/startup"] {
        // As the viewer renders an operation, not as the document spells it.
        assert!(page.contains(&format!("data-path=\"{operation}\"")), "{operation} is not shown:\n{page}");
    }
}
