//! Login by the authorization code flow with PKCE (RFC 6749, RFC 7636, RFC 9700; OpenID Connect Core 1.0), and logout
//! (OpenID Connect RP-Initiated Logout 1.0).

use super::claims::Claims;
use super::discovery::Metadata;
use super::exchanges::{ExchangeRefused, Exchanges};
use super::id_token::{Expected, is_same_person};
use super::key_cache::KeyCache;
use super::login_state::{LOGIN_TTL_SECONDS, LoginState, LoginStateKey};
use super::verifier::{TokenError, Verifier};
use crate::clock::unix_seconds;
use crate::config::{ApiToken, COOKIE_SECRET_BYTES_MIN, Provider};
use crate::http_client::HttpClient;
use axum::http::{HeaderMap, header};
use cookie::{Cookie, CookieBuilder, SameSite};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::sync::Arc;
use url::{Url, form_urlencoded};

/// The cookie that ties the end of a login to its beginning: this, and the beginning of the login's state, so that logins in
/// several tabs have one each. Over https its name has the prefix with which browsers accept it from this host only (RFC
/// 6265bis, section 4.1.3.2), so that no other host of the domain can set it.
const COOKIE: &str = "bulkhead_login_";
const HOST_COOKIE: &str = "__Host-bulkhead_login_";

/// How much of the state is in the cookie's name, in bytes.
const COOKIE_STATE_BYTES: usize = 8;

/// The most logins that a browser has under way. Another one ends the oldest.
const LOGINS_MAX: usize = 4;

/// The most login cookies of a request whose signatures are verified.
const COOKIES_READ_MAX: usize = 16;

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
    #[error("the state is not that of a login of this browser")]
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
    /// `Set-Cookie` values: the cookie of this login, and the removal of old ones.
    pub cookies: Vec<String>,
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

    /// Begins a login. The request's headers hold the cookies of others.
    pub(super) async fn begin(&self, headers: &HeaderMap) -> Result<AuthorizationRequest, LoginError> {
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
        let cookie = self.cookie(self.cookie_name(&login.state), self.state_key.sign(&login));
        let cookie = cookie.max_age(time::Duration::seconds(LOGIN_TTL_SECONDS)).build().to_string();
        let mut cookies = vec![cookie];
        cookies.extend(self.superfluous_cookies(headers).into_iter().map(|name| self.removal(name)));
        Ok(AuthorizationRequest { url, cookies })
    }

    /// The names of login cookies that go when another login begins: so many that it becomes one of [`LOGINS_MAX`]. Those that
    /// say nothing here go first, then the oldest.
    fn superfluous_cookies(&self, headers: &HeaderMap) -> Vec<String> {
        let mut found: Vec<(i64, String)> = self
            .cookies(headers)
            .take(COOKIES_READ_MAX)
            .map(|(name, value)| {
                let login = self.state_key.verify(&value).ok().filter(|login| self.cookie_name(&login.state) == name);
                (login.map_or(0, |login| login.exp), name)
            })
            .collect();
        found.sort();
        let kept = found.len().min(LOGINS_MAX - 1);
        found.truncate(found.len() - kept);
        found.into_iter().map(|(_, name)| name).collect()
    }

    fn redirect_url(&self) -> Result<&str, LoginError> {
        self.provider.redirect_url.as_ref().map(Url::as_str).ok_or(LoginError::Setting("OIDC_REDIRECT_URL"))
    }

    fn cookie_prefix(&self) -> &'static str {
        if self.provider.https_only { HOST_COOKIE } else { COOKIE }
    }

    fn cookie_name(&self, state: &str) -> String {
        format!("{}{}", self.cookie_prefix(), state.get(..COOKIE_STATE_BYTES).unwrap_or(state))
    }

    /// Names and values of the request's login cookies.
    fn cookies(&self, headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
        let is_of_state = |rest: &str| {
            rest.len() == COOKIE_STATE_BYTES
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let cookies = values.flat_map(Cookie::split_parse).flatten();
        let of_logins =
            cookies.filter(move |cookie| cookie.name().strip_prefix(self.cookie_prefix()).is_some_and(is_of_state));
        of_logins.map(|cookie| (cookie.name().to_owned(), cookie.value().to_owned()))
    }

    /// A `Set-Cookie` value that removes the cookie of this name.
    fn removal(&self, name: String) -> String {
        let mut removal = self.cookie(name, String::new()).build();
        removal.make_removal();
        removal.to_string()
    }

    fn cookie(&self, name: String, value: String) -> CookieBuilder<'static> {
        Cookie::build((name, value)).path("/").http_only(true).same_site(SameSite::Lax).secure(self.provider.https_only)
    }

    /// Reads the login cookie that has this `state`.
    fn read_login_state(&self, headers: &HeaderMap, state: &str) -> Result<LoginState, LoginError> {
        let mut refused = LoginError::Cookie("there is no login cookie");
        let expected = self.cookie_name(state);
        let (own, others): (Vec<_>, Vec<_>) = self.cookies(headers).partition(|(name, _)| *name == expected);
        for (name, value) in own.into_iter().chain(others).take(COOKIES_READ_MAX) {
            match self.state_key.verify(&value) {
                Ok(login) if self.cookie_name(&login.state) != name => {}
                Ok(login) if login.state == state => return Ok(login),
                Ok(_) => refused = LoginError::State,
                // Of several cookies, a login that is under way says more.
                Err(error) if matches!(refused, LoginError::Cookie(_)) => refused = LoginError::Cookie(error),
                Err(_) => {}
            }
        }
        Err(refused)
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
        let expected = Expected {
            client_id: &self.provider.client_id,
            audiences: &self.provider.audiences,
            nonce: &login.nonce,
            access_token: &tokens.access_token,
        };
        let id_claims = self.verifier.verify_id_token(&id_token, expected).await.map_err(LoginError::IdToken)?;
        let token = match self.provider.api_token {
            ApiToken::Access => &tokens.access_token,
            ApiToken::Id => &id_token,
        };
        let verified = self.verifier.verify_at_login(token).await;
        let (claims, all_claims) =
            verified.map_err(|error| LoginError::ApiToken { kind: self.provider.api_token, error })?;
        if !is_same_person(&id_claims, &all_claims) {
            return Err(LoginError::IdToken(TokenError::Invalid(
                "it is of another person than the access token (sub)",
            )));
        }
        let expires_in = claims.expires_at.saturating_sub(unix_seconds()).max(0);
        let cookie = self.removal(self.cookie_name(&login.state));
        let token = token.as_str().into();
        let id_token = (self.provider.api_token == ApiToken::Access).then(|| id_token.into());
        Ok(LoginResult { token, claims, id_token, expires_in, cookie })
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
