//! The settings as a whole.

#![allow(clippy::unwrap_used)]
use super::*;

fn read(pairs: &[(&str, &str)]) -> (Result<Settings, ConfigError>, Vec<ResolvedVariable>) {
    let pairs: Vec<(String, String)> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings::read(&move |name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.into()))
}

#[test]
fn defaults_are_for_development() {
    let settings = read(&[]).0.unwrap();
    assert_eq!(settings.environment, Environment::Development);
    assert_eq!(settings.database.to_string(), "sqlite://bulkhead.db");
    assert_eq!((settings.host.to_string().as_str(), settings.port), ("::", 8000));
    assert!(settings.docs_enabled);
}

#[test]
fn all_errors_are_reported_by_variable_name() {
    let error = read(&[
        ("ENVIRONMENT", "prod"),
        ("PORT", "80000"),
        ("HOST", "localhost"),
        ("DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("MIGRATE_ON_START", "maybe"),
        ("DATABASE_MAX_CONNECTIONS", "0"),
        ("LOG_FORMAT", "xml"),
    ])
    .0
    .unwrap_err();
    let named: Vec<&str> = error.0.iter().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(
        named,
        ["ENVIRONMENT", "DATABASE_URL", "HOST", "PORT", "MIGRATE_ON_START", "DATABASE_MAX_CONNECTIONS", "LOG_FORMAT"]
    );
    assert!(!error.to_string().contains("hunter2"));
}

#[test]
fn a_database_is_required_outside_development() {
    for environment in ["staging", "production"] {
        let error = read(&[("ENVIRONMENT", environment)]).0.unwrap_err();
        assert_eq!(error.to_string(), format!("DATABASE_URL: is required when ENVIRONMENT={environment}"));
    }
}

#[test]
fn a_stop_waits_for_balancers_outside_development() {
    let delay = |environment| {
        read(&[("ENVIRONMENT", environment), ("DATABASE_URL", "sqlite://x.db")]).0.unwrap().shutdown_delay.as_secs()
    };
    assert_eq!([delay("development"), delay("staging"), delay("production")], [0, 5, 5]);
}

#[test]
fn rate_limits_have_an_upper_bound() {
    for name in ["RATE_LIMIT_PER_MINUTE", "RATE_LIMIT_BURST"] {
        assert!(read(&[(name, "1000000")]).0.is_ok());
        let error = read(&[(name, "1000001")]).0.unwrap_err().to_string();
        assert!(error.starts_with(name) && error.ends_with("to 1000000, not 1000001"), "{error}");
    }
}

#[test]
fn connections_are_at_most_as_many_as_postgresql_takes() {
    let connections =
        |text| read(&[("DATABASE_MAX_CONNECTIONS", text)]).0.map(|settings| settings.database_max_connections);
    assert_eq!(connections("262143").unwrap(), 262_143);
    for more in ["262144", "4294967295"] {
        let error = connections(more).unwrap_err().to_string();
        assert_eq!(error, format!("DATABASE_MAX_CONNECTIONS: must be 1 to 262143, not {more}"));
    }
}

#[test]
fn metadata_is_at_most_as_long_as_a_body() {
    let bounds = |pairs: &[(&str, &str)]| read(pairs).0.map(|settings| settings.max_metadata_bytes);
    assert_eq!(bounds(&[]).unwrap(), 65_536);
    assert_eq!(bounds(&[("MAX_BODY_BYTES", "1000")]).unwrap(), 1000, "the default follows");
    assert_eq!(bounds(&[("MAX_BODY_BYTES", "1000"), ("MAX_METADATA_BYTES", "1000")]).unwrap(), 1000);
    let error = bounds(&[("MAX_BODY_BYTES", "1000"), ("MAX_METADATA_BYTES", "1001")]).unwrap_err();
    assert_eq!(error.to_string(), "MAX_METADATA_BYTES: must not exceed MAX_BODY_BYTES, 1000");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    assert_eq!(read(&[("PORT", ""), ("DATABASE_URL", "")]).0.unwrap().port, 8000);
}

#[test]
fn a_secret_comes_from_a_variable_or_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "postgres://me:hunter2@db.internal/app\n").unwrap();
    let path = file.path().to_str().unwrap();
    let settings = read(&[("DATABASE_URL_FILE", path)]).0.unwrap();
    assert_eq!(settings.database.to_string(), "postgres://***@db.internal:5432/app");
    let error = read(&[("DATABASE_URL_FILE", path), ("DATABASE_URL", "sqlite://other.db")]).0.unwrap_err();
    assert_eq!(error.to_string(), "DATABASE_URL: is set and DATABASE_URL_FILE too: unset one of them");
    let error = read(&[("DATABASE_URL_FILE", "/nowhere")]).0.unwrap_err();
    assert!(error.to_string().starts_with("DATABASE_URL_FILE: cannot read /nowhere"), "{error}");
    // It is not as if the secret were not set, and no secret of no bytes either.
    std::fs::write(file.path(), "\n").unwrap();
    for name in ["DATABASE_URL_FILE", "OIDC_CLIENT_SECRET_FILE", "AUDIT_SUBJECT_KEY_FILE"] {
        let error = read(&[(name, path)]).0.unwrap_err();
        assert_eq!(error.to_string(), format!("{name}: {path} is empty"));
    }
}

#[test]
fn pages_are_allowed_by_exact_origin() {
    let production = [("ENVIRONMENT", "production"), ("DATABASE_URL", "sqlite://x.db")];
    let settings = read(&[production[0], production[1], ("ALLOWED_ORIGINS", "https://a.org, https://b.org:8443")]);
    let settings = settings.0.unwrap();
    let allows = |url: &str| settings.allows_page(url);
    assert!(allows("https://a.org/bye?x=1") && allows("https://a.org") && allows("https://b.org:8443/"));
    for other in ["http://a.org/", "https://a.org.evil.net/", "https://a.org@evil.net/", "https://me@a.org/", "data:,x"]
    {
        assert!(!allows(other), "{other}");
    }
    assert!(read(&production).0.unwrap().allowed_origins.is_empty(), "no defaults outside development");
    assert!(!read(&[]).0.unwrap().allowed_origins.is_empty());
    let error = read(&[production[0], production[1], ("ALLOWED_ORIGINS", "http://a.org")]).0.unwrap_err();
    assert_eq!(error.to_string(), "ALLOWED_ORIGINS: http://a.org must be https when ENVIRONMENT=production");
}

#[test]
fn printed_settings_show_no_password() {
    let (settings, shown) = read(&[("DATABASE_URL", "postgresql://me:hunter2@db/app?sslkey=hunter2")]);
    let settings = settings.unwrap();
    for text in [format!("{settings:?}"), format!("{shown:?}"), settings.database.to_string()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_choice_takes_its_words_alone_and_names_them() {
    for (word, mode) in [
        ("apply", MigrateOnStart::Apply),
        ("true", MigrateOnStart::Apply),
        ("verify", MigrateOnStart::Verify),
        ("off", MigrateOnStart::Off),
        ("false", MigrateOnStart::Off),
    ] {
        assert_eq!(read(&[("MIGRATE_ON_START", word)]).0.unwrap().migrate_on_start, mode);
    }
    for (name, word, words) in [
        ("MIGRATE_ON_START", "Apply", "apply, verify or off"),
        ("OIDC_API_TOKEN", "access-token", "access_token or id_token"),
        ("JWT_TYPE", "jwt", "any or at+jwt"),
    ] {
        let error = read(&[(name, word)]).0.unwrap_err().to_string();
        assert_eq!(error, format!("{name}: must be {words}, not {word:?}"));
    }
}
