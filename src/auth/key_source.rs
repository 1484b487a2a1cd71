//! The sources of signing keys.

use super::discovery::{Metadata, ProviderError};
use super::key_set::{JwksDocument, KeySet};
use crate::config::Provider;
use crate::http_client::HttpClient;
use futures_util::future::{BoxFuture, join};
use std::time::Duration;
use tokio::time::timeout;

/// The least time between two fetches from a provider because no key fits a token.
pub(super) const PROVIDER_MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// How long the metadata may take, if the keys are there without it.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

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
    /// Fetches the provider's metadata and the keys. With `known` metadata, both at once: the keys are fetched a second time
    /// only if their address has changed, and metadata that cannot be fetched stays as it is.
    fn fetch(&self, known: Option<Metadata>) -> BoxFuture<'_, Result<FetchedKeys, ProviderError>>;

    /// The least time between two fetches because no key fits a token, for the whole process.
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

    async fn metadata(&self) -> Result<Metadata, ProviderError> {
        Metadata::fetch(&self.provider, &self.http).await
    }

    async fn keys(&self, metadata: Metadata) -> Result<FetchedKeys, ProviderError> {
        let keys = KeySet::from(self.http.json::<JwksDocument>(&metadata.jwks_uri).await?);
        if keys.len() == 0 {
            return Err(ProviderError::NoKeys(metadata.jwks_uri.to_string()));
        }
        Ok(FetchedKeys { issuer: metadata.issuer.clone(), metadata: Some(metadata), keys })
    }
}

impl KeySource for ProviderKeys {
    fn fetch(&self, known: Option<Metadata>) -> BoxFuture<'_, Result<FetchedKeys, ProviderError>> {
        Box::pin(async move {
            let Some(known) = known else {
                return self.keys(self.metadata().await?).await;
            };
            let address = known.jwks_uri.clone();
            let metadata = timeout(METADATA_TIMEOUT, self.metadata());
            match join(self.keys(known), metadata).await {
                (_, Ok(Ok(new))) if new.jwks_uri != address => self.keys(new).await,
                (keys, Ok(Ok(new))) => {
                    keys.map(|keys| FetchedKeys { issuer: new.issuer.clone(), metadata: Some(new), ..keys })
                }
                (keys, _) => keys,
            }
        })
    }

    fn min_refresh_interval(&self) -> Duration {
        PROVIDER_MIN_REFRESH_INTERVAL
    }
}
