//! The configuration: what runs, as whom, and what its labels say.

use crate::container::Run;
use crate::engine::{engine, image, inspect_image, run, succeed};
use serde_json::{Value, json};
use std::process::Command;
use test_support::Database;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[test]
fn its_configuration_is_the_contracts() {
    let inspected = inspect_image();
    let config = &inspected["Config"];
    assert_eq!(config["Entrypoint"], json!(["/bin/bulkhead"]));
    assert_eq!(config["Cmd"], json!(["start"]));
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["ExposedPorts"], json!({"8000/tcp": {}}));
    // The engines keep it in different places.
    let places = [&config["Healthcheck"], &inspected["Healthcheck"], &inspected["HealthCheck"]];
    let healthcheck = places.into_iter().find(|value| !value.is_null()).expect("a health check");
    assert_eq!(healthcheck["Test"], json!(["CMD", "/bin/bulkhead", "healthcheck"]));
}

#[test]
fn its_environment_is_production_and_its_revision_and_nothing_more() {
    let inspected = inspect_image();
    let variables: Vec<&str> =
        inspected["Config"]["Env"].as_array().unwrap().iter().map(|variable| variable.as_str().unwrap()).collect();
    assert!(variables.contains(&"ENVIRONMENT=production"), "{variables:?}");
    let revision = &inspected["Config"]["Labels"]["org.opencontainers.image.revision"];
    let revision = format!("SOURCE_REVISION={}", revision.as_str().unwrap());
    assert!(variables.contains(&revision.as_str()), "{variables:?}");
    // Some builders set PATH, asked or not.
    for variable in variables {
        assert!(
            ["ENVIRONMENT=production", &revision].contains(&variable) || variable.starts_with("PATH="),
            "{variable}"
        );
    }
}

#[test]
fn its_labels_say_what_it_was_built_from() {
    let inspected = inspect_image();
    let labels = &inspected["Config"]["Labels"];
    let label = |name: &str| {
        let value = labels[format!("org.opencontainers.image.{name}")].as_str();
        value.unwrap_or_else(|| panic!("no label {name}: {labels}")).to_owned()
    };
    assert_eq!(label("title"), "bulkhead");
    assert_eq!(label("licenses"), "Apache-2.0 OR MIT");
    assert!(label("source").starts_with("https://"));
    let version = succeed(&mut engine(&["run", "--rm", &image(), "-V"]));
    assert_eq!(version.trim(), format!("bulkhead {}", label("version")));

    let (revision, created) = (label("revision"), label("created"));
    assert!(!revision.is_empty());
    assert!(created.ends_with('Z'), "not UTC: {created}");
    let created = OffsetDateTime::parse(&created, &Rfc3339).unwrap();
    // When the source was made, not when somebody built it; known where the revision is one of this clone.
    let time_of = |revision: &str| {
        let done = run(Command::new("git").args(["show", "--no-patch", "--format=%ct", revision, "--"]));
        done.status.success().then(|| String::from_utf8(done.stdout).unwrap().trim().parse::<i64>().unwrap())
    };
    if let Some(time) = time_of(&revision) {
        assert_eq!(created.unix_timestamp(), time, "the time of {revision}");
    }
}

#[tokio::test]
async fn what_runs_says_the_same_of_its_sources_as_the_labels() {
    let Some(database) = Database::postgres().await else { return };
    let container = Run::with(&database).start();
    container.ready().await;
    let (status, body) = container.get("/api/v1/version").await.unwrap();
    assert_eq!(status, 200);
    let version: Value = serde_json::from_str(&body).unwrap();
    let inspected = inspect_image();
    let labels = &inspected["Config"]["Labels"];
    for (field, label) in [
        ("version", "org.opencontainers.image.version"),
        ("source_revision", "org.opencontainers.image.revision"),
        ("cargo_lock_sha256", "io.github.bulkhead-rs.cargo-lock-sha256"),
        ("flake_lock_sha256", "io.github.bulkhead-rs.flake-lock-sha256"),
    ] {
        assert!(version[field].is_string(), "{field} is missing: {version}");
        assert_eq!(version[field], labels[label], "{field} and {label}");
    }
}
