//! LOG_LEVEL: a level, or a list of directives with commas between them.

use std::fmt;
use std::str::FromStr;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// White space, as Rust has it.
macro_rules! space {
    () => {
        r"[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*"
    };
}

/// A level's name in any case of letters, or its number.
macro_rules! level {
    () => {
        concat!(
            "([eE][rR][rR][oO][rR]|[wW][aA][rR][nN]|[iI][nN][fF][oO]|[dD][eE][bB][uU][gG]|[tT][rR][aA][cC][eE]|[oO][fF][fF]",
            r"|\+?0*[0-5])"
        )
    };
}

/// The rest of a target, without the `[{` that begins the names of fields.
macro_rules! rest {
    () => {
        r"([^\[,=]|\[+[^\[\{,=])*\[*"
    };
}

/// A target. What goes before it is not white space, which would be left out.
macro_rules! target {
    () => {
        concat!(
            r"(([^\[,=\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]|\[+[^\[\{,=])",
            rest!(),
            r"(\[\{",
            rest!(),
            r"\}\])?|\[+|\[+\{",
            rest!(),
            r"\}\])"
        )
    };
}

macro_rules! directive {
    () => {
        concat!(space!(), "(", target!(), "=)?", level!(), space!())
    };
}

/// What [`LogLevel::from_str`] takes, as a regular expression of ECMA-262.
pub(super) const PATTERN: &str = concat!(directive!(), "(,", directive!(), ")*");

/// The levels of all targets.
#[derive(Debug, Clone)]
pub(super) struct LogLevel(Targets);

impl Default for LogLevel {
    /// The migration library logs each step at `info`; the runner logs a summary.
    fn default() -> Self {
        Self(Targets::new().with_default(Level::INFO).with_target("sea_orm_migration", Level::WARN))
    }
}

impl From<LogLevel> for Targets {
    fn from(level: LogLevel) -> Self {
        level.0
    }
}

impl FromStr for LogLevel {
    type Err = String;

    /// Stricter than [`Targets`], which takes any other word as a target whose lines are all logged, and then logs no other
    /// target (tokio-rs/tracing, tracing-subscriber/src/filter/directive.rs, `StaticDirective::from_str`): a misspelt level
    /// would turn the log off. For this reason a target without a level is an error.
    fn from_str(text: &str) -> Result<Self, String> {
        let directives: Vec<&str> = text.split(',').map(str::trim).collect();
        for directive in &directives {
            let (target, level) = directive.split_once('=').unwrap_or(("all", directive));
            // The parser takes an empty text as the level `error`.
            let is_level = |text: &str| !text.is_empty() && text.parse::<LevelFilter>().is_ok();
            if target.is_empty() || !is_level(level) {
                return Err(error_text(directive));
            }
        }
        directives.join(",").parse().map(Self).map_err(|_| error_text(text))
    }
}

fn error_text(directive: &str) -> String {
    format!(
        "{directive:?} is neither a level (error, warn, info, debug, trace, off) nor a target with its level, as the second \
         in info,sqlx=debug"
    )
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use regex::bytes::Regex;
    use std::sync::LazyLock;

    static TAKEN: LazyLock<Regex> = LazyLock::new(|| Regex::new(&format!("^({PATTERN})$")).unwrap());

    /// Whether the program takes the text, and whether the expression does.
    fn both(text: &str) -> (bool, bool) {
        (text.parse::<LogLevel>().is_ok(), TAKEN.is_match(text.as_bytes()))
    }

    #[test]
    fn pattern_has_both_kinds_of_texts() {
        for (texts, taken) in [
            (
                &[
                    "info",
                    "TrAcE",
                    " warn ,sqlx=off",
                    "0",
                    "+005",
                    "a b =info",
                    "x[{y}]=1",
                    "[{}]=warn",
                    "[=off",
                    "[[{x}]=3",
                ][..],
                true,
            ),
            (
                &[
                    "inof",
                    "info,",
                    ",info",
                    "sqlx",
                    "a=b=info",
                    "=info",
                    " =info",
                    "sqlx= info",
                    "6",
                    "-1",
                    "x[{y=info",
                    "[{a[{b}]=1",
                ],
                false,
            ),
        ] {
            for text in texts {
                assert_eq!(both(text), (taken, taken), "{text:?}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pattern_matches_what_is_taken(
            texts in proptest::collection::vec("[ \t\u{a0}\u{3000}]?([a\\[\\]{} ]{0,6}|x::y|\\[\\{a\\}\\])=?(=?(info|OFF|dEbug|[0-9+]{1,3}|x)?)[ \u{85}]?", 1..4),
        ) {
            let text = texts.join(",");
            let (taken, matches) = both(&text);
            prop_assert_eq!(taken, matches, "{:?}", text);
        }
    }
}
