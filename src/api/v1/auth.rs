//! Login and logout at the identity provider, and what a token is worth.

use super::resource::{BodyRefused, Busy, Refused};
use crate::api::body::Body;
use crate::audit::{Action, Actor, Event, Origin, SYSTEM_TENANT};
use crate::auth::{Claims, LoginError, Principal};
use crate::entity::user;
use crate::error::{ApiError, ErrorBody, ErrorCode};
use crate::server::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::IntoResponse;
use sea_orm::ActiveValue::Set;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// Tokens and login cookies are nobody's to keep on the way (RFC 6749, section 5.1).
const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// Sends the browser to the identity provider. The provider sends it back to the front end's OIDC_REDIRECT_URL with a
/// `code` and a `state`, which that page posts to the callback.
#[utoipa::path(
    get, path = "/auth/login", operation_id = "beginLogin", tag = "auth", security(()),
    responses(
        (status = 302, description = "To the provider, with a cookie that the callback needs"),
        Busy,
    )
)]
pub(crate) async fn login(State(state): State<AppState>) -> Result<impl IntoResponse, ApiError> {
    let begun = state.auth.begin_login().await?;
    Ok((StatusCode::FOUND, [NO_STORE, (LOCATION, header(begun.url.as_str())?), (SET_COOKIE, header(&begun.cookie)?)]))
}

/// What the provider has sent the browser back with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Callback {
    /// The provider's code, good once.
    code: String,
    /// The login's state.
    state: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedIn {
    /// Send it as `Authorization: Bearer`.
    access_token: String,
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// For how many seconds it is good.
    #[schema(example = 3600)]
    expires_in: i64,
    /// For the logout's `id_token_hint`; not for calling the API. Only where OIDC_API_TOKEN is access_token.
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
}

/// Ends a login: exchanges the code for a token. Needs the login's cookie.
#[utoipa::path(
    post, path = "/auth/callback", operation_id = "finishLogin", tag = "auth", security(()), request_body = Callback,
    responses(
        (status = 200, body = LoggedIn, description = "Logged in"),
        (status = 400, description = "AUTH_001, AUTH_004, VAL_001 to VAL_003", body = ErrorBody),
        (status = 403, description = "AUTH_002, AUTH_005, AUTH_007", body = ErrorBody),
        BodyRefused,
        Busy,
    )
)]
pub(crate) async fn callback(
    State(state): State<AppState>,
    headers: HeaderMap,
    origin: Origin,
    Body(body): Body<Callback>,
) -> Result<impl IntoResponse, ApiError> {
    let tokens = match state.auth.finish_login(&headers, body.code, &body.state).await {
        Ok(tokens) => tokens,
        Err(error) => return Err(refused(&state, origin, error).await),
    };
    logged_in(&state, origin, &tokens.claims).await?;
    let token = LoggedIn {
        access_token: tokens.token.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in: tokens.expires_in,
        id_token: tokens.id_token.map(|token| token.expose_secret().to_owned()),
    };
    Ok(([NO_STORE, (SET_COOKIE, header(&tokens.cookie)?)], Json(token)))
}

/// Records a login; without that, nobody is logged in.
async fn logged_in(state: &AppState, origin: Origin, claims: &Claims) -> Result<(), ApiError> {
    let row = state.tenancy.caller(&claims.tenant, &claims.subject).await?;
    let event = Event::new(Action::Login, "users");
    let subject = Some(claims.subject.clone());
    let Some(row) = row else {
        let actor = Actor { subject, ..Actor::nobody(SYSTEM_TENANT, origin) };
        let event = event.with("tenant", claims.tenant.as_str());
        return state.tenancy.record(SYSTEM_TENANT, actor.did(event)).await;
    };
    let actor = Actor { tenant_id: row.tenant_id, user_id: row.user_id, subject, origin };
    match row.user_id.filter(|_| !row.user_deleted) {
        Some(user) => {
            let work = state.tenancy.write(actor).await?;
            let now = user::ActiveModel { last_login_at: Set(Some(OffsetDateTime::now_utc())), ..Default::default() };
            work.update::<user::Entity>(user, now).await?;
            work.commit(event.on(user)).await
        }
        None => state.tenancy.record(row.tenant_id, actor.did(event)).await,
    }
}

/// Records a login that was refused, whose tenant nobody knows. It stays refused whether that succeeds or not.
async fn refused(state: &AppState, origin: Origin, error: LoginError) -> ApiError {
    // Nobody who has begun a login: anyone could fill the log with these. They are in the access log.
    let of_a_login = !matches!(error, LoginError::Cookie(_));
    let error = ApiError::from(error);
    if of_a_login && error.code.status().is_client_error() {
        let event = Event::new(Action::LoginRefused, "users").with("code", error.code.code());
        let record = Actor::nobody(SYSTEM_TENANT, origin).did(event);
        if let Err(error) = state.tenancy.record_refusal(SYSTEM_TENANT, record).await {
            tracing::error!(?error, "a refused login is not in the audit log");
        }
    }
    error
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Validation {
    #[schema(example = true)]
    valid: bool,
    /// The user's id; null where the tenant has no user of the token's subject.
    user_id: Option<Uuid>,
    tenant_id: Uuid,
    /// When the token expires: Unix time in seconds.
    #[schema(example = 1_790_000_000)]
    expires_at: i64,
}

/// Whether the token is good, and whose it is.
#[utoipa::path(
    get, path = "/auth/validate", operation_id = "validateToken", tag = "auth", security(("bearer" = [])),
    responses(
        (status = 200, body = Validation, description = "The token is good"),
        Refused,
    )
)]
pub(crate) async fn validate(principal: Principal) -> Json<Validation> {
    Json(Validation {
        valid: true,
        user_id: principal.user_id,
        tenant_id: principal.tenant_id,
        expires_at: principal.expires_at,
    })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Logout {
    /// Where the provider is to send the browser afterwards; its origin must be one of ALLOWED_ORIGINS.
    #[schema(example = "https://app.example.com/goodbye")]
    redirect_uri: String,
    /// The ID token, for providers that log nobody out without it (Okta): the callback's `id_token`, or its
    /// `access_token` where OIDC_API_TOKEN is id_token.
    id_token_hint: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedOut {
    /// Where to send the browser.
    logout_url: String,
}

/// Where to send the browser so that the provider ends its session.
#[utoipa::path(
    post, path = "/auth/logout", operation_id = "logOut", tag = "auth", security(()), request_body = Logout,
    responses(
        (status = 200, body = LoggedOut, description = "Where the provider logs out"),
        (status = 400, description = "AUTH_006, VAL_001 to VAL_003", body = ErrorBody),
        BodyRefused,
        Busy,
    )
)]
pub(crate) async fn logout(
    State(state): State<AppState>,
    Body(body): Body<Logout>,
) -> Result<Json<LoggedOut>, ApiError> {
    if !state.settings.allows_page(&body.redirect_uri) {
        return Err(ErrorCode::RedirectNotAllowed.into());
    }
    let url = state.auth.logout_url(&body.redirect_uri, body.id_token_hint.as_deref()).await?;
    Ok(Json(LoggedOut { logout_url: url.into() }))
}

fn header(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|error| ApiError::internal(&error))
}
