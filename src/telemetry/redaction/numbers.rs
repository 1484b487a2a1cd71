//! Social security numbers and phone numbers.

use super::{Match, compile};
use regex::bytes::Regex;
use std::ops::Range;
use std::sync::LazyLock;

/// Numbers that are not personal: UUIDs, times (RFC 3339), IPv4 addresses, names of migrations.
static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?i-u)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|m[0-9]{8}_[0-9]{6}_[a-z0-9_]+|[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?|(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
    )
});

/// Finds social security numbers and phone numbers: ten digits or more, in any grouping.
pub(super) fn find(line: &[u8], matches: &mut Vec<Match>) {
    // The harmless numbers can only shorten this list, and for most lines it is empty already.
    if !scan(line, std::iter::empty()).any(|number| number.is_personal(line)) {
        return;
    }
    let alone = |range: &Range<usize>| {
        let apart = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let before = range.start.checked_sub(1).and_then(|before| line.get(before));
        apart(before) && apart(line.get(range.end))
    };
    let harmless = HARMLESS.find_iter(line).map(|harmless| harmless.range()).filter(alone);
    let personal = scan(line, harmless).filter(|number| number.is_personal(line));
    matches.extend(personal.map(|number| Match::new(number.range)));
}

/// The numbers of a line, without those in `harmless`.
fn scan(line: &[u8], harmless: impl Iterator<Item = Range<usize>>) -> impl Iterator<Item = Number> {
    let mut harmless = harmless.peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += line[at..].iter().position(u8::is_ascii_digit)?;
            while harmless.next_if(|range| range.end <= at).is_some() {}
            let limit = match harmless.peek() {
                Some(range) if range.start <= at => {
                    at = range.end;
                    continue;
                }
                Some(range) => range.start,
                None => line.len(),
            };
            let number = Number::at(&line[..limit], at);
            at = number.range.end;
            return Some(number);
        }
    })
}

/// Digits, with only such characters between them as people write between digits.
struct Number {
    range: Range<usize>,
    digits: usize,
    /// The lengths of the first groups, and how many groups there are.
    groups: [usize; 3],
    count: usize,
    /// The character after the first group.
    separator: Option<u8>,
}

impl Number {
    fn at(line: &[u8], start: usize) -> Self {
        let mut number = Self { range: start..start, digits: 0, groups: [0; 3], count: 0, separator: None };
        let mut at = start;
        loop {
            let group = line[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            at += group;
            number.range.end = at;
            number.digits += group;
            if let Some(slot) = number.groups.get_mut(number.count) {
                *slot = group;
            }
            number.count += 1;
            let between = |byte: &&u8| b" .-()/+_~\x01".contains(byte);
            let gap = line[at..].iter().take(4).take_while(between).count();
            if !(1..=3).contains(&gap) || !line.get(at + gap).is_some_and(u8::is_ascii_digit) {
                return number;
            }
            number.separator = number.separator.or(Some(line[at]));
            at += gap;
        }
    }

    fn is_personal(&self, line: &[u8]) -> bool {
        if self.count == 3 && self.groups == [3, 2, 4] {
            return true;
        }
        self.digits >= 10 && !self.is_decimal(line) && !self.is_json_number(line) && !self.is_part_of_hash(line)
    }

    /// Whether it is a fraction, such as a duration. 555.1234567 is a phone number unless a unit follows.
    fn is_decimal(&self, line: &[u8]) -> bool {
        let unit = line.get(self.range.end).is_some_and(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii());
        self.count == 2 && self.separator == Some(b'.') && (unit || self.groups[..2] != [3, 7])
    }

    /// Whether it is a number of the JSON line itself, and not part of a text.
    fn is_json_number(&self, line: &[u8]) -> bool {
        let before = line[..self.range.start].strip_suffix(b"-").unwrap_or(&line[..self.range.start]);
        let key = before.strip_suffix(b"\":").is_some_and(|key| !key.ends_with(b"\\"));
        line.starts_with(b"{") && key && matches!(line.get(self.range.end), Some(b',' | b'}' | b'e'))
    }

    /// Whether it is part of sixteen or more hexadecimal digits.
    fn is_part_of_hash(&self, line: &[u8]) -> bool {
        let hex = |byte: &&u8| byte.is_ascii_hexdigit();
        let before = line[..self.range.start].iter().rev().take(64).take_while(hex).count();
        let after = line[self.range.end..].iter().take(64).take_while(hex).count();
        self.count == 1 && before + after > 0 && before + self.digits + after >= 16
    }
}
