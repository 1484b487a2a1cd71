//! The tables: the entities fit them, and they hold what they promise, on both databases alike.

use bulkhead::entity::{JsonText, audit_log, tenant, user};
use bulkhead::ids::{TenantId, UserId};
use bulkhead::resources::documents as document;
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend, EntityTrait, QueryFilter, Statement,
    Value,
};
use serde_json::json;
use test_support::{Database, on_both_databases, on_migrated_databases};
use uuid::Uuid;

on_both_databases!(each_migration_is_undone_and_redone);
on_migrated_databases!(
    rows_come_back_as_they_went_in,
    email_is_unique_in_any_case,
    user_needs_a_tenant,
    values_out_of_range_are_refused,
    documents_out_of_range_are_refused,
    no_row_cites_another_tenants_user,
    row_stays_in_its_tenant,
    each_change_is_later_than_the_last
);

fn a_tenant(external_id: &str) -> tenant::ActiveModel {
    tenant::ActiveModel {
        id: Set(Uuid::now_v7().into()),
        name: Set("A clinic".to_owned()),
        external_id: Set(external_id.to_owned()),
        ..Default::default()
    }
}

fn a_user(tenant: TenantId, email: &str) -> user::ActiveModel {
    user::ActiveModel {
        id: Set(Uuid::now_v7().into()),
        tenant_id: Set(tenant),
        email: Set(email.to_owned()),
        ..Default::default()
    }
}

async fn rows_come_back_as_they_went_in(database: Database) {
    let connection = database.connect().await;
    let tenant = a_tenant("clinic-1").insert(&connection).await.unwrap();
    assert_eq!(tenant.status, tenant::Status::Active, "the default");
    let mut user = a_user(tenant.id, "Ada@example.org");
    user.role = Set(user::Role::Admin);
    let user = user.insert(&connection).await.unwrap();
    assert_eq!(user.created_at, user.updated_at);

    let ours = tenant::Entity::find().filter(tenant::Column::ExternalId.ne("system"));
    let tenants = ours.all(&connection).await.unwrap();
    let users = user::Entity::find().all(&connection).await.unwrap();
    assert_eq!((tenants, users), (vec![tenant], vec![user]));
}

async fn email_is_unique_in_any_case(database: Database) {
    let connection = database.connect().await;
    let one = a_tenant("one").insert(&connection).await.unwrap();
    let two = a_tenant("two").insert(&connection).await.unwrap();
    let first = a_user(one.id, "ada@example.org").insert(&connection).await.unwrap();
    assert!(a_user(one.id, "ADA@example.org").insert(&connection).await.is_err());
    a_user(two.id, "ada@example.org").insert(&connection).await.unwrap();

    let mut deleted: user::ActiveModel = first.clone().into();
    deleted.deleted_at = Set(Some(first.created_at));
    deleted.update(&connection).await.unwrap();
    a_user(one.id, "ADA@example.org").insert(&connection).await.unwrap();
}

async fn user_needs_a_tenant(database: Database) {
    let connection = database.connect().await;
    assert!(a_user(Uuid::now_v7().into(), "ada@example.org").insert(&connection).await.is_err());
    let tenant = a_tenant("clinic-1").insert(&connection).await.unwrap();
    a_user(tenant.id, "ada@example.org").insert(&connection).await.unwrap();
    assert!(tenant::Entity::delete_by_id(tenant.id).exec(&connection).await.is_err());
}

async fn values_out_of_range_are_refused(database: Database) {
    let connection = database.connect().await;
    let tenant = a_tenant("clinic-1").insert(&connection).await.unwrap();
    assert!(a_tenant("clinic-1").insert(&connection).await.is_err(), "an external id taken");
    let mut long = a_tenant("clinic-2");
    long.name = Set("x".repeat(256));
    assert!(long.insert(&connection).await.is_err(), "a name too long");
    assert!(a_user(tenant.id, "").insert(&connection).await.is_err(), "an e-mail address of nothing");
    for statement in ["UPDATE tenants SET status = 'closed'", "UPDATE tenants SET name = ''"] {
        assert!(connection.execute_unprepared(statement).await.is_err(), "{statement}");
    }
}

