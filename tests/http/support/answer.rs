//! An answer of the API.

use reqwest::header::HeaderMap;
use serde_json::Value;

/// Status, headers and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// Null where the body is not JSON.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
        Self { status, headers, body }
    }

    /// The error code, or `-` where there is none.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("-")
    }

    /// Status and error code.
    pub(crate) fn outcome(&self) -> (u16, &str) {
        (self.status, self.code())
    }

    /// Status, error code, and the field that the error names; `-` where there is none.
    pub(crate) fn refusal(&self) -> (u16, &str, &str) {
        (self.status, self.code(), self.body["error"]["field"].as_str().unwrap_or("-"))
    }

    /// It is this error.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) {
        assert_eq!(self.outcome(), (status, code), "{}", self.body);
    }

    /// It is this error, and names this field.
    #[track_caller]
    pub(crate) fn assert_field_error(&self, status: u16, code: &str, field: &str) {
        assert_eq!(self.refusal(), (status, code, field), "{}", self.body);
    }

    /// It has this status and no error.
    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.body);
    }

    /// A header's value; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn etag(&self) -> &str {
        self.header("etag")
    }

    /// The rows of a page.
    pub(crate) fn items(&self) -> &[Value] {
        self.body["items"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}
