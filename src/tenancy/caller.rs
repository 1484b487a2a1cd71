//! The look-up of a caller: together with the list of tenants the only query that goes across tenants.

use crate::database::Pool;
use crate::entity::tenant::Status;
use crate::entity::user::Role;
use crate::ids::{TenantId, UserId};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement};

/// The tenant of a token, and the user of its subject if the tenant has one: a live one before a deleted one.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub struct ResolvedCaller {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Whether it may be served.
    pub status: Status,
    /// Whether it is deleted.
    pub tenant_deleted: bool,
    /// The user.
    pub user_id: Option<UserId>,
    /// What the user may do.
    pub role: Option<Role>,
    /// Whether the user is deleted.
    pub user_deleted: bool,
}

impl ResolvedCaller {
    pub(super) async fn find(pool: &Pool, external_id: &str, subject: &str) -> Result<Option<Self>, DbErr> {
        let backend = pool.get_database_backend();
        let sql = match backend {
            DbBackend::Postgres => "SELECT * FROM find_caller($1, $2)",
            _ => {
                "SELECT t.id AS tenant_id, t.status, t.deleted_at IS NOT NULL AS tenant_deleted,
                     u.id AS user_id, u.role, u.deleted_at IS NOT NULL AS user_deleted
                 FROM tenants t LEFT JOIN users u ON u.tenant_id = t.id AND u.external_idp_id = $2
                 WHERE t.external_id = $1 ORDER BY u.deleted_at DESC NULLS FIRST LIMIT 1"
            }
        };
        let statement = Statement::from_sql_and_values(backend, sql, [external_id.into(), subject.into()]);
        pool.in_another_session(|| Self::find_by_statement(statement.clone()).one(pool)).await
    }
}
