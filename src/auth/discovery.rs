//! What the provider says of itself: OpenID Connect Discovery 1.0.

use super::http::HttpClient;
use crate::config::Provider;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
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
    /// The provider's keys lie where anyone on the way could exchange them.
    #[error("the provider's jwks_uri is {0}, which is not https")]
    Insecure(Url),
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

/// The provider's metadata, as far as it is used here (OpenID Connect Discovery 1.0, section 3). Tokens are checked with
/// issuer and keys alone: whatever else is missing, odd or not to be used counts as absent, and who needs it says so.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    /// The issuer, as tokens spell it.
    pub issuer: String,
    /// Where a login begins.
    #[serde(default, deserialize_with = "if_readable")]
    pub authorization_endpoint: Option<Url>,
    /// Where a code becomes tokens.
    #[serde(default, deserialize_with = "if_readable")]
    pub token_endpoint: Option<Url>,
    /// Where the keys are.
    pub jwks_uri: Url,
    /// Where a logout leads (OpenID Connect RP-Initiated Logout 1.0).
    #[serde(default, deserialize_with = "if_readable")]
    pub end_session_endpoint: Option<Url>,
    /// How a client may prove itself at the token endpoint; the default is by basic authentication.
    #[serde(default, deserialize_with = "if_readable")]
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

fn if_readable<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

impl Metadata {
    pub(super) async fn fetch(provider: &Provider, http: &HttpClient) -> Result<Self, ProviderError> {
        let configured = provider.issuer.as_str().trim_end_matches('/');
        let address = format!("{configured}/.well-known/openid-configuration");
        let url = Url::parse(&address)
            .map_err(|error| ProviderError::Document { url: address.clone(), what: error.to_string() })?;
        http.json::<Self>(&url).await?.checked(provider)
    }

    fn checked(mut self, provider: &Provider) -> Result<Self, ProviderError> {
        let configured = provider.issuer.as_str().trim_end_matches('/');
        // The same (section 4.3), save for a slash at the end that is easily lost between console and settings: tokens
        // are held to what the provider itself says.
        if self.issuer.trim_end_matches('/') != configured {
            let discovered = self.issuer;
            return Err(ProviderError::Issuer { configured: provider.issuer.to_string(), discovered });
        }
        if provider.https_only {
            if self.jwks_uri.scheme() != "https" {
                return Err(ProviderError::Insecure(self.jwks_uri));
            }
            let endpoints =
                [&mut self.authorization_endpoint, &mut self.token_endpoint, &mut self.end_session_endpoint];
            for endpoint in endpoints {
                endpoint.take_if(|url| url.scheme() != "https");
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Issuer, Settings};
    use serde_json::json;

    fn production() -> Box<Provider> {
        let settings = Settings::read(&|name| match name {
            "ENVIRONMENT" => Some("production".into()),
            "DATABASE_URL" => Some("sqlite://never-opened.db".into()),
            "OIDC_ISSUER_URL" => Some("https://login.example.com".into()),
            "OIDC_CLIENT_ID" => Some("bulkhead".into()),
            _ => None,
        });
        match settings.0.unwrap().auth.issuer {
            Issuer::Provider(provider) => provider,
            other => panic!("{other:?}"),
        }
    }

    fn read(more: &Value) -> Result<Metadata, String> {
        let mut metadata = json!({"issuer": "https://login.example.com", "jwks_uri": "https://login.example.com/keys"});
        metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let metadata: Metadata = serde_json::from_value(metadata).map_err(|error| error.to_string())?;
        metadata.checked(&production()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_odd_in_a_field_that_no_token_needs_counts_as_absent() {
        for odd in [json!(null), json!(""), json!("/login"), json!(7), json!(["x"]), json!("http://login.example.com/")]
        {
            let metadata = read(&json!({
                "authorization_endpoint": odd, "token_endpoint": odd, "end_session_endpoint": odd,
                "token_endpoint_auth_methods_supported": {"odd": odd},
            }));
            let metadata = metadata.unwrap_or_else(|error| panic!("{odd}: {error}"));
            assert_eq!(metadata.authorization_endpoint, None, "{odd}");
            assert_eq!(metadata.token_endpoint, None, "{odd}");
            assert_eq!(metadata.end_session_endpoint, None, "{odd}");
            assert_eq!(metadata.token_endpoint_auth_methods_supported, [""; 0], "{odd}");
        }
        let fine = json!("https://login.example.com/token");
        assert!(read(&json!({"token_endpoint": fine})).unwrap().token_endpoint.is_some());
    }

    #[test]
    fn issuer_and_keys_must_be_right() {
        for odd in [json!(null), json!(""), json!(7), json!("http://login.example.com/keys")] {
            assert!(read(&json!({"jwks_uri": odd})).is_err(), "{odd}");
            assert!(read(&json!({"issuer": odd})).is_err(), "{odd}");
        }
    }
}
