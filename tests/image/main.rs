//! What every image promises, whoever built it: `IMAGE=... cargo test -p image-contract`.
//!
//! `ENGINE` names the container engine, docker by default.

#![allow(clippy::unwrap_used)]

mod engine;

use engine::{Container, config, engine, files, image, succeed};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};
use test_support::{Database, TABLES, eventually};

#[test]
fn it_holds_these_files_and_nothing_else() {
    let names: Vec<String> = files().into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["bin/bulkhead", "etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt"]);
}

#[test]
fn everything_in_it_belongs_to_root_and_only_the_binary_is_executable() {
    for file in files() {
        let mode = if file.name == "bin/bulkhead" { "-r-xr-xr-x" } else { "-r--r--r--" };
        assert_eq!((file.mode.as_str(), file.owner.as_str()), (mode, "0/0"), "{}", file.name);
    }
}

#[test]
fn the_binary_is_static() {
    let folder = tempfile::tempdir().unwrap();
    let binary = engine::extract("bin/bulkhead", folder.path());
    let headers = succeed(Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(&binary));
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP") && !headers.contains("(NEEDED)"), "{headers}");
}

#[test]
fn its_configuration_is_the_contracts() {
    let (config, healthcheck) = config();
    assert_eq!(config["Entrypoint"], json!(["/bin/bulkhead"]));
    assert_eq!(config["Cmd"], json!(["start"]));
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["StopSignal"], "SIGTERM");
    assert_eq!(config["ExposedPorts"], json!({"8000/tcp": {}}));
    assert!(config["Env"].as_array().unwrap().contains(&json!("ENVIRONMENT=production")));
    assert_eq!(healthcheck["Test"], json!(["CMD", "/bin/bulkhead", "healthcheck"]));
}

#[test]
fn its_labels_say_what_it_was_built_from() {
    let (config, _) = config();
    let label = |name: &str| {
        let value = config["Labels"][format!("org.opencontainers.image.{name}")].as_str();
        value.unwrap_or_else(|| panic!("no label {name}: {}", config["Labels"])).to_owned()
    };
    assert_eq!(label("title"), "bulkhead");
    assert_eq!(label("licenses"), "Apache-2.0 OR MIT");
    assert!(label("source").starts_with("https://"));
    assert_eq!(label("created").len(), "2026-01-01T00:00:00Z".len(), "{}", label("created"));
    assert!(!label("revision").is_empty());
    let version = succeed(Command::new(engine()).args(["run", "--rm", &image(), "--version"]));
    assert_eq!(version.trim(), format!("bulkhead {}", label("version")));
}

#[test]
fn it_has_no_shell() {
    for shell in ["/bin/sh", "/bin/bash", "/bin/busybox"] {
        let output = Command::new(engine()).args(["run", "--rm", "--entrypoint", shell, &image()]).output().unwrap();
        // What the engines say of a program that is not there, and of nothing else that may go wrong.
        let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert_eq!(output.status.code(), Some(127), "{shell}: {text}");
        assert!(text.contains("no such file"), "{shell}: {text}");
    }
}

#[test]
fn without_a_database_it_refuses_to_start_and_says_what_to_set() {
    let output = Command::new(engine()).args(["run", "--rm", &image()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("DATABASE_URL: is required when ENVIRONMENT=production"), "{text}");
}

#[tokio::test]
async fn confined_it_migrates_becomes_ready_and_stops_in_order() {
    let Some(database) = Database::postgres().await else { return };
    let container = Container::start(&database);
    container.ready().await;
    assert_eq!(database.tables().await, TABLES);
    assert_eq!(container.user_and_group(), (65532, 65532));
    let health =
        Command::new(engine()).args(["exec", &container.id, "/bin/bulkhead", "healthcheck", "--ready"]).output();
    assert!(health.as_ref().unwrap().status.success(), "{health:?}");

    let told = Instant::now();
    succeed(Command::new(engine()).args(["kill", "--signal", "TERM", &container.id]));
    let code = succeed(Command::new(engine()).args(["wait", &container.id]));
    assert_eq!(code.trim(), "0", "{}", container.log());
    assert!(told.elapsed() < Duration::from_secs(2), "it took {:?}", told.elapsed());
}

#[tokio::test]
async fn its_log_is_json_lines() {
    let Some(database) = Database::postgres().await else { return };
    let container = Container::start(&database);
    container.ready().await;
    let log = container.log();
    assert!(log.lines().count() > 2, "{log}");
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

#[tokio::test]
async fn eight_containers_started_at_once_on_one_database_all_become_ready() {
    let Some(database) = Database::postgres().await else { return };
    let containers: Vec<Container> = (0..8).map(|_| Container::start(&database)).collect();
    for container in &containers {
        container.ready().await;
    }
    let count = async || containers.iter().filter(|one| one.log().contains("migrations applied")).count();
    let applied = eventually("one says that it applied the migrations", async || {
        let count = count().await;
        (count > 0).then_some(count)
    });
    assert_eq!(applied.await, 1);
}
