//! The caller of a request, as handlers take it.

use super::{Auth, Claims};
use crate::audit::{self, Action, Actor, Event, Origin};
use crate::entity::tenant;
use crate::entity::user::Role;
use crate::error::{ApiError, ErrorCode};
use crate::telemetry::{ClientIp, RequestIdentity};
use crate::tenancy::{CallerRow, Tenancy};
use axum::extract::{FromRef, FromRequestParts, MatchedPath};
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use std::convert::Infallible;
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
    /// From where the request comes.
    pub origin: Origin,
}

/// A caller who may write: a member or an admin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member(pub Principal);

/// A caller who may do everything within the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(pub Principal);

impl Principal {
    /// The caller as the audit log names it.
    #[must_use]
    pub fn actor(&self) -> Actor {
        let subject = self.user_id.is_none().then(|| self.subject.clone());
        Actor { tenant_id: self.tenant_id, user_id: self.user_id, subject, origin: self.origin.clone() }
    }

    fn of(claims: &Claims, row: &CallerRow, origin: Origin) -> Result<Self, ApiError> {
        if row.status == tenant::Status::Suspended || row.tenant_deleted {
            return Err(ErrorCode::TenantRefused.into());
        }
        // Whoever was deleted here does not come back by what the token says.
        let role = if row.user_deleted { None } else { claims.role.or(row.role) };
        Ok(Self {
            tenant_id: row.tenant_id,
            user_id: row.user_id,
            subject: claims.subject.clone(),
            role: role.ok_or_else(|| ApiError::detailed(ErrorCode::RoleNotSufficient, "no role here"))?,
            expires_at: claims.expires_at,
            origin,
        })
    }

    /// The caller with `least` or more, from its token. Whoever has a good token and is refused is recorded.
    async fn extract<S>(parts: &Parts, state: &S, least: Role) -> Result<Self, ApiError>
    where
        S: Send + Sync,
        Arc<Auth>: FromRef<S>,
        Tenancy: FromRef<S>,
    {
        let token = bearer(parts)?;
        let verified = Arc::<Auth>::from_ref(state).verify(token).await;
        let claims = verified.map_err(|error| ApiError::detailed(error.into(), error.to_string()))?;
        let tenancy = Tenancy::from_ref(state);
        let row = tenancy.caller(&claims.tenant, &claims.subject).await?;
        if let (Some(identity), Some(row)) = (parts.extensions.get::<RequestIdentity>(), &row) {
            identity.set(row.tenant_id, row.user_id);
        }
        let origin = origin(parts);
        let principal = match &row {
            Some(row) => Self::of(&claims, row, origin.clone()),
            None => Err(ErrorCode::TenantRefused.into()),
        };
        let principal = principal.and_then(|principal| {
            if principal.role >= least { Ok(principal) } else { Err(ErrorCode::RoleNotSufficient.into()) }
        });
        if let Err(error) = &principal {
            let route = parts.extensions.get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
            let event = Event::new(Action::AccessRefused, "api")
                .with("code", error.code.code())
                .with("method", parts.method.as_str())
                .with("route", route);
            // A tenant that is not ours has no log to stand in.
            let (tenant_id, event) = match &row {
                Some(row) => (row.tenant_id, event),
                None => (audit::SYSTEM_TENANT, event.with("tenant", claims.tenant.as_str())),
            };
            let user_id = row.and_then(|row| row.user_id);
            let actor = Actor { tenant_id, user_id, subject: Some(claims.subject.clone()), origin };
            // Refused either way: a log that cannot be written opens nothing.
            if let Err(error) = tenancy.record_refusal(tenant_id, actor.did(event)).await {
                tracing::error!(?error, "a refusal is not in the audit log");
            }
        }
        principal
    }
}

fn origin(parts: &Parts) -> Origin {
    let ip = parts.extensions.get::<ClientIp>().map(|client| client.0);
    Origin::new(ip, parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()))
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(origin(parts))
    }
}

impl<S> FromRequestParts<S> for Principal
where
    S: Send + Sync,
    Arc<Auth>: FromRef<S>,
    Tenancy: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Self::extract(parts, state, Role::Viewer).await
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
            Tenancy: FromRef<S>,
        {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
                Principal::extract(parts, state, $role).await.map(Self)
            }
        }
    };
}

extracts_at_least!(Member, Role::Member);
extracts_at_least!(Admin, Role::Admin);
