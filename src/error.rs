//! The error registry: every code with its status and message, and how an error becomes a response.
//!
//! Which to use: a handler returns [`ApiError`]; a layer of the server writes its body,
//! and gives every other 4xx and 5xx (the router's own 404 and 405, a rejected body, a panic) the same shape by its
//! status. What a client may not see (a driver's message) goes to the log by [`ApiError::internal`].

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Defines [`ErrorCode`] from one table, so that a code cannot lack its status or message.
macro_rules! registry {
    ($($name:ident $code:literal $status:ident $message:literal;)+) => {
        /// An error as clients know it: stable code, HTTP status, message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode {
            $(#[doc = concat!($code, ": ", $message)] $name,)+
        }

        impl ErrorCode {
            /// Every code of the registry.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable code, such as `RES_001`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            /// The HTTP status that goes with the code.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// The message for clients; the same for every occurrence.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)+ }
            }
        }
    };
}

registry! {
    InvalidInput        "VAL_001" BAD_REQUEST            "The input is not valid.";
    TooLarge            "VAL_004" PAYLOAD_TOO_LARGE      "The request body is too large.";
    UnsupportedMedia    "VAL_005" UNSUPPORTED_MEDIA_TYPE "The request body must be application/json.";
    NotFound            "RES_001" NOT_FOUND              "There is nothing at this address.";
    MethodNotAllowed    "RES_004" METHOD_NOT_ALLOWED     "This address does not take this method.";
    DatabaseUnreachable "SYS_001" SERVICE_UNAVAILABLE    "The database cannot be reached.";
    Internal            "SYS_003" INTERNAL_SERVER_ERROR  "Something went wrong on our side.";
    SchemaNotReady      "SYS_005" SERVICE_UNAVAILABLE    "The database schema is not ready.";
    Overloaded          "SYS_006" SERVICE_UNAVAILABLE    "The service is busy; try again shortly.";
}

impl ErrorCode {
    /// The code for a response that something other than a handler made, by its status.
    #[must_use]
    pub fn of_status(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMedia,
            StatusCode::SERVICE_UNAVAILABLE => Self::Overloaded,
            status if status.is_client_error() => Self::InvalidInput,
            _ => Self::Internal,
        }
    }
}

/// The body of every 4xx and 5xx answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    error: ErrorFields,
}

#[derive(Debug, Serialize, ToSchema)]
struct ErrorFields {
    /// The stable code.
    #[schema(example = "RES_001")]
    code: &'static str,
    /// What went wrong, for people.
    #[schema(example = "There is nothing at this address.")]
    message: &'static str,
    /// More of it; only in development.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The request's id, as in the X-Request-ID header and the log.
    request_id: String,
}

impl ErrorBody {
    /// The body for one occurrence of `code`.
    #[must_use]
    pub fn new(code: ErrorCode, detail: Option<String>, request_id: String) -> Self {
        Self { error: ErrorFields { code: code.code(), message: code.message(), detail, request_id } }
    }
}

/// What a handler fails with.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// What the client is told.
    pub code: ErrorCode,
    /// What the client is told besides, in development only.
    pub detail: Option<String>,
}

impl ApiError {
    /// Something that is not the client's doing: the cause is logged, the client sees `SYS_003` alone.
    #[must_use]
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = cause, "request failed");
        Self { code: ErrorCode::Internal, detail: Some(cause.to_string()) }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self { code, detail: None }
    }
}

impl IntoResponse for ApiError {
    /// Status only; the error travels as an extension to the layer that knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
