//! What may name a patient or open a door is taken out of every log line, on its way to the output.
//!
//! Lines are looked at as a whole, after formatting, so that no event, whoever emits it, gets by. Escapes are looked
//! through: percent-encoding up to three times over, JSON's, terminal colours, full-width forms. The work is linear in
//! the line's length. What it takes out is replaced by `[redacted]`; a JSON line stays JSON, and one line.

use regex::bytes::Regex;
use std::borrow::Cow;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::LazyLock;

const REDACTED: &str = "[redacted]";

/// How often percent-encoding is undone.
const LAYERS: usize = 3;

/// Stands for an encoded delimiter: separates digits, does not end a value.
const ENCODED: u8 = 1;
/// Stands for an escaped line end or other control character: ends a value.
const CONTROL: u8 = 2;

/// A writer of whole lines that redacts each.
pub(super) struct Redacting<W>(pub(super) W);

impl<W: Write> Write for Redacting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.0.write_all(redact(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The line without what must not be logged, and without line ends but the last.
#[must_use]
pub fn redact(line: &str) -> Cow<'_, str> {
    let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
    let mut found = {
        let view = View::of(body);
        let mut found = Vec::new();
        named_values(&view.bytes, &mut found);
        credentials(&view.bytes, &mut found);
        addresses(&view.bytes, &mut found);
        numbers(&view.bytes, &mut found);
        for cut in &mut found {
            cut.range = view.original(&cut.range);
        }
        found
    };
    let broken = body.contains(['\n', '\r']);
    if found.is_empty() && !broken {
        return Cow::Borrowed(line);
    }
    found.sort_unstable_by_key(|cut| (cut.range.start, cut.range.end));
    let mut clean = String::with_capacity(line.len());
    let mut done = 0;
    for cut in &found {
        if cut.range.start >= done {
            clean.push_str(&body[done..cut.range.start]);
            let quote = if cut.bare { "\"" } else { "" };
            clean.extend([quote, REDACTED, quote]);
        }
        done = done.max(cut.range.end);
    }
    clean.push_str(&body[done..]);
    if broken {
        clean = clean.replace('\n', "\\n").replace('\r', "\\r");
    }
    clean.push_str(end);
    Cow::Owned(clean)
}

/// Something to take out.
struct Cut {
    range: Range<usize>,
    /// A JSON value without quotes, which its replacement needs.
    bare: bool,
}

impl Cut {
    fn new(range: Range<usize>) -> Self {
        Self { range, bare: false }
    }
}

/// A line as it reads with its escapes undone, and where each byte comes from.
struct View<'a> {
    bytes: Cow<'a, [u8]>,
    /// For each byte the range it comes from; empty where every byte is its own.
    spans: Vec<Range<usize>>,
}

impl<'a> View<'a> {
    fn of(line: &'a str) -> Self {
        let plain = |byte: u8| byte.is_ascii() && !matches!(byte, b'%' | b'\\' | 0x1b);
        if line.bytes().all(plain) {
            return Self { bytes: Cow::Borrowed(line.as_bytes()), spans: Vec::new() };
        }
        let spans = line.char_indices().flat_map(|(at, c)| std::iter::repeat_n(at..at + c.len_utf8(), c.len_utf8()));
        let mut view = Self { bytes: Cow::Borrowed(line.as_bytes()), spans: spans.collect() };
        view.fold();
        for _ in 0..LAYERS {
            if !view.decode() {
                break;
            }
        }
        if !view.bytes.is_ascii() {
            view.fold();
        }
        view
    }

