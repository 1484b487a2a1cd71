//! What the provider says of itself: OpenID Connect Discovery 1.0.

use super::http::HttpClient;
use crate::config::Provider;
use serde::Deserialize;
use url::Url;

/// Why the provider, or what it says, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// No HTTP client could be made, for lack of CA certificates most likely.
    #[error("OIDC_ISSUER_URL: cannot prepare TLS to the provider: {0}; SSL_CERT_FILE may name the CA certificates")]
    Client(String),
    /// A document of the provider could not be had.
    #[error("{url}: {what}")]
    Document {
        /// Its address.
        url: String,
        /// What is wrong.
        what: String,
    },
    /// The provider calls itself something else.
    #[error("OIDC_ISSUER_URL: the provider at {configured} calls itself {discovered:?}: set that, if it is right")]
    Issuer {
        /// What the settings say.
        configured: String,
        /// What the provider says.
        discovered: String,
    },
    /// The provider names an address that must not be used.
    #[error("the provider's {what} is {url}, which is not https")]
    Insecure {
        /// The metadata's field.
        what: &'static str,
        /// Its value.
        url: String,
    },
    /// The key set has nothing to check a token with.
    #[error("{0}: no key in it is usable for signatures by RS256, ES256 or EdDSA")]
    NoKeys(String),
    /// The development issuer's key cannot be read.
    #[error("DEVELOPMENT_KEY_FILE: cannot read {file}: {what}")]
    DevelopmentKey {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
}

/// The provider's metadata, as far as it is used here (OpenID Connect Discovery 1.0, section 3).
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    /// The issuer, as tokens spell it.
    pub issuer: String,
    /// Where a login begins.
    pub authorization_endpoint: Url,
    /// Where a code becomes tokens.
    pub token_endpoint: Url,
    /// Where the keys are.
    pub jwks_uri: Url,
    /// Where a logout leads (OpenID Connect RP-Initiated Logout 1.0).
    pub end_session_endpoint: Option<Url>,
    /// How a client may prove itself at the token endpoint; the default is by basic authentication.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

impl Metadata {
    pub(super) async fn fetch(provider: &Provider, http: &HttpClient) -> Result<Self, ProviderError> {
        let configured = provider.issuer.as_str().trim_end_matches('/');
        let address = format!("{configured}/.well-known/openid-configuration");
        let url = Url::parse(&address)
            .map_err(|error| ProviderError::Document { url: address.clone(), what: error.to_string() })?;
        let metadata: Self = http.json(&url).await?;
        // The same (section 4.3), save for a slash at the end that is easily lost between console and settings: tokens
        // are held to what the provider itself says.
        if metadata.issuer.trim_end_matches('/') != configured {
            let discovered = metadata.issuer;
            return Err(ProviderError::Issuer { configured: provider.issuer.to_string(), discovered });
        }
        if provider.https_only {
            let endpoints = [
                ("authorization_endpoint", Some(&metadata.authorization_endpoint)),
                ("token_endpoint", Some(&metadata.token_endpoint)),
                ("jwks_uri", Some(&metadata.jwks_uri)),
                ("end_session_endpoint", metadata.end_session_endpoint.as_ref()),
            ];
            for (what, url) in endpoints {
                if let Some(url) = url.filter(|url| url.scheme() != "https") {
                    return Err(ProviderError::Insecure { what, url: url.to_string() });
                }
            }
        }
        Ok(metadata)
    }
}
