//! Browser origins (RFC 6454) that may call the API, and to which a logout may return.

use super::choices::Environment;
use std::fmt;
use std::str::FromStr;
use url::Url;

/// A scheme, a host and a port. Origins are equal if all three are.
///
/// Stored as browsers write it in the `Origin` header, so that texts can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The origin of an http or https URL. `None` unless the URL starts with it byte for byte, which rejects user names,
    /// backslashes and line breaks: two parsers could read such a URL differently.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let origin = url.origin().ascii_serialization();
        let rest = text.strip_prefix(&origin)?;
        (rest.is_empty() || rest.starts_with(['/', '?', '#'])).then_some(Self(origin))
    }

    /// The form of the `Origin` header: `https://app.example.org`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_secure(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('*') {
            return Err("`*` is not allowed, since responses carry credentials: list each origin".to_owned());
        }
        let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or("must be origins such as https://app.example.org, with commas between them")?;
        let origin = url.origin().ascii_serialization();
        // The error does not repeat the text: it may contain a password.
        if origin == text {
            Ok(Self(origin))
        } else {
            Err(format!("an origin is only scheme, host and port: write {origin}"))
        }
    }
}

/// The form of such a list, for the settings' JSON Schema.
pub(super) const LIST: &str = r"\s*https?://[^\s,/?#@*]+\s*(,\s*https?://[^\s,/?#@*]+\s*)*";

/// A list of origins, with commas between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origins(pub(super) Vec<Origin>);

impl Origins {
    /// In development, the usual addresses of front ends on the same machine; otherwise none.
    pub(super) fn by_default(environment: Environment) -> Self {
        const LOCAL: [&str; 4] =
            ["http://localhost:3000", "http://localhost:5173", "http://127.0.0.1:3000", "http://127.0.0.1:5173"];
        let local = LOCAL.iter().filter(|_| environment == Environment::Development);
        Self(local.map(|origin| Origin((*origin).to_owned())).collect())
    }

    /// The first origin without https, which anyone on the network path could impersonate.
    pub(super) fn insecure(&self) -> Option<&Origin> {
        self.0.iter().find(|origin| !origin.is_secure())
    }
}

impl FromStr for Origins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(|origin| origin.trim().parse()).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<&str> = self.0.iter().map(Origin::as_str).collect();
        f.write_str(if all.is_empty() { "(none)" } else { "" })?;
        f.write_str(&all.join(","))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_origin_must_have_the_form_of_browsers() {
        for good in
            ["https://app.example.org", "http://localhost:3000", "https://app.example.org:8443", "http://[::1]:1"]
        {
            assert_eq!(good.parse::<Origin>().unwrap().to_string(), good);
        }
        let refused = [
            ("https://app.example.org/", "write https://app.example.org"),
            ("https://app.example.org/login", "write https://app.example.org"),
            ("https://app.example.org?x", "write https://app.example.org"),
            ("https://APP.example.org", "write https://app.example.org"),
            ("https://app.example.org:443", "write https://app.example.org"),
            ("https://me:hunter2@app.example.org", "write https://app.example.org"),
            ("*", "list each origin"),
            ("https://*.example.org", "list each origin"),
            ("null", "must be origins"),
            ("app.example.org", "must be origins"),
            ("ftp://app.example.org", "must be origins"),
            ("", "must be origins"),
        ];
        for (text, said) in refused {
            let error = text.parse::<Origin>().unwrap_err();
            assert!(error.contains(said) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn an_origin_is_compared_as_a_whole() {
        let allowed = "https://app.example.com".parse::<Origin>().unwrap();
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
}
