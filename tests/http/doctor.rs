//! `bulkhead doctor`: what is wrong is named, with what mends it.

use crate::isolation::{Roles, deployment, succeed};
use crate::support::{TestApp, borrowed};
use crate::{run, stderr, stdout};
use sea_orm::ConnectionTrait;
use serde_json::Value;
use std::process::Output;
use test_support::{Database, PgBouncer};
use url::Url;

async fn doctor(database: &Database, settings: &[(&str, &str)]) -> Output {
    run(&["doctor"], &[&[("DATABASE_URL", database.url.as_str())], settings].concat()).await
}

fn says(output: &Output, line: &str) -> bool {
    stdout(output).lines().any(|said| said.starts_with(line))
}

#[tokio::test]
async fn a_sound_deployment_is_good() {
    for database in [Some(Database::migrated_sqlite().await), Database::migrated_postgres().await].into_iter().flatten()
    {
        let output = doctor(&database, &[]).await;
        let text = stdout(&output);
        assert!(output.status.success() && !text.contains("WRONG"), "{text}{}", stderr(&output));
        for about in ["settings", "database", "schema", "isolation", "audit log", "provider"] {
            assert!(says(&output, &format!("good   {about}: ")), "{about}: {text}");
        }
        if database.url.starts_with("postgres") {
            // The tests' login.
            assert!(says(&output, "risky  login: DATABASE_URL logs in as a superuser"), "{text}");
            for about in ["connections", "clocks", "policies", "pooler: there is none"] {
                assert!(says(&output, &format!("good   {about}")), "{about}: {text}");
            }
        }
        assert_eq!(text.matches("       -> ").count(), text.lines().filter(|line| line.starts_with("risky")).count());
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_mend() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let owner = database.connect().await;
    for (fault, about, mend) in [
        (
            "ALTER TABLE documents NO FORCE ROW LEVEL SECURITY",
            "isolation: ",
            "ALTER TABLE documents FORCE ROW LEVEL SECURITY",
        ),
        ("ALTER TABLE audit_logs DISABLE TRIGGER USER", "audit log: ", "ALTER TABLE audit_logs ENABLE TRIGGER USER"),
        (
            "CREATE POLICY support ON documents FOR INSERT TO bulkhead_app WITH CHECK (true)",
            "isolation: policy support of table documents: it opens the rows of other tenants",
            "DROP POLICY support ON documents",
        ),
        (
            "CREATE SCHEMA reports; CREATE TABLE reports.people AS SELECT tenant_id, email FROM users;
             GRANT USAGE ON SCHEMA reports TO bulkhead_app; GRANT SELECT (email) ON reports.people TO PUBLIC",
            "policies: table reports.people holds rows of tenants outside of the schema",
            "REVOKE ALL (email) ON reports.people FROM bulkhead_app, PUBLIC",
        ),
        (
            "GRANT SELECT ON reports.people TO bulkhead_app; ALTER TABLE reports.people ENABLE ROW LEVEL SECURITY;
             CREATE POLICY everyone ON reports.people USING (tenant_id IS NOT NULL)",
            "policies: table reports.people holds rows of tenants outside of the schema",
            "ALTER POLICY everyone ON reports.people
                 USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)",
        ),
        (
            "CREATE VIEW reports.emails AS SELECT tenant_id, email FROM users; GRANT SELECT ON reports.emails TO bulkhead_app",
            "policies: view reports.emails holds rows of tenants outside of the schema",
            "DROP SCHEMA reports CASCADE",
        ),
    ] {
        owner.execute_unprepared(fault).await.unwrap();
        let output = doctor(&database, &[]).await;
        assert_eq!(output.status.code(), Some(3), "{fault}: {}", stdout(&output));
        assert!(says(&output, &format!("WRONG  {about}")), "{fault}: {}", stdout(&output));
        owner.execute_unprepared(mend).await.unwrap();
        assert!(doctor(&database, &[]).await.status.success(), "{fault}");
    }
    let output = doctor(&database, &[("DATABASE_MAX_CONNECTIONS", "100000")]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(says(&output, "WRONG  connections: an instance takes 100004 connections"), "{}", stdout(&output));
    assert!(stdout(&output).contains("-> lower DATABASE_MAX_CONNECTIONS"), "{}", stdout(&output));
    assert!(stderr(&output).contains("1 thing is wrong"), "{}", stderr(&output));
}

#[tokio::test]
async fn more_connections_than_postgresql_takes_are_refused() {
    let database = Database::migrated_sqlite().await;
    let output = doctor(&database, &[("DATABASE_MAX_CONNECTIONS", "4294967295")]).await;
    let said = "DATABASE_MAX_CONNECTIONS: must be 1 to 262143, not 4294967295";
    assert!(
        output.status.code() == Some(2) && stderr(&output).contains(said),
        "{:?}: {}",
        output.status,
        stderr(&output)
    );
    let output = doctor(&database, &[("DATABASE_MAX_CONNECTIONS", "262143")]).await;
    assert!(output.status.success(), "{:?}: {}{}", output.status, stdout(&output), stderr(&output));
}

#[tokio::test]
async fn an_empty_or_absent_database_is_one_thing() {
    let database = Database::sqlite();
    let file = database.url.trim_start_matches("sqlite://").split('?').next().unwrap();
    for (there, said) in
        [(false, format!("WRONG  database: sqlite://{file} is not there")), (true, "WRONG  schema: ".into())]
    {
        if there {
            std::fs::write(file, "").unwrap();
        }
        let output = doctor(&database, &[]).await;
        assert_eq!(output.status.code(), Some(3));
        assert!(says(&output, &said) && stdout(&output).matches("WRONG").count() == 1, "{}", stdout(&output));
        assert_eq!(std::fs::exists(file).unwrap(), there, "it changes nothing");
    }
    let away = [("DATABASE_URL", "postgres://me:hunter2@127.0.0.1:1/app"), ("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1")];
    let output = run(&["doctor"], &away).await;
    assert_eq!(output.status.code(), Some(3));
    let said = "WRONG  database: cannot use postgres://***@127.0.0.1:1/app: connection refused at 127.0.0.1:1";
    assert!(says(&output, said) && !stdout(&output).contains("hunter2"), "{}", stdout(&output));
}

#[tokio::test]
async fn the_provider_is_asked_for_its_keys() {
    let app = TestApp::without_tenants(test_support::provider::Shape::Plain, Database::migrated_sqlite().await).await;
    let environment = app.environment(&[("DATABASE_URL", &app.database.url)]);
    let output = run(&["doctor", "--json"], &borrowed(&environment)).await;
    assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    let findings: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let provider = findings.iter().find(|finding| finding["about"] == "provider").unwrap();
    assert_eq!((&provider["verdict"], &provider["mend"]), (&"good".into(), &Value::Null), "{provider}");
    let away = [("OIDC_ISSUER_URL", "http://127.0.0.1:1"), ("OIDC_CLIENT_ID", "x")];
    let output = doctor(&app.database, &away).await;
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(says(&output, "WRONG  provider: the keys of http://127.0.0.1:1/ cannot be fetched"), "{}", stdout(&output));
}

#[tokio::test]
async fn policies_for_other_roles_are_a_risk() {
    let Some(database) = Database::migrated_postgres().await else { return };
    let owner = database.connect().await;
    // Restrictive ones open nothing, nor does one that names the transaction's tenant.
    let harmless = "CREATE POLICY fewer ON users AS RESTRICTIVE TO pg_monitor USING (true);
        CREATE POLICY own ON users TO pg_monitor
            USING (tenant_id = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid)";
    owner.execute_unprepared(harmless).await.unwrap();
    assert!(says(&doctor(&database, &[]).await, "good   policies: "));
    for policy in [
        "report ON users FOR SELECT TO pg_monitor, pg_signal_backend USING (true)",
        "report ON users FOR INSERT TO pg_monitor, pg_signal_backend WITH CHECK (true)",
        "report ON users TO pg_monitor, pg_signal_backend USING (current_setting('app.directory', true) = 'on')",
        "report ON audit_logs FOR UPDATE TO pg_monitor, pg_signal_backend USING (action = 'CREATED') WITH CHECK (true)",
    ] {
        owner.execute_unprepared(&format!("CREATE POLICY {policy}")).await.unwrap();
        let output = doctor(&database, &[]).await;
        let table = policy.split(' ').nth(2).unwrap();
        let said = format!(
            "risky  policies: policy report of table {table} opens the rows of other tenants to pg_monitor, pg_signal_backend"
        );
        assert!(output.status.success() && says(&output, &said), "{policy}: {}", stdout(&output));
        let mend = mend_of(&output, &said);
        owner.execute_unprepared(&mend).await.unwrap();
        assert!(says(&doctor(&database, &[]).await, "good   policies: "), "{mend}");
    }
}

/// The line that mends what begins so.
fn mend_of(output: &Output, line: &str) -> String {
    let text = stdout(output);
    let mut lines = text.lines().skip_while(|said| !said.starts_with(line)).skip(1);
    lines.next().and_then(|mend| mend.trim().strip_prefix("-> ")).unwrap_or_else(|| panic!("{line}: {text}")).to_owned()
}

#[tokio::test]
async fn a_pooler_is_known_by_what_it_does_to_sessions_and_statements() {
    let Some(database) = Database::postgres_of_our_own().await else { return };
    database.migrate().await;
    let look = async |url: &str, migrates: &str| {
        run(&["doctor"], &[("DATABASE_URL", url), ("MIGRATION_DATABASE_URL", migrates)]).await
    };
    let Some(sessions) = PgBouncer::start(&database, "session", 20).await else { return };
    let output = look(&sessions.url, &sessions.url).await;
    let said = "good   pooler: DATABASE_URL goes through one (such as PgBouncer) in session mode";
    assert!(output.status.success() && says(&output, said), "{}", stdout(&output));
    assert_eq!(stdout(&output).matches("  pooler: ").count(), 1, "{}", stdout(&output));

    let Some(transactions) = PgBouncer::start(&database, "transaction", 20).await else { return };
    let keeps = transactions.version >= PgBouncer::WITH_PREPARED_STATEMENTS;
    let output = look(&transactions.url, &database.url).await;
    if keeps {
        let said = "good   pooler: DATABASE_URL goes through one (such as PgBouncer) in transaction mode, which keeps";
        assert!(output.status.success() && says(&output, said), "{}", stdout(&output));
        let output = look(&transactions.url, &transactions.url).await;
        let said = "risky  pooler: MIGRATION_DATABASE_URL goes through one in transaction mode";
        assert!(output.status.success() && says(&output, said), "{}", stdout(&output));
    }
    let without = if keeps { "max_prepared_statements = 0\n" } else { "" };
    // One connection for all, which they share; and several that take turns.
    for (size, lines) in [(1, ""), (20, ""), (20, "server_round_robin = 1\n")] {
        let lines = format!("{without}{lines}");
        let pooler = PgBouncer::start_with(&database, "transaction", size, &lines).await.unwrap();
        if size > 1 {
            // Two sessions, which come in turn from then on.
            let one = sea_orm::Database::connect(&pooler.url).await.unwrap();
            let other = sea_orm::Database::connect(&pooler.url).await.unwrap();
            one.execute_unprepared("BEGIN").await.unwrap();
            for connection in [&other, &one] {
                connection.execute_unprepared("BEGIN; COMMIT").await.unwrap();
            }
            one.close().await.unwrap();
            other.close().await.unwrap();
        }
        let output = look(&pooler.url, &database.url).await;
        assert_eq!(output.status.code(), Some(3), "{size} {lines}: {}", stdout(&output));
        let said =
            "WRONG  pooler: DATABASE_URL goes through one (such as PgBouncer) in transaction mode, which mixes up";
        assert!(says(&output, said), "{size} {lines}: {}", stdout(&output));
        assert!(mend_of(&output, said).starts_with("PgBouncer 1.21 or newer with max_prepared_statements = 200"));
        // Nothing else is said that was asked through it.
        assert_eq!(stdout(&output).matches("WRONG").count(), 1, "{}", stdout(&output));
        assert!(says(&output, "good   audit log: "), "{}", stdout(&output));
    }
}

#[tokio::test]
async fn a_parameter_that_a_pooler_refuses_has_its_setting_named() {
    let Some(database) = Database::postgres_of_our_own().await else { return };
    // As PgBouncer is by default.
    let lines = "ignore_startup_parameters =\n";
    let Some(pooler) = PgBouncer::start_with(&database, "session", 5, lines).await else { return };
    let output = run(&["doctor"], &[("DATABASE_URL", &pooler.url)]).await;
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    let mend = mend_of(&output, "WRONG  database: ");
    assert_eq!(mend, "ignore_startup_parameters = extra_float_digits in PgBouncer's configuration");
}

#[tokio::test]
async fn a_login_that_can_change_the_guards_is_a_risk() {
    let Some(app) = deployment().await else { return };
    let owner = app.owning_login("").await;
    succeed(&app.roles(&owner, &owner), &["migrate", "up"]).await;
    let look = async |login: &str| run(&["doctor"], &borrowed(&app.roles(login, &owner))).await;
    let (member, maker, plain) = (app.login("").await, app.login("CREATEROLE").await, app.login("").await);
    let (may_become, reader) = (app.login("NOINHERIT").await, app.login("").await);
    let superuser = app.stranger("SUPERUSER").await;
    app.execute(&format!("GRANT {owner} TO {member}; GRANT {superuser} TO {may_become}")).await;
    app.execute(&format!("GRANT pg_read_server_files TO {reader}")).await;
    for (login, said) in [
        (&owner, "risky  login: the login of DATABASE_URL owns tables, functions, the schema or the database"),
        (&member, "risky  login: the login of DATABASE_URL owns tables, functions, the schema or the database"),
        (&maker, "risky  login: the login of DATABASE_URL may make roles"),
        (&may_become, "risky  login: the login of DATABASE_URL may make roles"),
        (&reader, "risky  login: the login of DATABASE_URL may make roles"),
    ] {
        let output = look(login).await;
        assert!(output.status.success() && says(&output, said), "{said}: {}", stdout(&output));
        assert!(!says(&output, "good   login: "), "{}", stdout(&output));
        assert!(mend_of(&output, said).starts_with("`bulkhead database prepare` makes a login for run time"));
    }
    let output = look(&plain).await;
    assert!(output.status.success() && says(&output, "good   login: "), "{}", stdout(&output));
    for thing in ["SCHEMA public", "FUNCTION public.bulkhead_note()"] {
        app.execute("CREATE FUNCTION public.bulkhead_note() RETURNS int LANGUAGE sql AS 'SELECT 1'").await;
        app.execute(&format!("ALTER {thing} OWNER TO {plain}")).await;
        let output = look(&plain).await;
        assert!(says(&output, "risky  login: the login of DATABASE_URL owns"), "{thing}: {}", stdout(&output));
        app.execute("ALTER SCHEMA public OWNER TO CURRENT_USER; DROP FUNCTION public.bulkhead_note()").await;
    }
}

#[tokio::test]
async fn a_login_that_inherits_nothing_is_named_with_the_grant() {
    let Some(app) = deployment().await else { return };
    let owner = app.owning_login("").await;
    let login = app.login("NOINHERIT").await;
    let migrates = app.stranger("NOINHERIT").await;
    app.execute(&format!("GRANT {owner} TO {migrates}")).await;
    succeed(&app.roles(&owner, &owner), &["migrate", "up"]).await;
    let look = async |roles: &Roles| run(&["doctor"], &borrowed(roles)).await;

    let roles = app.roles(&login, &owner);
    let bare = "risky  login: the login of DATABASE_URL inherits no right of bulkhead_app";
    let output = look(&roles).await;
    assert!(output.status.success() && says(&output, bare), "{}", stdout(&output));
    // It takes the role on by itself.
    app.execute(&format!("ALTER ROLE {login} SET role = 'bulkhead_app'")).await;
    assert!(!says(&look(&roles).await, bare));
    app.execute(&format!("ALTER ROLE {login} RESET role")).await;
    // The server takes fewer connections of a login than of all together.
    app.execute(&format!("ALTER ROLE {login} CONNECTION LIMIT 13")).await;
    let output = look(&roles).await;
    let said = "WRONG  connections: an instance takes 14 connections, and the server allows 13";
    assert!(says(&output, said), "{}", stdout(&output));
    app.execute(&format!("ALTER ROLE {login} CONNECTION LIMIT -1")).await;
    // A pooler gives the connection sessions that have not done so.
    let url = Url::parse(&app.database.url).unwrap();
    let (name, port) = (url.path().trim_start_matches('/'), url.port().unwrap());
    let lines =
        format!("auth_type = any\n[databases]\n{name} = host=127.0.0.1 port={port} dbname={name} user={login}\n");
    let pooler = PgBouncer::start_with(&app.database, "transaction", 20, &lines).await;
    if let Some(pooler) = pooler.filter(|pooler| pooler.version >= PgBouncer::WITH_PREPARED_STATEMENTS) {
        let output = look(&[("DATABASE_URL", pooler.url), ("MIGRATION_DATABASE_URL", app.url(&owner))]).await;
        assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
        assert!(says(&output, &bare.replace("risky", "WRONG")), "{}", stdout(&output));
    }
    app.execute(&mend_of(&output, bare)).await;
    assert!(!says(&look(&roles).await, bare));

    let roles = app.roles(&login, &migrates);
    let bare = "WRONG  login: the login of MIGRATION_DATABASE_URL inherits no right of";
    let output = look(&roles).await;
    assert_eq!(output.status.code(), Some(3), "{}", stdout(&output));
    assert!(says(&output, &format!("{bare} {owner}")), "{}", stdout(&output));
    app.execute(&mend_of(&output, bare)).await;
    let output = look(&roles).await;
    assert!(output.status.success(), "{}", stdout(&output));
}
