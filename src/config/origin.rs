//! Web origins (RFC 6454), as browsers send them and as settings list them.

use super::{Environment, Reader};
use std::fmt;
use url::Url;

/// Where a developer's front end usually is.
const OF_DEVELOPMENT: &str = "http://localhost:3000,http://localhost:5173,http://127.0.0.1:3000,http://127.0.0.1:5173";

/// Scheme, host and port of a page: `https://app.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The origin of an address of http or https that begins with it, letter by letter: what two readers could take
    /// for two different addresses (with a user in it, a backslash, a line break) has none.
    #[must_use]
    pub fn of(address: &str) -> Option<Self> {
        let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let origin = url.origin().ascii_serialization();
        let rest = address.strip_prefix(&origin)?;
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(Self(origin))
    }

    /// As the `Origin` header spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Reader<'_> {
    pub(super) fn origins(&mut self, environment: Environment) -> Vec<Origin> {
        const NAME: &str = "ALLOWED_ORIGINS";
        let (text, source) = match self.text(NAME) {
            Some(text) => (text, "environment"),
            None if environment == Environment::Development => (OF_DEVELOPMENT.to_owned(), "default"),
            None => (String::new(), "default"),
        };
        let mut origins = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            match origin(item, environment) {
                Ok(origin) => origins.push(origin),
                Err(mistake) => self.mistake(NAME, &mistake),
            }
        }
        let shown: Vec<&str> = origins.iter().map(Origin::as_str).collect();
        let shown = if shown.is_empty() { "(not set)".to_owned() } else { shown.join(",") };
        self.show(NAME, shown, source);
        origins
    }
}

fn origin(text: &str, environment: Environment) -> Result<Origin, String> {
    if text.contains('*') {
        return Err("must list each origin by itself: * would let any page act with its visitor's login".to_owned());
    }
    let url = Url::parse(text).ok();
    let (Some(url), Some(origin)) = (&url, Origin::of(text)) else {
        return Err("must be origins such as https://app.example.com, separated by commas".to_owned());
    };
    // Browsers never send more; an origin with a path would match nothing.
    if text != origin.as_str() {
        return Err(format!("must be {origin}, without what follows it"));
    }
    if environment == Environment::Production && url.scheme() != "https" {
        return Err(format!("must be https in production, not {origin}"));
    }
    Ok(origin)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let allowed = origin("https://app.example.com", Environment::Production).unwrap();
        for same in ["https://app.example.com", "https://app.example.com/a?b#c", "https://app.example.com?https://x"] {
            assert_eq!(Origin::of(same).as_ref(), Some(&allowed), "{same}");
        }
        let others = [
            "http://app.example.com/",
            "https://app.example.com:8443/",
            "https://app.example.com.evil.example/",
            "https://evil.example/https://app.example.com",
            "https://user@app.example.com/",
            "https://app.example.com@evil.example/",
            "https://app.example.com\\@evil.example/",
            "https://app.example.com\n.evil.example/",
            "https:app.example.com",
            "javascript:alert(1)",
            "data:text/html,https://app.example.com",
        ];
        for other in others {
            assert_ne!(Origin::of(other).as_ref(), Some(&allowed), "{other}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused_and_says_what_to_write() {
        let refused = |text: &str, environment| origin(text, environment).unwrap_err();
        assert!(refused("*", Environment::Development).contains("each origin by itself"));
        assert!(refused("https://*.example.com", Environment::Production).contains("each origin by itself"));
        assert!(
            refused("https://app.example.com/", Environment::Production).contains("must be https://app.example.com,")
        );
        assert!(
            refused("https://app.example.com/x", Environment::Production).contains("must be https://app.example.com,")
        );
        assert!(refused("http://app.example.com", Environment::Production).contains("must be https in production"));
        for text in ["app.example.com", "null", "file:///x", "https://me:hunter2@app.example.com"] {
            let mistake = refused(text, Environment::Development);
            assert!(mistake.contains("must be origins such as") && !mistake.contains("hunter2"), "{text}: {mistake}");
        }
        assert!(origin("http://localhost:3000", Environment::Development).is_ok());
    }
}
