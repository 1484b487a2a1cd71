//! The settings as a JSON Schema (2020-12): an object whose members are environment variables.

use super::choices::Environment;
use super::{ResolvedVariable, Settings};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

/// What each setting means: the beginning of its line in docs/settings.md, which says more.
const MEANINGS: &[(&str, &str)] = &[
    ("ENVIRONMENT", "the kind of deployment"),
    ("HOST", "the IP address to listen on"),
    ("PORT", "the TCP port to listen on"),
    ("DATABASE_URL", "the database: `postgres://USER:PASSWORD@HOST:PORT/DATABASE` or `sqlite://FILE?mode=rwc`"),
    ("MIGRATION_DATABASE_URL", "a direct connection with the right to change the schema"),
    ("MIGRATE_ON_START", "what `start` does about the schema"),
    ("MIGRATION_LOCK_TIMEOUT_SECONDS", "how long migrations wait for those of another process to end"),
    (
        "MIGRATION_DDL_LOCK_TIMEOUT_SECONDS",
        "how long a statement of a migration waits for a table's lock before the migration is tried again (PostgreSQL)",
    ),
    ("MIGRATION_STATEMENT_TIMEOUT_SECONDS", "how long a statement of a migration may run (PostgreSQL)"),
    (
        "MIGRATION_ALLOW_UNKNOWN",
        "whether a schema may hold applied migrations that this build lacks and that are older than its newest",
    ),
    ("DATABASE_MAX_CONNECTIONS", "the most connections for requests"),
    (
        "DATABASE_ACQUIRE_TIMEOUT_SECONDS",
        "how long a request waits for a connection while the database responds, and how long a start waits for the database",
    ),
    ("DATABASE_CA", "certificates in PEM of the authorities by which PostgreSQL proves who it is"),
    (
        "DATABASE_ALLOW_UNVERIFIED",
        "in production, whether PostgreSQL on another machine may do without `sslmode=verify-full`",
    ),
    ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "how long one statement may run"),
    ("OIDC_ISSUER_URL", "the identity provider's issuer"),
    ("OIDC_CLIENT_ID", "the id of this API at the provider"),
    ("OIDC_CLIENT_SECRET", "the secret of this API at the provider"),
    ("OIDC_REDIRECT_URL", "the front end's page to which the provider sends the browser back"),
    ("OIDC_SCOPES", "the scopes that a login asks for"),
    ("OIDC_AUDIENCE", "audiences, separated by commas"),
    ("OIDC_API_TOKEN", "which of the provider's tokens callers use"),
    ("OIDC_END_SESSION_ENDPOINT", "the provider's address for a logout"),
    ("COOKIE_SECRET", "the secret that signs login cookies"),
    ("JWT_TENANT_CLAIM_NAME", "the claim that names the tenant"),
    ("JWT_ROLE_CLAIM_NAME", "the claim that names the role"),
    ("JWT_TYPE", "with `at+jwt`, only tokens are accepted whose header has this type"),
    ("JWT_MAX_LIFETIME_MINUTES", "the longest time between a token's `iat` and `exp`"),
    (
        "JWT_CACHE_CAPACITY",
        "the most tokens whose claims are cached until they expire, so that each token is verified once",
    ),
    ("JWKS_CACHE_TTL_SECONDS", "how old the provider's keys may become"),
    ("DEVELOPMENT_KEY_FILE", "the key of `bulkhead dev-token`; only in development"),
    ("AUDIT_SIGNING_KEY", "the key that signs checkpoints of the audit log, records of backups and exports of tenants"),
    ("AUDIT_ORIGIN", "the name of this installation in checkpoints, such as `api.example.org`, without spaces and `+`"),
    ("AUDIT_SUBJECT_KEY", "the key that hides the subjects of callers without a user in the audit log"),
    ("AUDIT_CHECKPOINT_MINUTES", "how old a tenant's newest checkpoint becomes before the server makes another"),
    ("AUDIT_CHECKPOINT_WEBHOOK", "the URL that each checkpoint is posted to as it is made"),
    ("LOG_LEVEL", "a level, or directives such as `info,sqlx=debug`"),
    ("LOG_FORMAT", "the form of a log line"),
    ("SOURCE_REVISION", "the commit that `/api/v1/version` names as the source of the image"),
    ("DOCS_ENABLED", "whether `/docs` and `/openapi.json` are served"),
    (
        "ALLOWED_ORIGINS",
        "the origins whose scripts may read responses, and to which a logout may return, separated by commas",
    ),
    ("TRUSTED_PROXIES", "the proxies whose headers are trusted, separated by commas"),
    ("MAX_CONCURRENT_REQUESTS", "the most requests that are handled at once"),
    (
        "MAX_CONCURRENT_REQUESTS_PER_CLIENT",
        "the most of them from one client, including requests whose body is still arriving",
    ),
    ("MAX_CONNECTIONS", "the most open connections"),
    ("REQUEST_TIMEOUT_SECONDS", "how long a request may take until its response is written"),
    ("MAX_BODY_BYTES", "the longest request body"),
    ("MAX_METADATA_BYTES", "the longest `metadata` of a document, as the client sends it"),
    ("MAX_PAGE_BYTES", "the most bytes of rows on a page of a list"),
    ("BODY_TIMEOUT_SECONDS", "how long a request body may take to arrive"),
    ("RATE_LIMIT_PER_MINUTE", "the steady rate of requests per minute from one client, for each instance"),
    ("RATE_LIMIT_BURST", "how many of them a client may send at once"),
    ("METRICS_PORT", "the port that serves metrics"),
    ("OTEL_SDK_DISABLED", "whether traces are off, whatever else is set"),
    ("OTEL_TRACES_EXPORTER", "where traces are sent"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "the collector of traces, which are posted to `/v1/traces` below it"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "the whole address that traces are posted to, instead of that"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "the form in which traces are sent"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "the same, of traces alone"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "headers for the collector, `name=value`, separated by commas"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "how many milliseconds the collector has to accept spans"),
    ("OTEL_SERVICE_NAME", "the name of the service in traces"),
    ("OTEL_RESOURCE_ATTRIBUTES", "what else traces say of the process, `name=value`, separated by commas"),
    ("OTEL_TRACES_SAMPLER", "which requests are traced"),
    ("OTEL_TRACES_SAMPLER_ARG", "the share of them, from 0 to 1, for the samplers of a ratio"),
    ("OTEL_BSP_SCHEDULE_DELAY", "how many milliseconds spans wait at most until they are sent"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "how many spans wait at most"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "how many spans are sent at once"),
    ("SHUTDOWN_DELAY_SECONDS", "how long the process still accepts requests after SIGTERM"),
    ("SHUTDOWN_DRAIN_SECONDS", "how long the requests in progress may take after that"),
];

