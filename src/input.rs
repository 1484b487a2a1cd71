//! JSON request bodies and query parameters. Their rejection has a code of the registry and names the field.

use crate::error::{ApiError, ErrorCode};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{FromRequest, Query, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_path_to_error::Segment;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

/// A request body of JSON. What is not one is answered with a VAL code.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        parse_body(&body_bytes(request, state).await?).map(Self)
    }
}

/// The bytes of a request body that says it is JSON.
pub(crate) async fn body_bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    must_be_json(request.headers())?;
    Bytes::from_request(request, state).await.map_err(|rejection| bytes_error(&rejection))
}

/// What is in the bytes of a body.
pub(crate) fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let Json(Object(body)) = Json::from_bytes(bytes).map_err(|rejection| body_error(&rejection))?;
    Ok(body)
}

/// Refuses a body that would be read otherwise than its sender means it: of another media type, in another character encoding
/// than UTF-8, or compressed. `application/merge-patch+json` is one of these: a PATCH replaces an object within a field, which
/// RFC 7396 would merge.
fn must_be_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let refused = |name: HeaderName, what: &str| {
        let detail = format!("{name}: {what}");
        Err(ApiError::detailed(ErrorCode::UnsupportedMedia, detail).of_field(field_name(&name).to_owned()))
    };
    // Codings are lists, and may come in several lines; names of them have no case (RFC 9110, sections 8.4 and 8.4.1).
    let mut codings =
        headers.get_all(CONTENT_ENCODING).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !codings.all(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return refused(CONTENT_ENCODING, "the body must not be compressed");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let value = types.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    if types.next().is_some() {
        return refused(CONTENT_TYPE, "it is there twice");
    }
    let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return refused(CONTENT_TYPE, "it must be application/json");
    }
    // JSON is UTF-8 (RFC 8259, section 8.1). Parameters that say nothing of the encoding do no harm.
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.trim().eq_ignore_ascii_case("charset") && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        {
            return refused(CONTENT_TYPE, "the charset must be utf-8");
        }
    }
    Ok(())
}

/// The header's name as the documentation writes it.
fn field_name(name: &HeaderName) -> &'static str {
    if *name == CONTENT_TYPE { "Content-Type" } else { "Content-Encoding" }
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

/// Parses the parameters of a query string. What does not fit is answered with a VAL code.
pub(crate) fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let uri = Uri::try_from(format!("/?{query}")).map_err(|error| ApiError::internal(&error))?;
    let rejection = match Query::try_from_uri(&uri) {
        Ok(Query(parameters)) => return Ok(parameters),
        Err(rejection) => rejection,
    };
    let text = rejection.body_text();
    match &rejection {
        QueryRejection::FailedToDeserializeQueryString(error) => {
            let error = deserialize_error::<serde::de::value::Error>(error, text);
            // A parameter is text: where it is of the wrong type, its format is wrong.
            let code = if error.field.is_some() { ErrorCode::BadFormat } else { error.code };
            Err(ApiError { code, ..error })
        }
        _ => Err(ApiError::detailed(ErrorCode::InvalidInput, text)),
    }
}

fn body_error(rejection: &JsonRejection) -> ApiError {
    let text = rejection.body_text();
    match rejection {
        JsonRejection::JsonSyntaxError(error) => {
            ApiError { code: ErrorCode::BadFormat, ..deserialize_error::<serde_json::Error>(error, text) }
        }
        JsonRejection::JsonDataError(error) => deserialize_error::<serde_json::Error>(error, text),
        _ => ApiError::detailed(ErrorCode::InvalidInput, text),
    }
}

/// Why a body was not read to its end.
fn bytes_error(rejection: &BytesRejection) -> ApiError {
    let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ErrorCode::TooLarge
    } else {
        match BodyError::of(rejection) {
            Some(BodyError::Late) => ErrorCode::BodyTooSlow,
            Some(BodyError::NoRoom) => ErrorCode::Overloaded,
            None => ErrorCode::InvalidInput,
        }
    };
    ApiError::detailed(code, rejection.body_text())
}

/// What is of the wrong type or out of range, with the name of where.
fn deserialize_error<E: Error + 'static>(error: &(dyn Error + 'static), text: String) -> ApiError {
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

/// Why reading a body failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    /// It did not arrive in time.
    #[error("the body did not arrive within BODY_TIMEOUT_SECONDS")]
    Late,
    /// It has arrived, but other requests have taken all slots meanwhile.
    #[error("the body has arrived, but too many other requests are in progress")]
    NoRoom,
}

impl BodyError {
    /// The `BodyError` in this chain of errors, if there is one.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(this) = cause {
            if let Some(found) = this.downcast_ref::<Self>() {
                return Some(*found);
            }
            cause = this.source();
        }
        None
    }
}
