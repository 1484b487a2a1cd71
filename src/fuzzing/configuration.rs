use crate::config::{DatabaseUrl, Environment, Issuer, ResolvedVariable, Settings};
use sea_orm::sqlx::postgres::PgSslMode;
use std::collections::HashMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;

/// A password that no text of the program has.
const PASSWORD: &str = "q7zQ7zq7zQ7z";

const SECRETS: [&str; 6] = [
    "AUDIT_CHECKPOINT_WEBHOOK",
    "AUDIT_SIGNING_KEY",
    "AUDIT_SUBJECT_KEY",
    "COOKIE_SECRET",
    "OIDC_CLIENT_SECRET",
    "OTEL_EXPORTER_OTLP_HEADERS",
];

type Environ<'d> = HashMap<&'static str, &'d [u8]>;

/// Lines of `NAME=value`. Settings are taken, or each error is a line that names a variable; no secret is shown; what was taken keeps
/// the rules; and what is shown of a setting is what it can be set to. No file is read: there are no names with `_FILE`.
pub fn configuration(data: &[u8]) {
    let names: Vec<&str> = Settings::read(&|_| None).1.iter().map(|variable| variable.name).collect();
    let mut environment = Environ::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(at) = line.iter().position(|byte| *byte == b'=') else { continue };
        if let Some(name) = names.iter().find(|name| name.as_bytes() == &line[..at]) {
            environment.insert(name, &line[at + 1..]);
        }
    }
    let (settings, shown) = read(&environment);
    assert!(shown.iter().map(|variable| variable.name).eq(names.iter().copied()), "each variable is shown once");
    match &settings {
        Ok(settings) => {
            keeps_the_rules(settings);
            can_be_set_to_what_is_shown(&environment, &shown);
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                let known = error.split_once(": ").is_some_and(|(name, _)| names.contains(&name));
                assert!(known && !error.contains(['\n', '\r']), "{error:?}");
            }
        }
    }
    shows_no_secret(&environment);
}

fn read(environment: &Environ<'_>) -> (Result<Settings, crate::config::ConfigError>, Vec<ResolvedVariable>) {
    Settings::read(&|name| environment.get(name).map(|value| OsString::from_vec(value.to_vec())))
}

/// All that a person can see of it.
fn seen(environment: &Environ<'_>) -> String {
    let (settings, shown) = read(environment);
    let said = match &settings {
        Ok(settings) => format!("{settings:?}{:?}", settings.warnings()),
        Err(errors) => errors.to_string(),
    };
    format!("{said}{shown:?}")
}

fn shows_no_secret(environment: &Environ<'_>) {
    for name in SECRETS {
        let Some(secret) = environment.get(name).and_then(|value| std::str::from_utf8(value).ok()) else { continue };
        let mut without = environment.clone();
        without.remove(name);
        if secret.len() >= 8 && !seen(&without).contains(secret) {
            let mut text = seen(environment);
            // What names the variable, and what it must be, is in the texts of errors.
            text.retain(|c| c != '\0');
            let own = [
                "must be 32 bytes in base64, as of: openssl rand -base64 32",
                "must be a URL such as https://checkpoints.example.org/bulkhead",
                "must be headers such as authorization=Bearer%20x, with commas between them",
            ];
            let said = text.contains(secret) && !own.iter().any(|own| own.contains(secret));
            assert!(!said, "{name} is shown: {text}");
        }
    }
    for name in ["DATABASE_URL", "MIGRATION_DATABASE_URL"] {
        let Some(url) = environment.get(name).and_then(|value| std::str::from_utf8(value).ok()) else { continue };
        let (Some((_, rest)), false) = (url.split_once('@'), environment.values().any(|value| has_password(value)))
        else {
            continue;
        };
        let planted = format!("postgres://app:{PASSWORD}@{rest}");
        let mut with = environment.clone();
        with.insert(name, planted.as_bytes());
        let text = seen(&with);
        assert!(!text.contains(PASSWORD), "{planted} is shown: {text}");
    }
}

fn has_password(value: &[u8]) -> bool {
    String::from_utf8_lossy(value).contains(PASSWORD)
}

fn keeps_the_rules(settings: &Settings) {
    assert!(settings.max_metadata_bytes <= settings.max_body_bytes);
    assert!(settings.metrics_port.is_none_or(|port| port != settings.port && port != 0));
    assert!(
        settings.max_concurrent_requests > 0 && settings.max_connections > 0 && settings.database_max_connections > 0
    );
    if settings.environment != Environment::Development {
        if let Issuer::Provider(provider) = &settings.auth.issuer {
            assert!(provider.https_only && provider.issuer.scheme() == "https");
        }
        assert!(!matches!(settings.auth.issuer, Issuer::Development(_)));
    }
    if settings.environment == Environment::Production {
        assert!(settings.allowed_origins.iter().all(|origin| origin.as_str().starts_with("https://")));
        for database in [&settings.database, &settings.migration_database] {
            if let DatabaseUrl::Postgres(options) = database {
                let host = options.get_host();
                let near = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
                    || host == "localhost"
                    || host.starts_with('/')
                    || host.ends_with(".railway.internal")
                    || options.get_socket().is_some();
                let proven = matches!(options.get_ssl_mode(), PgSslMode::VerifyFull);
                assert!(near || proven || settings.database_allow_unverified, "{host} need not prove who it is");
            }
        }
    }
}

fn can_be_set_to_what_is_shown(environment: &Environ<'_>, shown: &[ResolvedVariable]) {
    let mut again = environment.clone();
    for variable in shown {
        let hidden = variable.value.contains("***") || variable.value.starts_with('(');
        if variable.source == "environment" && !hidden {
            again.insert(variable.name, variable.value.as_bytes());
        }
    }
    let (settings, shown_again) = read(&again);
    assert!(settings.is_ok(), "{:?}", settings.err());
    assert_eq!(shown_again, shown);
}
