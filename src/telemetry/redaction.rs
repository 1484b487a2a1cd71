//! Removes personal data and secrets from every log line, on its way to the output.
//!
//! A line is searched as a whole, after formatting, so that it does not matter which event wrote it. The search undoes
//! escapes first: percent-encoding up to three times over, JSON's, terminal colours, full-width forms. Its time is linear
//! in the line's length. A match is replaced by `[redacted]`; a JSON line stays JSON, and one line.

mod credentials;
mod names;
mod normalize;
mod numbers;
#[cfg(test)]
mod tests;

use normalize::NormalizedLine;
use regex::bytes::Regex;
use std::borrow::Cow;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

const REDACTED: &str = "[redacted]";

/// How many lines of the log were not written as they were: of the process, as its log is.
static REDACTED_LINES: AtomicU64 = AtomicU64::new(0);

/// How many lines of this process' log had something removed.
pub(crate) fn redacted_lines() -> u64 {
    REDACTED_LINES.load(Ordering::Relaxed)
}

/// A writer of whole lines that redacts each.
pub(super) struct RedactingWriter<W>(pub(super) W);

impl<W: Write> Write for RedactingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let redacted = redact(&text);
        if matches!(redacted, Cow::Owned(_)) {
            REDACTED_LINES.fetch_add(1, Ordering::Relaxed);
        }
        self.0.write_all(redacted.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Something to remove.
struct Match {
    range: Range<usize>,
    /// Whether it is a JSON value without quotes: its replacement then needs them.
    needs_quotes: bool,
}

impl Match {
    fn new(range: Range<usize>) -> Self {
        Self { range, needs_quotes: false }
    }
}

/// The line without personal data and secrets. Line ends within it are escaped; one at its end stays.
#[must_use]
pub fn redact(line: &str) -> Cow<'_, str> {
    let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
    let mut matches = {
        let normalized = NormalizedLine::new(body);
        let mut matches = Vec::new();
        names::find(&normalized.bytes, &mut matches);
        credentials::find(&normalized.bytes, &mut matches);
        numbers::find(&normalized.bytes, &mut matches);
        for found in &mut matches {
            found.range = normalized.original(&found.range);
        }
        matches
    };
    let has_line_ends = body.contains(['\n', '\r']);
    if matches.is_empty() && !has_line_ends {
        return Cow::Borrowed(line);
    }
    matches.sort_unstable_by_key(|found| (found.range.start, found.range.end));
    let mut clean = String::with_capacity(line.len());
    let mut done = 0;
    for found in &matches {
        if found.range.start >= done {
            clean.push_str(&body[done..found.range.start]);
            let quote = if found.needs_quotes { "\"" } else { "" };
            clean.extend([quote, REDACTED, quote]);
        }
        done = done.max(found.range.end);
    }
    clean.push_str(&body[done..]);
    if has_line_ends {
        clean = clean.replace('\n', "\\n").replace('\r', "\\r");
    }
    clean.push_str(end);
    Cow::Owned(clean)
}

/// Panics on an invalid pattern; the tests use each.
fn compile(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a valid pattern")
}
