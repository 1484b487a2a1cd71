//! Login by the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 9700; OpenID Connect Core 1.0), and logout
//! (OpenID Connect RP-Initiated Logout 1.0).

use super::claims::Claims;
use super::discovery::Metadata;
use super::exchanges::{ExchangeRefused, Exchanges};
use super::http::HttpClient;
use super::key_cache::KeyCache;
use super::login_state::{LOGIN_TTL_SECONDS, LoginState, LoginStateKey};
use super::verifier::{TokenError, Verifier};
use crate::clock::unix_seconds;
use crate::config::{ApiToken, COOKIE_SECRET_BYTES_MIN, Provider};
use axum::http::{HeaderMap, header};
use cookie::{Cookie, CookieBuilder, SameSite};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::sync::Arc;
use url::{Url, form_urlencoded};

/// The cookie that ties the end of a login to its beginning. Over https its name has the prefix with which browsers
/// accept it from this host only (RFC 6265bis, section 4.1.3.2), so that no other host of the domain can set it.
const COOKIE: &str = "bulkhead_login";
const HOST_COOKIE: &str = "__Host-bulkhead_login";

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
    state_key: LoginStateKey,
    exchanges: Exchanges,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("provider", &self.provider).finish_non_exhaustive()
    }
}

/// What the token endpoint sends for a code (RFC 6749, section 5.1; OpenID Connect Core 1.0, section 3.1.3.3).
#[derive(Deserialize)]
struct Tokens {
    token_type: String,
    access_token: String,
    id_token: Option<String>,
}

