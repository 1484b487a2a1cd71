//! The form of a setting's text, as JSON Schema says it.

use clap::ValueEnum;
use serde_json::{Value, json};

/// What the program takes as a setting's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    /// One of these.
    Words(Vec<String>),
    Flag,
    /// A whole number from one bound to the other.
    Number(u64, u64),
    /// An IPv4 or IPv6 address.
    Address,
    /// A text that matches this regular expression (of ECMA-262, without look-around: readers of other languages know it, too).
    Like(&'static str),
    /// As `Like`, where there is a rule, and never printed.
    Secret(Option<&'static str>),
}

impl Form {
    pub(super) fn words<T: ValueEnum>() -> Self {
        let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        Self::Words(names.flat_map(|name| name.get_name_and_aliases().map(str::to_owned).collect::<Vec<_>>()).collect())
    }

    pub(super) fn number(min: u32, max: u32) -> Self {
        Self::Number(min.into(), max.into())
    }

    /// The keywords of JSON Schema. An empty text is one of every form, since it counts as not set. Flags and numbers may also
    /// be those of YAML or JSON, which Docker Compose, for one, takes for a variable's value.
    pub(super) fn schema(&self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::Words(words) => {
                let words = words.iter().map(String::as_str);
                json!({"type": "string", "enum": words.chain([""]).collect::<Vec<_>>()})
            }
            Self::Flag => json!({"type": ["string", "boolean"], "enum": [true, false, "true", "false", ""]}),
            Self::Number(min, max) => {
                let mut schema = json!({
                    "type": ["string", "integer"],
                    "minimum": min,
                    "maximum": max,
                    "pattern": format!("^(\\+?0*({}))?$", up_to(*max)),
                });
                if *min > 0 {
                    let less: Vec<String> = (0..*min).map(|number| number.to_string()).collect();
                    schema["not"] = json!({"type": "string", "pattern": format!("^\\+?0*({})$", less.join("|"))});
                }
                schema
            }
            Self::Address => {
                json!({"type": "string", "anyOf": [{"format": "ipv6"}, {"format": "ipv4"}, {"const": ""}]})
            }
            Self::Like(pattern) => json!({"type": "string", "pattern": format!("^({pattern})?$")}),
            Self::Secret(pattern) => {
                let mut schema = pattern.map_or(Self::Text, Self::Like).schema();
                schema["writeOnly"] = true.into();
                schema
            }
        }
    }
}

/// A regular expression of the numbers from 0 to `max`, without zeros before them.
fn up_to(max: u64) -> String {
    let digits = max.to_string();
    let last = digits.len() - 1;
    let mut ways = vec![digits.clone()];
    if last > 0 {
        ways.push(format!("[0-9]{{1,{last}}}"));
    }
    for (place, digit) in digits.char_indices().filter(|(_, digit)| *digit > '0') {
        let below = char::from(u8::try_from(digit).unwrap_or(b'1') - 1);
        ways.push(format!("{}[0-{below}][0-9]{{{}}}", &digits[..place], last - place));
    }
    ways.join("|")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_up_to_a_bound_are_those_alone() {
        for max in [0, 7, 10, 99, 100, 10_080, 65_535, 86_400] {
            let expression = regex::bytes::Regex::new(&format!("^({})$", up_to(max))).unwrap();
            for number in (0..=max + 11).chain([10 * max + 10, 100 * max + 100]) {
                assert_eq!(expression.is_match(number.to_string().as_bytes()), number <= max, "{number} of {max}");
            }
        }
    }
}
