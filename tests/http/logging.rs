//! What is logged at which level.

use crate::support::key_file;
use crate::{ready, run, stdout};
use reqwest::Client;
use serde_json::Value;
use test_support::{Database, eventually, on_both_databases};

on_both_databases!(no_line_is_lost_whatever_is_logged_besides);

/// sqlx asks whether a statement is to be logged before it logs it: a question must not cost the next line.
async fn no_line_is_lost_whatever_is_logged_besides(database: Database) {
    let folder = tempfile::tempdir().unwrap();
    let key = key_file(folder.path());
    for level in ["info", "info,bulkhead=trace", "info,sqlx::postgres::notice=trace", "debug", "trace"] {
        let server = ready(&database, &[("LOG_LEVEL", level), ("DEVELOPMENT_KEY_FILE", &key)]).await;
        let token = run(&["dev-token"], &[("DATABASE_URL", &database.url), ("DEVELOPMENT_KEY_FILE", &key)]).await;
        for _ in 0..4 {
            let url = format!("{}/api/v1/users", server.base);
            let answer = Client::new().get(url).bearer_auth(stdout(&token).trim()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let id = answer.headers()["x-request-id"].to_str().unwrap();
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
        Client::new().get(format!("{}/api/v1/version", server.base)).send().await.unwrap();
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
