//! Who vouches for callers: an identity provider, or in development an issuer of our own.

use super::{Environment, Reader};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use url::{Host, Url};

/// The least that a secret to sign cookies with may be, in bytes.
const COOKIE_SECRET_LEAST: usize = 32;

/// How long a provider's keys serve at most after they were fetched, in seconds: a day. Past it nobody is checked by
/// them, whether the provider has meanwhile been asked or not.
pub(crate) const KEYS_SERVE_AT_MOST: u32 = 24 * 60 * 60;

/// How tokens are judged, and by whom they are issued.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Whose tokens are accepted.
    pub issuer: Issuer,
    /// The one claim that names the tenant; a dotted path leads into nested claims. None: the first of the usual ones.
    pub tenant_claim: Option<String>,
    /// The claim that names the role; a dotted path leads into nested claims.
    pub role_claim: String,
    /// The longest time between a token's `iat` and `exp` that is accepted.
    pub max_token_lifetime: Duration,
    /// The most tokens whose claims are remembered; 0 checks every token anew.
    pub remembered_tokens: usize,
    /// How old the provider's keys may become before they are fetched again; a refresh begins at four fifths of it.
    pub keys_ttl: Duration,
}

/// Whose tokens are accepted.
#[derive(Debug, Clone)]
pub enum Issuer {
    /// An OpenID Connect provider.
    Provider(Box<Provider>),
    /// Our own key in a file: in development only, since nothing else makes a [`DevelopmentKey`].
    Development(DevelopmentKey),
    /// Nobody's: every call that needs a token is refused.
    Nobody,
}

/// An OpenID Connect provider and what it knows us as.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The issuer's URL, under which `/.well-known/openid-configuration` lies.
    pub issuer: Url,
    /// Our client id.
    pub client_id: String,
    /// Our client's secret; a public client has none.
    pub client_secret: Option<SecretString>,
    /// The front end's page that the provider sends the browser back to.
    pub redirect_url: Option<Url>,
    /// The scopes that a login asks for.
    pub scopes: Vec<String>,
    /// The audiences of which a token must name one; empty: the client id.
    pub audiences: Vec<String>,
    /// Which of the provider's tokens the callback hands out.
    pub api_token: ApiToken,
    /// Where a logout leads, in place of what the provider's metadata says.
    pub end_session_endpoint: Option<Url>,
    /// What login cookies are signed with.
    pub cookie_secret: Option<SecretString>,
    /// Whether all of the provider's addresses must be https.
    pub https_only: bool,
}

impl Provider {
    /// The audiences that a caller's token may name.
    #[must_use]
    pub fn accepted_audiences(&self) -> Vec<String> {
        if self.audiences.is_empty() { vec![self.client_id.clone()] } else { self.audiences.clone() }
    }
}

/// Which of the provider's tokens callers use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiToken {
    /// The access token (RFC 9068 where the provider follows it).
    Access,
    /// The ID token, for providers whose access token lacks the audience or the tenant.
    Id,
}

impl FromStr for ApiToken {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "access_token" => Ok(Self::Access),
            "id_token" => Ok(Self::Id),
            _ => Err(()),
        }
    }
}

impl fmt::Display for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Access => "access_token",
            Self::Id => "id_token",
        })
    }
}

/// The file of the development issuer's key. To hold one is proof of ENVIRONMENT=development: only reading such
/// settings makes it.
#[derive(Debug, Clone)]
pub struct DevelopmentKey {
    file: PathBuf,
}

