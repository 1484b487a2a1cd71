//! Login by the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 9700; OpenID Connect Core 1.0), and logout
//! (OpenID Connect RP-Initiated Logout 1.0).

use super::claims::Claims;
use super::discovery::Metadata;
use super::exchanges::{ExchangeRefused, Exchanges};
use super::http::{HttpClient, SendError};
use super::key_cache::KeyCache;
use super::verifier::{TokenError, Verifier};
use crate::clock::unix_seconds;
use crate::config::{ApiToken, COOKIE_SECRET_BYTES_MIN, Provider};
use axum::http::{HeaderMap, header};
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

/// The cookie that ties the end of a login to its beginning. Over https its name has the prefix with which browsers
/// accept it from this host only (RFC 6265bis, section 4.1.3.2), so that no other host of the domain can set it.
const COOKIE: &str = "bulkhead_login";
const HOST_COOKIE: &str = "__Host-bulkhead_login";

/// How long a person may take to log in, in seconds.
const LOGIN_TTL_SECONDS: i64 = 600;

/// Why a login or a logout fails.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No provider is configured.
    #[error("no identity provider is set up: set OIDC_ISSUER_URL; in development `bulkhead dev-token` needs none")]
    NotConfigured,
    /// A setting is missing.
    #[error("{0} is not set")]
    Setting(&'static str),
    /// The provider does not respond, or not as it should.
    #[error("the identity provider: {0}")]
    Provider(String),
    /// Too many logins wait for the provider.
    #[error("too many logins wait for the identity provider")]
    Full,
    /// The provider did not respond to the last login, and another login is trying it again.
    #[error("the identity provider did not respond to the last login")]
    Failing,
    /// The login cookie is missing, expired or not valid.
    #[error("{0}")]
    Cookie(&'static str),
    /// The state does not belong to a login of this browser.
    #[error("the state is not that of the login")]
    State,
    /// The provider rejects the code.
    #[error("the identity provider rejects the code: {0}")]
    Code(String),
    /// The provider rejects this client.
    #[error("the identity provider rejects this client: {0}; see OIDC_CLIENT_ID and OIDC_CLIENT_SECRET")]
    Client(String),
    /// The ID token is not valid.
    #[error("the ID token: {0}")]
    IdToken(TokenError),
    /// This API does not accept the token that the login would return.
    #[error("the {kind}: {error}; see OIDC_API_TOKEN, OIDC_AUDIENCE and docs/auth.md")]
    ApiToken {
        /// Which token it is.
        kind: ApiToken,
        /// Why it is not accepted.
        error: TokenError,
    },
}

impl From<ExchangeRefused> for LoginError {
    fn from(refused: ExchangeRefused) -> Self {
        match refused {
            ExchangeRefused::Full => Self::Full,
            ExchangeRefused::Failing => Self::Failing,
        }
    }
}

/// The beginning of a login.
#[derive(Debug)]
pub struct AuthorizationRequest {
    /// Where to send the browser: the provider's authorization endpoint with all parameters.
    pub url: Url,
    /// A `Set-Cookie` value.
    pub cookie: String,
}

/// The end of a login.
#[derive(Debug)]
pub struct LoginResult {
    /// The token for calling this API.
    pub token: SecretString,
    /// Its claims.
    pub claims: Arc<Claims>,
    /// The ID token, unless that is `token`: for the hint of a logout, not for calling this API.
    pub id_token: Option<SecretString>,
    /// For how many seconds the token is valid.
    pub expires_in: i64,
    /// A `Set-Cookie` value that removes the login cookie.
    pub cookie: String,
}

pub(super) struct Login {
    provider: Box<Provider>,
    http: HttpClient,
    keys: Arc<KeyCache>,
    verifier: Arc<Verifier>,
    cookie_key: Key,
    exchanges: Exchanges,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// The member of a token response that OpenID Connect adds.
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

/// The state of a login between its beginning and its end. The cookie holds it; all parts are base64url.
struct LoginState {
    state: CsrfToken,
    nonce: String,
    verifier: PkceCodeVerifier,
    expires: i64,
}

impl LoginState {
    fn value(&self) -> String {
        format!("{}.{}.{}.{}", self.state.secret(), self.nonce, self.verifier.secret(), self.expires)
    }

    fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split('.');
        let mut next = || parts.next().map(str::to_owned);
        let login = Self {
            state: CsrfToken::new(next()?),
            nonce: next()?,
            verifier: PkceCodeVerifier::new(next()?),
            expires: next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(login)
    }
}

impl Login {
    pub(super) fn new(provider: Box<Provider>, http: HttpClient, keys: Arc<KeyCache>, verifier: Arc<Verifier>) -> Self {
        let secret = provider.cookie_secret.as_ref().or(provider.client_secret.as_ref());
        let secret = secret
            .map(|secret| secret.expose_secret().as_bytes())
            .filter(|secret| secret.len() >= COOKIE_SECRET_BYTES_MIN);
        let cookie_key = secret.map_or_else(
            || {
                tracing::warn!("COOKIE_SECRET is not set: a login that begins at this instance must also end at it");
                Key::generate()
            },
            Key::derive_from,
        );
        Self { provider, http, keys, verifier, cookie_key, exchanges: Exchanges::new() }
    }

    /// The OAuth client for a provider with this metadata.
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
        let supports = |name: &str| methods.iter().any(|method| method == name);
        if supports("client_secret_post") && !supports("client_secret_basic") {
            client = client.set_auth_type(AuthType::RequestBody);
        }
        Ok(client)
    }

    /// Begins a login.
    pub(super) async fn begin(&self) -> Result<AuthorizationRequest, LoginError> {
        let client = self.client(&self.provider_metadata().await?)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random().secret().clone();
        let mut request = client
            .authorize_url(CsrfToken::new_random)
            .add_scopes(self.provider.scopes.iter().cloned().map(Scope::new))
            .add_extra_param("nonce", nonce.clone())
            .set_pkce_challenge(challenge);
        // Auth0 issues a JWT for an API only if the request names the API, and an opaque token otherwise. Other providers
        // ignore this parameter.
        if let (ApiToken::Access, Some(audience)) = (self.provider.api_token, self.provider.audiences.first()) {
            request = request.add_extra_param("audience", audience.clone());
        }
        let (url, state) = request.url();
        let login = LoginState { state, nonce, verifier, expires: unix_seconds() + LOGIN_TTL_SECONDS };
        let cookie = self.cookie(login.value()).max_age(time::Duration::seconds(LOGIN_TTL_SECONDS));
        let mut jar = CookieJar::new();
        jar.signed_mut(&self.cookie_key).add(cookie);
        Ok(AuthorizationRequest { url, cookie: jar.get(self.cookie_name()).map(Cookie::to_string).unwrap_or_default() })
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

    /// Reads the login cookie, which must have this `state`.
    fn read_login_state(&self, headers: &HeaderMap, state: &str) -> Result<LoginState, LoginError> {
        let mut jar = CookieJar::new();
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        for cookie in values.flat_map(Cookie::split_parse).flatten() {
            jar.add_original(cookie.into_owned());
        }
        let cookie = jar
            .signed(&self.cookie_key)
            .get(self.cookie_name())
            .ok_or(LoginError::Cookie("there is no valid login cookie"))?;
        let login =
            LoginState::parse(cookie.value()).ok_or(LoginError::Cookie("the login cookie is from another version"))?;
        if login.expires < unix_seconds() {
            return Err(LoginError::Cookie("the login took too long"));
        }
        if login.state.secret() != state {
            return Err(LoginError::State);
        }
        Ok(login)
    }

    /// Ends a login: exchanges the code for tokens and verifies them.
    pub(super) async fn finish(
        &self,
        headers: &HeaderMap,
        code: String,
        state: &str,
    ) -> Result<LoginResult, LoginError> {
        // Check the cookie first: a forged callback causes no request to the provider.
        let login = self.read_login_state(headers, state)?;
        let client = self.client(&self.provider_metadata().await?)?;
        let request = client.exchange_code(AuthorizationCode::new(code)).set_pkce_verifier(login.verifier);
        let exchange = self.exchanges.begin()?;
        let response = request.request_async(&self.http).await.map_err(exchange_error);
        exchange.ended(!matches!(response, Err(LoginError::Provider(_))));
        let response = response?;
        let id_token = response.extra_fields().id_token.as_deref();
        let id_token = id_token.ok_or_else(|| LoginError::Provider("it sent no ID token".to_owned()))?;
        let verified = self.verifier.verify_id_token(id_token, &self.provider.client_id, &login.nonce).await;
        verified.map_err(LoginError::IdToken)?;
        let token = match self.provider.api_token {
            ApiToken::Access => response.access_token().secret(),
            ApiToken::Id => id_token,
        };
        let claims = self.verifier.verify(token).await;
        let claims = claims.map_err(|error| LoginError::ApiToken { kind: self.provider.api_token, error })?;
        let expires_in = claims.expires_at.saturating_sub(unix_seconds()).max(0);
        let mut removal = self.cookie(String::new()).build();
        removal.make_removal();
        let id_token = (self.provider.api_token == ApiToken::Access).then(|| id_token.to_owned().into());
        Ok(LoginResult { token: token.to_owned().into(), id_token, claims, expires_in, cookie: removal.to_string() })
    }

    /// The address at which a browser ends its session at the provider, which then sends it to `redirect`.
    pub(super) async fn logout_url(&self, redirect: &str, hint: Option<&str>) -> Result<Url, LoginError> {
        let metadata = self.provider_metadata().await?;
        let endpoint = self.provider.end_session_endpoint.as_ref().or(metadata.end_session_endpoint.as_ref());
        let mut url = endpoint
            .ok_or_else(|| {
                LoginError::Provider("it has no usable end_session_endpoint: set OIDC_END_SESSION_ENDPOINT".into())
            })?
            .clone();
        url.query_pairs_mut()
            .append_pair("client_id", &self.provider.client_id)
            .append_pair("post_logout_redirect_uri", redirect)
            // Cognito's name for the same; other providers ignore it.
            .append_pair("logout_uri", redirect)
            .extend_pairs(hint.map(|hint| ("id_token_hint", hint)));
        Ok(url)
    }

    /// The provider's metadata. Waits for the first fetch of the process.
    async fn provider_metadata(&self) -> Result<Metadata, LoginError> {
        let snapshot = self.keys.wait_for_first_fetch().await;
        let metadata = snapshot.and_then(|snapshot| snapshot.metadata.clone());
        metadata.ok_or_else(|| LoginError::Provider("it cannot be reached".to_owned()))
    }
}

/// Maps the errors of the OAuth library.
fn exchange_error(error: RequestTokenError<SendError, BasicErrorResponse>) -> LoginError {
    match error {
        // The description may contain personal data; the code is enough.
        RequestTokenError::ServerResponse(response) => match response.error() {
            BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::InvalidRequest => {
                LoginError::Code(response.error().to_string())
            }
            code => LoginError::Client(code.to_string()),
        },
        RequestTokenError::Request(error) => LoginError::Provider(error.to_string()),
        RequestTokenError::Parse(..) => LoginError::Provider("its token endpoint does not answer in JSON".to_owned()),
        RequestTokenError::Other(reason) => LoginError::Provider(reason),
    }
}