fn a_document(tenant: TenantId, owner: UserId) -> document::ActiveModel {
    let id = Uuid::now_v7();
    document::ActiveModel {
        id: Set(id.into()),
        tenant_id: Set(tenant),
        user_id: Set(owner),
        storage_key: Set(format!("{tenant}/{id}")),
        bucket: Set("files".to_owned()),
        filename: Set("scan.pdf".to_owned()),
        content_type: Set("application/pdf".to_owned()),
        size_bytes: Set(7),
        ..Default::default()
    }
}

/// The first entry of the tenant's chain.
fn an_entry(tenant: TenantId, user: UserId) -> audit_log::ActiveModel {
    audit_log::ActiveModel {
        id: Set(Uuid::now_v7().into()),
        tenant_id: Set(tenant),
        sequence: Set(1),
        user_id: Set(Some(user)),
        action: Set("CREATED".to_owned()),
        resource_type: Set("users".to_owned()),
        metadata: Set(json!({})),
        created_at: Set(sea_orm::sqlx::types::time::OffsetDateTime::UNIX_EPOCH),
        prev_hash: Set("0".repeat(64)),
        hash: Set("1".repeat(64)),
        ..Default::default()
    }
}

/// A tenant with a user; their ids.
async fn inhabited(connection: &DatabaseConnection, external_id: &str) -> (TenantId, UserId) {
    let tenant = a_tenant(external_id).insert(connection).await.unwrap().id;
    (tenant, a_user(tenant, "ada@example.org").insert(connection).await.unwrap().id)
}

/// Runs a statement whose parameters are these.
async fn run_sql(connection: &DatabaseConnection, sql: &str, values: Vec<Value>) -> Result<u64, sea_orm::DbErr> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.execute_raw(statement).await?.rows_affected())
}

async fn documents_out_of_range_are_refused(database: Database) {
    let connection = database.connect().await;
    let (tenant, user) = inhabited(&connection, "one").await;
    let (other, _) = inhabited(&connection, "two").await;
    let document = a_document(tenant, user).insert(&connection).await.unwrap();
    // Beside the entities, which do not know what is wrong either way.
    let insert_document = async |tenant: TenantId, user: UserId, column: &str, value: Value| {
        let id = Uuid::now_v7();
        let mut columns: Vec<(&str, Value)> = vec![
            ("id", id.into()),
            ("tenant_id", tenant.into()),
            ("user_id", user.into()),
            ("storage_key", format!("{tenant}/{id}").into()),
            ("bucket", "files".into()),
            ("filename", "scan.pdf".into()),
            ("content_type", "application/pdf".into()),
            ("size_bytes", 7_i64.into()),
        ];
        columns.retain(|(name, _)| *name != column);
        columns.push((column, value));
        let (names, values): (Vec<&str>, Vec<Value>) = columns.into_iter().unzip();
        let places: Vec<String> = (1..=values.len()).map(|at| format!("${at}")).collect();
        let sql = format!("INSERT INTO documents ({}) VALUES ({})", names.join(", "), places.join(", "));
        run_sql(&connection, &sql, values).await
    };
    assert_eq!(
        (document.status, document.metadata),
        (document::Status::Processing, JsonText::new(&json!({})).unwrap()),
        "the defaults"
    );
    for (column, value) in [
        ("size_bytes", (-1_i64).into()),
        ("status", "done".into()),
        ("bucket", "".into()),
        ("bucket", "x".repeat(64).into()),
        ("filename", "".into()),
        ("filename", "x".repeat(256).into()),
        ("content_type", "".into()),
        ("content_type", "x".repeat(256).into()),
        ("storage_key", "file".into()),
        ("storage_key", format!("{other}/file").into()),
        ("storage_key", format!("{}/file", tenant.0.simple()).into()),
        ("storage_key", format!("{tenant}/{}", "x".repeat(1024)).into()),
        ("metadata", Value::from(json!([]))),
        ("metadata", Value::from(json!("text"))),
        ("metadata", Value::from(json!(null))),
    ] {
        assert!(insert_document(tenant, user, column, value.clone()).await.is_err(), "{column} of {value:?}");
    }
    assert_eq!(insert_document(tenant, user, "bucket", "x".repeat(63).into()).await.unwrap(), 1);
    for size in [0, i64::MAX] {
        let mut new = a_document(tenant, user);
        new.size_bytes = Set(size);
        assert_eq!(new.insert(&connection).await.unwrap().size_bytes, size);
    }
    let mut same = a_document(tenant, user);
    same.storage_key = Set(document.storage_key.clone());
    assert!(same.insert(&connection).await.is_err(), "a file that has a row");
}

