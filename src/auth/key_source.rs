//! The sources of signing keys.

use super::discovery::{Metadata, ProviderError};
use super::http::HttpClient;
use super::key_set::{JwksDocument, KeySet};
use crate::config::Provider;
use futures_util::future::BoxFuture;
use std::time::Duration;

/// The least time between two fetches from a provider for unknown key ids.
pub(super) const PROVIDER_MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// The result of one fetch.
pub(super) struct FetchedKeys {
    /// The issuer, exactly as tokens must spell it.
    pub(super) issuer: String,
    /// The provider's metadata; the development issuer has none.
    pub(super) metadata: Option<Metadata>,
    pub(super) keys: KeySet,
}

/// Where signing keys come from.
pub(super) trait KeySource: Send + Sync {
    /// Fetches the provider's metadata, unless it is `known`, and the keys.
    fn fetch(&self, known: Option<Metadata>) -> BoxFuture<'_, Result<FetchedKeys, ProviderError>>;

    /// The least time between two fetches for unknown key ids, for the whole process.
    fn min_refresh_interval(&self) -> Duration;
}

/// The keys of an OpenID Connect provider.
pub(super) struct ProviderKeys {
    provider: Box<Provider>,
    http: HttpClient,
}

impl ProviderKeys {
    pub(super) fn new(provider: Box<Provider>, http: HttpClient) -> Self {
        Self { provider, http }
    }
}

impl KeySource for ProviderKeys {
    fn fetch(&self, known: Option<Metadata>) -> BoxFuture<'_, Result<FetchedKeys, ProviderError>> {
        Box::pin(async move {
            let metadata = match known {
                Some(metadata) => metadata,
                None => Metadata::fetch(&self.provider, &self.http).await?,
            };
            let keys = KeySet::from(self.http.json::<JwksDocument>(&metadata.jwks_uri).await?);
            if keys.len() == 0 {
                return Err(ProviderError::NoKeys(metadata.jwks_uri.to_string()));
            }
            Ok(FetchedKeys { issuer: metadata.issuer.clone(), metadata: Some(metadata), keys })
        })
    }

    fn min_refresh_interval(&self) -> Duration {
        PROVIDER_MIN_REFRESH_INTERVAL
    }
}
