//! How a start fails: one line on standard error that names the variable to change, and an exit code.

use crate::container::Run;

/// Starts it, and expects its end with this code and one line of error.
async fn refusal(run: Run, code: i64) -> String {
    let container = run.start();
    assert_eq!(container.ended().await, code, "{}", container.log());
    let [line] = &container.errors()[..] else { panic!("not one line: {}", container.log()) };
    line.clone()
}

#[tokio::test]
async fn without_a_database_it_says_what_to_set() {
    let line = refusal(Run::confined(), 2).await;
    assert_eq!(line, "DATABASE_URL: is required when ENVIRONMENT=production");
}

#[tokio::test]
async fn a_database_that_is_away_is_waited_for_and_then_named() {
    // Nothing listens there.
    let run = Run::confined().set("DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/app");
    let line = refusal(run.set("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1"), 1).await;
    assert!(line.starts_with("DATABASE_URL: cannot use postgres://***@127.0.0.1:1/app: "), "{line}");
}

#[tokio::test]
async fn a_database_file_on_the_read_only_root_is_named() {
    let line = refusal(Run::confined().set("DATABASE_URL", "sqlite:///bulkhead.db?mode=rwc"), 1).await;
    assert!(line.starts_with("DATABASE_URL: cannot use sqlite:///bulkhead.db: "), "{line}");
}

#[tokio::test]
async fn a_file_of_authorities_that_is_not_there_is_named() {
    let provider = [("OIDC_ISSUER_URL", "https://login.example.org"), ("OIDC_CLIENT_ID", "bulkhead")];
    let run = provider.into_iter().fold(Run::by_itself(), |run, (name, value)| run.set(name, value));
    let line = refusal(run.set("SSL_CERT_FILE", "/nowhere.pem"), 1).await;
    assert!(line.contains("SSL_CERT_FILE"), "{line}");
}
