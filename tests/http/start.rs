//! What a start does, and how it fails: one clear line that names the variable to change.

use crate::{bulkhead, ready, run, stderr, stdout};
use futures_util::future::join_all;
use serde_json::Value;
use std::net::TcpListener;
use std::time::Duration;
use test_support::{Database, SOON, Server, Signal, eventually, on_both_databases, send, skip, tables};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

on_both_databases!(a_start_migrates_and_becomes_ready, many_starts_at_once_all_become_ready);

async fn a_start_migrates_and_becomes_ready(database: Database) {
    let server = ready(&database, &[]).await;
    assert_eq!(database.tables().await, tables());
    let (_, root) = server.get_json("/").await;
    assert_eq!((&root["name"], &root["docs"]), (&"bulkhead".into(), &"/docs".into()));
}

async fn many_starts_at_once_all_become_ready(database: Database) {
    let servers = join_all((0..8).map(|_| Server::listening(bulkhead(), &[], &database, &[]))).await;
    for server in &servers {
        server.wait_until_ready().await;
    }
    let applied: usize =
        servers.iter().flat_map(Server::log).filter(|line| line.contains("migrations applied")).count();
    assert_eq!(applied, 1, "one start applies the migrations, the others wait for it");
}

#[tokio::test]
async fn without_settings_it_serves_from_a_local_file() {
    let folder = tempfile::tempdir().unwrap();
    let child = Server::command(bulkhead(), &[("PORT", "0")]).current_dir(&folder).spawn().unwrap();
    eventually("the database file is there", async || folder.path().join("bulkhead.db").exists().then_some(())).await;
    send(&child, Signal::TERM);
    let ended = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it stops").unwrap();
    let output = stdout(&ended);
    assert!(output.contains("environment=development"), "{output}");
    assert!(output.contains("database=sqlite://bulkhead.db"), "{output}");
}

#[tokio::test]
async fn first_lines_say_where_to_look() {
    let database = Database::sqlite();
    let server = ready(&database, &[("LOG_FORMAT", "pretty")]).await;
    // The advice is the last of them.
    server.log_line("next", "dev-token").await;
    let log = server.log().join("\n");
    let migrations = bulkhead_migration::all().len();
    let applied = format!("{migrations} migrations applied");
    for part in ["environment=development", "database=sqlite://", &applied, "ready on http://localhost:", "/docs"] {
        assert!(log.contains(part), "{part} is missing:\n{log}");
    }
    let advice = log.lines().find(|line| line.contains("dev-token")).unwrap_or_else(|| panic!("no next step:\n{log}"));
    assert!(advice.contains("`bulkhead dev-token`") && advice.contains("`bulkhead tenant create --help`"), "{advice}");
    let lines = log.lines().filter(|line| !line.contains("INFO request ")).count();
    assert!(lines <= 5 + 2 * migrations, "more than five lines, and two for each migration:\n{log}");
    let cargo = ready(&database, &[("LOG_FORMAT", "pretty"), ("CARGO_PKG_NAME", "bulkhead")]).await;
    cargo.log_line("next", "`cargo run -- dev-token`").await;
    // A machine reads one event, and no advice.
    let database = Database::sqlite();
    for settings in [&[("ENVIRONMENT", "production")][..], &[("LOG_FORMAT", "json")]] {
        let server = ready(&database, settings).await;
        server.log_line("ready on http", "").await;
        let log = server.log().join("\n");
        assert!(!log.contains("dev-token"), "{log}");
    }
}

