//! The Idempotency-Key header of a POST: a request that is sent again makes no second row
//! (draft-ietf-httpapi-idempotency-key-header-07).

use crate::context::Caller;
use crate::error::{ApiError, ErrorCode};
use crate::input::{body_bytes, parse_body};
use crate::tenancy::IdempotencyKey;
use aws_lc_rs::digest::{Context, SHA256};
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName};
use serde::de::DeserializeOwned;

/// The request header.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks an answer to a request that was answered before.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The longest key, in characters.
const KEY_CHARS_MAX: usize = 255;

/// A request body of JSON, and the key that came with it.
pub(crate) struct KeyedBody<T>(pub(crate) T, pub(crate) Option<SentKey>);

/// A key as it was sent, and what it was sent with.
pub(crate) struct SentKey {
    key: String,
    fingerprint: [u8; 32],
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for KeyedBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let key = key(request.headers())?;
        let bytes = body_bytes(request, state).await?;
        let body = parse_body(&bytes)?;
        let key = key.map(|key| SentKey { fingerprint: hash(&[key.as_bytes(), &bytes]), key });
        Ok(Self(body, key))
    }
}

impl SentKey {
    /// The key among those of the tenant: each caller has keys of its own, for each kind of row.
    pub(crate) fn of_caller(&self, caller: &Caller, kind: &str) -> IdempotencyKey {
        let place = hash(&[kind.as_bytes(), self.key.as_bytes(), caller.subject.as_bytes()]);
        IdempotencyKey { place, fingerprint: self.fingerprint }
    }
}

/// SHA-256 of these parts. The key is one of them, and nowhere stored: who reads the database cannot find out the body or the
/// subject by trying what they may be.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        // So that no two lists of parts are the same bytes.
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 32];
    for (byte, of_hash) in bytes.iter_mut().zip(hash.finish().as_ref()) {
        *byte = *of_hash;
    }
    bytes
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|_| values.next().is_none()).and_then(parse);
    let key = key.ok_or_else(|| {
        let what = format!("the key must be 1 to {KEY_CHARS_MAX} printable characters of ASCII, in quotes, once");
        ApiError::detailed(ErrorCode::BadFormat, what).of_field("Idempotency-Key".to_owned())
    })?;
    Ok(Some(key))
}

/// A string of structured fields (RFC 9651, section 3.3.3); or the same without its quotes, as many clients send it.
fn parse(value: &str) -> Option<String> {
    let key = match value.trim().strip_prefix('"') {
        None => value.trim().to_owned(),
        Some(rest) => {
            let mut key = String::new();
            let mut chars = rest.strip_suffix('"')?.chars();
            while let Some(c) = chars.next() {
                match c {
                    '"' => return None,
                    '\\' => key.push(chars.next().filter(|c| matches!(c, '"' | '\\'))?),
                    c => key.push(c),
                }
            }
            key
        }
    };
    let printable = |c: char| matches!(c, ' '..='~');
    ((1..=KEY_CHARS_MAX).contains(&key.len()) && key.chars().all(printable)).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_string_with_or_without_quotes() {
        let long = "x".repeat(KEY_CHARS_MAX);
        for (value, expected) in [
            ("\"8e03978e\"", Some("8e03978e")),
            ("8e03978e", Some("8e03978e")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            (long.as_str(), Some(long.as_str())),
            ("", None),
            ("\"\"", None),
            ("\"a", None),
            (r#""a\""#, None),
            (r#""a\n""#, None),
            ("\"a\"b\"", None),
            ("a\u{e9}", None),
            (&format!("{long}x"), None),
        ] {
            assert_eq!(parse(value).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn parts_are_told_apart() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
