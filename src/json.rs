//! JSON that means the same to every reader: no object has a name twice, and, where that is asked for, every number is one
//! that they all hold (RFC 7493).

use serde::de::{Deserializer as _, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Deserializer, Map, Value};
use std::fmt;

/// How deep objects and arrays may lie in each other.
pub(crate) const DEEPEST: usize = 32;

/// The largest integer that every reader holds exactly: 2^53 - 1 (RFC 7493, section 2.2).
const MOST_EXACT: f64 = 9_007_199_254_740_991.0;

/// How many significant digits a double always holds (C's `DBL_DIG`).
const DIGITS: usize = 15;

/// What is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The most members of objects and items of arrays, all together.
    pub(crate) values: usize,
    /// Whether a number must come back as it was sent, from whoever keeps it as a double.
    pub(crate) exact_numbers: bool,
}

/// Why a text is refused. What it shows of the text is for its sender alone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    NotJson(serde_json::Error),
    #[error("its objects and arrays lie more than {DEEPEST} deep in each other")]
    TooDeep,
    #[error("it has more than {0} members and items")]
    TooMany(usize),
    #[error("the name {0:?} comes twice in one object")]
    Twice(String),
    #[error("the number {0} would be changed: an IEEE 754 double does not hold it")]
    NotExact(String),
}

/// The value of a text, within these bounds.
pub(crate) fn parse(text: &RawValue, bounds: Bounds) -> Result<Value, Fault> {
    let mut reader = Reader { bounds, values: 0, fault: None };
    reader.value(text, 0).map_err(|error| reader.fault.unwrap_or(Fault::NotJson(error)))
}

struct Reader {
    bounds: Bounds,
    values: usize,
    /// The cause of an error that serde_json carries outwards.
    fault: Option<Fault>,
}

impl Reader {
    /// serde gives a visitor numbers as doubles: each value is looked at as text first.
    fn value(&mut self, text: &RawValue, depth: usize) -> serde_json::Result<Value> {
        let text = text.get();
        match text.as_bytes().first() {
            Some(b'{' | b'[') if depth == DEEPEST => Err(self.refuse(Fault::TooDeep)),
            Some(b'{' | b'[') => Deserializer::from_str(text).deserialize_any(Nest { reader: self, depth: depth + 1 }),
            Some(b'-' | b'0'..=b'9') if self.bounds.exact_numbers && !is_exact(text) => {
                Err(self.refuse(Fault::NotExact(text.to_owned())))
            }
            _ => serde_json::from_str(text),
        }
    }

    fn count(&mut self) -> serde_json::Result<()> {
        self.values += 1;
        if self.values > self.bounds.values {
            return Err(self.refuse(Fault::TooMany(self.bounds.values)));
        }
        Ok(())
    }

    fn refuse(&mut self, fault: Fault) -> serde_json::Error {
        let error = serde_json::Error::custom(&fault);
        self.fault = Some(fault);
        error
    }
}

/// An object or an array.
struct Nest<'r> {
    reader: &'r mut Reader,
    depth: usize,
}

