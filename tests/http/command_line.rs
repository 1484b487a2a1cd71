//! The command line: what each subcommand prints and with which code it ends.

use crate::support::key_file;
use crate::{bulkhead, ready, run, run_on, stderr, stdout};
use futures_util::future::join_all;
use reqwest::Url;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use test_support::{Database, SOON, Server, on_both_databases, tables};

/// Takes the migration lock, as another process would.
const LOCK: &str =
    "SELECT pg_advisory_lock(hashtextextended('sea-orm-migration/' || current_schema() || '/seaql_migrations', 0))";

on_both_databases!(every_migrate_verb_does_what_it_says, a_migration_that_is_run_twice_changes_nothing);

async fn every_migrate_verb_does_what_it_says(database: Database) {
    let expect = async |arguments: &[&str], lines: &[String]| {
        let output = run_on(&database, arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), lines, "{arguments:?}");
    };
    let line = |state: &str, name: &str| format!("{state}  {name}");
    let standing = |state: &str, name: &str| format!("{state:12}  {name}");

    let names: Vec<String> = bulkhead_migration::all().iter().map(|migration| migration.name.to_owned()).collect();
    let all = |state: &str| names.iter().map(|name| line(state, name)).collect::<Vec<_>>();
    let state = |applied: usize| {
        let state = |at| if at < applied { "applied" } else { "pending" };
        names.iter().enumerate().map(|(at, name)| standing(state(at), name)).collect::<Vec<_>>()
    };

    expect(&["migrate", "status"], &state(0)).await;
    expect(&["migrate", "down"], &["nothing to do".to_owned()]).await;
    assert!(database.tables().await.is_empty(), "status creates nothing");
    expect(&["migrate", "up", "-n", "1"], &all("applied")[..1]).await;
    expect(&["migrate", "status"], &state(1)).await;
    let pending = run_on(&database, &["migrate", "status", "--exit-code"]).await;
    let said = format!("{} migrations are pending: run bulkhead migrate up\n", names.len() - 1);
    assert_eq!((pending.status.code(), stderr(&pending)), (Some(3), said));
    expect(&["migrate", "up"], &all("applied")[1..]).await;
    assert_eq!(run_on(&database, &["migrate", "status", "--exit-code"]).await.status.code(), Some(0));
    assert_eq!(database.tables().await, tables());
    let mut reverted = all("reverted");
    reverted.reverse();
    let down = (names.len() - 1).to_string();
    expect(&["migrate", "down", "-n", &down], &reverted[..names.len() - 1]).await;
    assert_eq!(database.tables().await, ["seaql_migrations", "seaql_migrations_meta", "tenants"]);
    expect(&["migrate", "fresh"], &all("applied")).await;
    expect(&["migrate", "refresh"], &[&reverted[..], &all("applied")[..]].concat()).await;
    expect(&["migrate", "reset"], &reverted).await;
    assert!(database.tables().await.is_empty(), "{:?}", database.tables().await);
}

async fn a_migration_that_is_run_twice_changes_nothing(database: Database) {
    assert!(run_on(&database, &["migrate", "up"]).await.status.success());
    let again = run_on(&database, &["migrate", "up"]).await;
    assert_eq!((again.status.code(), stdout(&again).trim()), (Some(0), "nothing to do"));
}

#[tokio::test]
async fn destroying_data_in_production_needs_a_flag() {
    let database = Database::migrated_sqlite().await;
    let production = [("ENVIRONMENT", "production"), ("DATABASE_URL", database.url.as_str())];
    for verb in ["down", "fresh", "refresh", "reset"] {
        let output = run(&["migrate", verb], &production).await;
        assert_eq!(output.status.code(), Some(2), "{verb}");
        assert!(stderr(&output).contains("--i-know-this-destroys-data"), "{}", stderr(&output));
    }
    assert_eq!(database.tables().await, tables());
    let output = run(&["migrate", "reset", "--i-know-this-destroys-data"], &production).await;
    assert!(output.status.success(), "{}", stderr(&output));
}

#[tokio::test]
async fn migrations_use_their_own_database_url() {
    let (served, migrated) = (Database::sqlite(), Database::sqlite());
    let urls = [("DATABASE_URL", served.url.as_str()), ("MIGRATION_DATABASE_URL", migrated.url.as_str())];
    assert!(run(&["migrate", "up"], &urls).await.status.success());
    assert_eq!(migrated.tables().await, tables());
    assert!(served.tables().await.is_empty());
}

