//! Who issues tokens: an identity provider, or in development this program itself.

use super::choices::{Choice, Environment};
use super::env_reader::EnvReader;
use super::form::Form;
use crate::text::NonBlank;
use clap::ValueEnum;
use secrecy::{ExposeSecret, SecretString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use url::{Host, Url};

/// The shortest secret that cookies are signed with, in bytes.
pub(crate) const COOKIE_SECRET_BYTES_MIN: usize = 32;

/// How long a provider's keys may be used after they were fetched, in seconds: a day. After that no token is accepted until
/// a fetch succeeds.
pub(crate) const KEY_AGE_SECONDS_MAX: u32 = 24 * 60 * 60;

/// Whose tokens are accepted, and the rules for them.
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// Whose tokens are accepted.
    pub issuer: Issuer,
    /// The one claim that names the tenant, or a dotted path into nested claims. None: the first of the usual claims.
    pub tenant_claim: Option<String>,
    /// The claim that names the role, or a dotted path into nested claims.
    pub role_claim: String,
    /// The longest accepted time between a token's `iat` and `exp`.
    pub max_token_lifetime: Duration,
    /// The most tokens whose claims are cached; with 0, every token is verified each time.
    pub token_cache_capacity: usize,
    /// How old the provider's keys may become; a refresh begins at four fifths of this time.
    pub keys_ttl: Duration,
}

/// Whose tokens are accepted.
#[derive(Debug, Clone)]
pub enum Issuer {
    /// An OpenID Connect provider.
    Provider(Box<Provider>),
    /// This program, with a key in a local file: in development only, as [`DevelopmentKey`] says.
    Development(DevelopmentKey),
    /// No issuer is configured: requests that need a token get 503.
    Disabled,
}

/// An OpenID Connect provider, and this program as its client.
#[derive(Debug, Clone)]
pub struct Provider {
    /// The issuer's URL; its metadata is at `/.well-known/openid-configuration` below it.
    pub issuer: Url,
    /// The client's id.
    pub client_id: String,
    /// The client's secret; a public client has none.
    pub client_secret: Option<SecretString>,
    /// The front end's page to which the provider sends the browser back.
    pub redirect_url: Option<Url>,
    /// The scopes that a login asks for.
    pub scopes: Vec<String>,
    /// A token must name one of these audiences; empty: the client's id.
    pub audiences: Vec<String>,
    /// Which of the provider's tokens the callback returns.
    pub api_token: ApiToken,
    /// Which type the header of a caller's token must name.
    pub token_type: TokenType,
    /// The address that ends the provider's session, instead of the one in the provider's metadata.
    pub end_session_endpoint: Option<Url>,
    /// The secret that signs login cookies.
    pub cookie_secret: Option<SecretString>,
    /// Whether all addresses of the provider must be https.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ApiToken {
    /// The access token (RFC 9068, if the provider follows it).
    #[value(name = "access_token")]
    Access,
    /// The ID token, for providers whose access token lacks the audience or the tenant.
    #[value(name = "id_token")]
    Id,
}

impl fmt::Display for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Choice(*self).fmt(f)
    }
}

/// Which type the header of a caller's token must name (`typ`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenType {
    /// None, or any that a token for callers may have.
    Any,
    /// That of access tokens (RFC 9068, section 2.1).
    #[value(name = "at+jwt")]
    AccessToken,
}

impl fmt::Display for TokenType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Choice(*self).fmt(f)
    }
}

/// The file of the development issuer's key. Only [`Settings::read`](super::Settings::read) constructs it, and only if
/// ENVIRONMENT=development.
#[derive(Debug, Clone)]
pub struct DevelopmentKey {
    file: PathBuf,
}

impl DevelopmentKey {
    /// The path of the file, which may not exist yet.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }
}

const NAME_FORM: &str = "a name without spaces around it";
const NAME: &str = r"\S|\S[^\n]*\S";
const SCOPES: &str = r"(\S+\s+)*openid(\s+\S+)*";
const URL: &str = "https?://[^/@][^@]*";
/// 32 characters of one byte each, or characters of more, whose bytes no expression counts.
const COOKIE_SECRET: &str = r"[\x00-\x7f]{32,}|[\s\S]*[^\x00-\x7f][\s\S]*";

