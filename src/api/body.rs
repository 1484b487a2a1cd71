//! JSON request bodies whose rejection has a code of the registry.

use crate::error::{ApiError, ErrorCode};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;

/// A request body of JSON. What is not one is answered with a VAL code; the detail names the place.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refusal(&rejection)),
        }
    }
}

fn refusal(rejection: &JsonRejection) -> ApiError {
    let text = rejection.body_text();
    let code = match rejection {
        JsonRejection::MissingJsonContentType(_) => ErrorCode::UnsupportedMedia,
        JsonRejection::JsonSyntaxError(_) => ErrorCode::BadFormat,
        // serde has no other way to tell.
        JsonRejection::JsonDataError(_) if text.contains("missing field") => ErrorCode::MissingField,
        JsonRejection::BytesRejection(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            ErrorCode::TooLarge
        }
        _ => ErrorCode::InvalidInput,
    };
    ApiError::detailed(code, text)
}
