//! The documentation page and document: served from inside the binary, shown by a real browser.

use crate::browser::final_document;
use crate::support::{LocalServer, Serves};
use crate::{must, ready};
use serde_json::Value;
use std::path::Path;
use test_support::Database;

#[tokio::test]
async fn openapi_is_the_same_from_cli_and_http() {
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(&database, &[]).await;
    let printed: Value = serde_json::from_str(&must(&["openapi"], &[]).await).unwrap();
    assert_eq!(server.json("/openapi.json").await, (200, printed));
}

/// A changed API shows in the difference of this file.
#[tokio::test]
async fn the_document_is_the_one_that_is_checked_in() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http/openapi.json");
    let printed = must(&["openapi"], &[]).await;
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &printed).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap() == printed,
        "UPDATE_DOCS=1 cargo test --test http docs writes it anew"
    );
}

#[tokio::test]
async fn in_production_there_are_no_docs_unless_asked_for() {
    let (database, production) = (Database::migrated_sqlite().await, ("ENVIRONMENT", "production"));
    let server = LocalServer::without_provider(&database, &[production]).await;
    for path in ["/docs", "/docs/", "/openapi.json"] {
        assert_eq!(server.json(path).await.0, 404, "{path}");
    }
    let server = LocalServer::without_provider(&database, &[production, ("DOCS_ENABLED", "true")]).await;
    assert_eq!(server.json("/openapi.json").await.0, 200);
}

#[tokio::test]
async fn docs_page_needs_no_other_host() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    let Some(page) = final_document(&format!("http://localhost:{}/docs", server.port)).await else { return };
    for operation in ["/api/v1/health/live", "/api/v1/health/ready", "/api/v1/health/startup"] {
        // As the viewer renders an operation, not as the document spells it.
        assert!(page.contains(&format!("data-path=\"{operation}\"")), "{operation} is not shown:\n{page}");
    }
}
