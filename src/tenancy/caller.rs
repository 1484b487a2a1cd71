//! The look-up of a caller: together with the list of tenants the only query that goes across tenants.

use crate::database::Pool;
use crate::entity::tenant::Status;
use crate::entity::user::Role;
use crate::ids::{TenantId, UserId};
use sea_orm::{ConnectionTrait, DbBackend, DbErr, FromQueryResult, Statement};
use serde::Serialize;
use std::collections::HashMap;

/// Whom a token names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(super) struct Subject {
    /// The tenant, by the name that the identity provider has for it.
    pub(super) external_id: String,
    /// The person or program, likewise.
    pub(super) subject: String,
}

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
    /// Whether requests of the tenant are served.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.status != Status::Suspended && !self.tenant_deleted
    }

    pub(super) async fn find(pool: &Pool, subject: &Subject) -> Result<Option<Self>, DbErr> {
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
        let values = [subject.external_id.as_str().into(), subject.subject.as_str().into()];
        let statement = Statement::from_sql_and_values(backend, sql, values);
        pool.in_another_session(|| Self::find_by_statement(statement.clone()).one(pool)).await
    }

    /// The callers of several tokens, in one round trip (PostgreSQL).
    pub(super) async fn find_all(pool: &Pool, subjects: &[Subject]) -> Result<HashMap<Subject, Self>, DbErr> {
        if let [subject] = subjects {
            return Ok(Self::find(pool, subject).await?.map(|caller| (subject.clone(), caller)).into_iter().collect());
        }
        let json = serde_json::to_value(subjects).map_err(|error| DbErr::Json(error.to_string()))?;
        let sql = "SELECT s.external_id, s.subject, c.*
            FROM jsonb_to_recordset($1) AS s (external_id text, subject text), find_caller(s.external_id, s.subject) AS c";
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, [json.into()]);
        let rows = pool.in_another_session(|| pool.query_all_raw(statement.clone())).await?;
        let found = rows.iter().map(|row| {
            let (external_id, subject) = (row.try_get("", "external_id")?, row.try_get("", "subject")?);
            Ok((Subject { external_id, subject }, Self::from_query_result(row, "")?))
        });
        found.collect()
    }
}