impl DevelopmentKey {
    /// Where the key lies, or is to lie.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

const NAME_FORM: &str = "a name without spaces around it";

/// A name that may be any text but nothing.
struct Name(String);

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == text && !text.chars().any(char::is_control) { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Reader<'_> {
    pub(super) fn identity(&mut self, environment: Environment) -> Identity {
        let development = environment == Environment::Development;
        let provider = self.provider(!development);
        let key_file = self.name("DEVELOPMENT_KEY_FILE", "bulkhead-development.key");
        let issuer = match provider {
            Some(provider) => Issuer::Provider(Box::new(provider)),
            None if development => Issuer::Development(DevelopmentKey { file: key_file.into() }),
            None => Issuer::Nobody,
        };
        Identity {
            issuer,
            tenant_claim: self.optional_name("JWT_TENANT_CLAIM_NAME"),
            role_claim: self.name("JWT_ROLE_CLAIM_NAME", "role"),
            max_token_lifetime: 60 * self.seconds("JWT_MAX_LIFETIME_MINUTES", 60, 1),
            remembered_tokens: self.value("JWT_CACHE_CAPACITY", 10_000, "a whole number of 0 or more"),
            keys_ttl: Duration::from_secs(self.within("JWKS_CACHE_TTL_SECONDS", 3600, 10..=KEYS_SERVE_AT_MOST).into()),
        }
    }

    /// All of a provider's variables are read, whether there is one or not, so that every mistake is found.
    fn provider(&mut self, https_only: bool) -> Option<Provider> {
        let issuer = self.address("OIDC_ISSUER_URL", https_only);
        let client_id = self.optional("OIDC_CLIENT_ID");
        let client_secret = self.shown_secret("OIDC_CLIENT_SECRET");
        let redirect_url = self.address("OIDC_REDIRECT_URL", https_only);
        let scopes = self.name("OIDC_SCOPES", "openid profile email");
        let audiences = self.names("OIDC_AUDIENCE");
        let api_token = self.value("OIDC_API_TOKEN", ApiToken::Access, "access_token or id_token");
        let end_session_endpoint = self.address("OIDC_END_SESSION_ENDPOINT", https_only);
        let cookie_secret = self.shown_secret("COOKIE_SECRET");
        if cookie_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < COOKIE_SECRET_LEAST) {
            self.mistake("COOKIE_SECRET", &format!("must be {COOKIE_SECRET_LEAST} bytes or more"));
        }
        let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
        if !scopes.iter().any(|scope| scope == "openid") {
            self.mistake("OIDC_SCOPES", "must hold openid");
        }
        if issuer.as_ref().is_some_and(|url| url.query().is_some() || url.fragment().is_some()) {
            self.mistake("OIDC_ISSUER_URL", "must have neither query nor fragment");
        }
        match (issuer, client_id) {
            (Some(issuer), Some(client_id)) => Some(Provider {
                issuer,
                client_id,
                client_secret,
                redirect_url,
                scopes,
                audiences,
                api_token,
                end_session_endpoint,
                cookie_secret,
                https_only,
            }),
            (Some(_), None) => {
                self.mistake("OIDC_CLIENT_ID", "is required with OIDC_ISSUER_URL");
                None
            }
            (None, Some(_)) if !self.is_set("OIDC_ISSUER_URL") => {
                self.mistake("OIDC_ISSUER_URL", "is required with OIDC_CLIENT_ID");
                None
            }
            (None, _) => None,
        }
    }

    fn name(&mut self, name: &'static str, default: &str) -> String {
        self.value(name, Name(default.to_owned()), NAME_FORM).0
    }

    fn optional_name(&mut self, name: &'static str) -> Option<String> {
        let text = self.optional(name)?;
        if text.parse::<Name>().is_err() {
            self.mistake(name, &format!("must be {NAME_FORM}, not {text:?}"));
        }
        Some(text)
    }

