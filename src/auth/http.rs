//! The HTTP client for the provider: no redirects, bounded in time and size.

use crate::error_chain::root_cause;
use reqwest::header::ACCEPT;
use reqwest::{Client, RequestBuilder, StatusCode, redirect};
use serde::de::DeserializeOwned;
use std::time::Duration;
use url::Url;

/// How long one request to the provider may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest response body that is read. Key sets of large providers have some ten kilobytes.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;

/// Why the provider cannot be asked, or its document cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The client cannot be built, most likely because there are no CA certificates.
    #[error("OIDC_ISSUER_URL: cannot prepare TLS to the provider: {0}; SSL_CERT_FILE may name the CA certificates")]
    Client(String),
    /// A document of the provider cannot be fetched or read.
    #[error("{url}: {reason}")]
    Document {
        /// Its address.
        url: String,
        /// What went wrong.
        reason: String,
    },
}

#[derive(Debug, Clone)]
pub(super) struct HttpClient(Client);

impl HttpClient {
    pub(super) fn new(https_only: bool) -> Result<Self, HttpError> {
        Client::builder()
            .timeout(TIMEOUT)
            .https_only(https_only)
            // A redirect could lead to an address that no setting names (RFC 9700, section 4.11).
            .redirect(redirect::Policy::none())
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
            .map_err(|error| HttpError::Client(root_cause(&error)))
    }

    /// GETs a JSON document.
    pub(super) async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<T, HttpError> {
        let failed = |reason: String| HttpError::Document { url: url.to_string(), reason };
        let (status, body) = self.send(self.0.get(url.clone())).await.map_err(failed)?;
        if !status.is_success() {
            return Err(failed(format!("status {status}")));
        }
        serde_json::from_slice(&body).map_err(|error| failed(format!("not the expected JSON: {error}")))
    }

    /// A POST that asks for JSON, for [`HttpClient::send`].
    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        self.0.post(url).header(ACCEPT, "application/json")
    }

    /// Sends a request and reads the response. The error names no URL: the query may be secret.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Vec<u8>), String> {
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
