//! What the checkpoints of the audit log are signed with, how often they are made, and where they are sent.

use super::choices::Environment;
use super::env_reader::EnvReader;
use super::form::Form;
use crate::note::{SigningKey, is_name};
use crate::subject_names::SubjectNames;
use axum::http::Uri;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;
use url::{Host, Url};

/// The most minutes between two checkpoints: a week.
const MINUTES_MAX: u32 = 7 * 24 * 60;

/// 32 bytes in base64.
const KEY: &str = "[A-Za-z0-9+/]{43}=";

const WEBHOOK: &str = r"https?://[^\s/?#]\S*";

/// The checkpoints of the audit log.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The key that signs them; without one, none are made.
    pub signing_key: Option<SigningKey>,
    /// How old a tenant's newest checkpoint becomes before the server makes another; `None`: it makes none.
    pub checkpoint_interval: Option<Duration>,
    /// The URL that each checkpoint is posted to. All of it is secret: a token may be anywhere in it.
    pub webhook: Option<SecretString>,
    /// How the log names callers without a row.
    pub subject_names: SubjectNames,
}

impl EnvReader<'_> {
    pub(super) fn audit(&mut self, environment: Environment) -> AuditSettings {
        let subject_names = self.subject_names();
        let seed = self.secret("AUDIT_SIGNING_KEY", Some(KEY));
        let origin = self.optional("AUDIT_ORIGIN", Form::Like(r"[^\s+]*[^\s+/]"));
        if origin.as_ref().is_some_and(|origin| !is_name(origin) || origin.ends_with('/')) {
            self.error(
                "AUDIT_ORIGIN",
                "must be a name such as api.example.org, without spaces and +, and no / at its end",
            );
        }
        let minutes = self.within("AUDIT_CHECKPOINT_MINUTES", 60, 0..=MINUTES_MAX);
        let webhook = self.webhook(environment);
        if webhook.is_some() && !self.is_set("AUDIT_SIGNING_KEY") {
            self.error("AUDIT_SIGNING_KEY", "is required with AUDIT_CHECKPOINT_WEBHOOK");
        }
        let signing_key = match (seed, origin) {
            (Some(seed), Some(origin)) => {
                let key = SigningKey::new(&origin, seed.expose_secret());
                if key.is_none() {
                    self.error("AUDIT_SIGNING_KEY", "must be 32 bytes in base64, as of: openssl rand -base64 32");
                }
                key
            }
            (Some(_), None) => {
                self.error("AUDIT_ORIGIN", "is required with AUDIT_SIGNING_KEY");
                None
            }
            (None, _) => None,
        };
        let checkpoint_interval =
            (signing_key.is_some() && minutes > 0).then(|| Duration::from_secs(60 * u64::from(minutes)));
        AuditSettings { signing_key, checkpoint_interval, webhook, subject_names }
    }

    /// An http or https URL, which may hold a user, a password and a query.
    fn webhook(&mut self, environment: Environment) -> Option<SecretString> {
        const NAME: &str = "AUDIT_CHECKPOINT_WEBHOOK";
        let text = self.secret(NAME, Some(WEBHOOK))?;
        let Some(url) = webhook_url(text.expose_secret()) else {
            self.error(NAME, "must be a URL such as https://checkpoints.example.org/bulkhead");
            return None;
        };
        let here = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && environment != Environment::Development && !here {
            self.error(NAME, "must be https outside development, unless the host is localhost");
            return None;
        }
        Some(text)
    }

    fn subject_names(&mut self) -> SubjectNames {
        let Some(text) = self.secret("AUDIT_SUBJECT_KEY", Some(KEY)) else { return SubjectNames::default() };
        let key = BASE64_STANDARD.decode(text.expose_secret()).ok().and_then(|key| key.try_into().ok());
        if key.is_none() {
            self.error("AUDIT_SUBJECT_KEY", "must be 32 bytes in base64, as of: openssl rand -base64 32");
        }
        SubjectNames::new(key.as_ref())
    }
}