#[tokio::test]
async fn unreachable_migration_database_names_its_variable() {
    let (served, away) = (Database::sqlite(), "postgres://me:hunter2@127.0.0.1:1/app");
    let cases = [
        [("DATABASE_URL", away), ("LOG_LEVEL", "info")],
        [("DATABASE_URL", served.url.as_str()), ("MIGRATION_DATABASE_URL", away)],
    ];
    let checks = cases.into_iter().flat_map(|case| ["up", "status", "plan", "verify"].map(|verb| (case, verb)));
    let check = async |([one, other], verb): ([(&str, &str); 2], &str)| {
        let name = if other.1 == away { other.0 } else { one.0 };
        let environment = [one, other, ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1")];
        let output = run(&["migrate", verb], &environment).await;
        let text = stderr(&output);
        assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{verb}: {text}");
        let said = format!("{name}: cannot use postgres://***@127.0.0.1:1/app: connection refused at 127.0.0.1:1\n");
        assert_eq!(text, said, "{verb}");
    };
    join_all(checks.map(check)).await;
}

#[tokio::test]
async fn commands_say_at_once_why_the_database_cannot_be_used() {
    let Some(database) = Database::postgres().await else { return };
    let server = Url::parse(&database.url).unwrap();
    let place = format!("{}:{}", server.host_str().unwrap(), server.port().unwrap());
    let with = |change: &dyn Fn(&mut Url)| {
        let mut url = server.clone();
        change(&mut url);
        url.to_string()
    };
    let cases = [
        ("postgres://me:hunter2@127.0.0.1:1/app".to_owned(), "127.0.0.1:1/app", "connection refused at 127.0.0.1:1"),
        ("postgres://me@[::1]:1/app".to_owned(), "[::1]:1/app", "connection refused at [::1]:1"),
        ("postgres://me@db.invalid/app".to_owned(), "db.invalid:5432/app", "unknown host db.invalid: "),
        ("postgres:///app?host=/nowhere".to_owned(), "", "there is no socket /nowhere/.s.PGSQL.5432"),
        (with(&|url| url.set_path("nodb")), &format!("{place}/nodb"), "database \"nodb\" does not exist"),
        (
            with(&|url| url.set_username("stranger").unwrap()),
            &format!("{place}{}", server.path()),
            "role \"stranger\" does not exist",
        ),
    ];
    for (url, shown, cause) in &cases {
        for arguments in [
            &["migrate", "up"][..],
            &["migrate", "status"],
            &["tenant", "list"],
            &["user", "list", "--tenant", "clinic"],
            &["audit", "verify"],
            &["dev-token"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let key = key_file(folder.path());
            let settings = [
                ("DATABASE_URL", url.as_str()),
                ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "600"),
                ("DEVELOPMENT_KEY_FILE", &key),
            ];
            let ended = tokio::time::timeout(SOON, run(arguments, &settings)).await;
            let output = ended.unwrap_or_else(|_| panic!("{arguments:?} waits for {url}"));
            let text = stderr(&output);
            let said = format!("DATABASE_URL: cannot use postgres://***@{shown}");
            assert!(
                text.starts_with(&said) && text.contains(&format!(": {cause}")) && text.lines().count() == 1,
                "{arguments:?}: {text}"
            );
            assert!(!text.contains("at line") && !text.contains("hunter2"), "{arguments:?}: {text}");
            assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn commands_wait_for_a_session_of_a_server_that_has_none_left() {
    use sea_orm::ConnectionTrait;
    let Some(database) = Database::postgres().await else { return };
    let connection = database.connect().await;
    let role = format!("busy_{}", uuid::Uuid::now_v7().simple());
    let execute = async |sql: String| connection.execute_unprepared(&sql).await.unwrap();
    execute(format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")).await;
    let mut url = Url::parse(&database.url).unwrap();
    url.set_username(&role).unwrap();
    let settings = [("DATABASE_URL", url.as_str()), ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1")];
    let begun = Instant::now();
    let output = run(&["migrate", "status"], &settings).await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "it waits: {:?}", begun.elapsed());
    let said = format!(": too many connections for role \"{role}\"\n");
    assert!(output.status.code() == Some(1) && stderr(&output).ends_with(&said), "{}", stderr(&output));
    execute(format!("ALTER ROLE {role} CONNECTION LIMIT 9")).await;
    let output = run(&["migrate", "status"], &settings).await;
    assert!(output.status.success(), "{}", stderr(&output));
    execute(format!("DROP ROLE {role}")).await;
    connection.close().await.unwrap();
}

#[tokio::test]
async fn lock_timeout_is_exit_code_4() {
    use sea_orm::{ConnectionTrait, TransactionTrait};
    let Some(database) = Database::postgres().await else { return };
    let connection = database.connect().await;
    let holder = connection.begin().await.unwrap();
    holder.execute_unprepared(LOCK).await.unwrap();
    let impatient = [("DATABASE_URL", database.url.as_str()), ("MIGRATION_LOCK_TIMEOUT_SECONDS", "1")];
    let output = run(&["migrate", "up"], &impatient).await;
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("held by process "), "{}", stderr(&output));
    holder.rollback().await.unwrap();
    connection.close().await.unwrap();
    assert!(run_on(&database, &["migrate", "up"]).await.status.success(), "the lock is free again");
}

#[tokio::test]
async fn healthcheck_tells_live_ready_and_absent_apart() {
    let database = Database::sqlite();
    run_on(&database, &["migrate", "status"]).await;
    let server = Server::listening(bulkhead(), &["serve"], &database, &[]).await;
    let port = server.port.to_string();
    let check = async |arguments: &[&str]| run(arguments, &[("PORT", &port)]).await.status.code();
    assert_eq!(check(&["healthcheck"]).await, Some(0));
    assert_eq!(check(&["healthcheck", "--ready"]).await, Some(1));
    database.migrate().await;
    server.wait_until_ready().await;
    assert_eq!(check(&["healthcheck", "--ready"]).await, Some(0));
    drop(server);
    let output = run(&["healthcheck"], &[("PORT", "1")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output).lines().count(), 1, "{}", stderr(&output));
}

#[tokio::test]
async fn healthcheck_follows_host() {
    let database = Database::sqlite();
    let server = ready(&database, &[("HOST", "::1")]).await;
    let port = server.port.to_string();
    let output = run(&["healthcheck"], &[("PORT", &port), ("HOST", "::1")]).await;
    assert!(output.status.success(), "{}", stderr(&output));
}

#[tokio::test]
async fn config_check_reports_every_mistake_at_once() {
    let output = run(&["config", "check"], &[("PORT", "x"), ("ENVIRONMENT", "production"), ("HOST", "y")]).await;
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(names, ["DATABASE_URL", "HOST", "PORT"], "{text}");
    assert!(run(&["config", "check"], &[]).await.status.success());
    let nearly = run(&["config", "check"], &[("DATABSE_URL", "sqlite://x.db")]).await;
    assert!(nearly.status.success());
    assert_eq!(stderr(&nearly), "warning: DATABSE_URL is set, and is no setting: is DATABASE_URL meant?\n");
}

#[tokio::test]
async fn unknown_log_level_is_refused() {
    for (value, word) in [
        ("inof", "inof"),
        ("loud", "loud"),
        ("info,debgu", "debgu"),
        ("bulkhead", "bulkhead"),
        ("info,sqlx=loud", "sqlx=loud"),
        ("info,sqlx=", "sqlx="),
        ("info,", ""),
        (" ", ""),
        ("info,=debug", "=debug"),
        ("a=b=info", "a=b=info"),
    ] {
        for command in [&["config", "check"][..], &["start"]] {
            let output = run(command, &[("LOG_LEVEL", value), ("DATABASE_URL", "sqlite://nowhere/x.db")]).await;
            let text = stderr(&output);
            assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{command:?} {value:?}: {text}");
            let said = format!("LOG_LEVEL: {word:?} is neither a level (error, warn, info, debug, trace, off) nor ");
            assert!(text.starts_with(&said), "{value:?}: {text}");
        }
    }
    for value in
        ["off", "error", "warn", "info", "debug", "TRACE", "info,sqlx=debug", "warn, tower::x=off", "sqlx=debug"]
    {
        let output = run(&["config", "check"], &[("LOG_LEVEL", value)]).await;
        assert!(output.status.success(), "{value}: {}", stderr(&output));
    }
}

#[tokio::test]
async fn config_show_lists_every_variable_and_no_secret() {
    let output = run(&["config", "show"], &[("DATABASE_URL", "postgres://me:hunter2@db/app"), ("PORT", "81")]).await;
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!text.contains("hunter2") && !text.contains("me:"), "{text}");
    let find =
        |name: &str| text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default().to_owned();
    assert!(find("DATABASE_URL").contains("postgres://***@db:5432/app  (environment)"), "{text}");
    assert!(find("PORT").contains("81  (environment)"), "{text}");
    assert!(find("HOST").contains("::  (default)"), "{text}");
    assert!(find("MIGRATION_DATABASE_URL").contains("(not set)"), "{text}");
}

#[tokio::test]
async fn every_setting_is_documented() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    let page = std::fs::read_to_string(page).unwrap();
    let shown = stdout(&run(&["config", "show"], &[]).await);
    // It does not depend on where it is asked for.
    let schema = stdout(&run(&["config", "schema"], &[("ENVIRONMENT", "production"), ("PORT", "x")]).await);
    assert_eq!(schema, stdout(&run(&["config", "schema"], &[]).await));
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for name in shown.lines().filter_map(|line| line.split(' ').next()) {
        assert!(page.contains(&format!("`{name}`")), "{name} is missing in docs/settings.md");
        assert!(schema["properties"][name]["description"].is_string(), "{name} is missing in `config schema`");
    }
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for arguments in [&["frobnicate"][..], &["migrate"], &["migrate", "up", "-n", "0"], &["start", "now"]] {
        assert_eq!(run(arguments, &[]).await.status.code(), Some(2), "{arguments:?}");
    }
    for (arguments, line) in [
        (&["frobnicate"][..], "unrecognized subcommand 'frobnicate': see bulkhead --help"),
        (
            &["migrat"],
            "unrecognized subcommand 'migrat'; tip: a similar subcommand exists: 'migrate': see bulkhead --help",
        ),
        (
            &["migrate", "up", "-n", "0"],
            "invalid value '0' for '--num <N>': must be a whole number of 1 or more: see bulkhead --help",
        ),
        (
            &["migrate", "up", "-n", "x"],
            "invalid value 'x' for '--num <N>': must be a whole number of 1 or more: see bulkhead --help",
        ),
        (
            &["tenant", "create", "--name", "Saint Mary's"],
            "the following required arguments were not provided: --external-id <EXTERNAL_ID>: see bulkhead tenant create --help",
        ),
        (
            &["user", "grant", "--tenant", "clinic", "--email", "a@example.org", "--role", "owner"],
            "invalid value 'owner' for '--role <ROLE>' [possible values: admin, member, viewer]: see bulkhead --help",
        ),
    ] {
        let output = run(arguments, &[]).await;
        assert_eq!((stderr(&output).trim_end(), stdout(&output).as_str()), (line, ""), "{arguments:?}");
    }
    let help = stdout(&run(&["--help"], &[]).await);
    for name in [
        "start",
        "serve",
        "migrate",
        "database",
        "healthcheck",
        "config",
        "openapi",
        "tenant",
        "user",
        "dev-token",
        "Exit codes",
    ] {
        assert!(help.contains(name), "{name} is missing:\n{help}");
    }
    let version = stdout(&run(&["-V"], &[]).await);
    assert_eq!(version.trim(), format!("bulkhead {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn the_version_names_the_lock_files_of_the_build() {
    let hash = |file: &str| {
        let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text))
    };
    let version = stdout(&run(&["--version"], &[]).await);
    for line in [
        format!("bulkhead {}", env!("CARGO_PKG_VERSION")),
        format!("Cargo.lock sha256:{}", hash("Cargo.lock")),
        format!("flake.lock sha256:{}", hash("flake.lock")),
    ] {
        assert!(version.lines().any(|one| one == line), "no line '{line}' in:\n{version}");
    }
}

/// A full disk, or a pipe to a program that has ended.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn output_that_cannot_be_written_is_an_error() {
    let database = Database::migrated_sqlite().await;
    let settings = [("DATABASE_URL", database.url.as_str())];
    for arguments in [
        &["audit", "verify"][..],
        &["config", "show"],
        &["migrate", "status"],
        &["migrate", "up"],
        &["openapi"],
        &["tenant", "create", "--name", "One", "--external-id", "clinic-1"],
        &["tenant", "list"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = Server::command(bulkhead(), &settings);
        let output = command.args(arguments).stdout(full).spawn().unwrap().wait_with_output().await.unwrap();
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert_eq!(said, "cannot write to standard output: No space left on device (os error 28)\n", "{arguments:?}");
    }
}
