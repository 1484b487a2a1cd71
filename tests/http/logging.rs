//! What is logged at which level.

use crate::support::{TestApp, TestClient};
use test_support::provider::Shape;
use test_support::{Database, eventually, on_migrated_databases};

on_migrated_databases!(no_line_is_lost_whatever_is_logged_besides);

/// sqlx asks whether a statement is to be logged before it logs it: a question must not cost the next line.
async fn no_line_is_lost_whatever_is_logged_besides(database: Database) {
    let app = TestApp::new(Shape::Plain, database).await;
    for level in ["info", "info,bulkhead=trace", "info,sqlx::postgres::notice=trace", "debug", "trace"] {
        let server = app.server(&[("LOG_LEVEL", level)]).await;
        let ada = TestClient::with_token(&app.http, &server, app.good());
        for _ in 0..4 {
            let answer = ada.get("users").await;
            answer.assert_status(200);
            let id = answer.header("x-request-id");
            eventually(&format!("LOG_LEVEL={level}: the request {id} is in the log"), async || {
                let line = |line: &String| line.contains(id) && line.contains("\"message\":\"request\"");
                server.log().iter().any(line).then_some(())
            })
            .await;
        }
    }
}
