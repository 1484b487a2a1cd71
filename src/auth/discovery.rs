//! The provider's metadata: OpenID Connect Discovery 1.0.

use crate::config::Provider;
use crate::http_client::{HttpClient, HttpError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use url::Url;

/// Why the provider, its metadata or its keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The provider cannot be asked, or sends no readable document.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The metadata has another issuer than the settings.
    #[error("OIDC_ISSUER_URL: the provider at {configured} calls itself {discovered:?}: set that, if it is right")]
    Issuer {
        /// The issuer of the settings.
        configured: String,
        /// The issuer of the metadata.
        discovered: String,
    },
    /// The keys are not at an https address: anyone on the network path could replace them.
    #[error("the provider's jwks_uri is {0}, which is not https")]
    Insecure(Url),
    /// The key set has no key that a token can be verified with.
    #[error("{0}: no key in it is usable for signatures by RS256, ES256 or EdDSA")]
    NoKeys(String),
    /// The development issuer's key cannot be read.
    #[error("DEVELOPMENT_KEY_FILE: cannot read {file}: {reason}")]
    DevelopmentKey {
        /// The file.
        file: String,
        /// What went wrong.
        reason: String,
    },
}

/// The fields of the provider's metadata that are used here (OpenID Connect Discovery 1.0, section 3). Verifying a token
/// takes the issuer and the keys alone. Any other field counts as absent if it is missing, malformed or not https; the
/// operation that needs it then fails.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    /// The issuer, as tokens spell it.
    pub issuer: String,
    /// The address that a login begins at.
    #[serde(default, deserialize_with = "default_on_error")]
    pub authorization_endpoint: Option<Url>,
    /// The address that exchanges a code for tokens.
    #[serde(default, deserialize_with = "default_on_error")]
    pub token_endpoint: Option<Url>,
    /// The address of the keys.
    pub jwks_uri: Url,
    /// The address that ends the provider's session (OpenID Connect RP-Initiated Logout 1.0).
    #[serde(default, deserialize_with = "default_on_error")]
    pub end_session_endpoint: Option<Url>,
    /// How a client may authenticate at the token endpoint; without this field, by basic authentication.
    #[serde(default, deserialize_with = "default_on_error")]
    pub token_endpoint_auth_methods_supported: Vec<String>,
}

/// Reads a field; a malformed one becomes the default.
fn default_on_error<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

impl Metadata {
    pub(super) async fn fetch(provider: &Provider, http: &HttpClient) -> Result<Self, ProviderError> {
        let configured = provider.issuer.as_str().trim_end_matches('/');
        let address = format!("{configured}/.well-known/openid-configuration");
        let url = Url::parse(&address)
            .map_err(|error| HttpError::Document { url: address.clone(), reason: error.to_string() })?;
        http.json::<Self>(&url).await?.validate(provider)
    }

    /// Checks the issuer and the addresses.
    fn validate(mut self, provider: &Provider) -> Result<Self, ProviderError> {
        let configured = provider.issuer.as_str().trim_end_matches('/');
        // Both must be equal (section 4.3), except for a slash at the end, which is easily lost when a person copies the
        // address. Tokens must have the issuer as the metadata spells it.
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
        metadata.validate(&production()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_malformed_field_that_no_token_needs_counts_as_absent() {
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
    fn a_malformed_issuer_or_key_address_is_an_error() {
        for odd in [json!(null), json!(""), json!(7), json!("http://login.example.com/keys")] {
            assert!(read(&json!({"jwks_uri": odd})).is_err(), "{odd}");
            assert!(read(&json!({"issuer": odd})).is_err(), "{odd}");
        }
    }
}