async fn no_row_cites_another_tenants_user(database: Database) {
    let connection = database.connect().await;
    let (one, ada) = inhabited(&connection, "one").await;
    let (two, bob) = inhabited(&connection, "two").await;
    for (tenant, user, stands) in
        [(one, bob, false), (two, ada, false), (one, Uuid::now_v7().into(), false), (one, ada, true)]
    {
        let document = a_document(tenant, user).insert(&connection).await;
        assert_eq!(document.is_ok(), stands, "a document: {document:?}");
        let entry = an_entry(tenant, user).insert(&connection).await;
        assert_eq!(entry.is_ok(), stands, "an entry: {entry:?}");
    }
    let give = "UPDATE documents SET user_id = $1 WHERE tenant_id = $2";
    assert!(run_sql(&connection, give, vec![bob.into(), one.into()]).await.is_err());
    assert_eq!(run_sql(&connection, give, vec![ada.into(), one.into()]).await.unwrap(), 1);
}

async fn row_stays_in_its_tenant(database: Database) {
    let connection = database.connect().await;
    let (one, ada) = inhabited(&connection, "one").await;
    let (two, _) = inhabited(&connection, "two").await;
    a_document(one, ada).insert(&connection).await.unwrap();
    for table in ["users", "documents"] {
        let moved = format!("UPDATE {table} SET tenant_id = $1 WHERE tenant_id = $2");
        assert!(run_sql(&connection, &moved, vec![two.into(), one.into()]).await.is_err(), "{table}");
    }
    for (sql, id) in [("DELETE FROM users WHERE id = $1", ada.0), ("DELETE FROM tenants WHERE id = $1", one.0)] {
        assert!(run_sql(&connection, sql, vec![id.into()]).await.is_err(), "{sql}");
    }
}

#[tokio::test]
async fn uncited_user_stays_in_its_tenant_on_sqlite() {
    // On PostgreSQL the API's role has no right to move one.
    let database = Database::migrated_sqlite().await;
    let connection = database.connect().await;
    let (one, _) = inhabited(&connection, "one").await;
    let two = a_tenant("two").insert(&connection).await.unwrap().id;
    let moved = "UPDATE users SET tenant_id = $1 WHERE tenant_id = $2";
    assert!(run_sql(&connection, moved, vec![two.into(), one.into()]).await.is_err());
}

async fn each_change_is_later_than_the_last(database: Database) {
    let connection = database.connect().await;
    let (tenant, user) = inhabited(&connection, "one").await;
    let document = a_document(tenant, user).insert(&connection).await.unwrap().id;
    let changed_at = async |table: &str, id: Uuid| {
        let sql = format!("SELECT updated_at FROM {table} WHERE id = $1");
        let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, [id.into()]);
        let row = connection.query_one_raw(statement).await.unwrap().unwrap();
        row.try_get::<sea_orm::sqlx::types::time::OffsetDateTime>("", "updated_at").unwrap()
    };
    for (table, id, column) in
        [("tenants", tenant.0, "name"), ("users", user.0, "full_name"), ("documents", document.0, "filename")]
    {
        // As if a clock that was an hour ahead had been set right.
        let ahead = match connection.get_database_backend() {
            DbBackend::Postgres => vec![
                format!("ALTER TABLE {table} DISABLE TRIGGER {table}_updated_at"),
                format!("UPDATE {table} SET updated_at = now() + interval '1 hour'"),
                format!("ALTER TABLE {table} ENABLE TRIGGER {table}_updated_at"),
            ],
            _ => vec![format!("UPDATE {table} SET updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '+1 hour')")],
        };
        for sql in ahead {
            connection.execute_unprepared(&sql).await.unwrap();
        }
        let mut last = changed_at(table, id).await;
        for turn in 0..5 {
            let sql = format!("UPDATE {table} SET {column} = $1 WHERE id = $2");
            run_sql(&connection, &sql, vec![format!("{}", turn / 2).into(), id.into()]).await.unwrap();
            let now = changed_at(table, id).await;
            assert!(now > last, "{table}: {now} after {last}");
            last = now;
        }
    }
    let before = changed_at("users", user.0).await;
    let login = "UPDATE users SET last_login_at = created_at WHERE id = $1";
    assert_eq!(run_sql(&connection, login, vec![user.into()]).await.unwrap(), 1);
    assert_eq!(changed_at("users", user.0).await, before, "a login alone is no change");
}

