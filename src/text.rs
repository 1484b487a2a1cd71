//! One line of text, such as a name.

use std::fmt;
use std::str::FromStr;

/// `1 entry`, `2 entries`.
pub(crate) fn counted<N: Copy + fmt::Display + PartialEq + From<u8>>(count: N, one: &str, more: &str) -> String {
    let noun = if count == N::from(1) { one } else { more };
    format!("{count} {noun}")
}

/// Whether a reader would not see this character, or would see others in another order because of it:
/// controls, zero-width characters, and those that change the direction of writing (Unicode Standard Annex 9).
pub(crate) fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
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