/// What the program's name alone does where standard input and output are a terminal: its output there, its exit code, and
/// whether it has made a database; `None` where there is no terminal to be had. What starts is stopped.
async fn at_a_terminal(line: &str, environment: &[(&str, &str)]) -> Option<(String, Option<i32>, bool)> {
    if cfg!(target_os = "macos") {
        skip("macOS: its script has other options than util-linux's");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    // util-linux's script gives it a terminal.
    let child = Command::new("script")
        .args(["--quiet", "--return", "--command", line, "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs([("PORT", "0"), ("SHELL", "/bin/sh")])
        .envs(environment.iter().copied())
        .current_dir(&folder)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut child) = child else {
        skip("no script: install util-linux (bsdutils)");
        return None;
    };
    let keys = child.stdin.take();
    let database = folder.path().join("bulkhead.db");
    let ended = eventually("it ends, or makes a database", async || {
        if let Some(status) = child.try_wait().unwrap() {
            Some(Some(status))
        } else {
            database.exists().then_some(None)
        }
    })
    .await;
    // As Ctrl-C does.
    if ended.is_none() {
        use tokio::io::AsyncWriteExt;
        keys.unwrap().write_all(b"\x03").await.unwrap();
    }
    let output = tokio::time::timeout(SOON, child.wait_with_output()).await.expect("it ends").unwrap();
    Some((stdout(&output), ended.and_then(|status| status.code()), database.exists()))
}

#[tokio::test]
async fn its_name_alone_at_a_terminal_prints_help_and_starts_nothing() {
    let program = bulkhead().display().to_string();
    let Some((text, code, made)) = at_a_terminal(&program, &[]).await else { return };
    assert!((code, made) == (Some(0), false), "{code:?}: {text}");
    for part in ["Usage: bulkhead", "tenant", "To start the server: bulkhead start"] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    // In a pipe, with a subcommand, or by `cargo run`, it starts.
    let piped = format!("{program} | cat");
    let asked = format!("{program} start");
    for (line, environment) in [(&piped, &[][..]), (&asked, &[]), (&program, &[("CARGO_PKG_NAME", "bulkhead")])] {
        let Some((text, _, made)) = at_a_terminal(line, environment).await else { return };
        assert!(made && !text.contains("Usage: bulkhead"), "{line}: {text}");
    }
}

#[tokio::test]
async fn without_ca_certificates_nothing_is_migrated() {
    let database = Database::sqlite();
    for command in ["start", "serve"] {
        let settings = [
            ("DATABASE_URL", database.url.as_str()),
            ("PORT", "0"),
            ("OIDC_ISSUER_URL", "https://login.example.org"),
            ("OIDC_CLIENT_ID", "bulkhead"),
            ("SSL_CERT_FILE", "/nowhere.pem"),
        ];
        let output = tokio::time::timeout(SOON, run(&[command], &settings)).await.expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("SSL_CERT_FILE may name the CA certificates"), "{}", stderr(&output));
        assert!(database.tables().await.is_empty(), "{command}");
    }
}

#[tokio::test]
async fn log_lines_are_json_outside_development() {
    let database = Database::sqlite();
    let server = Server::ready(bulkhead(), &database, &[("ENVIRONMENT", "production"), ("LOG_FORMAT", "")]).await;
    for line in server.log() {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert!(event["level"].is_string() && event["message"].is_string() && event["timestamp"].is_string(), "{line}");
    }
}

#[tokio::test]
async fn both_address_families_are_served() {
    let database = Database::sqlite();
    let server = ready(&database, &[]).await;
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("http://{host}:{}/api/v1/health/live", server.port);
        assert_eq!(reqwest::get(&url).await.unwrap().status(), 200, "{url}");
    }
}

#[tokio::test]
async fn one_address_alone_is_served_when_host_names_it() {
    let database = Database::sqlite();
    let server = ready(&database, &[("HOST", "127.0.0.1")]).await;
    assert!(reqwest::get(format!("http://[::1]:{}/", server.port)).await.is_err());
}

/// Runs `bulkhead` expecting it to fail; its standard error must be one line.
async fn failure(environment: &[(&str, &str)]) -> (i32, String) {
    let ended = tokio::time::timeout(Duration::from_secs(20), run(&[], environment)).await;
    let output = ended.expect("it ends by itself");
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    (output.status.code().unwrap(), text.trim().to_owned())
}

#[tokio::test]
async fn a_port_in_use_is_one_line_that_names_port() {
    let taken = TcpListener::bind("[::]:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let database = Database::sqlite();
    let (code, line) = failure(&[("PORT", &port), ("DATABASE_URL", &database.url)]).await;
    assert_eq!((code, line), (1, format!("PORT: {port} is in use on ::; stop the other process or set PORT")));
}

#[tokio::test]
async fn unmakeable_database_file_is_one_line() {
    let url = "sqlite:///dev/null/bulkhead.db?mode=rwc";
    let (code, line) = failure(&[("PORT", "0"), ("DATABASE_URL", url)]).await;
    assert_eq!(code, 1);
    assert!(line.starts_with("DATABASE_URL: cannot use sqlite:///dev/null/bulkhead.db: "), "{line}");
}

#[tokio::test]
async fn unwritable_database_file_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bulkhead.db");
    std::fs::write(&file, "").unwrap();
    let url = format!("sqlite://{}?mode=ro", file.display());
    let (code, line) = failure(&[("PORT", "0"), ("DATABASE_URL", &url)]).await;
    assert_eq!(code, 1);
    assert!(line.contains("DATABASE_URL: cannot use sqlite://") && line.contains("readonly"), "{line}");
}

