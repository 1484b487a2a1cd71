"""Asks both the JSON Schema of the settings and `bulkhead config check` about the same variables.

schema.py SCHEMA PROGRAM
"""

import json
import subprocess
import sys
import tempfile

from jsonschema import Draft202012Validator

schema_file, program = sys.argv[1:]
with open(schema_file, encoding="utf-8") as file:
    schema = json.load(file)
validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
secret_file = tempfile.NamedTemporaryFile("w")
secret_file.write("sqlite://x.db\n")
secret_file.flush()

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PRODUCTION = {"ENVIRONMENT": "production", "DATABASE_URL": "sqlite://x.db"}
PROVIDER = {"OIDC_ISSUER_URL": "https://login.example.com", "OIDC_CLIENT_ID": "x"}
PEM = "-----BEGIN CERTIFICATE-----\n"

TAKEN = [
    {},
    {"UNKNOWN": "x"},
    {"PORT": "", "HOST": "", "ENVIRONMENT": "", "DOCS_ENABLED": "", "COOKIE_SECRET": "", "OIDC_ISSUER_URL": ""},
    {"PORT": "0"},
    {"PORT": "65535"},
    {"PORT": "+080"},
    {"HOST": "::1"},
    {"HOST": "0.0.0.0"},
    {"ENVIRONMENT": "staging", "DATABASE_URL": "sqlite://x.db"},
    {"ENVIRONMENT": "production", "DATABASE_URL_FILE": secret_file.name},
    {"DATABASE_URL": "postgres://me:p%40ss@db.internal:5432/app?sslmode=verify-full"},
    {"DATABASE_URL": "postgresql://[::1]/app"},
    {"MIGRATE_ON_START": "true"},
    {"MIGRATE_ON_START": "off"},
    {"MIGRATION_ALLOW_UNKNOWN": "true"},
    {"DATABASE_MAX_CONNECTIONS": "262143"},
    {"JWKS_CACHE_TTL_SECONDS": "10"},
    {"JWKS_CACHE_TTL_SECONDS": "086400"},
    {"JWT_CACHE_CAPACITY": "0"},
    {"RATE_LIMIT_PER_MINUTE": "1000000"},
    {"AUDIT_SIGNING_KEY": KEY, "AUDIT_ORIGIN": "api.example.org"},
    {"AUDIT_SUBJECT_KEY": KEY, "AUDIT_CHECKPOINT_MINUTES": "10080"},
    {"AUDIT_SIGNING_KEY": KEY, "AUDIT_ORIGIN": "x", "AUDIT_CHECKPOINT_WEBHOOK": "https://me:secret@example.org/a?token=x"},
    PROVIDER,
    {**PROVIDER, "OIDC_SCOPES": "profile openid", "JWT_TYPE": "at+jwt", "OIDC_API_TOKEN": "access_token"},
    {**PROVIDER, "COOKIE_SECRET": "x" * 32},
    {**PROVIDER, "COOKIE_SECRET": "\u00e4" * 16},
    {**PROVIDER, "OIDC_REDIRECT_URL": "http://localhost:5173/callback?x=y"},
    {"JWT_TENANT_CLAIM_NAME": "https://example.org/tenant id"},
    {"LOG_LEVEL": "info,sqlx=debug", "LOG_FORMAT": "json"},
    {"LOG_LEVEL": " WARN ,tower::x=off,sqlx =trace"},
    {"LOG_LEVEL": "off,x[{y}]=+03\u3000"},
    {"ALLOWED_ORIGINS": "https://a.org, http://[::1]:3000"},
    {"TRUSTED_PROXIES": "railway, 10.0.0.0/8,::ffff:192.0.2.8 ,fd00::/8"},
    {"MAX_METADATA_BYTES": "2"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://otlp.example.org/team/v1/traces"},
    {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x,x-team=a"},
    {"OTEL_RESOURCE_ATTRIBUTES": "service.name=api,cloud.region=eu"},
    {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
    {"OTEL_TRACES_SAMPLER_ARG": "1"},
]
REFUSED = [
    {"ENVIRONMENT": "prod"},
    {"ENVIRONMENT": "Production"},
    {"ENVIRONMENT": "production"},
    {"ENVIRONMENT": "staging", "DATABASE_URL": ""},
    {**PRODUCTION, "DATABASE_URL_FILE": secret_file.name},
    {"PORT": "65536"},
    {"PORT": "70000"},
    {"PORT": "-1"},
    {"PORT": "80 "},
    {"PORT": "http"},
    {"HOST": "localhost"},
    {"DATABASE_URL": "mysql://me@db/app"},
    {"MIGRATE_ON_START": "maybe"},
    {"DOCS_ENABLED": "yes"},
    {"DATABASE_MAX_CONNECTIONS": "0"},
    {"DATABASE_MAX_CONNECTIONS": "262144"},
    {"MAX_METADATA_BYTES": "1"},
    {"JWKS_CACHE_TTL_SECONDS": "9"},
    {"JWKS_CACHE_TTL_SECONDS": "86401"},
    {"RATE_LIMIT_BURST": "00"},
    {"RATE_LIMIT_PER_MINUTE": "1000001"},
    {"OIDC_ISSUER_URL": "https://login.example.com"},
    {"OIDC_CLIENT_ID": "x"},
    {**PROVIDER, "OIDC_ISSUER_URL": "ftp://login.example.com"},
    {**PROVIDER, "OIDC_ISSUER_URL": "https://me:hunter2@login.example.com"},
    {**PROVIDER, "OIDC_SCOPES": "profile"},
    {**PROVIDER, "OIDC_API_TOKEN": "access-token"},
    {**PROVIDER, "COOKIE_SECRET": "x" * 31},
    {"AUDIT_SIGNING_KEY": KEY},
    {"AUDIT_SIGNING_KEY": "short", "AUDIT_ORIGIN": "x"},
    {"AUDIT_SUBJECT_KEY": KEY[:-1]},
    {"AUDIT_ORIGIN": "a b"},
    {"AUDIT_ORIGIN": "a/"},
    {"AUDIT_CHECKPOINT_MINUTES": "10081"},
    {"AUDIT_CHECKPOINT_WEBHOOK": "https://example.org/"},
    {"AUDIT_SIGNING_KEY": KEY, "AUDIT_ORIGIN": "x", "AUDIT_CHECKPOINT_WEBHOOK": "ftp://example.org/"},
    {"AUDIT_SIGNING_KEY": KEY, "AUDIT_ORIGIN": "x", "AUDIT_CHECKPOINT_WEBHOOK": "example.org/x"},
    {"JWT_ROLE_CLAIM_NAME": " role"},
    {"LOG_LEVEL": "inof"},
    {"LOG_LEVEL": "info,sqlx"},
    {"LOG_LEVEL": "info,"},
    {"LOG_LEVEL": "sqlx= debug"},
    {"LOG_LEVEL": "a=b=info"},
    {"LOG_LEVEL": " =info"},
    {"LOG_LEVEL": "6"},
    {"LOG_LEVEL": "x[{y=info"},
    {"LOG_FORMAT": "xml"},
    {"ALLOWED_ORIGINS": "*"},
    {"ALLOWED_ORIGINS": "https://a.org/"},
    {"ALLOWED_ORIGINS": "app.example.org"},
    {"TRUSTED_PROXIES": "proxy.internal"},
    {"TRUSTED_PROXIES": "10.0.0.1,,"},
    {"DATABASE_CA": "no certificate"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://me:hunter2@collector:4318"},
    {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces?key=x"},
    {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    {"OTEL_EXPORTER_OTLP_HEADERS": "x"},
    {"OTEL_RESOURCE_ATTRIBUTES": "region"},
    {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
    {"OTEL_TRACES_EXPORTER": "zipkin"},
    {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
    {"OTEL_TRACES_SAMPLER_ARG": "1.1"},
    {"OTEL_BSP_MAX_QUEUE_SIZE": "65537"},
]
# As JSON and YAML write them; a variable's text is the same.
VALUES = [
    ({"PORT": 8080, "DOCS_ENABLED": False}, True),
    ({"PORT": 65536}, False),
    ({"DATABASE_MAX_CONNECTIONS": 0}, False),
    ({"PORT": True}, False),
    ({"LOG_FORMAT": 1}, False),
]

wrong = []


def expect(what, known, wanted):
    if known != wanted:
        wrong.append(f"{what}: {known}, not {wanted}")


for settings, wanted in [(one, True) for one in TAKEN] + [(one, False) for one in REFUSED]:
    check = subprocess.run([program, "config", "check"], env=settings, capture_output=True, text=True)
    expect(f"config check {settings} {check.stderr}", check.returncode == 0, wanted)
    expect(f"schema {settings}", validator.is_valid(settings), wanted)
for settings, wanted in VALUES:
    expect(f"schema {settings}", validator.is_valid(settings), wanted)

properties = schema["properties"]
shown = subprocess.run([program, "config", "show"], env={}, capture_output=True, text=True, check=True).stdout
names = {line.split(" ")[0] for line in shown.splitlines()}
twins = {f"{name}_FILE" for name in names if f"{name}_FILE" in properties}
expect("variables", sorted(properties), sorted(names | twins))
expect("variables with a file", len(twins), 9)
for name, of in properties.items():
    expect(f"description of {name}", bool(of.get("description")), True)
    if "default" in of:
        expect(f"default of {name}", Draft202012Validator(of).is_valid(of["default"]), True)
        expect(f"default of {name} as shown", f"  {of['default']}  (default)" in shown, True)
expect("secrets", sorted(name for name in properties if properties[name].get("writeOnly")),
       ["AUDIT_CHECKPOINT_WEBHOOK", "AUDIT_SIGNING_KEY", "AUDIT_SUBJECT_KEY", "COOKIE_SECRET", "DATABASE_URL", "MIGRATION_DATABASE_URL",
        "OIDC_CLIENT_SECRET", "OTEL_EXPORTER_OTLP_HEADERS"])

for line in wrong:
    print(line, file=sys.stderr)
print(f"{len(TAKEN) + len(REFUSED) + len(VALUES)} sets of settings, {len(properties)} variables")
sys.exit(bool(wrong))
