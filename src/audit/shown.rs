//! What an entry of a list keeps of the rows that were on the page: enough to find the entry by any of them, and a fifth
//! of what their ids would take.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

/// The member with the ends of the ids, one behind the other.
pub const ID_ENDS: &str = "id_ends";

/// The member with whole ids, in entries of older builds.
pub const IDS: &str = "ids";

/// How many characters the end of an id takes.
const END: usize = 7;

/// The end of an id as the log has it: the first seven characters of base64url of its last six bytes, which are random in
/// UUIDs of versions 4 and 7 (RFC 9562, sections 5.4 and 5.7). That two ids have the same 42 bits is a chance of one in four
/// million millions; with all 48, an entry of 200 rows would not fit 2 KB.
#[must_use]
pub fn id_end(id: Uuid) -> String {
    let mut end = BASE64_URL_SAFE_NO_PAD.encode(&id.as_bytes()[10..]);
    end.truncate(END);
    end
}

/// The first five of the bytes that such an end is made of, in hexadecimal; `None` where it is no such end.
#[must_use]
pub fn end_bytes(end: &str) -> Option<String> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(format!("{end}A")).ok()?;
    (bytes.len() == 6).then(|| hex::encode(&bytes[..5]))
}

/// Rows as an entry keeps them, each given by when it was made and its id.
pub(super) fn members(rows: impl Iterator<Item = (OffsetDateTime, Uuid)>) -> Map<String, Value> {
    let (mut ends, mut times) = (String::new(), Vec::new());
    for (made, id) in rows {
        ends.push_str(&id_end(id));
        times.push(made.unix_timestamp() * 1000 + i64::from(made.millisecond()));
    }
    let mut members = Map::new();
    members.insert("count".to_owned(), times.len().into());
    if let (Some(oldest), Some(newest)) = (times.iter().min(), times.iter().max()) {
        members.insert("oldest_ms".to_owned(), (*oldest).into());
        members.insert("newest_ms".to_owned(), (*newest).into());
    }
    members.insert(ID_ENDS.to_owned(), ends.into());
    members
}

/// The rows of a page, as far as its entry knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// By their ids.
    Ids(Vec<Uuid>),
    /// By the ends of their ids.
    Ends(IdEnds),
}

/// What is known of rows besides their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdEnds {
    /// The ends of their ids, in the page's order.
    pub ends: Vec<String>,
    /// When the first of the rows was made, in milliseconds since 1970, rounded down.
    pub oldest_ms: i64,
    /// When the last of them was made, likewise.
    pub newest_ms: i64,
}

impl Shown {
    /// From an entry's metadata; `None` where it is not the entry of a list.
    #[must_use]
    pub fn of(metadata: &Value) -> Option<Self> {
        if let Some(ids) = metadata.get(IDS).and_then(Value::as_array) {
            return Some(Self::Ids(ids.iter().filter_map(|id| id.as_str()?.parse().ok()).collect()));
        }
        let ends = metadata.get(ID_ENDS)?.as_str()?;
        // Ends are ASCII; of what is not, nothing is made.
        let ends = ends.as_bytes().chunks(END).filter_map(|end| std::str::from_utf8(end).ok());
        let ends = ends.map(str::to_owned).collect();
        let time = |name: &str| metadata.get(name).and_then(Value::as_i64).unwrap_or_default();
        Some(Self::Ends(IdEnds { ends, oldest_ms: time("oldest_ms"), newest_ms: time("newest_ms") }))
    }

    /// Whether the row of this id was on the page.
    #[must_use]
    pub fn has(&self, id: Uuid) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(&id),
            Self::Ends(IdEnds { ends, .. }) => ends.contains(&id_end(id)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_has_its_rows_and_none_whose_end_lies_across_two_of_theirs() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_123_456_000).unwrap();
        let ids = [Uuid::from_u128(0x0011_2233_4455), Uuid::from_u128(0x6677_8899_aabb)];
        let metadata = Value::from(members(ids.into_iter().map(|id| (at, id))));
        let expected = json!({"count": 2, "id_ends": "ABEiM0RZneImaq", "oldest_ms": 1_790_000_000_123_i64, "newest_ms": 1_790_000_000_123_i64});
        assert_eq!(metadata, expected);
        let shown = Shown::of(&metadata).unwrap();
        assert!(ids.into_iter().all(|id| shown.has(id)));
        // "M0RZneI" with anything behind it.
        let across = Uuid::from_u128(0x3344_599d_e200);
        assert!(metadata[ID_ENDS].as_str().unwrap().contains(&id_end(across)) && !shown.has(across));
        assert_eq!(end_bytes(&id_end(ids[0])).as_deref(), Some("0011223344"));
        assert_eq!((end_bytes("M0RZne"), end_bytes("M0RZne!")), (None, None));
        assert_eq!(Shown::of(&json!({"ids": [ids[0].to_string()]})), Some(Shown::Ids(vec![ids[0]])));
        assert_eq!(Shown::of(&json!({"found": true})), None);
    }
}