#[tokio::test]
async fn absent_database_is_one_line_without_password() {
    // Nothing listens on port 1.
    let url = "postgres://me:hunter2@127.0.0.1:1/app";
    let (code, line) =
        failure(&[("PORT", "0"), ("DATABASE_URL", url), ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1")]).await;
    assert_eq!(code, 1);
    assert_eq!(line, "DATABASE_URL: cannot use postgres://***@127.0.0.1:1/app: connection refused at 127.0.0.1:1");
}

#[tokio::test]
async fn start_waits_for_the_database_that_migrations_use_and_logs_why() {
    let Some(database) = Database::postgres().await else { return };
    let settings = [
        ("DATABASE_URL", database.url.as_str()),
        ("MIGRATION_DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/app"),
        ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1"),
        ("PORT", "0"),
    ];
    let output = run(&["start"], &settings).await;
    let said = "MIGRATION_DATABASE_URL: cannot use postgres://***@127.0.0.1:1/app: connection refused at 127.0.0.1:1";
    assert_eq!((output.status.code(), stderr(&output).trim()), (Some(1), said));
    let waiting = format!("waiting for the database: {said}");
    assert!(stdout(&output).contains(&waiting), "{}", stdout(&output));
}

#[tokio::test]
async fn another_machine_has_to_prove_who_it_is() {
    let check = async |command: &str, url: &str, settings: &[(&str, &str)]| {
        let settings = [&[("DATABASE_URL", url)], settings].concat();
        run(&["config", command], &settings).await
    };
    let production = [("ENVIRONMENT", "production")];
    let unverified = [("ENVIRONMENT", "production"), ("DATABASE_ALLOW_UNVERIFIED", "true")];
    for (query, mode) in [
        ("", "prefer"),
        ("?sslmode=disable", "disable"),
        ("?sslmode=allow", "allow"),
        ("?sslmode=prefer", "prefer"),
        ("?sslmode=require", "require"),
        ("?sslmode=verify-ca", "verify-ca"),
    ] {
        let url = format!("postgres://me:hunter2@db.example.org/app{query}");
        let refused = format!(
            "DATABASE_URL: db.example.org is another machine, which need not prove who it is with sslmode={mode}: set \
             sslmode=verify-full, or DATABASE_ALLOW_UNVERIFIED=true if nobody else can be on the network between"
        );
        for command in ["check", "show"] {
            let output = check(command, &url, &production).await;
            assert_eq!(output.status.code(), Some(2), "{url}");
            let text = stderr(&output);
            assert!(text.lines().any(|line| line == refused), "{text}");
        }
        let owner = [&production[..], &[("MIGRATION_DATABASE_URL", &*url)]].concat();
        let text = stderr(&check("check", "postgres://me@localhost/app", &owner).await);
        assert_eq!(text.trim(), format!("MIGRATION_{refused}"));
        for quiet in [&unverified[..], &[("ENVIRONMENT", "development")]] {
            let output = check("check", &url, quiet).await;
            assert!(output.status.success() && stderr(&output).is_empty(), "{url}: {}", stderr(&output));
        }
        let warned = stderr(&check("check", &url, &[("ENVIRONMENT", "staging")]).await);
        let plain = format!(
            "warning: DATABASE_URL: data may go to db.example.org in plain text (sslmode={mode}): with sslmode=verify-full it \
             is encrypted, and the server proves who it is\n"
        );
        assert_eq!(warned, if ["require", "verify-ca"].contains(&mode) { "" } else { &plain });
    }
    for good in [
        "postgres://me@db.example.org/app?sslmode=verify-full",
        "postgres://me@localhost/app",
        "postgres://me@127.0.0.1/app?sslmode=disable",
        "postgres://me@[::1]/app",
        "postgres://me@postgres.railway.internal/app",
        "postgres:///app?host=/var/run/postgresql",
        "sqlite://bulkhead.db",
    ] {
        let output = check("check", good, &production).await;
        assert!(output.status.success() && stderr(&output).is_empty(), "{good}: {}", stderr(&output));
    }
    // A start says it in the log. The name does not resolve, so that it ends.
    let settings = [
        ("DATABASE_URL", "postgres://me@db.invalid/app"),
        ("ENVIRONMENT", "staging"),
        ("PORT", "0"),
        ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1"),
    ];
    let output = run(&["start"], &settings).await;
    assert!(
        stdout(&output).contains("data may go to db.invalid in plain text (sslmode=prefer)"),
        "{}",
        stdout(&output)
    );
    let line = stderr(&output);
    assert!(
        line.starts_with("DATABASE_URL: cannot use postgres://***@db.invalid:5432/app: unknown host db.invalid: "),
        "{line}"
    );
}

/// What a process has in `/proc` is root's where other processes of its user may not look at its memory, and no core is dumped (proc(5)).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn outside_development_nobody_looks_at_its_memory() {
    use std::os::unix::fs::MetadataExt;
    let (me, folder) = (rustix::process::getuid(), tempfile::tempdir_in("/tmp").unwrap());
    // Root's own files would look the same either way.
    let user = if me.is_root() { 65534 } else { me.as_raw() };
    let program = folder.path().join("bulkhead");
    std::fs::copy(bulkhead(), &program).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (environment, hidden) in [("production", true), ("staging", true), ("development", false)] {
        // It waits for this database.
        let settings = [("DATABASE_URL", "postgres://me@127.0.0.1:1/app"), ("ENVIRONMENT", environment), ("PORT", "0")];
        let mut command = Server::command(&program, &settings);
        if me.is_root() {
            command.uid(user);
        }
        let mut child = command.current_dir(&folder).arg("start").spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !lines.next_line().await.unwrap().expect("it waits").contains("waiting for the database") {}
        let secrets = std::fs::metadata(format!("/proc/{}/environ", child.id().unwrap())).unwrap();
        // In a container, root may have another number.
        assert_eq!(secrets.uid() != user, hidden, "{environment}: {}", secrets.uid());
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn authorities_of_the_database_are_certificates() {
    let authority = test_support::Certificates::new("db.example.org").authority;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, &authority).unwrap();
    let file = file.to_str().unwrap();
    let missing = folder.path().join("missing.pem").to_str().unwrap().to_owned();
    let check = async |url: &str, name: &str, value: &str| {
        let settings = [("DATABASE_URL", url), ("ENVIRONMENT", "production"), (name, value)];
        let output = run(&["config", "check"], &settings).await;
        (output.status.code(), stderr(&output).trim().to_owned())
    };
    // Without an sslmode, the server has to prove who it is.
    let url = "postgres://me@db.example.org/app";
    for (name, value) in [("DATABASE_CA", &*authority), ("DATABASE_CA_FILE", file)] {
        assert_eq!(check(url, name, value).await, (Some(0), String::new()), "{name}");
        assert_eq!(check("postgres://me@127.0.0.1/app?sslmode=disable", name, value).await, (Some(0), String::new()));
        for mode in ["disable", "allow", "require"] {
            let said = format!("DATABASE_URL: has sslmode={mode}, but DATABASE_CA is set: set sslmode=verify-full");
            assert_eq!(check(&format!("{url}?sslmode={mode}"), name, value).await, (Some(2), said));
        }
    }
    let garbage = "DATABASE_CA: holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----";
    let truncated = authority.replace("-----END CERTIFICATE-----", "");
    for text in ["authority.pem", "-----BEGIN CERTIFICATE-----", truncated.trim()] {
        let (code, said) = check("postgres://me@127.0.0.1/app", "DATABASE_CA", text).await;
        assert_eq!((code, &*said), (Some(2), garbage), "{text}");
    }
    // It is the one thing to change, also where the server has to prove who it is.
    for url in ["postgres://me@127.0.0.1/app", url] {
        let (code, said) = check(url, "DATABASE_CA_FILE", &missing).await;
        assert_eq!(code, Some(2));
        assert!(
            said.starts_with(&format!("DATABASE_CA_FILE: cannot read {missing}: ")) && said.lines().count() == 1,
            "{said}"
        );
    }
    std::fs::write(&missing, "no certificate").unwrap();
    let (code, said) = check(url, "DATABASE_CA_FILE", &missing).await;
    assert_eq!((code, said), (Some(2), garbage.replace("DATABASE_CA:", "DATABASE_CA_FILE:")));
}

#[tokio::test]
async fn malformed_configuration_is_exit_code_2() {
    let cases = [
        ("DATABASE_URL", "postgres//nope"),
        ("DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("DATABASE_URL", "postgres://me:hunter2@host:port/db"),
        ("DATABASE_URL", "postgres://me:hunter2@host"),
        ("DATABASE_URL", "sqlite::memory:"),
        ("ENVIRONMENT", "prod"),
        ("PORT", "http"),
        ("HOST", "localhost:80"),
        ("MIGRATE_ON_START", "yes"),
        ("SHUTDOWN_DRAIN_SECONDS", "-1"),
        ("LOG_LEVEL", "info,bulkhead=loud"),
        ("LOG_LEVEL", "inof"),
    ];
    for (name, value) in cases {
        let (code, line) = failure(&[(name, value)]).await;
        assert_eq!(code, 2, "{name}={value}: {line}");
        assert!(line.starts_with(&format!("{name}: ")), "{name}={value}: {line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}
