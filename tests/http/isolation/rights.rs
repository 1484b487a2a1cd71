//! PostgreSQL's own part: what a query that forgets its tenant can do as `bulkhead_app`, and what that role cannot.

use crate::isolation::rows_of;
use crate::support::value;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement, TransactionTrait,
};
use test_support::Database;
use uuid::Uuid;

/// The tables with the column that names the tenant.
const TABLES: [(&str, &str); 7] = [
    ("tenants", "id"),
    ("users", "tenant_id"),
    ("documents", "tenant_id"),
    ("audit_logs", "tenant_id"),
    ("audit_heads", "tenant_id"),
    ("audit_nodes", "tenant_id"),
    ("audit_checkpoints", "tenant_id"),
];

/// A tenant with a user, two documents and an entry in its audit log.
struct Rows {
    tenant: Uuid,
    user: Uuid,
}

/// Two such tenants, in a database of PostgreSQL.
struct TwoTenants {
    connection: DatabaseConnection,
    a: Rows,
    b: Rows,
    _database: Database,
}

impl TwoTenants {
    async fn new() -> Option<Self> {
        let database = Database::migrated_postgres().await?;
        let connection = database.connect().await;
        let (a, b) = (rows(&connection).await, rows(&connection).await);
        Some(Self { connection, a, b, _database: database })
    }

    /// A transaction of the API's role in which `tenant` is named, or none.
    async fn begin(&self, tenant: Option<&str>) -> DatabaseTransaction {
        let transaction = self.connection.begin().await.unwrap();
        transaction.execute_unprepared("SET LOCAL ROLE bulkhead_app").await.unwrap();
        if let Some(tenant) = tenant {
            let sql = "SELECT set_config('app.current_tenant_id', $1, true)";
            let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [tenant.into()]);
            transaction.query_one_raw(statement).await.unwrap();
        }
        transaction
    }

    /// What comes of one statement in a transaction of A's, which is then undone: rows, or the error's code.
    async fn as_a(&self, sql: &str) -> Result<u64, String> {
        let transaction = self.begin(Some(&self.a.tenant.to_string())).await;
        let done = transaction.execute_unprepared(sql).await;
        transaction.rollback().await.unwrap();
        done.map(|done| done.rows_affected()).map_err(|error| code(&error))
    }
}

fn code(error: &DbErr) -> String {
    bulkhead_migrator::code(error).unwrap_or_else(|| panic!("not the database's: {error}"))
}

async fn rows(connection: &DatabaseConnection) -> Rows {
    let (tenant, user) = (Uuid::now_v7(), Uuid::now_v7());
    let (one, two, entry) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    let sql = format!(
        "INSERT INTO tenants (id, name, external_id) VALUES ('{tenant}', 'A clinic', '{tenant}');
         INSERT INTO users (id, tenant_id, email, external_idp_id) VALUES ('{user}', '{tenant}', 'ada@example.org', 'idp|ada');
         INSERT INTO documents (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes)
             SELECT id, '{tenant}', '{user}', '{tenant}/' || id, 'files', 'f', 't', 1
             FROM unnest(array['{one}', '{two}']::uuid[]) AS id;
         INSERT INTO audit_logs (id, tenant_id, user_id, action, resource_type)
             VALUES ('{entry}', '{tenant}', '{user}', 'CREATED', 'users');
         INSERT INTO audit_nodes (tenant_id, level, position, hash) VALUES ('{tenant}', 1, 0, sha256(''));
         INSERT INTO audit_checkpoints (tenant_id, size, note) VALUES ('{tenant}', 1, 'x')"
    );
    connection.execute_unprepared(&sql).await.unwrap();
    Rows { tenant, user }
}

async fn count(connection: &impl ConnectionTrait, from: &str) -> i64 {
    value(connection, &format!("SELECT count(*) FROM {from}")).await
}