impl EnvReader<'_> {
    pub(super) fn auth(&mut self, environment: Environment) -> AuthSettings {
        let development = environment == Environment::Development;
        let provider = self.provider(!development);
        let key_file = self.name("DEVELOPMENT_KEY_FILE", "bulkhead-development.key");
        let issuer = match provider {
            Some(provider) => Issuer::Provider(Box::new(provider)),
            None if development => Issuer::Development(DevelopmentKey { file: key_file.into() }),
            None => Issuer::Disabled,
        };
        AuthSettings {
            issuer,
            tenant_claim: self.optional_name("JWT_TENANT_CLAIM_NAME"),
            role_claim: self.name("JWT_ROLE_CLAIM_NAME", "role"),
            max_token_lifetime: 60 * self.seconds("JWT_MAX_LIFETIME_MINUTES", 60, 1),
            token_cache_capacity: self.value(
                "JWT_CACHE_CAPACITY",
                10_000,
                "a whole number of 0 or more",
                Form::Number(0, u64::MAX),
            ),
            keys_ttl: Duration::from_secs(self.within("JWKS_CACHE_TTL_SECONDS", 3600, 10..=KEY_AGE_SECONDS_MAX).into()),
        }
    }

    /// Reads all of a provider's variables, even if the first ones are not set, so that every error is reported.
    fn provider(&mut self, https_only: bool) -> Option<Provider> {
        let issuer = self.url("OIDC_ISSUER_URL", https_only);
        let client_id = self.optional("OIDC_CLIENT_ID", Form::Text);
        let client_secret = self.secret("OIDC_CLIENT_SECRET", None);
        let redirect_url = self.url("OIDC_REDIRECT_URL", https_only);
        let scopes =
            self.value("OIDC_SCOPES", NonBlank("openid profile email".to_owned()), NAME_FORM, Form::Like(SCOPES)).0;
        let audiences = self.names("OIDC_AUDIENCE");
        let api_token = self.choice("OIDC_API_TOKEN", ApiToken::Access);
        let token_type = self.choice("JWT_TYPE", TokenType::Any);
        if (api_token, token_type) == (ApiToken::Id, TokenType::AccessToken) {
            self.error(
                "JWT_TYPE",
                "must be any where OIDC_API_TOKEN is id_token, since no ID token is of the type at+jwt",
            );
        }
        let end_session_endpoint = self.url("OIDC_END_SESSION_ENDPOINT", https_only);
        let cookie_secret = self.secret("COOKIE_SECRET", Some(COOKIE_SECRET));
        if cookie_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < COOKIE_SECRET_BYTES_MIN) {
            self.error("COOKIE_SECRET", &format!("must be {COOKIE_SECRET_BYTES_MIN} bytes or more"));
        }
        let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
        if !scopes.iter().any(|scope| scope == "openid") {
            self.error("OIDC_SCOPES", "must hold openid");
        }
        if issuer.as_ref().is_some_and(|url| url.query().is_some() || url.fragment().is_some()) {
            self.error("OIDC_ISSUER_URL", "must have neither query nor fragment");
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
                token_type,
                end_session_endpoint,
                cookie_secret,
                https_only,
            }),
            (Some(_), None) => {
                self.error("OIDC_CLIENT_ID", "is required with OIDC_ISSUER_URL");
                None
            }
            (None, Some(_)) if !self.is_set("OIDC_ISSUER_URL") => {
                self.error("OIDC_ISSUER_URL", "is required with OIDC_CLIENT_ID");
                None
            }
            (None, _) => None,
        }
    }

    pub(super) fn name(&mut self, name: &'static str, default: &str) -> String {
        self.value(name, NonBlank(default.to_owned()), NAME_FORM, Form::Like(NAME)).0
    }

    fn optional_name(&mut self, name: &'static str) -> Option<String> {
        let text = self.optional(name, Form::Like(NAME))?;
        if !NonBlank::accepts(&text) {
            self.error(name, &format!("must be {NAME_FORM}, not {text:?}"));
        }
        Some(text)
    }

    /// A list with commas between its items.
    fn names(&mut self, name: &'static str) -> Vec<String> {
        let text = self.optional(name, Form::Text).unwrap_or_default();
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    }

    /// An http or https URL without user and password.
    fn url(&mut self, name: &'static str, https_only: bool) -> Option<Url> {
        let form = Form::Like(if https_only { "https://[^/@][^@]*" } else { URL });
        let Some(text) = self.text(name) else {
            self.resolved(name, "(not set)".to_owned(), "default", form);
            return None;
        };
        let url = Url::parse(&text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.username().is_empty()
                && url.password().is_none()
                && !matches!(url.host(), None | Some(Host::Domain("")))
        });
        // A text that is not such a URL may contain a password.
        self.resolved(name, if url.is_some() { text } else { "***".to_owned() }, "environment", form);
        match url {
            None => self.error(name, "must be a URL such as https://login.example.com/"),
            Some(url) if https_only && url.scheme() != "https" => {
                self.error(name, "must be https outside development");
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

    fn read(pairs: &[(&str, &str)]) -> Result<AuthSettings, String> {
        let settings = Settings::read(&|name| {
            let named = pairs.iter().find(|(key, _)| *key == name);
            named.map(|(_, value)| (*value).into())
        });
        settings.0.map(|settings| settings.auth).map_err(|error| error.to_string())
    }

    const PRODUCTION: [(&str, &str); 2] = [("ENVIRONMENT", "production"), ("DATABASE_URL", "sqlite://x.db")];

    #[test]
    fn development_issuer_needs_development_and_no_provider() {
        assert!(matches!(read(&[]).unwrap().issuer, Issuer::Development(_)));
        assert!(matches!(read(&PRODUCTION).unwrap().issuer, Issuer::Disabled));
        let key = ("DEVELOPMENT_KEY_FILE", "/tmp/key");
        assert!(matches!(read(&[&PRODUCTION[..], &[key]].concat()).unwrap().issuer, Issuer::Disabled));
        let provider = [("OIDC_ISSUER_URL", "http://localhost:8080/realms/x"), ("OIDC_CLIENT_ID", "bulkhead")];
        assert!(matches!(read(&provider).unwrap().issuer, Issuer::Provider(_)));
    }

    #[test]
    fn an_incomplete_provider_is_refused_by_its_missing_variable() {
        let issuer = ("OIDC_ISSUER_URL", "https://login.example.com");
        assert_eq!(read(&[issuer]).unwrap_err(), "OIDC_CLIENT_ID: is required with OIDC_ISSUER_URL");
        assert_eq!(read(&[("OIDC_CLIENT_ID", "x")]).unwrap_err(), "OIDC_ISSUER_URL: is required with OIDC_CLIENT_ID");
    }

    #[test]
    fn a_type_can_be_demanded_of_access_tokens_alone() {
        let issuer =
            [("OIDC_ISSUER_URL", "https://login.example.com"), ("OIDC_CLIENT_ID", "x"), ("JWT_TYPE", "at+jwt")];
        let Issuer::Provider(provider) = read(&issuer).unwrap().issuer else { panic!("a provider") };
        assert_eq!(provider.token_type, TokenType::AccessToken);
        let error = read(&[&issuer[..], &[("OIDC_API_TOKEN", "id_token")]].concat()).unwrap_err();
        assert!(error.starts_with("JWT_TYPE: must be any where OIDC_API_TOKEN is id_token"), "{error}");
    }

    #[test]
    fn key_ttl_has_bounds() {
        let ttl = |seconds| read(&[("JWKS_CACHE_TTL_SECONDS", seconds)]).map(|auth| auth.keys_ttl.as_secs());
        assert_eq!((ttl("10"), ttl("86400")), (Ok(10), Ok(86_400)));
        for seconds in ["9", "86401", "108001", "4000000000"] {
            let expected = format!("JWKS_CACHE_TTL_SECONDS: must be 10 to 86400, not {seconds}");
            assert_eq!(ttl(seconds), Err(expected));
        }
    }

    #[test]
    fn urls_are_validated_and_shown_without_passwords() {
        for url in ["login.example.com", "ftp://login.example.com", "https://", "https://me:hunter2@login.example.com"]
        {
            let error = read(&[("OIDC_ISSUER_URL", url)]).unwrap_err();
            assert!(error.starts_with("OIDC_ISSUER_URL: must be a URL") && !error.contains("hunter2"), "{error}");
        }
        let client = ("OIDC_CLIENT_ID", "x");
        let query = read(&[("OIDC_ISSUER_URL", "https://login.example.com/?a=b"), client]).unwrap_err();
        assert_eq!(query, "OIDC_ISSUER_URL: must have neither query nor fragment");
        let plain = [&PRODUCTION[..], &[("OIDC_ISSUER_URL", "http://login.example.com"), client]].concat();
        assert_eq!(read(&plain).unwrap_err(), "OIDC_ISSUER_URL: must be https outside development");
    }

    #[test]
    fn scopes_and_secrets_are_validated() {
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
