//! Who calls, and what they may run: the only way from a handler to tenants' data.
//!
//! A handler says in its signature which role its caller must have: [`TenantContext`] for any role, [`Require`] for a
//! permission. Whoever has no good token is refused with 401, whoever has no tenant or not the role with 403.

use crate::app::AppState;
use crate::audit::{self, Action, ClientInfo, EventDraft};
use crate::auth::{Claims, KnownCaller};
use crate::entity::user::Role;
use crate::error::{ApiError, ErrorCode};
use crate::ids::{TenantId, UserId};
use crate::subject_names::SubjectNames;
use crate::telemetry::{ClientIp, RequestIdentity};
use crate::tenancy::{IdempotencyKey, ResolvedCaller, Tenancy, TenantTransaction};
use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, USER_AGENT};
use axum::http::request::Parts;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use uuid::Uuid;

/// A verified caller, with a role in a tenant that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant: all that this caller may see or change belongs to it.
    pub tenant_id: TenantId,
    /// The user's row, where the tenant has one for the token's subject.
    pub user_id: Option<UserId>,
    /// The provider's name for the caller.
    pub subject: String,
    /// What the caller may do: as the token says, or else as the user's row does.
    pub role: Role,
    /// When the token expires: Unix time in seconds.
    pub expires_at: i64,
    /// From where the request comes.
    pub client: ClientInfo,
}

/// A request's caller, and the means to run transactions of the caller's tenant.
#[derive(Debug, Clone)]
pub struct TenantContext {
    /// Who calls.
    pub caller: Caller,
    tenancy: Tenancy,
    subjects: SubjectNames,
}

impl TenantContext {
    /// An event of this caller: `action` on things of this kind.
    #[must_use]
    pub fn event(&self, action: Action, resource_type: &'static str) -> EventDraft {
        let Caller { tenant_id, user_id, subject, client, .. } = &self.caller;
        let event = EventDraft::new(*tenant_id, action, resource_type).by(*user_id, subject, &self.subjects);
        event.from_client(client.clone())
    }

    /// Reads in a transaction of the caller's tenant: see [`Tenancy::read`].
    pub async fn read<R>(
        &self,
        event: EventDraft,
        work: impl AsyncFnOnce(&mut TenantTransaction) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        self.tenancy.read(event, work).await
    }

    /// Makes a change in a transaction of the caller's tenant: see [`Tenancy::change`].
    pub async fn change<R>(
        &self,
        event: EventDraft,
        work: impl AsyncFnOnce(&mut TenantTransaction) -> Result<R, ApiError> + Clone,
    ) -> Result<R, ApiError> {
        self.tenancy.change(event, work).await
    }

    /// Makes a row once, however often the request comes: see [`Tenancy::change_once`].
    pub async fn change_once<R>(
        &self,
        event: EventDraft,
        key: &IdempotencyKey,
        row: Uuid,
        work: impl AsyncFnOnce(&mut TenantTransaction) -> Result<R, ApiError> + Clone,
        again: impl AsyncFnOnce(&mut TenantTransaction, Uuid) -> Result<R, ApiError>,
    ) -> Result<R, ApiError> {
        self.tenancy.change_once(event, key, row, work, again).await
    }

    /// The caller with `least` or more, from its token. A refused caller whose token is good is recorded.
    async fn extract(parts: &Parts, state: &AppState, least: Role) -> Result<Self, ApiError> {
        let claims = if let Some(KnownCaller(claims)) = parts.extensions.get() {
            Arc::clone(claims)
        } else {
            let verified = state.auth.verify(bearer(&parts.headers)?).await;
            verified.map_err(|error| ApiError::detailed(error.into(), error.to_string()))?
        };
        let row = state.tenancy.resolve_caller(&claims.tenant, &claims.subject).await?;
        if let (Some(logged), Some(row)) = (parts.extensions.get::<RequestIdentity>(), &row) {
            logged.set(row.tenant_id, row.user_id);
        }
        let client = client(parts);
        match authorize(&claims, row.as_ref(), least, &client) {
            Ok(caller) => Ok(Self { caller, tenancy: state.tenancy.clone(), subjects: state.subjects.clone() }),
            Err(error) => {
                record_refusal(parts, state, &claims, row, client, error.code).await;
                Err(error)
            }
        }
    }
}

