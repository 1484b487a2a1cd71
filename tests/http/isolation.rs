//! One tenant never sees or changes what is another's: by the API, by SQL as the API's role, whatever login the server
//! has, and through a pooler.

mod attempts;
mod escalation;
mod interleaved;
mod logins;
mod pooler;
mod readiness;
mod rights;
mod run_time_login;
mod tables;

pub(crate) use logins::{CREATE, Roles, deployment, succeed};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use uuid::Uuid;

/// Every row of the tenant, as the database holds it for a superuser's connection, whom no policy binds.
async fn rows_of(connection: &DatabaseConnection, tenant: Uuid) -> Vec<String> {
    let backend = connection.get_database_backend();
    let sql = match backend {
        DbBackend::Postgres => {
            "SELECT t::text AS line FROM tenants t WHERE id = $1
             UNION ALL SELECT u::text FROM users u WHERE tenant_id = $1
             UNION ALL SELECT d::text FROM documents d WHERE tenant_id = $1 ORDER BY 1"
        }
        _ => {
            "SELECT concat_ws('|', hex(id), name, external_id, status, created_at, updated_at, deleted_at) AS line
             FROM tenants WHERE id = $1
             UNION ALL SELECT concat_ws('|', hex(id), email, external_idp_id, full_name, role, last_login_at,
                 created_at, updated_at, deleted_at) FROM users WHERE tenant_id = $1
             UNION ALL SELECT concat_ws('|', hex(id), hex(user_id), storage_key, bucket, filename, content_type,
                 size_bytes, status, metadata, created_at, updated_at, deleted_at)
             FROM documents WHERE tenant_id = $1 ORDER BY 1"
        }
    };
    let statement = Statement::from_sql_and_values(backend, sql, [tenant.into()]);
    let rows = connection.query_all_raw(statement).await.unwrap();
    rows.iter().map(|row| row.try_get("", "line").unwrap()).collect()
}
