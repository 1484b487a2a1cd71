//! The HTTP client for the provider: no redirects, bounded in time and size.

use super::ProviderError;
use crate::error_chain::root_cause;
use oauth2::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::{Client, redirect};
use serde::de::DeserializeOwned;
use std::pin::Pin;
use std::time::Duration;
use url::Url;

/// How long one request to the provider may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of an answer; key sets of large providers have some ten kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

#[derive(Debug, Clone)]
pub(super) struct HttpClient(Client);

impl HttpClient {
    pub(super) fn new(https_only: bool) -> Result<Self, ProviderError> {
        Client::builder()
            .timeout(TIMEOUT)
            .https_only(https_only)
            // A redirect would lead where nobody has said that we may go (RFC 9700, section 4.11).
            .redirect(redirect::Policy::none())
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .build()
            .map(Self)
            .map_err(|error| ProviderError::Client(root_cause(&error)))
    }

    /// GETs a JSON document.
    pub(super) async fn json<T: DeserializeOwned>(&self, url: &Url) -> Result<T, ProviderError> {
        let failed = |what: String| ProviderError::Document { url: url.to_string(), what };
        let mut response = self.0.get(url.clone()).send().await.map_err(|error| failed(root_cause(&error)))?;
        if !response.status().is_success() {
            return Err(failed(format!("status {}", response.status())));
        }
        let body = read(&mut response).await.map_err(failed)?;
        serde_json::from_slice(&body).map_err(|error| failed(format!("not the expected JSON: {error}")))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, SendError> {
        let request = reqwest::Request::try_from(request).map_err(|error| SendError(root_cause(&error)))?;
        let mut response = self.0.execute(request).await.map_err(|error| SendError(root_cause(&error)))?;
        let mut answer = HttpResponse::new(read(&mut response).await.map_err(SendError)?);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = std::mem::take(response.headers_mut());
        Ok(answer)
    }
}

/// Sends the requests of the OAuth library.
impl<'c> AsyncHttpClient<'c> for HttpClient {
    type Error = SendError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, SendError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// Why a request had no answer. Names no URL: the token endpoint's may hold a code.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct SendError(String);

async fn read(response: &mut reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the answer is longer than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