fn webhook_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    // What the client takes.
    (!text.contains(char::is_whitespace) && url.as_str().parse::<Uri>().is_ok()).then_some(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Settings;

    const SEED: (&str, &str) = ("AUDIT_SIGNING_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    const ORIGIN: (&str, &str) = ("AUDIT_ORIGIN", "api.example.org");

    fn read(pairs: &[(&str, &str)]) -> Result<AuditSettings, String> {
        let settings = Settings::read(&|name| {
            let named = pairs.iter().find(|(key, _)| *key == name);
            named.map(|(_, value)| (*value).into())
        });
        settings.0.map(|settings| settings.audit).map_err(|error| error.to_string())
    }

    #[test]
    fn checkpoints_need_a_key_and_a_name() {
        let every = |more: &[(&str, &str)]| read(&[&[SEED, ORIGIN], more].concat()).unwrap().checkpoint_interval;
        assert_eq!(every(&[]), Some(Duration::from_hours(1)));
        assert_eq!(every(&[("AUDIT_CHECKPOINT_MINUTES", "5")]), Some(Duration::from_mins(5)));
        assert_eq!(every(&[("AUDIT_CHECKPOINT_MINUTES", "0")]), None);
        let without = read(&[ORIGIN]).unwrap();
        assert!(without.signing_key.is_none() && without.checkpoint_interval.is_none());
        assert_eq!(read(&[SEED]).unwrap_err(), "AUDIT_ORIGIN: is required with AUDIT_SIGNING_KEY");
        for (name, value) in [("AUDIT_SIGNING_KEY", "short"), ("AUDIT_ORIGIN", "a b"), ("AUDIT_ORIGIN", "a/")] {
            let others = [SEED, ORIGIN].into_iter().filter(|(other, _)| *other != name);
            let error = read(&[&others.collect::<Vec<_>>()[..], &[(name, value)]].concat()).unwrap_err();
            assert!(error.starts_with(&format!("{name}: must be ")) && !error.contains("AAEC"), "{error}");
        }
        assert!(!format!("{:?}", read(&[SEED, ORIGIN]).unwrap()).contains("AAEC"));
    }

    #[test]
    fn a_webhook_is_a_url_that_is_secret() {
        const PRODUCTION: [(&str, &str); 2] = [("ENVIRONMENT", "production"), ("DATABASE_URL", "sqlite://x.db")];
        let webhook = |url, more: &[(&str, &str)]| {
            read(&[&[SEED, ORIGIN, ("AUDIT_CHECKPOINT_WEBHOOK", url)], more].concat()).map(|audit| {
                assert!(!format!("{audit:?}").contains("hunter2"));
                audit.webhook.unwrap().expose_secret().to_owned()
            })
        };
        for url in [
            "https://me:hunter2@example.org/a?token=hunter2",
            "http://localhost:1",
            "http://127.0.0.2/x",
            "http://[::1]/",
        ] {
            assert_eq!(webhook(url, &PRODUCTION).as_deref(), Ok(url));
        }
        assert!(webhook("http://example.org/hunter2", &[]).is_ok());
        let said = "AUDIT_CHECKPOINT_WEBHOOK: must be https outside development, unless the host is localhost";
        for url in ["http://example.org/hunter2", "http://localhost.example.org/", "http://10.0.0.1/", "http://[::2]/"]
        {
            assert_eq!(webhook(url, &PRODUCTION).unwrap_err(), said, "{url}");
        }
        let said = "AUDIT_CHECKPOINT_WEBHOOK: must be a URL such as https://checkpoints.example.org/bulkhead";
        for url in
            ["ftp://example.org/hunter2", "/hunter2", "hunter2", "example.org/hunter2", "https://", "https://a b/"]
        {
            assert_eq!(webhook(url, &[]).unwrap_err(), said, "{url}");
        }
        let alone = read(&[("AUDIT_CHECKPOINT_WEBHOOK", "https://example.org/")]).unwrap_err();
        assert_eq!(alone, "AUDIT_SIGNING_KEY: is required with AUDIT_CHECKPOINT_WEBHOOK");
    }
}
