//! Who calls: tokens of an OpenID Connect provider, checked against its keys, become a [`Principal`].
//!
//! A handler says in its signature who may call it: [`Principal`] for anyone of a tenant, [`Member`] for those who may
//! write, [`Admin`] for those who may do everything within their tenant. Data flows one way: `discovery` and the
//! key set feed the key cache, the verifier reads it, the principal is what comes out.

mod claims;
mod development;
mod discovery;
mod exchanges;
mod http;
mod key_cache;
mod key_set;
mod login;
mod principal;
mod verifier;

pub use development::{DevelopmentIssuer, DevelopmentTokenError};
pub use discovery::{Metadata, ProviderError};
pub use login::{Begun, LoginError, Tokens};
pub use principal::{Admin, Member, Principal};
pub use verifier::{Claims, RoleClaim, TokenError, is_tenant};

use crate::config::{AuthSettings, Issuer};
use http::HttpClient;
use key_cache::{KeyCache, Source};
use login::Login;
use std::sync::Arc;
use verifier::Verifier;

/// Checks tokens and leads logins, as the settings say. One for the process; cheap to share.
#[derive(Debug)]
pub struct Auth {
    keys: Arc<KeyCache>,
    verifier: Verifier,
    login: Option<Login>,
}

/// How the provider stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its keys are here and fresh.
    Good,
    /// It does not answer, but its last keys still serve.
    Stale,
    /// There are no keys to check a token with.
    Unreachable,
    /// None is set up: no token is accepted.
    NotConfigured,
}

impl Auth {
    /// What these settings ask for. Fetches nothing yet: [`Auth::run`] does.
    pub fn new(identity: &AuthSettings) -> Result<Arc<Self>, ProviderError> {
        let (source, login) = match &identity.issuer {
            Issuer::Provider(provider) => {
                let http = HttpClient::new(provider.https_only)?;
                let source = Source::Provider { settings: provider.clone(), http: http.clone() };
                (source, Some(Login::new(provider.clone(), http)))
            }
            Issuer::Development(key) => (Source::Development(DevelopmentIssuer::new(key.clone())), None),
            Issuer::Disabled => (Source::Nobody, None),
        };
        let keys = Arc::new(KeyCache::new(source, identity.keys_ttl));
        Ok(Arc::new(Self { keys, verifier: Verifier::new(identity), login }))
    }

    /// Keeps the keys fresh; never returns.
    pub async fn run(&self) {
        self.keys.run().await;
    }

    /// How the provider stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.keys.standing()
    }

    /// The claims of a caller's token; fetches the provider's keys anew where the token names an unknown one.
    pub async fn verify(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.verifier.verify(&self.keys, token).await
    }
}