    fn original(&self, range: &Range<usize>) -> Range<usize> {
        match (self.spans.get(range.start), self.spans.get(range.end - 1)) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => range.clone(),
        }
    }

    /// Replaces the view by what `step` makes of the bytes from each position: what to put, and how many it takes.
    fn rewrite(&mut self, step: impl Fn(&[u8]) -> (Option<u8>, usize)) -> bool {
        let (mut bytes, mut spans) = (Vec::with_capacity(self.bytes.len()), Vec::with_capacity(self.bytes.len()));
        let (mut at, mut changed) = (0, false);
        while at < self.bytes.len() {
            let (put, taken) = step(&self.bytes[at..]);
            changed |= taken > 1 || put != Some(self.bytes[at]);
            if let Some(byte) = put {
                bytes.push(byte);
                spans.push(self.spans[at].start..self.spans[at + taken - 1].end);
            }
            at += taken;
        }
        (self.bytes, self.spans) = (Cow::Owned(bytes), spans);
        changed
    }

    /// Undoes one layer of percent-encoding.
    fn decode(&mut self) -> bool {
        self.rewrite(|rest| match rest {
            [b'%', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (Some(delimiter(high << 4 | low)), 3),
                _ => (Some(b'%'), 1),
            },
            _ => (Some(rest[0]), 1),
        })
    }

    /// Undoes JSON's escapes but quotes, takes out colours, gives look-alikes of ASCII their ASCII form.
    fn fold(&mut self) {
        self.rewrite(|rest| match rest {
            [b'\\', b'n' | b'r' | b't' | b'b' | b'f', ..] => (Some(CONTROL), 2),
            [b'\\', ..] => unicode_escape(rest).unwrap_or((Some(b'\\'), 1)),
            [0x1b, b'[', parameters @ ..] => {
                let length = parameters.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
                (None, (2 + length + 1).min(rest.len()))
            }
            [first, ..] if !first.is_ascii() => {
                let (c, length) = first_char(rest);
                match c.map_or(Seen::ForItself, seen) {
                    Seen::As(byte) => (Some(byte), length),
                    Seen::NotAtAll => (None, length),
                    Seen::ForItself => (Some(*first), 1),
                }
            }
            _ => (Some(rest[0]), 1),
        });
    }
}

/// `\uXXXX`, which is escaped in turn where JSON holds JSON: what it stands for, and how long it is.
fn unicode_escape(bytes: &[u8]) -> Option<(Option<u8>, usize)> {
    let slashes = bytes.iter().take(8).take_while(|byte| **byte == b'\\').count();
    let digits = bytes[slashes..].strip_prefix(b"u")?.first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | u32::from(hex(*digit)?)))?;
    let byte = match char::from_u32(unit).map_or(Seen::ForItself, seen) {
        Seen::As(byte) => Some(byte),
        Seen::NotAtAll => None,
        Seen::ForItself => Some(0x80),
    };
    Some((byte, slashes + 5))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| digit.try_into().ok())
}

/// What was encoded does not delimit: it is part of the value it stands in.
fn delimiter(byte: u8) -> u8 {
    match byte {
        b'&' | b';' | b'"' | b'\'' | b'\\' | b'<' | b'>' | 0x7f | 0..=b' ' => ENCODED,
        byte => byte,
    }
}

fn first_char(bytes: &[u8]) -> (Option<char>, usize) {
    let valid = |length: &usize| bytes.get(..*length).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let text = (2..=4).find_map(|length| valid(&length));
    (text.and_then(|text| text.chars().next()), text.map_or(1, str::len))
}

/// How a character is looked at.
enum Seen {
    As(u8),
    NotAtAll,
    ForItself,
}

fn seen(c: char) -> Seen {
    let code = u32::from(c);
    let offset = |from: u32, to: u8| u8::try_from(code - from).map_or(Seen::ForItself, |offset| Seen::As(to + offset));
    match code {
        0..=0x1f => Seen::As(CONTROL),
        0x20..=0x7e => u8::try_from(code).map_or(Seen::ForItself, |byte| Seen::As(delimiter(byte))),
        // A soft hyphen, marks of no width.
        0xad | 0x200b..=0x200f | 0x2060 | 0xfeff => Seen::NotAtAll,
        0xa0 | 0x2000..=0x200a | 0x202f | 0x3000 => Seen::As(ENCODED),
        0x2010..=0x2015 | 0x2212 => Seen::As(b'-'),
        // Full-width forms; Arabic, Persian, Devanagari digits.
        0xff01..=0xff5e => offset(0xff01, b'!'),
        0x660..=0x669 => offset(0x660, b'0'),
        0x6f0..=0x6f9 => offset(0x6f0, b'0'),
        0x966..=0x96f => offset(0x966, b'0'),
        _ => Seen::ForItself,
    }
}

