//! Roles that may not change the schema, files that may not be written, poolers that strand locks.

use crate::{command, count, fail, fixture, stderr, succeed, with_seeds};
use sea_orm::{ConnectionTrait, TransactionTrait};
use test_support::{Database, PgBouncer, SOON, Server};

/// The database as another role sees it.
fn as_role(database: &Database, role: &str) -> String {
    database.url.replacen("postgres://postgres", &format!("postgres://{role}"), 1)
}

#[tokio::test]
async fn a_role_without_ddl_serves_what_is_up_to_date_and_is_told_what_to_set_otherwise() {
    let Some(mut database) = Database::postgres_of_our_own().await else { return };
    succeed(&database, "", &["migrate", "up"]).await;
    let connection = with_seeds(&database).await;
    let role = format!("reader_{}", std::process::id());
    connection
        .execute_unprepared(&format!(
            "CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC;
             GRANT bulkhead_app TO {role}"
        ))
        .await
        .unwrap();
    let owner = database.url.clone();
    database.url = as_role(&database, &role);
    drop(Server::ready(fixture(), &database, &[]).await);
    for arguments in [&["migrate", "up"][..], &["start"]] {
        let (code, line) = fail(&database, "seed", arguments).await;
        assert_eq!(code, 1);
        assert!(line.contains("set MIGRATION_DATABASE_URL to one that may"), "{line}");
    }
    // The one that may, beside the one that serves.
    let environment = [("MIGRATION_DATABASE_URL", owner.as_str()), ("FIXTURE", "seed")];
    drop(Server::ready(fixture(), &database, &environment).await);
    assert_eq!(count(&connection, "seeds").await, 1);
    database.url = owner;
    connection.execute_unprepared(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[tokio::test]
async fn a_file_that_may_only_be_read_serves_what_is_up_to_date_and_is_told_what_to_set_otherwise() {
    let mut database = Database::sqlite();
    with_seeds(&database).await.close().await.unwrap();
    succeed(&database, "", &["migrate", "up"]).await;
    database.url = database.url.replace("mode=rwc", "mode=ro");
    drop(Server::ready(fixture(), &database, &[]).await);
    let (code, line) = fail(&database, "seed", &["migrate", "up"]).await;
    assert_eq!(code, 1);
    assert!(line.contains("set MIGRATION_DATABASE_URL to one that may"), "{line}");
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_refused_with_the_remedy_and_may_still_serve() {
    let Some(mut database) = Database::postgres_of_our_own().await else { return };
    let Some(pooler) = PgBouncer::start(&database, "transaction", 20).await else { return };
    let direct = std::mem::replace(&mut database.url, pooler.url.clone());
    for arguments in [&["migrate", "up"][..], &["start"]] {
        let (code, line) = fail(&database, "", arguments).await;
        assert_eq!(code, 1, "{line}");
        assert!(
            line.contains("PgBouncer") && line.contains("set MIGRATION_DATABASE_URL to a direct connection"),
            "{line}"
        );
    }
    drop(Server::ready(fixture(), &database, &[("MIGRATION_DATABASE_URL", direct.as_str())]).await);
    database.url = direct;
    assert!(!database.tables().await.is_empty());
}

#[tokio::test]
async fn a_pooler_that_has_no_session_to_give_does_not_hold_a_command_for_long() {
    let Some(mut database) = Database::postgres_of_our_own().await else { return };
    let Some(pooler) = PgBouncer::start(&database, "transaction", 1).await else { return };
    let direct = std::mem::replace(&mut database.url, pooler.url.clone());
    let holder = sea_orm::Database::connect(&database.url).await.unwrap();
    let transaction = holder.begin().await.unwrap();
    for arguments in [&["migrate", "up"][..], &["start"]] {
        let output = command(&database, "", arguments).env("DATABASE_ACQUIRE_TIMEOUT_SECONDS", "1").output();
        let output = tokio::time::timeout(SOON, output).await.expect("it ends").unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("no answer from"), "{arguments:?}: {}", stderr(&output));
    }
    transaction.rollback().await.unwrap();
    holder.close().await.unwrap();
    database.url = direct;
}

#[tokio::test]
async fn a_pooler_in_session_mode_is_as_good_as_a_direct_connection() {
    let Some(mut database) = Database::postgres_of_our_own().await else { return };
    let Some(pooler) = PgBouncer::start(&database, "session", 20).await else { return };
    let direct = std::mem::replace(&mut database.url, pooler.url.clone());
    succeed(&database, "", &["migrate", "up"]).await;
    database.url = direct;
}
