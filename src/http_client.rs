//! The HTTP client for the addresses that settings name: no redirects, bounded in time and size.

use crate::error_chain::root_cause;
use reqwest::header::ACCEPT;
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use url::Url;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response body that is read. Key sets of large providers have some ten kilobytes.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// Why nobody can be asked, or a document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The client cannot be built, most likely because there are no CA certificates.
    #[error("{setting}: cannot prepare TLS: {reason}; SSL_CERT_FILE may name the CA certificates")]
    Client {
        /// The setting that names the address.
        setting: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// A document cannot be fetched or read.
    #[error("{url}: {reason}")]
    Document {
        /// Its address.
        url: String,
        /// What went wrong.
        reason: String,
    },
}

/// Cheap to clone; all clones share one client.
#[derive(Debug, Clone)]
pub(crate) struct HttpClient {
    setting: &'static str,
    https_only: bool,
    client: Arc<OnceCell<Client>>,
}

impl HttpClient {
    /// For the address that this setting names. Reads no certificates yet: [`HttpClient::client`] does.
    pub(crate) fn new(setting: &'static str, https_only: bool) -> Self {
        Self { setting, https_only, client: Arc::default() }
    }

    /// The client, built at the first call. That reads and parses every CA certificate that the machine trusts
    /// (rustls-platform-verifier), which takes longer than the rest of a start: another thread does it.
    pub(crate) async fn client(&self) -> Result<&Client, HttpError> {
        let https_only = self.https_only;
        let build = async || {
            let built = tokio::task::spawn_blocking(move || build(https_only)).await;
            let built = built.unwrap_or_else(|panic| Err(panic.to_string()));
            built.map_err(|reason| HttpError::Client { setting: self.setting, reason })
        };
        self.client.get_or_try_init(build).await
    }

    /// GETs a JSON document.
    pub(crate) async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<T, HttpError> {
        let failed = |reason: String| HttpError::Document { url: url.to_string(), reason };
        let request = self.client().await?.get(url.clone());
        let (status, body) = self.send(request).await.map_err(failed)?;
        if !status.is_success() {
            return Err(failed(format!("status {status}")));
        }
        serde_json::from_slice(&body).map_err(|error| failed(format!("not the expected JSON: {error}")))
    }

    /// A POST that asks for JSON, for [`HttpClient::send`].
    pub(crate) async fn post(&self, url: Url) -> Result<RequestBuilder, HttpError> {
        Ok(self.client().await?.post(url).header(ACCEPT, "application/json"))
    }

    /// Sends a request and reads the response. The error names no URL: the query may be secret.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), String> {
        let mut response = request.send().await.map_err(|error| root_cause(&error))?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
            if body.len() + chunk.len() > RESPONSE_BYTES_MAX {
                return Err(format!("the response is longer than {RESPONSE_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), body))
    }
}

fn build(https_only: bool) -> Result<Client, String> {
    Client::builder()
        .timeout(TIMEOUT)
        .https_only(https_only)
        // A redirect could lead to an address that no setting names (RFC 9700, section 4.11).
        .redirect(redirect::Policy::none())
        .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| root_cause(&error))
}
