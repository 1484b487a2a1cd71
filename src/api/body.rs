//! JSON request bodies, and query parameters, whose rejection has a code of the registry and names the field.

use crate::error::{ApiError, ErrorCode};
use crate::server::BodyError;
use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

/// A request body of JSON. What is not one is answered with a VAL code.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::from_request(request, state).await {
            Ok(Json(Object(body))) => Ok(Self(body)),
            Err(rejection) => Err(body_refusal(&rejection)),
        }
    }
}

/// A JSON object: serde alone would take an array of its members in their order, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Query parameters. What does not fit is answered with a VAL code.
pub(crate) struct Parameters<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(query_refusal(&rejection)),
        }
    }
}

fn body_refusal(rejection: &JsonRejection) -> ApiError {
    let text = rejection.body_text();
    let code = match rejection {
        JsonRejection::MissingJsonContentType(_) => ErrorCode::UnsupportedMedia,
        JsonRejection::JsonSyntaxError(error) => {
            return ApiError { code: ErrorCode::BadFormat, ..misfit::<serde_json::Error>(error, text) };
        }
        JsonRejection::JsonDataError(error) => return misfit::<serde_json::Error>(error, text),
        JsonRejection::BytesRejection(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            ErrorCode::TooLarge
        }
        JsonRejection::BytesRejection(rejection) => match BodyError::of(rejection) {
            Some(BodyError::Late) => ErrorCode::BodyTooSlow,
            Some(BodyError::NoRoom) => ErrorCode::Overloaded,
            None => ErrorCode::InvalidInput,
        },
        _ => ErrorCode::InvalidInput,
    };
    ApiError::detailed(code, text)
}

fn query_refusal(rejection: &QueryRejection) -> ApiError {
    let text = rejection.body_text();
    match rejection {
        QueryRejection::FailedToDeserializeQueryString(error) => {
            let refused = misfit::<serde::de::value::Error>(error, text);
            // All that a parameter can be of is text: it is not of the form of its type.
            let code = if refused.field.is_some() { ErrorCode::BadFormat } else { refused.code };
            ApiError { code, ..refused }
        }
        _ => ApiError::detailed(ErrorCode::InvalidInput, text),
    }
}

/// What is of the wrong type or out of range, with the name of where.
fn misfit<E: Error + 'static>(error: &(dyn Error + 'static), text: String) -> ApiError {
    let mut cause = Some(error);
    let found = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    });
    let found: Vec<_> = found.collect();
    let path = found.iter().find_map(|cause| cause.downcast_ref::<serde_path_to_error::Error<E>>());
    // What lies deeper in a field is named by the client.
    let path = path.and_then(|error| match error.path().iter().next()? {
        Segment::Map { key } => Some(key.clone()),
        _ => None,
    });
    // serde has no other way to tell.
    if let Some((_, rest)) = text.split_once("missing field `") {
        let name = rest.split('`').next().unwrap_or_default().to_owned();
        return ApiError::detailed(ErrorCode::MissingField, text).of_field(name);
    }
    // An unknown field's name is the client's own text.
    let field = path.filter(|_| !text.contains("unknown field `"));
    ApiError::detailed(ErrorCode::InvalidInput, text).of_field(field)
}

/// A field that may be left out, to stay as it is, or null, to become nothing; for `#[serde(default)]` fields.
pub(super) fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
