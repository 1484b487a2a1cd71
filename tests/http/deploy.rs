//! The files that deploy Bulkhead name what is there: commands that run, paths that answer, times that fit.

use crate::support::{LocalServer, Serves};
use crate::{run, stderr};
use serde_json::Value;
use test_support::{Database, tables};

fn file(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn railway() -> Value {
    serde_json::from_str(&file("railway.json")).unwrap()
}

/// A Dockerfile cannot read a label from a file.
#[test]
fn dockerfile_labels_the_image_with_the_version() {
    let label = concat!("org.opencontainers.image.version=\"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(
        file("Dockerfile").contains(label),
        "Cargo.toml has another version: the Dockerfile needs the label {label}"
    );
}

#[tokio::test]
async fn railways_pre_deploy_command_migrates() {
    let railway = railway();
    let [Value::String(command)] = railway["deploy"]["preDeployCommand"].as_array().unwrap().as_slice() else {
        panic!("one command: {railway}")
    };
    let arguments: Vec<&str> = command.strip_prefix("/bin/bulkhead ").unwrap().split(' ').collect();
    let database = Database::sqlite();
    let output = run(&arguments, &[("DATABASE_URL", &database.url), ("ENVIRONMENT", "production")]).await;
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(database.tables().await, tables());
}

#[tokio::test]
async fn railway_health_check_is_readiness() {
    let railway = railway();
    let deploy = &railway["deploy"];
    let database = Database::migrated_sqlite().await;
    let server = LocalServer::without_provider(&database, &[]).await;
    let (status, body) = server.json(deploy["healthcheckPath"].as_str().unwrap()).await;
    assert_eq!((status, &body["status"]), (200, &"ready".into()));
    // A string fails Railway's schema; the drain's own limit, and a second to close the pool, must fit in.
    assert!(deploy["drainingSeconds"].as_u64().unwrap() > 30 + 1);
    assert!(deploy["overlapSeconds"].is_u64() && deploy["healthcheckTimeout"].is_u64());
    assert_eq!((&deploy["restartPolicyType"], &deploy["restartPolicyMaxRetries"]), (&"ON_FAILURE".into(), &3.into()));
    // It would replace the entrypoint, which knows best.
    assert!(deploy.get("startCommand").is_none());
    assert_eq!(railway["build"]["builder"], "DOCKERFILE");
}
