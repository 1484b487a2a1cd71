//! Authentication: checks tokens of an OpenID Connect provider and leads logins at it. It knows nothing of tenants and users:
//! [`crate::context`] does.
//!
//! Files import in one direction, from the last to the first: `claims`, `id_token`, `discovery`, `key_set`,
//! `key_source`, `development`, `key_cache`, `verifier`, `login_state`, `login`, and this file, which puts them together.

mod claims;
mod development;
mod discovery;
mod exchanges;
mod id_token;
mod key_cache;
mod key_set;
mod key_source;
mod login;
mod login_state;
mod verifier;

pub use claims::{Claims, RoleClaim, is_valid_tenant_id};
pub use development::{DevelopmentIssuer, DevelopmentTokenError};
pub use discovery::{Metadata, ProviderError};
pub use key_cache::KeyStatus;
pub use login::{AuthorizationRequest, LoginError, LoginResult};
#[cfg(any(test, fuzzing))]
pub(crate) use verifier::fuzz;
pub use verifier::{CacheCounts, TokenError};

use crate::config::{ApiToken, AuthSettings, Issuer, TokenType};
use crate::http_client::HttpClient;
use axum::http::HeaderMap;
use key_cache::KeyCache;
use key_source::{KeySource, ProviderKeys};
use login::Login;
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use verifier::{TokenRules, Verifier};

/// Checks tokens and leads logins, as the settings say. One for the process; cheap to share.
#[derive(Debug)]
pub struct Auth {
    keys: Arc<KeyCache>,
    verifier: Arc<Verifier>,
    login: Option<Login>,
    http: Option<HttpClient>,
}

/// The claims of a request's token, in its extensions, where the token was verified before.
#[derive(Debug, Clone)]
pub struct KnownCaller(pub Arc<Claims>);

impl Auth {
    /// What these settings ask for. Reads and fetches nothing yet: [`Auth::prepare`] and [`Auth::run`] do.
    #[must_use]
    pub fn new(settings: &AuthSettings) -> Arc<Self> {
        let mut rules = TokenRules {
            audiences: Vec::new(),
            api_token: ApiToken::Access,
            token_type: TokenType::Any,
            tenant_claim: settings.tenant_claim.clone(),
            role_claim: settings.role_claim.clone(),
            max_lifetime: settings.max_token_lifetime,
        };
        let mut client = None;
        let source: Option<Box<dyn KeySource>> = match &settings.issuer {
            Issuer::Provider(provider) => {
                rules.audiences = provider.accepted_audiences();
                rules.api_token = provider.api_token;
                rules.token_type = provider.token_type;
                let http = HttpClient::new("OIDC_ISSUER_URL", provider.https_only);
                client = Some((provider.clone(), http.clone()));
                Some(Box::new(ProviderKeys::new(provider.clone(), http)))
            }
            Issuer::Development(key) => {
                rules.audiences = vec![DevelopmentIssuer::AUDIENCE.to_owned()];
                // The setting is about a provider's tokens. Those of the development issuer have `tenant_id`.
                rules.tenant_claim = None;
                Some(Box::new(DevelopmentIssuer::new(key.clone())))
            }
            Issuer::Disabled => None,
        };
        let keys = Arc::new(KeyCache::new(source, settings.keys_ttl));
        let verifier = Arc::new(Verifier::new(rules, Arc::clone(&keys), settings.token_cache_capacity));
        let http = client.as_ref().map(|(_, http)| http.clone());
        let login = client.map(|(provider, http)| Login::new(provider, http, Arc::clone(&keys), Arc::clone(&verifier)));
        Arc::new(Self { keys, verifier, login, http })
    }

    /// Prepares TLS to the provider, where there is one. Fails where there are no CA certificates.
    pub async fn prepare(&self) -> Result<(), ProviderError> {
        if let Some(http) = &self.http {
            http.client().await?;
        }
        Ok(())
    }

    /// Keeps the keys fresh; never returns.
    pub async fn run(&self) {
        // Without TLS, it is [`Auth::prepare`] that reports why.
        if self.prepare().await.is_ok() {
            self.keys.run().await;
        }
        std::future::pending::<()>().await;
    }

    /// Whether signing keys are available.
    #[must_use]
    pub fn key_status(&self) -> KeyStatus {
        self.keys.status()
    }

    /// How long ago the keys were fetched; `None` without keys.
    #[must_use]
    pub fn key_age(&self) -> Option<Duration> {
        self.keys.age()
    }

    /// How the cache of verified tokens is used.
    #[must_use]
    pub fn cache_counts(&self) -> CacheCounts {
        self.verifier.cache_counts()
    }

    /// Verifies a caller's token and returns its claims. Fetches the provider's keys again if none fits the token.
    pub async fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verifier.verify(token).await
    }

    /// The claims of a token that was verified before and is still valid. Asks nobody.
    #[must_use]
    pub fn known(&self, token: &str) -> Option<KnownCaller> {
        self.verifier.known(token).map(KnownCaller)
    }

    /// Begins a login. The request's headers hold the cookies of others that this browser has begun.
    pub async fn begin_login(&self, headers: &HeaderMap) -> Result<AuthorizationRequest, LoginError> {
        self.login()?.begin(headers).await
    }

    /// Ends a login: exchanges the code for tokens and verifies them. The request's headers hold the login's cookie.
    pub async fn finish_login(
        &self,
        headers: &HeaderMap,
        code: String,
        state: &str,
    ) -> Result<LoginResult, LoginError> {
        self.login()?.finish(headers, code, state).await
    }

    /// The address at which a browser ends its session at the provider, which then sends it to `redirect`. Providers
    /// compare `redirect` byte for byte with the addresses that they know.
    pub async fn logout_url(&self, redirect: &str, id_token_hint: Option<&str>) -> Result<Url, LoginError> {
        self.login()?.logout_url(redirect, id_token_hint).await
    }

    fn login(&self) -> Result<&Login, LoginError> {
        self.login.as_ref().ok_or(LoginError::NotConfigured)
    }
}
