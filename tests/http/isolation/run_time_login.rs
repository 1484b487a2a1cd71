//! The login of run time, which `bulkhead database prepare` makes.

use super::logins::{CREATE, deployment, succeed};
use super::readiness::isolation;
use crate::support::{TestApp, borrowed};
use crate::{run, stderr, stdout};
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

const PREPARE: [&str; 2] = ["database", "prepare"];

/// URLs of a login that is to be made and of the owner.
fn roles(app: &TestApp, login: &str, password: &str, owner: &str) -> [(&'static str, String); 2] {
    let serves = app.url(&format!("{login}:{password}"));
    [("DATABASE_URL", serves), ("MIGRATION_DATABASE_URL", app.url(owner))]
}

/// Has the server ask this login for its password, which it does not do otherwise.
async fn ask_for_the_password(app: &TestApp, login: &str) {
    // Read before it is written, which begins with emptying it.
    let sql = format!(
        "DO $do$
         DECLARE
             rules text := 'host all {login} all scram-sha-256' || E'\\n' || replace(pg_read_file(current_setting('hba_file')), E'\\t', ' ');
         BEGIN
             EXECUTE format('COPY (SELECT regexp_split_to_table(%L, E''\\n'')) TO %L', rules, current_setting('hba_file'));
         END $do$;
         SELECT pg_reload_conf()"
    );
    app.owner.execute_unprepared(&sql).await.unwrap();
}

#[tokio::test]
async fn prepared_login_serves_with_the_rights_of_the_api() {
    for (owner, login) in [("SUPERUSER", "api_of_superuser"), ("CREATEROLE", "api_of_owner")] {
        let Some(app) = deployment().await else { return };
        let owner = app.owning_login(owner).await;
        app.execute(&format!("GRANT ALL ON SCHEMA public TO {owner}")).await;
        app.execute(&format!("GRANT bulkhead_app TO {owner} WITH ADMIN OPTION")).await;
        ask_for_the_password(&app, login).await;
        // A password that a URL cannot hold as it is.
        let roles = roles(&app, login, "p%40ss%2Fw%C3%B6rd%20%27%22", &owner);
        let said = succeed(&roles, &PREPARE).await;
        assert!(said.starts_with(&format!("made the login {login}\napplied  ")), "{said}");
        succeed(&roles, &CREATE[..6]).await;
        let (server, admin) = app.served_by(&roles).await;
        assert_eq!(admin.get("tenant").await.status, 200);
        assert_eq!(isolation(&server).await, (200, json!("ready"), json!("database"), Value::Null));
        let rights = format!(
            "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls OR rolpassword NOT LIKE 'SCRAM-SHA-256$%'
             FROM pg_authid WHERE rolname = '{login}'"
        );
        assert!(!app.value::<bool>(&rights).await);

        // Once more, with another password: the old one is no longer good.
        let renewed = self::roles(&app, login, "new", &owner);
        let said = succeed(&renewed, &PREPARE).await;
        assert_eq!(said, format!("the login {login} has the password of DATABASE_URL\nnothing to do\n"));
        succeed(&renewed, &["migrate", "verify"]).await;
        let refused = run(&["start"], &borrowed(&roles)).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("password authentication failed"), "{}", stderr(&refused));
    }
}

#[tokio::test]
async fn unfit_login_is_refused_by_name() {
    let Some(app) = deployment().await else { return };
    let owner = app.owning_login("").await;
    let superuser = app.stranger("SUPERUSER").await;
    let may_become = app.stranger("NOINHERIT").await;
    app.execute(&format!("GRANT {superuser} TO {may_become}")).await;
    let sqlite =
        [("DATABASE_URL", "sqlite://never.db?mode=rwc".to_owned()), ("MIGRATION_DATABASE_URL", app.url(&owner))];
    for (roles, reason) in [
        (roles(&app, &superuser, "x", &owner), "is a superuser"),
        (roles(&app, &may_become, "x", &owner), "is a member of a role that does"),
        (roles(&app, &owner, "x", &superuser), "owns the database"),
        (roles(&app, &owner, "x", &owner), "is also the login of MIGRATION_DATABASE_URL"),
        ([("DATABASE_URL", app.url("never_made")), ("MIGRATION_DATABASE_URL", app.url(&owner))], "no password"),
        (sqlite, "SQLite has no logins"),
    ] {
        let refused = run(&PREPARE, &borrowed(&roles)).await;
        assert_eq!(refused.status.code(), Some(2), "{reason}: {}", stdout(&refused));
        let said = stderr(&refused);
        assert!(said.starts_with("DATABASE_URL: ") && said.contains(reason), "{said}");
    }
    assert_eq!(app.value::<i64>("SELECT count(*) FROM pg_roles WHERE rolname = 'never_made'").await, 0);
    assert!(app.database.tables().await.is_empty(), "nothing is migrated");
}
