//! The login: the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 9700; OpenID Connect Core 1.0), and the
//! logout (OpenID Connect RP-Initiated Logout 1.0).

use super::exchanges::{Exchanges, Refusal};
use super::http::{HttpClient, SendError};
use super::key_cache::KeyCache;
use super::{Auth, Claims, Metadata, TokenError};
use crate::clock::unix_seconds;
use crate::config::{ApiToken, Provider};
use crate::error::{ApiError, ErrorCode};
use axum::http::{HeaderMap, StatusCode, header};
use cookie::{Cookie, CookieBuilder, CookieJar, Key, SameSite};
use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
    BasicTokenType,
};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, Client, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet,
    ExtraTokenFields, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, RequestTokenError, Scope,
    StandardRevocableToken, StandardTokenResponse, TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use url::Url;

/// The cookie that ties a login's end to its beginning. Over https its name has the prefix by which browsers take it
/// from this host alone (RFC 6265bis, section 4.1.3.2): no sibling of the domain can plant another.
const COOKIE: &str = "bulkhead_login";
const HOST_COOKIE: &str = "__Host-bulkhead_login";

/// How long a person may take to log in, in seconds.
const PATIENCE: i64 = 600;

/// Why a login, or a logout, goes no further.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No provider is set up.
    #[error("no identity provider is set up: set OIDC_ISSUER_URL; in development `bulkhead dev-token` needs none")]
    NotConfigured,
    /// A setting is missing.
    #[error("{0} is not set")]
    Setting(&'static str),
    /// The provider does not answer, or not as it should.
    #[error("the identity provider: {0}")]
    Provider(String),
    /// Too many logins wait for the provider.
    #[error("as many logins as there may be wait for the identity provider")]
    Full,
    /// The provider did not answer the last login, and another one finds out whether it does now.
    #[error("the identity provider did not answer the last login")]
    Failing,
    /// There is no login cookie, or none that is good any more.
    #[error("{0}")]
    Cookie(&'static str),
    /// The answer belongs to no login of this browser.
    #[error("the state is not the login's")]
    State,
    /// The provider does not accept the code.
    #[error("the code is not accepted: {0}")]
    Code(String),
    /// The provider does not accept us.
    #[error("the identity provider refuses this client: {0}; see OIDC_CLIENT_ID and OIDC_CLIENT_SECRET")]
    Client(String),
    /// The ID token is not good.
    #[error("the ID token: {0}")]
    IdToken(TokenError),
    /// The token to hand out is not one that the API accepts.
    #[error("the {kind}: {error}; see OIDC_API_TOKEN, OIDC_AUDIENCE and docs/auth.md")]
    ApiToken {
        /// Which one it is.
        kind: ApiToken,
        /// Why it is not accepted.
        error: TokenError,
    },
}

impl From<Refusal> for LoginError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::Failing => Self::Failing,
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        let text = error.to_string();
        let code = match error {
            // No line for each: anyone could fill the log with these.
            LoginError::Full => return Self::detailed(ErrorCode::Overloaded, text),
            LoginError::Failing => return Self::detailed(ErrorCode::ProviderUnreachable, text),
            LoginError::Cookie(_) | LoginError::State => ErrorCode::StateMismatch,
            LoginError::Code(_) | LoginError::IdToken(TokenError::Invalid(_) | TokenError::Expired) => {
                // Not a call whose token was refused: there is nothing to authenticate with (RFC 9110, section 15.5.2).
                return Self::detailed(ErrorCode::InvalidToken, text).with_status(StatusCode::BAD_REQUEST);
            }
            LoginError::ApiToken { error: TokenError::NoTenant, .. } => ErrorCode::NoTenant,
            LoginError::ApiToken { error: TokenError::BadTenant, .. } => ErrorCode::BadTenant,
            LoginError::NotConfigured
            | LoginError::Provider(_)
            | LoginError::IdToken(TokenError::NoKeys)
            | LoginError::ApiToken { error: TokenError::NoKeys, .. } => ErrorCode::ProviderUnreachable,
            LoginError::IdToken(_) => {
                return Self::detailed(ErrorCode::BadSignature, text).with_status(StatusCode::BAD_REQUEST);
            }
            LoginError::Setting(_) | LoginError::Client(_) | LoginError::ApiToken { .. } => ErrorCode::Internal,
        };
        if code.status().is_server_error() {
            tracing::error!("login: {text}");
        }
        Self::detailed(code, text)
    }
}

/// A login that has begun: where to send the browser, and the cookie to give it.
#[derive(Debug)]
pub struct Begun {
    /// The provider's authorization endpoint, with everything it needs to know.
    pub url: Url,
    /// A `Set-Cookie` value.
    pub cookie: String,
}

/// A login that is done.
#[derive(Debug)]
pub struct Tokens {
    /// The token for calling this API.
    pub token: SecretString,
    /// What it says.
    pub claims: Arc<Claims>,
    /// The ID token, where it is another: for the logout's hint, not for calling this API.
    pub id_token: Option<SecretString>,
    /// For how many seconds it is good.
    pub expires_in: i64,
    /// A `Set-Cookie` value that removes the login's cookie.
    pub cookie: String,
}

