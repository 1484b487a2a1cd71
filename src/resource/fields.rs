//! Types of fields that resources have in common.

use crate::text::NonBlank;
use email_address::{EmailAddress, Options};
use sea_orm::ActiveValue::{self, NotSet, Set};
use sea_orm::Value;
use sea_orm::sea_query::Nullable;
use serde::{Deserialize, Deserializer};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime, UtcOffset};

/// Text of 1 to `MAX` characters, without control characters and without spaces around it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Text<const MAX: usize>(String);

impl<const MAX: usize> TryFrom<String> for Text<MAX> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.chars().count() <= MAX && NonBlank::accepts(&text) {
            return Ok(Self(text));
        }
        Err(format!("must be 1 to {MAX} characters, without control characters and without spaces around them"))
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

/// An address of a form that mail servers take (RFC 5321, RFC 5322): no display name, no spaces, 320 characters at most, all of
/// ASCII. Which other letters differ by their case alone depends on a database's locale, and on PostgreSQL and SQLite.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Email(String);

impl TryFrom<String> for Email {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let options = Options::default().without_display_text().without_domain_literal().with_required_tld();
        if text.is_ascii() && text.len() <= 320 && EmailAddress::parse_with_options(&text, options).is_ok() {
            Ok(Self(text))
        } else {
            Err("must be an e-mail address, in ASCII")
        }
    }
}

impl From<Email> for String {
    fn from(email: Email) -> Self {
        email.0
    }
}

/// A size in bytes: 0 or more.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "i64")]
pub(crate) struct SizeBytes(i64);

impl TryFrom<i64> for SizeBytes {
    type Error = &'static str;

    fn try_from(bytes: i64) -> Result<Self, Self::Error> {
        if bytes >= 0 { Ok(Self(bytes)) } else { Err("must be 0 or more") }
    }
}

impl From<SizeBytes> for i64 {
    fn from(size: SizeBytes) -> Self {
        size.0
    }
}

/// A time by RFC 3339, rounded up to the microseconds that PostgreSQL keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Timestamp(OffsetDateTime);

impl TryFrom<String> for Timestamp {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WHAT: &str = "must be a time by RFC 3339, such as 2026-11-24T09:30:00Z";
        let at = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| WHAT)?;
        let short = (1000 - i64::from(at.nanosecond() % 1000)) % 1000;
        let at = at.checked_add(Duration::nanoseconds(short)).ok_or(WHAT)?;
        at.checked_to_offset(UtcOffset::UTC).map(Self).ok_or(WHAT)
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(at: Timestamp) -> Self {
        at.0
    }
}

/// What a PATCH does to a field, as a JSON merge patch does it (RFC 7396): an omitted field stays, null clears a field whose
/// `T` is an `Option`, and is refused for any other.
///
/// It goes with `#[serde(default)]`, by which an omitted field is the default of its type.
#[derive(Debug)]
pub(crate) struct Change<T>(Option<T>);

impl<T> Default for Change<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self(Some(value)))
    }
}

impl<T> Change<T> {
    /// The new value, unless the field was omitted.
    pub(crate) fn value(self) -> Option<T> {
        self.0
    }
}

/// A column's change.
pub(crate) fn changed<T: Into<V>, V: Into<Value>>(field: Change<T>) -> ActiveValue<V> {
    field.0.map_or(NotSet, |value| Set(value.into()))
}

/// As [`changed`], of a column that null clears.
pub(crate) fn changed_or_cleared<T: Into<V>, V: Into<Value> + Nullable>(
    field: Change<Option<T>>,
) -> ActiveValue<Option<V>> {
    field.0.map_or(NotSet, |value| Set(value.map(Into::into)))
}
