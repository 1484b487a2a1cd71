//! Lines with their escapes undone, so that a search finds encoded values too.

use std::borrow::Cow;
use std::ops::Range;

/// How often percent-encoding is undone.
const PERCENT_LAYERS: usize = 3;

/// Takes the place of an encoded delimiter: it separates digits, but does not end a value.
const ENCODED: u8 = 1;
/// Takes the place of an escaped line end or other control character: it ends a value.
pub(super) const CONTROL: u8 = 2;

/// A line with its escapes undone, and the origin of each byte.
pub(super) struct NormalizedLine<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// For each byte, its range in the original line; empty if both lines are equal.
    spans: Vec<Range<usize>>,
}

impl<'a> NormalizedLine<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        let plain = |byte: u8| byte.is_ascii() && !matches!(byte, b'%' | b'\\' | 0x1b);
        if line.bytes().all(plain) {
            return Self { bytes: Cow::Borrowed(line.as_bytes()), spans: Vec::new() };
        }
        let spans = line.char_indices().flat_map(|(at, c)| std::iter::repeat_n(at..at + c.len_utf8(), c.len_utf8()));
        let mut normalized = Self { bytes: Cow::Borrowed(line.as_bytes()), spans: spans.collect() };
        normalized.normalize();
        for _ in 0..PERCENT_LAYERS {
            if !normalized.decode_percent() {
                break;
            }
        }
        if !normalized.bytes.is_ascii() {
            normalized.normalize();
        }
        normalized
    }

    /// The range of the original line that these bytes come from.
    pub(super) fn original(&self, range: &Range<usize>) -> Range<usize> {
        match (self.spans.get(range.start), self.spans.get(range.end - 1)) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => range.clone(),
        }
    }

    /// Rewrites the line. For the bytes from each position, `step` returns the byte to write, if any, and how many bytes it
    /// replaces. Returns whether anything changed.
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
    fn decode_percent(&mut self) -> bool {
        self.rewrite(|rest| match rest {
            [b'%', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (Some(mask_delimiter(high << 4 | low)), 3),
                _ => (Some(b'%'), 1),
            },
            _ => (Some(rest[0]), 1),
        })
    }

    /// Undoes JSON's escapes except quotes, removes colours, and replaces characters that look like ASCII by ASCII.
    fn normalize(&mut self) {
        self.rewrite(|rest| match rest {
            [b'\\', b'n' | b'r' | b't' | b'b' | b'f', ..] => (Some(CONTROL), 2),
            [b'\\', ..] => unicode_escape(rest).unwrap_or((Some(b'\\'), 1)),
            [0x1b, b'[', parameters @ ..] => {
                let length = parameters.iter().take_while(|byte| byte.is_ascii_digit() || **byte == b';').count();
                // A sequence that is no colour would take along what stands before a name.
                if parameters.get(length) == Some(&b'm') { (None, length + 3) } else { (Some(CONTROL), 1) }
            }
            [first, ..] if !first.is_ascii() => {
                let (c, length) = first_char(rest);
                match c.map_or(CharClass::Other, classify) {
                    CharClass::Ascii(byte) => (Some(byte), length),
                    CharClass::Invisible => (None, length),
                    CharClass::Other => (Some(*first), 1),
                }
            }
            _ => (Some(rest[0]), 1),
        });
    }
}

/// Decodes `\uXXXX`, with more backslashes if JSON contains JSON. Returns its byte, if any, and its length.
fn unicode_escape(bytes: &[u8]) -> Option<(Option<u8>, usize)> {
    let slashes = bytes.iter().take(8).take_while(|byte| **byte == b'\\').count();
    let digits = bytes[slashes..].strip_prefix(b"u")?.first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | u32::from(hex(*digit)?)))?;
    let byte = match char::from_u32(unit).map_or(CharClass::Other, classify) {
        CharClass::Ascii(byte) => Some(byte),
        CharClass::Invisible => None,
        CharClass::Other => Some(0x80),
    };
    Some((byte, slashes + 5))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| digit.try_into().ok())
}

/// Percent-encoded delimiters belong to the value: they become [`ENCODED`].
fn mask_delimiter(byte: u8) -> u8 {
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

/// How a character is normalized.
enum CharClass {
    /// It counts as this byte.
    Ascii(u8),
    /// It is removed.
    Invisible,
    /// It stays as it is.
    Other,
}

fn classify(c: char) -> CharClass {
    let code = u32::from(c);
    let offset =
        |from: u32, to: u8| u8::try_from(code - from).map_or(CharClass::Other, |offset| CharClass::Ascii(to + offset));
    match code {
        0..=0x1f => CharClass::Ascii(CONTROL),
        0x20..=0x7e => u8::try_from(code).map_or(CharClass::Other, |byte| CharClass::Ascii(mask_delimiter(byte))),
        // Soft hyphen, zero-width characters.
        0xad | 0x200b..=0x200f | 0x2060 | 0xfeff => CharClass::Invisible,
        0xa0 | 0x2000..=0x200a | 0x202f | 0x3000 => CharClass::Ascii(ENCODED),
        0x2010..=0x2015 | 0x2212 => CharClass::Ascii(b'-'),
        // Full-width forms; Arabic, Persian, Devanagari digits.
        0xff01..=0xff5e => offset(0xff01, b'!'),
        0x660..=0x669 => offset(0x660, b'0'),
        0x6f0..=0x6f9 => offset(0x6f0, b'0'),
        0x966..=0x96f => offset(0x966, b'0'),
        _ => CharClass::Other,
    }
}
