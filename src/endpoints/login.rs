//! Login and logout at the identity provider, and what a token is worth.

use crate::app::AppState;
use crate::audit::{Action, ClientInfo, EventDraft, SYSTEM_TENANT};
use crate::auth::{Claims, LoginError};
use crate::context::TenantContext;
use crate::entity::user;
use crate::error::{ApiError, ErrorCode};
use crate::ids::{TenantId, UserId};
use crate::input::JsonBody;
use crate::resource::{AuthErrors, BodyErrors, CallbackErrors, LogoutErrors, PublicErrors};
use crate::tenancy::{ResolvedCaller, TenantTransaction};
use axum::Json;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{AppendHeaders, IntoResponse};
use sea_orm::ActiveValue::Set;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Tokens and login cookies are nobody's to keep on the way (RFC 6749, section 5.1).
const NO_STORE: (HeaderName, HeaderValue) = (CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// The longest hint of a logout, in bytes: as long as a token may be. It becomes a part of an address.
const ID_TOKEN_HINT_BYTES_MAX: usize = 16 * 1024;

/// Sends the browser to the identity provider.
///
/// The provider sends it back to the front end's OIDC_REDIRECT_URL with a `code` and a `state`, which that page posts to the
/// callback.
#[utoipa::path(
    get, path = "/auth/login", operation_id = "login", tag = "auth", security(()),
    responses(
        (status = 302, description = "To the provider, with a cookie that the callback needs"),
        PublicErrors,
    )
)]
pub(crate) async fn login(
    State(state): State<AppState>,
    method: Method,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let begun = state.auth.begin_login(&headers).await?;
    // HEAD only asks where a login would lead: a cookie would begin one, and end an older one.
    let cookies = if method == Method::HEAD { Vec::new() } else { begun.cookies };
    let cookies: Vec<_> =
        cookies.iter().map(|cookie| Ok((SET_COOKIE, header(cookie)?))).collect::<Result<_, ApiError>>()?;
    Ok((StatusCode::FOUND, [NO_STORE, (LOCATION, header(begun.url.as_str())?)], AppendHeaders(cookies)))
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

/// Ends a login: exchanges the code for a token.
///
/// Needs the login's cookie.
#[utoipa::path(
    post, path = "/auth/callback", operation_id = "loginCallback", tag = "auth", security(()), request_body = Callback,
    responses(
        (status = 200, body = LoggedIn, description = "Logged in"),
        CallbackErrors,
        BodyErrors,
        PublicErrors,
    )
)]
pub(crate) async fn callback(
    State(state): State<AppState>,
    headers: HeaderMap,
    client: ClientInfo,
    JsonBody(body): JsonBody<Callback>,
) -> Result<impl IntoResponse, ApiError> {
    let tokens = match state.auth.finish_login(&headers, body.code, &body.state).await {
        Ok(tokens) => tokens,
        Err(error) => return Err(record_refusal(&state, client, error).await),
    };
    record_login(&state, client, &tokens.claims).await?;
    let token = LoggedIn {
        access_token: tokens.token.expose_secret().to_owned(),
        token_type: "Bearer",
        expires_in: tokens.expires_in,
        id_token: tokens.id_token.map(|token| token.expose_secret().to_owned()),
    };
    Ok(([NO_STORE, (SET_COOKIE, header(&tokens.cookie)?)], Json(token)))
}

/// Records a login. Without its entry nobody is logged in, and nobody is into a tenant that is not served: the front end would
/// learn it at the first call only.
async fn record_login(state: &AppState, client: ClientInfo, claims: &Claims) -> Result<(), ApiError> {
    let row = state.tenancy.resolve_caller(&claims.tenant, &claims.subject).await?;
    let row = match row {
        Some(row) if row.is_served() => row,
        row => return Err(refuse_tenant(state, client, claims, row).await),
    };
    let event =
        EventDraft::new(row.tenant_id, Action::Login, "users").by(row.user_id, &claims.subject, &state.subjects);
    let event = event.from_client(client);
    let Some(user) = row.user_id.filter(|_| !row.user_deleted) else {
        return state.tenancy.record(event).await;
    };
    let login = async |tx: &mut TenantTransaction| {
        let now = user::ActiveModel { last_login_at: Set(Some(OffsetDateTime::now_utc())), ..Default::default() };
        tx.update::<user::Entity>(user, now).await.map(drop)
    };
    state.tenancy.change(event.on(user), login).await
}