    pub(super) fn optional(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name);
        let shown = text.clone().unwrap_or_else(|| "(not set)".to_owned());
        self.show(name, shown, if text.is_some() { "environment" } else { "default" });
        text
    }

    fn names(&mut self, name: &'static str) -> Vec<String> {
        let text = self.optional(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    fn shown_secret(&mut self, name: &'static str) -> Option<SecretString> {
        let secret = self.secret(name);
        let (value, source) = secret.as_ref().map_or(("(not set)", "default"), |(_, source)| ("***", source));
        self.show(name, value.to_owned(), source);
        secret.map(|(text, _)| text.into())
    }

    /// An http or https URL without credentials in it.
    fn address(&mut self, name: &'static str, https_only: bool) -> Option<Url> {
        let Some(text) = self.text(name) else {
            self.show(name, "(not set)".to_owned(), "default");
            return None;
        };
        let url = Url::parse(&text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && !matches!(url.host(), None | Some(Host::Domain("")))
        });
        // What is not a plain address may hold a password.
        self.show(name, if url.is_some() { text } else { "***".to_owned() }, "environment");
        match url {
            None => self.mistake(name, "must be a URL such as https://login.example.com/"),
            Some(url) if https_only && url.scheme() != "https" => {
                self.mistake(name, "must be https outside development");
            }
            url => return url,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Settings;

    fn read(pairs: &[(&str, &str)]) -> Result<Identity, String> {
        let settings = Settings::read(&|name| {
            let named = pairs.iter().find(|(key, _)| *key == name);
            named.map(|(_, value)| (*value).into())
        });
        settings.0.map(|settings| settings.identity).map_err(|error| error.to_string())
    }

    const PRODUCTION: [(&str, &str); 2] = [("ENVIRONMENT", "production"), ("DATABASE_URL", "sqlite://x.db")];

    #[test]
    fn the_development_issuer_is_there_in_development_alone_and_without_a_provider() {
        assert!(matches!(read(&[]).unwrap().issuer, Issuer::Development(_)));
        assert!(matches!(read(&PRODUCTION).unwrap().issuer, Issuer::Nobody));
        let key = ("DEVELOPMENT_KEY_FILE", "/tmp/key");
        assert!(matches!(read(&[&PRODUCTION[..], &[key]].concat()).unwrap().issuer, Issuer::Nobody));
        let provider = [("OIDC_ISSUER_URL", "http://localhost:8080/realms/x"), ("OIDC_CLIENT_ID", "bulkhead")];
        assert!(matches!(read(&provider).unwrap().issuer, Issuer::Provider(_)));
    }

    #[test]
    fn a_provider_half_set_up_is_refused_by_the_variable_that_is_missing() {
        let issuer = ("OIDC_ISSUER_URL", "https://login.example.com");
        assert_eq!(read(&[issuer]).unwrap_err(), "OIDC_CLIENT_ID: is required with OIDC_ISSUER_URL");
        assert_eq!(read(&[("OIDC_CLIENT_ID", "x")]).unwrap_err(), "OIDC_ISSUER_URL: is required with OIDC_CLIENT_ID");
    }

    #[test]
    fn keys_are_fetched_again_before_they_are_too_old_to_serve() {
        let ttl = |seconds| read(&[("JWKS_CACHE_TTL_SECONDS", seconds)]).map(|identity| identity.keys_ttl.as_secs());
        assert_eq!((ttl("10"), ttl("86400")), (Ok(10), Ok(86_400)));
        for seconds in ["9", "86401", "108001", "4000000000"] {
            let expected = format!("JWKS_CACHE_TTL_SECONDS: must be 10 to 86400, not {seconds}");
            assert_eq!(ttl(seconds), Err(expected));
        }
    }

    #[test]
    fn addresses_are_checked_and_never_shown_with_a_password() {
        for url in ["login.example.com", "ftp://login.example.com", "https://", "https://me:hunter2@login.example.com"]
        {
            let mistake = read(&[("OIDC_ISSUER_URL", url)]).unwrap_err();
            assert!(mistake.starts_with("OIDC_ISSUER_URL: must be a URL") && !mistake.contains("hunter2"), "{mistake}");
        }
        let client = ("OIDC_CLIENT_ID", "x");
        let query = read(&[("OIDC_ISSUER_URL", "https://login.example.com/?a=b"), client]).unwrap_err();
        assert_eq!(query, "OIDC_ISSUER_URL: must have neither query nor fragment");
        let plain = [&PRODUCTION[..], &[("OIDC_ISSUER_URL", "http://login.example.com"), client]].concat();
        assert_eq!(read(&plain).unwrap_err(), "OIDC_ISSUER_URL: must be https outside development");
    }

    #[test]
    fn scopes_and_secrets_are_checked() {
        assert_eq!(read(&[("OIDC_SCOPES", "profile")]).unwrap_err(), "OIDC_SCOPES: must hold openid");
        assert_eq!(read(&[("COOKIE_SECRET", "short")]).unwrap_err(), "COOKIE_SECRET: must be 32 bytes or more");
        let provider = [
            ("OIDC_ISSUER_URL", "https://login.example.com"),
            ("OIDC_CLIENT_ID", "x"),
            ("OIDC_CLIENT_SECRET", "hunter2"),
        ];
        assert!(!format!("{:?}", read(&provider).unwrap()).contains("hunter2"));
    }
}