pub(super) struct Login {
    provider: Box<Provider>,
    http: HttpClient,
    key: Key,
    exchanges: Exchanges,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// The ID token beside the standard members of a token response.
#[derive(Debug, Serialize, Deserialize)]
struct WithIdToken {
    id_token: Option<String>,
}

impl ExtraTokenFields for WithIdToken {}

type OidcClient = Client<
    BasicErrorResponse,
    StandardTokenResponse<WithIdToken, BasicTokenType>,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// What the cookie keeps between a login's beginning and its end. All parts are of base64url's letters.
struct Kept {
    state: CsrfToken,
    nonce: String,
    verifier: PkceCodeVerifier,
    expires: i64,
}

impl Kept {
    fn value(&self) -> String {
        format!("{}.{}.{}.{}", self.state.secret(), self.nonce, self.verifier.secret(), self.expires)
    }

    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split('.');
        let mut next = || parts.next().map(str::to_owned);
        let kept = Self {
            state: CsrfToken::new(next()?),
            nonce: next()?,
            verifier: PkceCodeVerifier::new(next()?),
            expires: next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(kept)
    }
}

impl Login {
    pub(super) fn new(provider: Box<Provider>, http: HttpClient) -> Self {
        let secret = provider.cookie_secret.as_ref().or(provider.client_secret.as_ref());
        let secret = secret.map(|secret| secret.expose_secret().as_bytes()).filter(|secret| secret.len() >= 32);
        let key = secret.map_or_else(
            || {
                tracing::warn!("a login must end at the instance where it began: COOKIE_SECRET is not set");
                Key::generate()
            },
            Key::derive_from,
        );
        Self { provider, http, key, exchanges: Exchanges::new() }
    }

    fn client(&self, metadata: &Metadata) -> Result<OidcClient, LoginError> {
        let redirect = self.provider.redirect_url.clone().ok_or(LoginError::Setting("OIDC_REDIRECT_URL"))?;
        let endpoint = |endpoint: &Option<Url>, name| {
            endpoint.clone().ok_or_else(|| LoginError::Provider(format!("its metadata names no usable {name}")))
        };
        let authorization = endpoint(&metadata.authorization_endpoint, "authorization_endpoint")?;
        let token = endpoint(&metadata.token_endpoint, "token_endpoint")?;
        let mut client = Client::new(ClientId::new(self.provider.client_id.clone()))
            .set_auth_uri(AuthUrl::from_url(authorization))
            .set_token_uri(TokenUrl::from_url(token))
            .set_redirect_uri(RedirectUrl::from_url(redirect));
        if let Some(secret) = &self.provider.client_secret {
            client = client.set_client_secret(ClientSecret::new(secret.expose_secret().to_owned()));
        }
        let methods = &metadata.token_endpoint_auth_methods_supported;
        let takes = |name: &str| methods.iter().any(|method| method == name);
        if takes("client_secret_post") && !takes("client_secret_basic") {
            client = client.set_auth_type(AuthType::RequestBody);
        }
        Ok(client)
    }

    fn begin(&self, metadata: &Metadata) -> Result<Begun, LoginError> {
        let client = self.client(metadata)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random().secret().clone();
        let mut request = client
            .authorize_url(CsrfToken::new_random)
            .add_scopes(self.provider.scopes.iter().cloned().map(Scope::new))
            .add_extra_param("nonce", nonce.clone())
            .set_pkce_challenge(challenge);
        // Auth0 gives a token for an API, and not an opaque one, only to who names the API; others pass over it.
        if let (ApiToken::Access, Some(audience)) = (self.provider.api_token, self.provider.audiences.first()) {
            request = request.add_extra_param("audience", audience.clone());
        }
        let (url, state) = request.url();
        let kept = Kept { state, nonce, verifier, expires: unix_seconds() + PATIENCE };
        let cookie = self.cookie(kept.value()).max_age(time::Duration::seconds(PATIENCE));
        let mut jar = CookieJar::new();
        jar.signed_mut(&self.key).add(cookie);
        Ok(Begun { url, cookie: jar.get(self.cookie_name()).map(Cookie::to_string).unwrap_or_default() })
    }

    fn cookie_name(&self) -> &'static str {
        if self.provider.https_only { HOST_COOKIE } else { COOKIE }
    }