fn authorize(
    claims: &Claims,
    row: Option<&ResolvedCaller>,
    least: Role,
    client: &ClientInfo,
) -> Result<Caller, ApiError> {
    let row = row.filter(|row| row.is_served()).ok_or(ErrorCode::TenantRefused)?;
    // A deleted user has no role, whatever the token claims.
    let role = if row.user_deleted { None } else { claims.role.or(row.role) };
    let role = role.ok_or_else(|| ApiError::detailed(ErrorCode::RoleNotSufficient, "the caller has no role"))?;
    if role < least {
        return Err(ErrorCode::RoleNotSufficient.into());
    }
    Ok(Caller {
        tenant_id: row.tenant_id,
        user_id: row.user_id,
        subject: claims.subject.clone(),
        role,
        expires_at: claims.expires_at,
        client: client.clone(),
    })
}

/// The caller stays refused where this fails.
async fn record_refusal(
    parts: &Parts,
    state: &AppState,
    claims: &Claims,
    row: Option<ResolvedCaller>,
    client: ClientInfo,
    code: ErrorCode,
) {
    let route = parts.extensions.get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str);
    // An unknown tenant has no log of its own.
    let tenant_id = row.as_ref().map_or(audit::SYSTEM_TENANT, |row| row.tenant_id);
    let mut event = EventDraft::new(tenant_id, Action::AccessRefused, "api")
        .by(row.as_ref().and_then(|row| row.user_id), &claims.subject, &state.subjects)
        .from_client(client)
        .with("code", code.code())
        .with("method", parts.method.as_str())
        .with("route", route);
    if row.is_none() {
        event.add("tenant", claims.tenant.as_str());
    }
    if let Err(error) = state.tenancy.record_refusal(event).await {
        tracing::error!(?error, "a refusal is not in the audit log");
    }
}

/// The client of the request, for the audit log.
fn client(parts: &Parts) -> ClientInfo {
    let ip = parts.extensions.get::<ClientIp>().map(|client| client.0);
    // A byte that is no text must not hide the rest.
    let user_agent = parts.headers.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    ClientInfo::new(ip, user_agent.as_deref())
}

impl<S: Send + Sync> FromRequestParts<S> for ClientInfo {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(client(parts))
    }
}

impl FromRequestParts<AppState> for TenantContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Self::extract(parts, state, Role::Viewer).await
    }
}

/// What a caller needs for an operation.
pub trait Permission: 'static {
    /// The least role.
    const ROLE: Role;
}

/// A role of an admin.
#[derive(Debug)]
pub struct Admin;

impl Permission for Admin {
    const ROLE: Role = Role::Admin;
}

/// The context of a caller who has this permission.
#[derive(Debug)]
pub struct Require<P>(pub TenantContext, pub PhantomData<P>);

impl<P: Permission> FromRequestParts<AppState> for Require<P> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        Ok(Self(TenantContext::extract(parts, state, P::ROLE).await?, PhantomData))
    }
}

/// The token of the one Authorization header (RFC 6750, section 2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(ErrorCode::NoToken)?;
    if values.next().is_some() {
        return Err(ApiError::detailed(ErrorCode::InvalidToken, "there is more than one Authorization header"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ErrorCode::NoToken.into());
    }
    let token = token.trim_start_matches(' ');
    if token.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")) {
        return Err(ApiError::detailed(ErrorCode::InvalidToken, "the word Bearer is there twice: send it once"));
    }
    Ok(token)
}
