//! A token's claims as they came: a JSON object in which no name comes twice.

use crate::json::{self, Bounds};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The members of a JSON object. A name that comes twice in it, or in an object within it, is refused (RFC 7519, section 4):
/// two readers of the same token could otherwise see two different claims.
#[derive(Debug)]
pub(super) struct RawClaims(Map<String, Value>);

impl RawClaims {
    /// A claim by its name, or, where none has it, by a dotted path into nested objects.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        let direct = self.0.get(name);
        direct.or_else(|| {
            let mut path = name.split('.');
            let first = self.0.get(path.next()?)?;
            path.try_fold(first, |value, part| value.get(part))
        })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A NumericDate (RFC 7519, section 2), cut to whole seconds since 1970.
    pub(super) fn date(&self, name: &str) -> Option<i64> {
        /// 2^53, up to which JSON's numbers are exact: some 285 million years.
        const LATEST: f64 = 9_007_199_254_740_992.0;
        let seconds = self.0.get(name)?.as_f64().filter(|seconds| seconds.abs() < LATEST)?;
        #[allow(clippy::cast_possible_truncation, reason = "bounded above")]
        Some(seconds as i64)
    }
}

impl<'de> Deserialize<'de> for RawClaims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        // A token is no longer than a header may be.
        match json::parse(&text, Bounds { values: usize::MAX, exact_numbers: false }).map_err(D::Error::custom)? {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(D::Error::custom("the claims are not an object")),
        }
    }
}