/// Names whose values are personal or secret wherever they stand.
const NAMES: &str = "patient[_-]?id|ssn|mrn|medical[_-]?record[_-]?number|date[_-]?of[_-]?birth|dob|phone(?:[_-]?number)?|\
     e-?mail(?:[_-]?address)?|(?:access|id|refresh)[_-]?token|token|client[_-]?secret|password|authorization|set-cookie|cookie";

/// Names whose values are so in a query; in JSON, log lines use them for harmless things.
const QUERY_NAMES: &str = "address|code|state";

/// A name and what stands between it and its value. The name may stand in brackets of an outer one, and have more of them
/// behind it: `filter[ssn][eq]=`.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    let text = format!(
        r#"(?i-u)(?:(?:^|[^A-Z0-9])(?<name>{NAMES})|(?:^|[^A-Z0-9_])(?<query>{QUERY_NAMES}))(?:(?:\\{{0,4}}["'\x01]?\])?(?:\[[^\]=&]{{0,20}}\]){{0,4}}=|(?<colon>\\{{0,4}}["']?\s{{0,4}}:\s{{0,4}}))"#
    );
    compile(&text)
});

/// Not constants of the program alone, but tests hold each of them to this.
fn compile(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of this module")
}

/// How those names end: nearly every line is done with after a look at what stands before its `=` and `:`.
const ENDINGS: [&[u8]; 16] = [
    b"ent_id", b"ent-id", b"entid", b"ssn", b"mrn", b"number", b"birth", b"dob", b"phone", b"mail", b"address",
    b"token", b"secret", b"word", b"ization", b"cookie",
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

fn named_values(line: &[u8], found: &mut Vec<Cut>) {
    if !may_name_values(line) {
        return;
    }
    let mut at = 0;
    let mut groups = NAMED.capture_locations();
    while let Some(whole) = NAMED.captures_read_at(&mut groups, line, at) {
        let group = |index: usize| groups.get(index).map(|(start, end)| &line[start..end]);
        let (name, query, colon) = (group(1), group(2), group(3));
        at = whole.end();
        let value = value(line, at, colon.is_some(), name.is_some_and(is_header));
        let text = &line[value.clone()];
        let kept = match (query, colon) {
            (Some(_), Some(_)) => true,
            (Some(query), None) => is_harmless(query, text),
            (None, _) => text.starts_with(b":") || matches!(text, b"true" | b"false" | b"null" | b"***"),
        };
        if text.is_empty() || kept {
            continue;
        }
        let quoted_name = colon.is_some_and(|colon| colon.starts_with(b"\""));
        at = value.end;
        found.push(Cut { bare: quoted_name && value.start == whole.end(), range: value });
    }
}

fn is_header(name: &[u8]) -> bool {
    [&b"authorization"[..], b"cookie", b"set-cookie"].iter().any(|header| name.eq_ignore_ascii_case(header))
}

/// The address of a machine, and a code of the error registry.
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

/// Where the value from `at` on begins and ends.
fn value(line: &[u8], at: usize, json: bool, header: bool) -> Range<usize> {
    let rest = &line[at..];
    let escapes = rest.iter().take_while(|byte| **byte == b'\\').count();
    if let Some(quote @ (b'"' | b'\'')) = rest.get(escapes).copied() {
        let start = at + escapes + 1;
        let ends = |byte: &u8| *byte == quote || matches!(*byte, b'\\' | CONTROL);
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

static BEARER: LazyLock<Regex> = LazyLock::new(|| compile(r#"(?i-u)bearer[\s\x01+]{1,8}([^\s"\\&;,\x02]+)"#));
/// A JSON object in base64url, as the parts of a JWT begin (RFC 7519).
static JWT: LazyLock<Regex> = LazyLock::new(|| compile(r"(?-u)eyJ[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)*"));

fn credentials(line: &[u8], found: &mut Vec<Cut>) {
    found.extend(BEARER.captures_iter(line).filter_map(|groups| Some(Cut::new(groups.get(1)?.range()))));
    found.extend(JWT.find_iter(line).map(|jwt| Cut::new(jwt.range())));
}

/// E-mail addresses, and the user and password of a URL.
fn addresses(line: &[u8], found: &mut Vec<Cut>) {
    let local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-'~!#$*".contains(byte) || !byte.is_ascii();
    let domain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte) || !byte.is_ascii();
    let user = |byte: &u8| !(byte.is_ascii_whitespace() || b"/?#\"\\<>".contains(byte) || *byte == CONTROL);
    let (mut from, mut of_url) = (0, false);
    for at in line.iter().enumerate().filter(|(_, byte)| **byte == b'@').map(|(at, _)| at) {
        let before = &line[from..at];
        let length = before.iter().rev().take_while(|byte| user(byte)).count();
        // A password may have an @ of its own.
        of_url =
            if length == before.len() && from > 0 { of_url } else { before[..before.len() - length].ends_with(b"://") };
        if of_url {
            if length > 0 && &before[before.len() - length..] != b"***" {
                found.push(Cut::new(at - length..at));
            }
        } else {
            let name = before.iter().rev().take_while(|byte| local(byte)).count();
            let host = line[at + 1..].iter().take_while(|byte| domain(byte)).count();
            let host = line[at + 1..at + 1 + host].trim_ascii_end();
            let host = host.iter().rposition(|byte| *byte != b'.').map_or(&host[..0], |last| &host[..=last]);
            if name > 0 && host.contains(&b'.') {
                found.push(Cut::new(at - name..at + 1 + host.len()));
            }
        }
        from = at + 1;
    }
}

/// Numbers that are no personal ones: UUIDs, times (RFC 3339), IPv4 addresses, names of migrations.
static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
    compile(
        r"(?i-u)[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|m[0-9]{8}_[0-9]{6}_[a-z0-9_]+|[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?|(?:(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])\.){3}(?:25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])",
    )
});

/// Social security numbers, and phone numbers: ten digits or more, however they are grouped.
fn numbers(line: &[u8], found: &mut Vec<Cut>) {
    // What is harmless only takes digits away: most lines have none to look twice at.
    if !scan(line, std::iter::empty()).any(|number| number.is_personal(line)) {
        return;
    }
    let alone = |range: &Range<usize>| {
        let apart = |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let before = range.start.checked_sub(1).and_then(|before| line.get(before));
        apart(before) && apart(line.get(range.end))
    };
    let harmless = HARMLESS.find_iter(line).map(|found| found.range()).filter(alone);
    let personal = scan(line, harmless).filter(|number| number.is_personal(line));
    found.extend(personal.map(|number| Cut::new(number.range)));
}

/// The numbers of a line, those in `harmless` left out.
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

/// Digits with nothing between them but what people write between digits.
struct Number {
    range: Range<usize>,
    digits: usize,
    /// The lengths of the first groups, and how many groups there are.
    groups: [usize; 3],
    count: usize,
    /// What stands between the first two groups.
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
        self.digits >= 10 && !self.is_decimal(line) && !self.is_of_json(line) && !self.is_of_hash(line)
    }

    /// A fraction, such as a duration; 555.1234567 is a phone number unless a unit follows.
    fn is_decimal(&self, line: &[u8]) -> bool {
        let unit = line.get(self.range.end).is_some_and(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii());
        self.count == 2 && self.separator == Some(b'.') && (unit || self.groups[..2] != [3, 7])
    }

    /// A number of a JSON line itself, which the program has put there as a number.
    fn is_of_json(&self, line: &[u8]) -> bool {
        let before = line[..self.range.start].strip_suffix(b"-").unwrap_or(&line[..self.range.start]);
        let key = before.strip_suffix(b"\":").is_some_and(|key| !key.ends_with(b"\\"));
        line.starts_with(b"{") && key && matches!(line.get(self.range.end), Some(b',' | b'}' | b'e'))
    }

    /// Digits in the middle of sixteen or more hexadecimal ones.
    fn is_of_hash(&self, line: &[u8]) -> bool {
        let hex = |byte: &&u8| byte.is_ascii_hexdigit();
        let before = line[..self.range.start].iter().rev().take(64).take_while(hex).count();
        let after = line[self.range.end..].iter().take(64).take_while(hex).count();
        self.count == 1 && before + after > 0 && before + self.digits + after >= 16
    }
}

#[cfg(test)]
mod tests;
