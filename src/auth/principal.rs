//! The caller of a request, as handlers take it.

use super::{Auth, Claims};
use crate::entity::tenant;
use crate::entity::user::{self, Role};
use crate::error::{ApiError, ErrorCode};
use crate::telemetry::{Caller, CallerIds};
use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use sea_orm::sea_query::{Expr, ExprTrait, IntoCondition};
use sea_orm::{
    ColumnTrait, DatabaseConnection, EntityTrait, FromQueryResult, JoinType, Order, QueryFilter, QueryOrder,
};
use sea_orm::{QuerySelect, RelationTrait};
use std::sync::Arc;
use uuid::Uuid;

/// Someone of a tenant that is served, with a role in it. As a handler's argument it refuses everyone else: with 401
/// who has no good token, with 403 who has no tenant or no role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The tenant: all that this caller may see or change lies in it.
    pub tenant_id: Uuid,
    /// The user's row, where the tenant has one for the token's subject.
    pub user_id: Option<Uuid>,
    /// The provider's name for the caller.
    pub subject: String,
    /// What the caller may do: as the token says, or else as the user's row does.
    pub role: Role,
    /// When the token expires: Unix time in seconds.
    pub expires_at: i64,
}

/// A caller who may write: a member or an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member(pub Principal);

/// A caller who may do everything within the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(pub Principal);

impl Principal {
    fn at_least(self, role: Role) -> Result<Self, ApiError> {
        if self.role >= role { Ok(self) } else { Err(ErrorCode::RoleNotSufficient.into()) }
    }

    async fn of(claims: &Claims, database: &DatabaseConnection) -> Result<Self, ApiError> {
        let row = Row::find(claims, database).await?;
        let Some(row) = row.filter(|row| row.status != tenant::Status::Suspended && !row.tenant_deleted) else {
            return Err(ErrorCode::TenantRefused.into());
        };
        // Whoever was deleted here does not come back by what the token says.
        let role = if row.user_deleted { None } else { claims.role.or(row.role) };
        Ok(Self {
            tenant_id: row.tenant_id,
            user_id: row.user_id,
            subject: claims.subject.clone(),
            role: role.ok_or_else(|| ApiError::detailed(ErrorCode::RoleNotSufficient, "no role here"))?,
            expires_at: claims.expires_at,
        })
    }
}

/// The tenant of a token, and the user of its subject if the tenant has one.
#[derive(FromQueryResult)]
struct Row {
    tenant_id: Uuid,
    status: tenant::Status,
    tenant_deleted: bool,
    user_id: Option<Uuid>,
    role: Option<Role>,
    user_deleted: bool,
}

impl Row {
    /// One round trip for both.
    async fn find(claims: &Claims, database: &DatabaseConnection) -> Result<Option<Self>, ApiError> {
        let subject = claims.subject.clone();
        let of_subject = tenant::Relation::User
            .def()
            .on_condition(move |_, user| Expr::col((user, user::Column::ExternalIdpId)).eq(&*subject).into_condition());
        let row = tenant::Entity::find()
            .select_only()
            .column_as(tenant::Column::Id, "tenant_id")
            .column_as(tenant::Column::Status, "status")
            .expr_as(tenant::Column::DeletedAt.is_not_null(), "tenant_deleted")
            .column_as(user::Column::Id, "user_id")
            .column_as(user::Column::Role, "role")
            .expr_as(user::Column::DeletedAt.is_not_null(), "user_deleted")
            .join(JoinType::LeftJoin, of_subject)
            .filter(tenant::Column::ExternalId.eq(&claims.tenant))
            // A live user before a deleted one of the same subject.
            .order_by(user::Column::DeletedAt.is_not_null(), Order::Asc)
            .into_model::<Self>()
            .one(database)
            .await?;
        Ok(row)
    }
}

impl<S> FromRequestParts<S> for Principal
where
    S: Send + Sync,
    Arc<Auth>: FromRef<S>,
    DatabaseConnection: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let token = bearer(parts)?;
        let verified = Arc::<Auth>::from_ref(state).verify(token).await;
        let claims = verified.map_err(|error| ApiError::detailed(error.into(), error.to_string()))?;
        let principal = Self::of(&claims, &DatabaseConnection::from_ref(state)).await?;
        if let Some(caller) = parts.extensions.get::<Caller>() {
            caller.set(CallerIds { tenant_id: principal.tenant_id, user_id: principal.user_id });
        }
        Ok(principal)
    }
}

/// The token of the one Authorization header (RFC 6750, section 2.1).
fn bearer(parts: &Parts) -> Result<&str, ApiError> {
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(ErrorCode::NoToken)?;
    if values.next().is_some() {
        return Err(ApiError::detailed(ErrorCode::InvalidToken, "there is more than one Authorization header"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ErrorCode::NoToken.into());
    }
    Ok(token.trim_start_matches(' '))
}

macro_rules! extracts_at_least {
    ($name:ident, $role:expr) => {
        impl<S> FromRequestParts<S> for $name
        where
            S: Send + Sync,
            Arc<Auth>: FromRef<S>,
            DatabaseConnection: FromRef<S>,
        {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
                Principal::from_request_parts(parts, state).await?.at_least($role).map(Self)
            }
        }
    };
}

extracts_at_least!(Member, Role::Member);
extracts_at_least!(Admin, Role::Admin);