/// What it sends where it refuses (RFC 6749, section 5.2). The description may contain personal data; the code is enough.
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Login {
    pub(super) fn new(provider: Box<Provider>, http: HttpClient, keys: Arc<KeyCache>, verifier: Arc<Verifier>) -> Self {
        let secret = provider.cookie_secret.as_ref().or(provider.client_secret.as_ref());
        let secret = secret
            .map(|secret| secret.expose_secret().as_bytes())
            .filter(|secret| secret.len() >= COOKIE_SECRET_BYTES_MIN);
        let state_key = secret.map_or_else(
            || {
                tracing::warn!("COOKIE_SECRET is not set: a login that begins at this instance must also end at it");
                LoginStateKey::random()
            },
            LoginStateKey::derive,
        );
        Self { provider, http, keys, verifier, state_key, exchanges: Exchanges::new() }
    }

    /// Begins a login.
    pub(super) async fn begin(&self) -> Result<AuthorizationRequest, LoginError> {
        let metadata = self.provider_metadata().await?;
        let mut url = endpoint(metadata.authorization_endpoint, "authorization_endpoint")?;
        let login = LoginState::random();
        // Auth0 issues a JWT for an API only if the request names the API, and an opaque token otherwise. Other providers
        // ignore this parameter.
        let audience = self.provider.audiences.first().filter(|_| self.provider.api_token == ApiToken::Access);
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.provider.client_id)
            .append_pair("redirect_uri", self.redirect_url()?)
            .append_pair("scope", &self.provider.scopes.join(" "))
            .append_pair("state", &login.state)
            .append_pair("nonce", &login.nonce)
            .append_pair("code_challenge", &login.code_challenge())
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(audience.map(|audience| ("audience", audience)));
        let cookie = self.cookie(self.state_key.sign(&login)).max_age(time::Duration::seconds(LOGIN_TTL_SECONDS));
        Ok(AuthorizationRequest { url, cookie: cookie.build().to_string() })
    }

    fn redirect_url(&self) -> Result<&str, LoginError> {
        self.provider.redirect_url.as_ref().map(Url::as_str).ok_or(LoginError::Setting("OIDC_REDIRECT_URL"))
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
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies =
            values.flat_map(Cookie::split_parse).flatten().filter(|cookie| cookie.name() == self.cookie_name());
        let cookie = cookies.last().ok_or(LoginError::Cookie("there is no login cookie"))?;
        let login = self.state_key.verify(cookie.value()).map_err(LoginError::Cookie)?;
        if login.state == state { Ok(login) } else { Err(LoginError::State) }
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
        let metadata = self.provider_metadata().await?;
        let exchange = self.exchanges.begin()?;
        let tokens = self.exchange(metadata, &code, &login.code_verifier).await;
        exchange.ended(!matches!(tokens, Err(LoginError::Provider(_))));
        let tokens = tokens?;
        let id_token = tokens.id_token.ok_or_else(|| LoginError::Provider("it sent no ID token".to_owned()))?;
        let verified = self.verifier.verify_id_token(&id_token, &self.provider.client_id, &login.nonce).await;
        verified.map_err(LoginError::IdToken)?;
        let token = match self.provider.api_token {
            ApiToken::Access => &tokens.access_token,
            ApiToken::Id => &id_token,
        };
        let claims = self.verifier.verify(token).await;
        let claims = claims.map_err(|error| LoginError::ApiToken { kind: self.provider.api_token, error })?;
        let expires_in = claims.expires_at.saturating_sub(unix_seconds()).max(0);
        let mut removal = self.cookie(String::new()).build();
        removal.make_removal();
        let token = token.as_str().into();
        let id_token = (self.provider.api_token == ApiToken::Access).then(|| id_token.into());
        Ok(LoginResult { token, id_token, claims, expires_in, cookie: removal.to_string() })
    }

    /// Exchanges a code for tokens (RFC 6749, section 4.1.3; RFC 7636, section 4.5).
    async fn exchange(&self, metadata: Metadata, code: &str, code_verifier: &str) -> Result<Tokens, LoginError> {
        let client_id = self.provider.client_id.as_str();
        let secret = self.provider.client_secret.as_ref().map(ExposeSecret::expose_secret);
        let supports = |name: &str| metadata.token_endpoint_auth_methods_supported.iter().any(|method| method == name);
        let in_body = supports("client_secret_post") && !supports("client_secret_basic");
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.redirect_url()?),
            ("code_verifier", code_verifier),
        ];
        let request = self.http.post(endpoint(metadata.token_endpoint, "token_endpoint")?).await;
        let mut request = request.map_err(|error| LoginError::Provider(error.to_string()))?;
        if let (Some(secret), false) = (secret, in_body) {
            // Each is encoded as a form is (RFC 6749, section 2.3.1).
            let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            request = request.basic_auth(encoded(client_id), Some(encoded(secret)));
        } else {
            form.push(("client_id", client_id));
            form.extend(secret.map(|secret| ("client_secret", secret)));
        }
        let (status, body) = self.http.send(request.form(&form)).await.map_err(LoginError::Provider)?;
        let unreadable = |_| LoginError::Provider("its token endpoint does not answer in JSON".to_owned());
        if status.is_success() {
            let tokens: Tokens = serde_json::from_slice(&body).map_err(unreadable)?;
            // Whatever is bound to a key, such as DPoP, is no token that its bearer alone may use (RFC 6749, section 7.1).
            if !tokens.token_type.eq_ignore_ascii_case("bearer") {
                return Err(LoginError::Provider(format!(
                    "it sent a token of the type {:?}, not Bearer",
                    tokens.token_type
                )));
            }
            return Ok(tokens);
        }
        let Refusal { error } = serde_json::from_slice(&body).map_err(unreadable)?;
        let by_code = matches!(error.as_str(), "invalid_grant" | "invalid_request");
        Err(if by_code { LoginError::Code(error) } else { LoginError::Client(error) })
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

/// An endpoint of the provider's metadata that a login needs.
fn endpoint(endpoint: Option<Url>, name: &str) -> Result<Url, LoginError> {
    endpoint.ok_or_else(|| LoginError::Provider(format!("its metadata names no usable {name}")))
}