/// All that the schema is made of, one line each; of rights, those of the API's role.
async fn outline(database: &Database) -> Vec<String> {
    let connection = database.connect().await;
    let backend = connection.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => {
            "SELECT format('%s.%s %s %s %s', table_name, column_name, data_type, is_nullable, column_default) AS line
             FROM information_schema.columns WHERE table_schema = 'public'
             UNION ALL SELECT format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace
             UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
             UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
             UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
             UNION ALL SELECT format('%s %s %s %s', tablename, policyname, roles, qual) FROM pg_policies
             UNION ALL SELECT format('%s %s %s', relname, relrowsecurity, relforcerowsecurity)
             FROM pg_class WHERE relnamespace = 'public'::regnamespace
             UNION ALL SELECT format('%s: %s', what, right_to.privilege_type) FROM (
                 SELECT relname::text, relacl FROM pg_class WHERE relnamespace = 'public'::regnamespace
                 UNION ALL SELECT format('%s.%s', attrelid::regclass, attname), attacl FROM pg_attribute
                 UNION ALL SELECT proname, proacl FROM pg_proc WHERE pronamespace = 'public'::regnamespace
                 UNION ALL SELECT nspname, nspacl FROM pg_namespace
             ) AS rights (what, list), aclexplode(list) AS right_to, pg_roles
             WHERE pg_roles.oid = right_to.grantee AND rolname = 'bulkhead_app' ORDER BY 1"
        }
        _ => "SELECT type || ' ' || name || ' ' || coalesce(sql, '') AS line FROM sqlite_master ORDER BY 1",
    };
    let rows = connection.query_all_raw(Statement::from_string(backend, sql)).await.unwrap();
    connection.close().await.unwrap();
    rows.iter().map(|row| row.try_get("", "line").unwrap()).collect()
}

async fn each_migration_is_undone_and_redone(database: Database) {
    let migrations = bulkhead_migration::all().len();
    let mut outlines = Vec::new();
    for _ in 0..migrations {
        database.migrate_one_up().await;
        outlines.push(outline(&database).await);
    }
    let connection = database.connect().await;
    // What a migration confines, SQLite may not have.
    if connection.get_database_backend() == DbBackend::Postgres {
        assert!(outlines.is_sorted_by(|one, next| one != next), "every migration does something");
    }
    let (tenant, user) = inhabited(&connection, "one").await;
    a_document(tenant, user).insert(&connection).await.unwrap();
    an_entry(tenant, user).insert(&connection).await.unwrap();
    connection.close().await.unwrap();
    // Not beneath the first one, with which the tenants go.
    for applied in (1..migrations).rev() {
        database.migrate_one_down().await;
        assert_eq!(outline(&database).await, outlines[applied - 1], "after {applied} migrations");
        database.migrate_one_up().await;
        assert_eq!(outline(&database).await, outlines[applied], "after {applied} migrations and one again");
        database.migrate_one_down().await;
    }
    database.migrate().await;
    assert_eq!(&outline(&database).await, outlines.last().unwrap());
    // Whoever was there has a chain to go on with, whichever tables were gone meanwhile.
    let connection = database.connect().await;
    let ada = a_user(tenant, "ada@example.org").insert(&connection).await.unwrap();
    an_entry(tenant, ada.id).insert(&connection).await.unwrap();
    connection.close().await.unwrap();
}
