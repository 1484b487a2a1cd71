//! Values of names such as `ssn` and `password`, in queries, forms, JSON and debug output.

use super::normalize::CONTROL;
use super::{Match, compile};
use regex::bytes::Regex;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::LazyLock;

/// Names whose values are personal or secret anywhere.
const NAMES: &str = "patient[_-]?id|ssn|mrn|medical[_-]?record[_-]?number|date[_-]?of[_-]?birth|birth[_-]?date|dob|phone(?:[_-]?number)?|\
     e-?mail(?:[_-]?address)?|(?:access|id|refresh)[_-]?token|token|(?:client[_-]?)?secret|api[_-]?key|session[_-]?id|code[_-]?verifier|\
     password|passwd|pwd|authorization|set-cookie|cookie";

/// Names whose values are personal or secret in a query. Log lines also use these names, for harmless JSON fields.
const QUERY_NAMES: &str = "address|code|state";

/// A name and the characters between it and its value. The name may be in brackets after an outer name, and have brackets
/// after it: `filter[ssn][eq]=`.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    let text = format!(
        r#"(?i-u)(?:(?:^|[^A-Z])(?<name>{NAMES})|(?:^|[^A-Z_])(?<query>{QUERY_NAMES}))(?:(?:\\{{0,4}}["'\x01]?\])?(?:\[[^\]=&]{{0,20}}\]){{0,4}}=|(?<colon>\\{{0,4}}["']?\s{{0,4}}:\s{{0,4}}))"#
    );
    compile(&text)
});

/// The last letters of those names. Comparing them with the text before each `=` and `:` is fast, and enough for nearly
/// every line.
const ENDINGS: [&[u8]; 25] = [
    b"ent_id",
    b"ent-id",
    b"entid",
    b"ion_id",
    b"ion-id",
    b"ionid",
    b"ssn",
    b"mrn",
    b"number",
    b"birth",
    b"birthdate",
    b"birth_date",
    b"birth-date",
    b"dob",
    b"phone",
    b"mail",
    b"address",
    b"token",
    b"secret",
    b"key",
    b"verifier",
    b"word",
    b"wd",
    b"ization",
    b"cookie",
];
const QUERY_ENDINGS: [&[u8]; 2] = [b"code", b"state"];

fn may_name_values(line: &[u8]) -> bool {
    let separators = line.iter().enumerate().filter(|(_, byte)| matches!(byte, b'=' | b':'));
    let mut names = separators.map(|(at, byte)| {
        let between = |byte: &&u8| matches!(byte, b'\\' | b'"' | b'\'') || byte.is_ascii_whitespace();
        let gap = line[..at].iter().rev().take(16).take_while(between).count();
        (&line[..at - gap], *byte)
    });
    names.any(|(name, separator)| {
        let ends = |ending: &&[u8]| {
            name.len() >= ending.len() && name[name.len() - ending.len()..].eq_ignore_ascii_case(ending)
        };
        name.ends_with(b"]") || ENDINGS.iter().any(ends) || separator == b'=' && QUERY_ENDINGS.iter().any(ends)
    })
}

/// Finds the values of personal and secret names.
pub(super) fn find(line: &[u8], matches: &mut Vec<Match>) {
    if !may_name_values(line) {
        return;
    }
    let mut at = 0;
    let mut groups = NAMED.capture_locations();
    while let Some(whole) = NAMED.captures_read_at(&mut groups, line, at) {
        let group = |index: usize| groups.get(index).map(|(start, end)| &line[start..end]);
        let (name, query, colon) = (group(1), group(2), group(3));
        at = whole.end();
        let quoted_name = colon.is_some_and(|colon| colon.starts_with(b"\""));
        let value = if is_json(line) && !quoted_name && text_ends(&line[at..]) {
            at..at
        } else {
            value_range(line, at, colon.is_some(), name.is_some_and(is_header))
        };
        let text = &line[value.clone()];
        let harmless = match (query, colon) {
            (Some(_), Some(_)) => true,
            (Some(query), None) => is_harmless(query, text),
            (None, _) => text.starts_with(b":") || matches!(text, b"true" | b"false" | b"null" | b"***"),
        };
        if text.is_empty() || harmless {
            continue;
        }
        let quoted_name = colon.is_some_and(|colon| colon.starts_with(b"\""));
        // The quote that ends a value may be the one that begins another one's.
        if value.start == whole.end() {
            at = value.end;
        }
        matches.push(Match { needs_quotes: quoted_name && value.start == whole.end(), range: value });
    }
}

fn is_header(name: &[u8]) -> bool {
    [&b"authorization"[..], b"cookie", b"set-cookie"].iter().any(|header| name.eq_ignore_ascii_case(header))
}

/// Whether the value is the address of a machine or a code of the error registry.
fn is_harmless(name: &[u8], value: &[u8]) -> bool {
    let text = std::str::from_utf8(value).unwrap_or_default();
    if name.eq_ignore_ascii_case(b"address") {
        return text.parse::<SocketAddr>().is_ok() || text.parse::<IpAddr>().is_ok();
    }
    let registered = |(group, number): (&str, &str)| {
        (3..=4).contains(&group.len())
            && group.bytes().all(|byte| byte.is_ascii_uppercase())
            && number.len() == 3
            && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    name.eq_ignore_ascii_case(b"code") && text.split_once('_').is_some_and(registered)
}

fn is_json(line: &[u8]) -> bool {
    line.starts_with(b"{\"")
}

/// Whether a text of a JSON line ends here, behind a name: its quote is not the first of a value.
fn text_ends(rest: &[u8]) -> bool {
    let escapes = rest.iter().take_while(|byte| **byte == b'\\').count();
    escapes % 2 == 0 && matches!(rest[escapes..], [b'"', b',' | b'}', ..])
}

/// The range of the value that begins at or after `at`.
fn value_range(line: &[u8], at: usize, json: bool, header: bool) -> Range<usize> {
    let rest = &line[at..];
    let escapes = rest.iter().take_while(|byte| **byte == b'\\').count();
    if let Some(quote @ (b'"' | b'\'')) = rest.get(escapes).copied() {
        let start = at + escapes + 1;
        // Whatever a text of a JSON line holds, an unescaped quote ends it.
        let ends = |byte: &u8| *byte == quote || matches!(*byte, b'\\' | CONTROL) || *byte == b'"' && is_json(line);
        return start..start + line[start..].iter().position(ends).unwrap_or(line.len() - start);
    }
    if json && matches!(rest.first(), Some(b'[' | b'{')) {
        return at..at;
    }
    let ends = |byte: &u8| match *byte {
        b'"' | b'\\' | CONTROL | b'\n' | b'\r' => true,
        _ if header => false,
        b'&' | b';' | b'<' | b'>' => true,
        b',' | b'}' | b']' => json,
        byte => byte.is_ascii_whitespace(),
    };
    at..at + rest.iter().position(ends).unwrap_or(rest.len())
}