impl<'de> Visitor<'de> for Nest<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<&RawValue>()? {
            self.reader.count().map_err(A::Error::custom)?;
            items.push(self.reader.value(item, self.depth).map_err(A::Error::custom)?);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some((name, value)) = access.next_entry::<String, &RawValue>()? {
            self.reader.count().map_err(A::Error::custom)?;
            if members.contains_key(&name) {
                return Err(A::Error::custom(self.reader.refuse(Fault::Twice(name))));
            }
            let value = self.reader.value(value, self.depth).map_err(A::Error::custom)?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

/// Whether a JSON number comes back as it was sent from a reader that keeps doubles: the shortest decimal that such a reader
/// writes is the same number. Beyond 2^53, where doubles are further apart than whole numbers are, only one of few digits is
/// sure to have been meant as it came.
fn is_exact(text: &str) -> bool {
    let Ok(double) = text.parse::<f64>() else { return false };
    let Some(sent) = Decimal::of(text) else { return false };
    double.is_finite()
        && Decimal::of(&format!("{double:e}")).as_ref() == Some(&sent)
        && (double.abs() <= MOST_EXACT || sent.digits.len() <= DIGITS)
}

/// A number by its significant digits: 0.0120 is 12 * 10^-3. Zero has none, and no sign.
#[derive(PartialEq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn of(number: &str) -> Option<Self> {
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        let significant = digits.trim_end_matches('0');
        let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
        let exponent = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
        let exponent = exponent.checked_add(dropped)?;
        let significant = significant.trim_start_matches('0');
        if significant.is_empty() {
            return Some(Self { negative: false, digits: String::new(), exponent: 0 });
        }
        Some(Self { negative, digits: significant.to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value, Fault> {
        parse(serde_json::from_str(text).unwrap(), Bounds { values: 10, exact_numbers: true })
    }

    #[test]
    fn what_is_within_the_bounds_is_read_as_it_is() {
        let text = r#" {"a": [1, -2.50, null, {"b": {"b": "\u00e9"}}], "c": true, "": ""} "#;
        assert_eq!(read(text).unwrap(), json!({"a": [1, -2.5, null, {"b": {"b": "é"}}], "c": true, "": ""}));
    }

    #[test]
    fn a_name_that_comes_twice_is_refused_however_deep_and_however_it_is_written() {
        for text in [r#"{"a": 1, "a": 1}"#, r#"[{"b": [{"a": 1, "\u0061": 2}]}]"#] {
            assert!(matches!(read(text), Err(Fault::Twice(name)) if name == "a"), "{text}");
        }
        assert!(read(r#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 1}]}"#).is_ok());
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let bounds = Bounds { values: 100, exact_numbers: true };
        assert!(parse(serde_json::from_str(&deep(DEEPEST)).unwrap(), bounds).is_ok());
        for depth in [DEEPEST + 1, 100_000] {
            let text: Box<RawValue> = serde_json::from_str(&deep(depth)).unwrap();
            assert!(matches!(parse(&text, bounds), Err(Fault::TooDeep)), "{depth}");
        }
        assert!(read("[1,2,3,4,5,6,7,8,9,0]").is_ok());
        assert!(matches!(read(r#"[1,2,3,4,5,6,7,8,{"a":0,"b":0}]"#), Err(Fault::TooMany(10))));
    }

    #[test]
    fn what_is_not_json_after_all_is_refused() {
        for text in [r#"{"a": "\ud800"}"#, r#"["\ud800\u0061"]"#] {
            assert!(matches!(read(text), Err(Fault::NotJson(_))), "{text}");
        }
    }

    #[test]
    fn a_number_is_taken_where_a_double_brings_it_back() {
        for good in [
            "0",
            "-0",
            "0.0",
            "0e5",
            "1.0",
            "1e2",
            "1E+2",
            "100e-2",
            "0.1",
            "-2.50",
            "0.3333333333333333",
            "5e-324",
            "9007199254740991",
            "-9007199254740991",
            "1e29",
            "100000000000000000000000000000",
            "6.02214076e23",
            "1e308",
            "1.7976931348623157",
            "123456789012345000000",
        ] {
            assert!(is_exact(good), "{good}");
            let back = serde_json::from_str::<Value>(good).unwrap().to_string();
            assert!(Decimal::of(&back) == Decimal::of(good), "{good} comes back as {back}");
        }
        for changed in [
            "9007199254740992",
            "9007199254740993",
            "-9007199254740993",
            "18446744073709551615",
            "123456789012345678901234567890",
            "12345678901234567890.123456789",
            "0.1000000000000000055511151231257827",
            "3.141592653589793238462643383279",
            "1e-400",
            "-1e-400",
            "1e400",
            "-1e400",
            "4e-324",
            "1.7976931348623157e308",
            "1e99999999999999999999",
            "1e-99999999999999999999",
        ] {
            assert!(!is_exact(changed), "{changed}");
        }
    }
}
