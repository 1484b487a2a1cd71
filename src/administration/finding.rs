//! What a look at a deployment finds.

use serde::Serialize;
use std::fmt;

/// What is thought of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and something may come of it.
    Risky,
    /// It does not work, or data is not safe.
    Wrong,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "good",
            Self::Risky => "risky",
            Self::Wrong => "WRONG",
        })
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is thought of it.
    pub verdict: Verdict,
    /// What was looked at, in a word or two.
    pub about: &'static str,
    /// What was found.
    pub text: String,
    /// What to do; nothing where it is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    pub(super) fn good(about: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, about, text: text.into(), mend: None }
    }

    pub(super) fn risky(about: &'static str, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Risky, about, text: text.into(), mend: Some(mend.into()) }
    }

    pub(super) fn wrong(about: &'static str, text: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, about, text: text.into(), mend: Some(mend.into()) }
    }
}