#[tokio::test]
async fn unfiltered_select_shows_its_tenant_alone() {
    let Some(tenants) = TwoTenants::new().await else { return };
    for (rows, other) in [(&tenants.a, &tenants.b), (&tenants.b, &tenants.a)] {
        let transaction = tenants.begin(Some(&rows.tenant.to_string())).await;
        for (table, column) in TABLES {
            let own = if table == "documents" { 2 } else { 1 };
            let all = count(&tenants.connection, table).await;
            assert!(all >= 2 * own, "{table}: there is something to hide");
            assert_eq!(count(&transaction, table).await, own, "{table}");
            let of = |tenant: Uuid| format!("{table} WHERE {column} = '{tenant}'");
            assert_eq!(count(&transaction, &of(rows.tenant)).await, own, "{table}");
            assert_eq!(count(&transaction, &of(other.tenant)).await, 0, "{table}");
        }
        transaction.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn no_tenant_means_no_rows() {
    let Some(tenants) = TwoTenants::new().await else { return };
    // The second time, the connection has named a tenant before.
    for turn in 0..2 {
        for tenant in [None, Some(""), Some("00000000-0000-0000-0000-000000000000")] {
            let transaction = tenants.begin(tenant).await;
            for (table, _) in TABLES {
                let seen = count(&transaction, table).await;
                assert_eq!(seen, 0, "{table} with {tenant:?}, turn {turn}");
            }
            for sql in [
                "UPDATE users SET full_name = 'x'",
                "UPDATE tenants SET name = 'x'",
                "UPDATE documents SET filename = 'x'",
            ] {
                assert_eq!(transaction.execute_unprepared(sql).await.unwrap().rows_affected(), 0, "{sql}");
            }
            transaction.rollback().await.unwrap();
        }
        tenants.begin(Some(&tenants.a.tenant.to_string())).await.commit().await.unwrap();
    }
    // What is no id is an error, not everybody.
    let transaction = tenants.begin(Some("x' OR 'x' = 'x")).await;
    assert!(transaction.execute_unprepared("SELECT 1 FROM users").await.is_err());
}

#[tokio::test]
async fn unfiltered_change_reaches_its_tenant_alone() {
    let Some(tenants) = TwoTenants::new().await else { return };
    let (a, b) = (&tenants.a, &tenants.b);
    let before = rows_of(&tenants.connection, b.tenant).await;
    let transaction = tenants.begin(Some(&a.tenant.to_string())).await;
    for (sql, own) in [
        ("UPDATE tenants SET name = 'mine'", 1),
        ("UPDATE users SET full_name = 'mine', deleted_at = now()", 1),
        ("UPDATE documents SET filename = 'mine', deleted_at = now()", 2),
    ] {
        assert_eq!(transaction.execute_unprepared(sql).await.unwrap().rows_affected(), own, "{sql}");
    }
    transaction.commit().await.unwrap();
    assert_eq!(rows_of(&tenants.connection, b.tenant).await, before);
    assert!(rows_of(&tenants.connection, a.tenant).await.iter().all(|row| row.contains("mine")));
    for (table, column) in [("tenants", "id"), ("users", "tenant_id"), ("documents", "tenant_id")] {
        let set = if table == "tenants" { "name" } else { "deleted_at" };
        let sql = format!("UPDATE {table} SET {set} = NULL WHERE {column} = '{}'", b.tenant);
        assert_eq!(tenants.as_a(&sql).await, Ok(0), "{table}");
    }
}

#[tokio::test]
async fn rows_cannot_enter_or_cite_another_tenant() {
    const REFUSED: &str = "42501";
    const DANGLING: &str = "23503";
    let Some(tenants) = TwoTenants::new().await else { return };
    let (a, b) = (&tenants.a, &tenants.b);
    let id = Uuid::now_v7;
    let document = |tenant: Uuid, user: Uuid| {
        format!(
            "INSERT INTO documents (id, tenant_id, user_id, storage_key, bucket, filename, content_type, size_bytes)
             VALUES ('{}', '{tenant}', '{user}', '{tenant}/new', 'files', 'f', 't', 1)",
            id()
        )
    };
    let entry = |tenant: Uuid, user: Uuid| {
        format!(
            "INSERT INTO audit_logs (id, tenant_id, user_id, action, resource_type)
             VALUES ('{}', '{tenant}', '{user}', 'CREATED', 'users')",
            id()
        )
    };
    let user = |tenant: Uuid| {
        format!("INSERT INTO users (id, tenant_id, email) VALUES ('{}', '{tenant}', 'new@example.org')", id())
    };
    // As far as A may go; the same with B in it fails.
    for own in [user(a.tenant), document(a.tenant, a.user), entry(a.tenant, a.user)] {
        assert_eq!(tenants.as_a(&own).await, Ok(1), "{own}");
    }
    for (sql, code) in [
        (user(b.tenant), REFUSED),
        (document(b.tenant, b.user), REFUSED),
        (document(b.tenant, a.user), REFUSED),
        (document(a.tenant, b.user), DANGLING),
        (entry(b.tenant, b.user), REFUSED),
        (entry(a.tenant, b.user), DANGLING),
        (format!("UPDATE documents SET user_id = '{}'", b.user), DANGLING),
    ] {
        assert_eq!(tenants.as_a(&sql).await, Err(code.to_owned()), "{sql}");
    }
    assert_eq!(count(&tenants.connection, "users").await, 2);
}

#[tokio::test]
async fn the_role_has_no_right_that_the_api_does_not_need() {
    let Some(tenants) = TwoTenants::new().await else { return };
    let (before_a, before_b) =
        (rows_of(&tenants.connection, tenants.a.tenant).await, rows_of(&tenants.connection, tenants.b.tenant).await);
    let mut forbidden: Vec<String> = Vec::new();
    for (table, _) in TABLES {
        forbidden.push(format!("TRUNCATE {table} CASCADE"));
        forbidden.push(format!("DELETE FROM {table}"));
        forbidden.push(format!("DROP TABLE {table} CASCADE"));
        forbidden.push(format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"));
        forbidden.push(format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"));
        forbidden.push(format!("ALTER TABLE {table} DISABLE TRIGGER ALL"));
        forbidden.push(format!("CREATE POLICY everyone ON {table} USING (true)"));
        forbidden.push(format!("DROP POLICY own_tenant ON {table}"));
        forbidden.push(format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
    }
    let columns = [
        ("tenants", &["id", "external_id", "status", "kms_key_arn", "created_at", "updated_at", "deleted_at"][..]),
        ("users", &["id", "tenant_id", "created_at", "updated_at"]),
        ("documents", &["id", "tenant_id", "storage_key", "bucket", "created_at", "updated_at"]),
        ("audit_logs", &["id", "tenant_id", "sequence", "user_id", "action", "metadata", "prev_hash", "hash"]),
        ("audit_heads", &["tenant_id", "sequence", "hash"]),
        ("audit_nodes", &["tenant_id", "level", "position", "hash"]),
        ("audit_checkpoints", &["tenant_id", "size", "note", "created_at"]),
    ];
    for (table, columns) in columns {
        forbidden.extend(columns.iter().map(|column| format!("UPDATE {table} SET {column} = {column}")));
    }
    let more = [
        "INSERT INTO tenants (id, name, external_id) VALUES (gen_random_uuid(), 'x', 'new')",
        "INSERT INTO audit_heads (tenant_id) VALUES (gen_random_uuid())",
        "INSERT INTO seaql_migrations (version, applied_at) VALUES ('x', 1)",
        "UPDATE seaql_migrations SET version = 'x'",
        "DELETE FROM seaql_migrations_meta",
        "CREATE TABLE mine ()",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION find_caller(text, text) SECURITY INVOKER",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY users TO PROGRAM 'cat'",
        "ALTER ROLE bulkhead_app BYPASSRLS",
    ];
    forbidden.extend(more.map(str::to_owned));
    for sql in forbidden {
        assert_eq!(tenants.as_a(&sql).await, Err("42501".to_owned()), "{sql}");
    }
    // Whoever holds every right is bound by the triggers.
    for table in ["audit_logs", "audit_heads", "audit_nodes", "audit_checkpoints"] {
        for sql in [format!("DELETE FROM {table}"), format!("TRUNCATE {table}")] {
            let error = tenants.connection.execute_unprepared(&sql).await.unwrap_err();
            assert!(error.to_string().contains("is append-only"), "{sql}: {error}");
        }
    }
    assert!(tenants.connection.execute_unprepared("UPDATE audit_logs SET action = 'x'").await.is_err());
    assert_eq!(rows_of(&tenants.connection, tenants.a.tenant).await, before_a);
    assert_eq!(rows_of(&tenants.connection, tenants.b.tenant).await, before_b);
}

#[tokio::test]
async fn who_looks_for_a_caller_finds_one_and_lists_none() {
    let Some(tenants) = TwoTenants::new().await else { return };
    let transaction = tenants.begin(None).await;
    let found = async |external_id: &str, subject: &str| {
        count(&transaction, &format!("find_caller('{external_id}', '{subject}')")).await
    };
    for rows in [&tenants.a, &tenants.b] {
        let sql = format!("SELECT user_id FROM find_caller('{}', 'idp|ada')", rows.tenant);
        assert_eq!(value::<Uuid>(&transaction, &sql).await, rows.user);
        assert_eq!(found(&rows.tenant.to_string(), "nobody").await, 1, "the tenant, and no user");
    }
    for external_id in ["", "%", "_"] {
        assert_eq!(found(external_id, "idp|ada").await, 0, "{external_id}");
    }
    // Neither the call nor what it sets for itself opens the tables, nor does setting it by hand.
    for set in ["SELECT 1", "SET LOCAL app.directory = 'on'"] {
        transaction.execute_unprepared(set).await.unwrap();
        for (table, _) in TABLES {
            assert_eq!(count(&transaction, table).await, 0, "{table} after {set}");
        }
    }
    transaction.rollback().await.unwrap();
}