impl Settings {
    /// The JSON Schema of the environment variables that are settings. It is the same wherever it is asked for.
    #[must_use]
    pub fn schema() -> Value {
        let environments = Environment::value_variants();
        let by_environment: Vec<Vec<ResolvedVariable>> = environments.iter().map(|one| defaults(*one)).collect();
        let mut properties = Map::new();
        let mut rules = Vec::new();
        for (index, variable) in by_environment.first().into_iter().flatten().enumerate() {
            let name = variable.name;
            let of_each = by_environment
                .iter()
                .map(|variables| variables.get(index).and_then(|variable| variable.default.as_deref()));
            let mut schema = variable.form.schema();
            let meaning = MEANINGS.iter().find(|(known, _)| *known == name).map_or("", |(_, meaning)| meaning);
            schema["description"] = meaning.into();
            match &of_each.collect::<Vec<_>>()[..] {
                [Some(default), others @ ..] if others.iter().all(|other| *other == Some(*default)) => {
                    schema["default"] = (*default).into();
                }
                differ if differ.iter().any(Option::is_some) => {
                    let each = environments.iter().zip(differ);
                    let each = each.filter_map(|(one, default)| default.map(|default| format!("{default} in {one}")));
                    schema["description"] =
                        format!("{meaning}. Default: {}.", each.collect::<Vec<_>>().join(", ")).into();
                }
                _ => {}
            }
            properties.insert(name.to_owned(), schema);
            if variable.or_file {
                let file = format!("{name}_FILE");
                rules.push(json!({"not": {"allOf": [given(name), given(&file)]}}));
                let description = format!("a file that holds the value of {name}, instead of it");
                properties.insert(file, json!({"type": "string", "description": description}));
            }
        }
        let outside =
            json!({"properties": {"ENVIRONMENT": {"enum": ["staging", "production"]}}, "required": ["ENVIRONMENT"]});
        rules.push(json!({"if": outside, "then": either("DATABASE_URL")}));
        rules.push(json!({"if": given("OIDC_ISSUER_URL"), "then": given("OIDC_CLIENT_ID")}));
        rules.push(json!({"if": given("OIDC_CLIENT_ID"), "then": given("OIDC_ISSUER_URL")}));
        rules.push(json!({"if": either("AUDIT_SIGNING_KEY"), "then": given("AUDIT_ORIGIN")}));
        rules.push(json!({"if": either("AUDIT_CHECKPOINT_WEBHOOK"), "then": either("AUDIT_SIGNING_KEY")}));
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Bulkhead's settings",
            "description": "Environment variables. An empty text counts as not set. `bulkhead config check` knows more rules.",
            "type": "object",
            "properties": properties,
            "allOf": rules,
        })
    }
}

/// All settings of an environment where nothing else is set.
fn defaults(environment: Environment) -> Vec<ResolvedVariable> {
    let environment = environment.to_string();
    Settings::read(&|name| (name == "ENVIRONMENT").then(|| environment.clone().into())).1
}

/// Holds where the variable is set to a text that is not empty.
fn given(name: &str) -> Value {
    json!({"required": [name], "properties": {name: {"minLength": 1}}})
}

/// Holds where the variable or that of its file is.
fn either(name: &str) -> Value {
    json!({"anyOf": [given(name), given(&format!("{name}_FILE"))]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_a_meaning_which_its_line_in_the_page_begins_with() {
        let page = include_str!("../../docs/settings.md");
        let settings: Vec<&str> = defaults(Environment::Development).iter().map(|variable| variable.name).collect();
        assert_eq!(MEANINGS.len(), settings.len());
        for (name, meaning) in MEANINGS {
            assert!(settings.contains(name), "{name} is no setting");
            let start = format!("| `{name}` |");
            let cells = page.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default();
            let (_, told) = cells.split_once(" | ").unwrap_or_default();
            assert!(!meaning.is_empty() && told.starts_with(meaning), "{name}: {told}");
        }
    }
}
