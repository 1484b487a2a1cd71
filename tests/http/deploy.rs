//! The files that deploy Bulkhead name what is there: commands that run, paths that answer, times that fit.

use crate::support::{LocalServer, Serves};
use crate::{run, stderr, stdout};
use bulkhead::error::ErrorCode;
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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
    // A string fails Railway's schema.
    assert!(deploy["drainingSeconds"].is_u64());
    assert!(deploy["overlapSeconds"].is_u64() && deploy["healthcheckTimeout"].is_u64());
    assert_eq!((&deploy["restartPolicyType"], &deploy["restartPolicyMaxRetries"]), (&"ON_FAILURE".into(), &3.into()));
    // It would replace the entrypoint, which knows best.
    assert!(deploy.get("startCommand").is_none());
    assert_eq!(railway["build"]["builder"], "DOCKERFILE");
}

/// What describes deployments.
const DEPLOYMENTS: [&str; 9] = [
    "deploy/compose.yaml",
    "deploy/compose",
    "deploy/ecs",
    "deploy/kubernetes",
    "deploy/observability",
    "deploy/proxies",
    ".railway/railway.ts",
    "railway.json",
    "nix/module.nix",
];

/// Names that look like those of settings, and are of something else.
const OF_OTHERS: [&str; 27] = [
    // Variables of deploy/compose.yaml, of the images that it starts, and of programs in them.
    "BULKHEAD_ADDRESS",
    "BULKHEAD_HTTPS_PORT",
    "BULKHEAD_HTTP_PORT",
    "BULKHEAD_IMAGE",
    "BULKHEAD_SETTINGS",
    "BULKHEAD_SITE",
    "BULKHEAD_SUBNET",
    "DEX_PORT",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
    "GF_ANALYTICS_CHECK_FOR_UPDATES",
    "GF_ANALYTICS_REPORTING_ENABLED",
    "GRAFANA_PORT",
    "POSTGRES_PASSWORD_FILE",
    "PROMETHEUS_PORT",
    "RUST_IMAGE",
    "SSL_CERT_FILE",
    // Of the script deploy/ecs/run, and of an address in deploy/kubernetes.
    "POLL_SECONDS",
    "DATABASE_PORT",
    // Of Railway's database, and what its DATABASE_URL refers to.
    "DATABASE_PASSWORD",
    "RAILWAY_PRIVATE_DOMAIN",
    // Words of platforms and tools.
    "CKV_AWS_118",
    "CKV_AWS_161",
    "CKV_AWS_91",
    "METH_GET",
    "NET_BIND_SERVICE",
    "ON_FAILURE",
    "X86_64",
];

/// The files at a path of the repository and below, with their text.
fn files(path: &Path) -> Vec<(PathBuf, String)> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        return entries.filter(|path| !path.ends_with(".secrets")).flat_map(|path| files(&path)).collect();
    }
    vec![(path.to_owned(), std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))]
}

#[tokio::test]
async fn deployments_name_settings_that_there_are() {
    let shown = stdout(&run(&["config", "show"], &[]).await);
    let mut known: BTreeSet<String> =
        shown.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(known.len() > 40, "{shown}");
    for name in ["DATABASE_URL", "MIGRATION_DATABASE_URL", "OIDC_CLIENT_SECRET", "COOKIE_SECRET"] {
        known.insert(format!("{name}_FILE"));
    }
    // Codes of errors, which rules of alerts name.
    known.extend(ErrorCode::ALL.iter().map(|code| code.code().to_owned()));
    // The build's.
    known.extend(["PROFILE".to_owned(), "SOURCE_REVISION".to_owned()]);
    let names = Regex::new(r"(?-u)\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b").unwrap();
    let (mut unknown, mut others) = (BTreeMap::new(), BTreeSet::from(OF_OTHERS));
    for (path, text) in DEPLOYMENTS.iter().flat_map(|path| files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(path))) {
        for name in names.find_iter(&text).map(|name| name.as_str()) {
            others.remove(name);
            if !known.contains(name) && !OF_OTHERS.contains(&name) {
                unknown.insert(name.to_owned(), path.clone());
            }
        }
    }
    assert!(unknown.is_empty(), "these are no settings, nor of something else: {unknown:#?}");
    assert!(others.is_empty(), "nothing names these any more: {others:?}");
}

/// The number behind the first `before` of a file.
fn number(name: &str, before: &str) -> u64 {
    let text = file(name);
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{name} lacks {before}"));
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[tokio::test]
async fn a_stop_has_the_time_that_it_takes() {
    let shown =
        stdout(&run(&["config", "show"], &[("ENVIRONMENT", "production"), ("DATABASE_URL", "sqlite://x.db")]).await);
    let default = |name: &str| -> u64 {
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().trim_end_matches('s').parse().unwrap()
    };
    let (delay, drain) = (default("SHUTDOWN_DELAY_SECONDS"), default("SHUTDOWN_DRAIN_SECONDS"));
    // Refusals that were counted, and the pool (docs/settings.md).
    let rest = 5 + 1;
    let kubernetes = "deploy/kubernetes/base/manifests/30-deployment.yaml";
    let delay_there = number(kubernetes, "- name: SHUTDOWN_DELAY_SECONDS");
    for (name, before, delay) in [
        ("railway.json", "\"drainingSeconds\"", delay),
        (".railway/railway.ts", "drainingSeconds:", delay),
        ("deploy/compose.yaml", "stop_grace_period", number("deploy/compose.yaml", "SHUTDOWN_DELAY_SECONDS:")),
        (kubernetes, "terminationGracePeriodSeconds", delay_there),
    ] {
        let granted = number(name, before);
        assert!(granted > delay + drain + rest, "{name}: {granted} s for a stop of {delay} + {drain} + {rest} s");
    }
    let margin = number("nix/module.nix", "cfg.settings.SHUTDOWN_DRAIN_SECONDS +");
    assert!(
        margin > rest,
        "nix/module.nix: TimeoutStopSec leaves {margin} s after delay and drain, of which a stop takes {rest}"
    );
    // Caddy waits for the longest request, and ends before it is killed.
    let (request, grace) = (default("REQUEST_TIMEOUT_SECONDS"), number("deploy/compose/Caddyfile", "grace_period"));
    let caddys_end = number("deploy/compose.yaml", "# Caddy's grace_period, and some more.");
    assert!(
        request < grace && grace < caddys_end,
        "Caddy: request {request} s < grace_period {grace} s < stop {caddys_end} s"
    );
    // A balancer finds a failed check while the process still serves: checks in a row, their interval, the time of one.
    let haproxy = "deploy/proxies/haproxy.cfg";
    let checked = number(haproxy, "default-server check inter") * number(haproxy, "inter 1s fall")
        + number(haproxy, "timeout check");
    let caddy =
        number("deploy/compose/Caddyfile", "health_interval") + number("deploy/compose/Caddyfile", "health_timeout");
    // nginx has no checks, but lets go of connections.
    let nginx = number("deploy/proxies/nginx.conf", "keepalive_timeout");
    for (what, seconds) in [("HAProxy's checks", checked), ("Caddy's checks", caddy), ("nginx's connections", nginx)] {
        assert!(seconds < delay, "{what}: {seconds} s of the {delay} s for which a process serves after SIGTERM");
    }
}
