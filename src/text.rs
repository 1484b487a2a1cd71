//! One line of text, such as a name.

use std::fmt;
use std::str::FromStr;

/// `1 entry`, `2 entries`.
pub(crate) fn counted<N: Copy + fmt::Display + PartialEq + From<u8>>(count: N, one: &str, more: &str) -> String {
    let noun = if count == N::from(1) { one } else { more };
    format!("{count} {noun}")
}

/// Non-empty text without surrounding spaces or control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NonBlank(pub(crate) String);

impl NonBlank {
    /// Whether `text` is such a text.
    pub(crate) fn accepts(text: &str) -> bool {
        !text.is_empty() && text.trim() == text && !text.chars().any(char::is_control)
    }
}

impl FromStr for NonBlank {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if Self::accepts(text) { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for NonBlank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
