//! A token's claims as they came: a JSON object in which no name comes twice.

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::fmt;

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
        match Unambiguous::deserialize(deserializer)?.0 {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(D::Error::custom("the claims are not an object")),
        }
    }
}

/// A JSON value of which no object, however deep, has a name twice. `Value` itself would keep the last one.
struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without a name that comes twice")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unambiguous(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, Unambiguous(value))) = access.next_entry::<String, Unambiguous>()? {
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name comes twice"));
            }
        }
        Ok(members.into())
    }
}
