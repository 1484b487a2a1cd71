//! What is logged at which level.

use crate::ready;
use crate::support::{TestApp, TestClient};
use serde_json::Value;
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

#[tokio::test]
async fn durations_have_three_decimals_at_most() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    for _ in 0..20 {
        reqwest::Client::new().get(format!("{}/api/v1/version", server.base)).send().await.unwrap();
    }
    let durations = eventually("twenty requests are logged", async || {
        let lines = server.log().into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let requests =
            lines.filter(|line| line["route"] == "/api/v1/version").map(|line| line["duration_ms"].to_string());
        Some(requests.collect::<Vec<_>>()).filter(|durations| durations.len() == 20)
    })
    .await;
    for duration in durations {
        assert!(duration.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 3), "{duration}");
    }
}