/// Records a login into a tenant that is not served. An unknown tenant has no log of its own.
async fn refuse_tenant(state: &AppState, client: ClientInfo, claims: &Claims, row: Option<ResolvedCaller>) -> ApiError {
    let code = ErrorCode::TenantRefused;
    let tenant_id = row.as_ref().map_or(SYSTEM_TENANT, |row| row.tenant_id);
    let mut event = EventDraft::new(tenant_id, Action::LoginRefused, "users")
        .by(row.as_ref().and_then(|row| row.user_id), &claims.subject, &state.subjects)
        .from_client(client)
        .with("code", code.code());
    if row.is_none() {
        event.add("tenant", claims.tenant.as_str());
    }
    record_event(state, event).await;
    code.into()
}

async fn record_event(state: &AppState, refusal: EventDraft) {
    if let Err(error) = state.tenancy.record_refusal(refusal).await {
        tracing::error!(?error, "a refused login is not in the audit log");
    }
}

/// Records a login that was refused. Nobody knows its tenant. It stays refused where this fails.
async fn record_refusal(state: &AppState, client: ClientInfo, error: LoginError) -> ApiError {
    // Without a login cookie no login was begun: anyone could fill the log with such calls, which the access log has.
    let of_a_login = !matches!(error, LoginError::Cookie(_));
    let error = ApiError::from(error);
    if of_a_login && error.code.is_client_error() {
        let event = EventDraft::new(SYSTEM_TENANT, Action::LoginRefused, "users").from_client(client);
        record_event(state, event.with("code", error.code.code())).await;
    }
    error
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Validation {
    #[schema(example = true)]
    valid: bool,
    /// The user's id; null where the tenant has no user of the token's subject.
    #[schema(value_type = Option<Uuid>)]
    user_id: Option<UserId>,
    #[schema(value_type = Uuid)]
    tenant_id: TenantId,
    /// When the token expires: Unix time in seconds.
    #[schema(example = 1_790_000_000)]
    expires_at: i64,
}

/// Whether the token is good, and whose it is.
#[utoipa::path(
    get, path = "/auth/validate", operation_id = "validateToken", tag = "auth", security(("bearer" = [])),
    responses(
        (status = 200, body = Validation, description = "The token is good"),
        AuthErrors,
    )
)]
pub(crate) async fn validate(TenantContext { caller, .. }: TenantContext) -> Json<Validation> {
    Json(Validation {
        valid: true,
        user_id: caller.user_id,
        tenant_id: caller.tenant_id,
        expires_at: caller.expires_at,
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
    #[schema(max_length = 16384)]
    id_token_hint: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct LoggedOut {
    /// Where to send the browser.
    logout_url: String,
}

/// Where to send the browser so that the provider ends its session.
#[utoipa::path(
    post, path = "/auth/logout", operation_id = "logout", tag = "auth", security(()), request_body = Logout,
    responses(
        (status = 200, body = LoggedOut, description = "Where the provider logs out"),
        LogoutErrors,
        BodyErrors,
        PublicErrors,
    )
)]
pub(crate) async fn logout(
    State(state): State<AppState>,
    JsonBody(body): JsonBody<Logout>,
) -> Result<Json<LoggedOut>, ApiError> {
    if !state.settings.allows_page(&body.redirect_uri) {
        return Err(ErrorCode::RedirectNotAllowed.into());
    }
    if body.id_token_hint.as_ref().is_some_and(|hint| hint.len() > ID_TOKEN_HINT_BYTES_MAX) {
        let error = ApiError::detailed(ErrorCode::InvalidInput, "it is longer than 16 KiB");
        return Err(error.of_field("id_token_hint".to_owned()));
    }
    let url = state.auth.logout_url(&body.redirect_uri, body.id_token_hint.as_deref()).await?;
    Ok(Json(LoggedOut { logout_url: url.into() }))
}

fn header(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text).map_err(|error| ApiError::internal(&error))
}
