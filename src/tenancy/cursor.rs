//! Keyset pagination: a page begins behind the last row of the one before it, however far that is.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use time::OffsetDateTime;
use uuid::Uuid;

/// The place behind which a page begins: the last row's time and id. It says nothing of whose the row is, and a page
/// holds rows of the caller's tenant whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(super) at: OffsetDateTime,
    pub(super) id: Uuid,
}

impl Cursor {
    pub(super) fn of((at, id): (OffsetDateTime, Uuid)) -> Self {
        Self { at, id }
    }

    /// As clients carry it: base64url of the time in microseconds since 1970 and the id.
    #[must_use]
    pub fn encode(self) -> String {
        let micros = i64::try_from(self.at.unix_timestamp_nanos() / 1000).unwrap_or_default();
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&micros.to_be_bytes());
        bytes[8..].copy_from_slice(self.id.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What [`Cursor::encode`] has made; `None` for anything else.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let bytes: [u8; 24] = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
        let (micros, id) = bytes.split_first_chunk::<8>()?;
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(i64::from_be_bytes(*micros)) * 1000).ok()?;
        // No row is older, and PostgreSQL has no time before 4713 BC (postgresql.org/docs/current/datatype-datetime.html).
        let at = (at.year() >= 1970).then_some(at)?;
        Some(Self { at, id: Uuid::from_slice(id).ok()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_went_out_and_nothing_else_is_one() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_123_456_000).unwrap();
        let cursor = Cursor { at, id: Uuid::now_v7() };
        assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        let (extreme, long) = (BASE64_URL_SAFE_NO_PAD.encode([0x7f; 24]), BASE64_URL_SAFE_NO_PAD.encode([0; 25]));
        for text in ["", "x", &extreme, &long, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "é"] {
            assert_eq!(Cursor::decode(text), None, "{text}");
        }
    }
}