    fn cookie(&self, value: String) -> CookieBuilder<'static> {
        Cookie::build((self.cookie_name(), value))
            .path("/")
            .http_only(true)
            .same_site(SameSite::Lax)
            .secure(self.provider.https_only)
    }

    /// What the cookie has kept for this `state`.
    fn kept(&self, headers: &HeaderMap, state: &str) -> Result<Kept, LoginError> {
        let mut jar = CookieJar::new();
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        for cookie in values.flat_map(Cookie::split_parse).flatten() {
            jar.add_original(cookie.into_owned());
        }
        let cookie =
            jar.signed(&self.key).get(self.cookie_name()).ok_or(LoginError::Cookie("there is no login cookie"))?;
        let kept = Kept::parse(cookie.value()).ok_or(LoginError::Cookie("the login cookie is not of this build"))?;
        if kept.expires < unix_seconds() {
            return Err(LoginError::Cookie("the login has taken too long"));
        }
        if kept.state.secret() != state {
            return Err(LoginError::State);
        }
        Ok(kept)
    }

    async fn finish(&self, auth: &Auth, metadata: &Metadata, code: String, kept: Kept) -> Result<Tokens, LoginError> {
        let client = self.client(metadata)?;
        let request = client.exchange_code(AuthorizationCode::new(code)).set_pkce_verifier(kept.verifier);
        let exchange = self.exchanges.begin()?;
        let response = request.request_async(&self.http).await.map_err(refusal);
        exchange.ended(!matches!(response, Err(LoginError::Provider(_))));
        let response = response?;
        let id_token = response.extra_fields().id_token.as_deref();
        let id_token = id_token.ok_or_else(|| LoginError::Provider("it sent no ID token".to_owned()))?;
        let checked = auth.verifier.verify_id_token(&auth.keys, id_token, &self.provider.client_id, &kept.nonce).await;
        checked.map_err(LoginError::IdToken)?;
        let token = match self.provider.api_token {
            ApiToken::Access => response.access_token().secret(),
            ApiToken::Id => id_token,
        };
        let claims = auth.verify(token).await;
        let claims = claims.map_err(|error| LoginError::ApiToken { kind: self.provider.api_token, error })?;
        let expires_in = claims.expires_at.saturating_sub(unix_seconds()).max(0);
        let mut removal = self.cookie(String::new()).build();
        removal.make_removal();
        let id_token = (self.provider.api_token == ApiToken::Access).then(|| id_token.to_owned().into());
        Ok(Tokens { token: token.to_owned().into(), id_token, claims, expires_in, cookie: removal.to_string() })
    }

    fn logout_url(&self, metadata: &Metadata, redirect: &str, hint: Option<&str>) -> Result<Url, LoginError> {
        let endpoint = self.provider.end_session_endpoint.as_ref().or(metadata.end_session_endpoint.as_ref());
        let mut url = endpoint
            .ok_or_else(|| {
                LoginError::Provider("it has no usable end_session_endpoint: set OIDC_END_SESSION_ENDPOINT".into())
            })?
            .clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.provider.client_id)
            .append_pair("post_logout_redirect_uri", redirect)
            // Cognito's name for the same; others pass over it.
            .append_pair("logout_uri", redirect)
            .extend_pairs(hint.map(|hint| ("id_token_hint", hint)));
        Ok(url)
    }
}

fn refusal(error: RequestTokenError<SendError, BasicErrorResponse>) -> LoginError {
    match error {
        // The description may hold anything; the code says enough.
        RequestTokenError::ServerResponse(response) => match response.error() {
            BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::InvalidRequest => {
                LoginError::Code(response.error().to_string())
            }
            code => LoginError::Client(code.to_string()),
        },
        RequestTokenError::Request(error) => LoginError::Provider(error.to_string()),
        RequestTokenError::Parse(..) => LoginError::Provider("its token endpoint does not answer in JSON".to_owned()),
        RequestTokenError::Other(what) => LoginError::Provider(what),
    }
}

impl Auth {
    /// Begins a login.
    pub async fn begin_login(&self) -> Result<Begun, LoginError> {
        let (login, metadata) = self.ready_to_log_in().await?;
        login.begin(&metadata)
    }

    /// Ends a login: the code becomes tokens, which are checked before they are handed out. The request's headers hold
    /// the login's cookie.
    pub async fn finish_login(&self, headers: &HeaderMap, code: String, state: &str) -> Result<Tokens, LoginError> {
        let login = self.login.as_ref().ok_or(LoginError::NotConfigured)?;
        // Before anything is asked of the provider: a forged answer costs nothing.
        let kept = login.kept(headers, state)?;
        let (login, metadata) = self.ready_to_log_in().await?;
        login.finish(self, &metadata, code, kept).await
    }

    /// Where a browser logs out, to be sent back to `redirect`, which providers compare letter by letter.
    pub async fn logout_url(&self, redirect: &str, id_token_hint: Option<&str>) -> Result<Url, LoginError> {
        let (login, metadata) = self.ready_to_log_in().await?;
        login.logout_url(&metadata, redirect, id_token_hint)
    }

    async fn ready_to_log_in(&self) -> Result<(&Login, Metadata), LoginError> {
        let login = self.login.as_ref().ok_or(LoginError::NotConfigured)?;
        Ok((login, metadata(&self.keys).await?))
    }
}

async fn metadata(keys: &KeyCache) -> Result<Metadata, LoginError> {
    let snapshot = keys.first().await;
    let metadata = snapshot.and_then(|snapshot| snapshot.metadata.clone());
    metadata.ok_or_else(|| LoginError::Provider("it cannot be reached".to_owned()))
}
