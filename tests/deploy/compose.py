"""Rules that the Compose specification does not have: a line for each, `so` or `not so`, a tab, and the rule."""

import base64
import json
import pathlib
import re

import bcrypt
import ruamel.yaml

deploy = pathlib.Path("deploy")
load = ruamel.yaml.YAML(typ="safe").load
compose = load((deploy / "compose.yaml").read_text())
services = compose["services"]


def rule(what, so):
    print("so" if so else "not so", what, sep="\t")


def seconds(text):
    """A duration such as 45s, 500ms or 1m."""
    number, unit = re.fullmatch(r"([0-9.]+)(ms|s|m)", str(text)).groups()
    return float(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def setting(file, pattern):
    """The one value that the pattern finds in the file."""
    (value,) = set(re.findall(pattern, (deploy / file).read_text(), re.M))
    return value


rule("compose.yaml names no version of the file's form", "version" not in compose)
for name, service in services.items():
    limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
    rule(f"{name} has a read-only root", service.get("read_only") is True)
    rule(f"{name} drops all capabilities", service.get("cap_drop") == ["ALL"])
    added = ["NET_BIND_SERVICE"] if name == "caddy" else []
    rule(f"{name} adds no capability but Caddy's", service.get("cap_add", []) == added)
    rule(f"{name} gains no privileges", service.get("security_opt") == ["no-new-privileges:true"])
    rule(f"{name} has limits on memory and processes", {"memory", "pids"} <= limits.keys())
    rule(f"{name}'s log is rotated", {"max-size", "max-file"} <= service["logging"]["options"].keys())
    rule(f"{name} is not privileged", not {"privileged", "network_mode", "pid", "ipc", "devices"} & service.keys())
    # One that runs once is waited for until it has ended.
    rule(f"{name} has a health check, or runs once", "healthcheck" in service or service["restart"] == "no")
    image = service["image"]
    own = image.startswith("${BULKHEAD_IMAGE:-")
    rule(f"{name}'s image is Bulkhead's, or pinned by its digest", own or re.search(r":[^@/]+@sha256:[0-9a-f]{64}$", image))
    for port in service.get("ports", []):
        local = re.match(r"127\.0\.0\.1:|\$\{\w+:-127\.0\.0\.1\}:", port)
        rule(f"{name}'s port {port} is not open to others by default", local)
    for volume in service.get("volumes", []):
        source = volume.split(":")[0]
        there = (deploy / source).is_file() if source.startswith("./") else source in compose["volumes"]
        rule(f"{name}'s {source} is there", there)
    rule(f"{name} waits for services that are there", service.get("depends_on", {}).keys() <= services.keys())
    rule(f"{name}'s networks are declared", set(service["networks"]) <= compose["networks"].keys())
    for secret in service.get("secrets", []):
        rule(f"{name}'s secret {secret} is declared", secret in compose["secrets"])
    for variable, value in service.get("environment", {}).items():
        if variable.endswith("_FILE"):
            rule(f"{name}'s {variable} names a secret of it", value.removeprefix("/run/secrets/") in service["secrets"])

made = (deploy / "compose/secrets").read_text()
used = {secret for service in services.values() for secret in service.get("secrets", [])}
for name, secret in compose["secrets"].items():
    rule(f"{name} is in compose/.secrets", secret["file"] == f"./compose/.secrets/{name}")
    rule(f"compose/secrets makes {name}", re.search(rf"keep {name}\b", made))
    rule(f"some service uses {name}", name in used)

api = [service for service in services.values() if service.get("command") == ["serve"]]
rule("there are two replicas, and they are the same", len(api) == 2 and api[0] == api[1])
for service in api:
    after = service["depends_on"]
    migrated = after["migrate"]["condition"] == "service_completed_successfully"
    rule("a replica waits for the migration to have succeeded", migrated)
    rule("and for PostgreSQL to be healthy", after["postgres"]["condition"] == "service_healthy")
    rule("a replica does not get the owner's URL", "database_owner_url" not in service["secrets"])
    rule("and trusts the network of Caddy",
         service["environment"]["TRUSTED_PROXIES"] == compose["networks"]["web"]["ipam"]["config"][0]["subnet"])
rule("the migration makes the replicas' login", services["migrate"]["command"] == ["database", "prepare"])
rule("PostgreSQL does not get the replicas' URL", "database_url" not in services["postgres"]["secrets"])
rule("the migration waits for PostgreSQL", services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy")
rule("Caddy waits for the replicas",
     {name: wait["condition"] for name, wait in services["caddy"]["depends_on"].items()}
     == {name: "service_healthy" for name, service in services.items() if service in api})
rule("the network of PostgreSQL has no way out, and PostgreSQL is on no other",
     compose["networks"]["database"]["internal"] is True and services["postgres"]["networks"] == ["database"])
rule("only the profile identity has Dex", services["dex"]["profiles"] == ["identity"])
for name in "prometheus", "grafana":
    rule(f"only the profile observability has {name}", services[name]["profiles"] == ["observability"])
(job,) = load((deploy / "observability/prometheus.yaml").read_text())["scrape_configs"]
measured = [f"{name}:{service['environment']['METRICS_PORT']}" for name, service in services.items() if service in api]
rule("Prometheus asks every replica", job["static_configs"] == [{"targets": measured}])
(source,) = load((deploy / "observability/datasource.yaml").read_text())["datasources"]
dashboard = json.loads((deploy / "observability/dashboard.json").read_text())
rule("Grafana asks Prometheus", source["url"] == "http://prometheus:9090")
kinds = [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"]
rule("and the dashboard asks a source of its kind", kinds == [source["type"]] and source["isDefault"])
(provider,) = load((deploy / "observability/dashboards.yaml").read_text())["providers"]
rule("Grafana finds the dashboard", any(volume.split(":")[1].startswith(provider["options"]["path"] + "/")
                                        for volume in services["grafana"]["volumes"]))
upstreams = setting("compose/Caddyfile", r"reverse_proxy (.*) \{").split()
rule("Caddy names every replica", upstreams == [f"{name}:8000" for name, service in services.items() if service in api])

# docs/proxies.md: how soon each proxy notices a stop.
delay = int(api[0]["environment"]["SHUTDOWN_DELAY_SECONDS"])
drain, refusals, pool = 30, 5, 1
grace = seconds(api[0]["stop_grace_period"])
rule(f"a replica may take {grace:g} s, more than {delay} + {drain} + {refusals} + {pool}",
     grace > delay + drain + refusals + pool)
checks = {
    "Caddy": ("compose/Caddyfile", r"^\s*health_interval (\S+)", r"^\s*health_fails (\d+)", r"^\s*health_timeout (\S+)"),
    "haproxy": ("proxies/haproxy.cfg", r"\binter (\S+)", r"\bfall (\d+)", r"^\s*timeout check (\S+)"),
}
for proxy, (file, interval, fails, timeout) in checks.items():
    # Caddy's default is one failed check.
    needed = int(setting(file, fails)) if re.search(fails, (deploy / file).read_text(), re.M) else 1
    after = seconds(setting(file, interval)) * needed + seconds(setting(file, timeout))
    rule(f"{proxy} notices a stop within {after:g} s, and the delay is {delay}", after <= delay)
    rule(f"{proxy}'s row in docs/proxies.md says {after:g} s",
         re.search(rf"^\| {proxy} \|.* {needed} .*\| {after:g} s \|$", pathlib.Path("docs/proxies.md").read_text(), re.M))
    rule(f"{proxy} asks for readiness", "/api/v1/health/ready" in (deploy / file).read_text())
idle = seconds(setting("proxies/nginx.conf", r"^\s*keepalive_timeout (\S+);"))
rule(f"nginx keeps unused connections {idle:g} s, less than the delay of {delay}", idle < delay)
# HEADER_READ_TIMEOUT in src/server/listener.rs.
idle = seconds(setting("compose/Caddyfile", r"^\s*keepalive (\S+)"))
rule(f"Caddy keeps unused connections {idle:g} s, less than the API's 30 s", idle < 30)
nginx, haproxy = [(deploy / "proxies" / file).read_text() for file in ("nginx.conf", "haproxy.cfg")]
rule("nginx takes no server for down", re.findall(r"^\s*server \S+ (.*);", nginx, re.M) == ["max_fails=0"] * 3)
rule("nginx repeats no POST that was sent", not re.search(r"^\s*proxy_next_upstream .*non_idempotent", nginx, re.M))
rule("haproxy repeats no POST that was sent", re.search(r"^\s*http-request disable-l7-retry unless METH_GET$", haproxy, re.M))
rule("haproxy tries another server at every retry", re.search(r"^\s*option redispatch 1$", haproxy, re.M))

# Dex, its settings and the page.
dex = load((deploy / "compose/dex.yaml").read_text())
(user,) = dex["staticPasswords"]
settings = dict(line.split("=", 1) for line in (deploy / "compose/identity.env").read_text().splitlines() if line[0] != "#")
page = pathlib.Path("docs/compose.md").read_text()
rule("Dex's user has the password of docs/compose.md", bcrypt.checkpw(b"password", user["hash"].encode()))
rule("docs/compose.md names Dex's user", f"username={user['email']} -d password=password" in page)
# Dex's `sub`: a message of two texts, the user's id and the connector's, in base64
# (https://github.com/dexidp/dex/blob/v2.45.1/server/internal/types.proto).
subject = b"".join(bytes([10 + 8 * n, len(text)]) + text.encode() for n, text in enumerate([user["userID"], "local"]))
subject = base64.urlsafe_b64encode(subject).rstrip(b"=").decode()
rule(f"docs/compose.md has the user's sub, {subject}", f"--admin-subject {subject}\n" in page)
rule("and the tenant that Dex gives", f"--external-id {user['preferredUsername']} " in page)
rule("which is in the claim of identity.env", settings["JWT_TENANT_CLAIM_NAME"] == "preferred_username")
rule("identity.env names Dex as the issuer, as Dex does", settings["OIDC_ISSUER_URL"] == dex["issuer"])
rule("and its client", settings["OIDC_CLIENT_ID"] in [client["id"] for client in dex["staticClients"]])
rule("Dex's tokens are valid for an hour, JWT_MAX_LIFETIME_MINUTES", dex["expiry"]["idTokens"] == "1h")
known = set(re.findall(r"`([A-Z][A-Z_]+)`", pathlib.Path("docs/settings.md").read_text()))
for name in {*settings, *api[0]["environment"], *services["migrate"]["environment"]} - {"SSL_CERT_FILE"}:
    rule(f"{name} is in docs/settings.md", name in known)
for name in re.findall(r"^    ([A-Z_]+)=", page, re.M):
    rule(f"{name} of docs/compose.md is known", name in known or f"${{{name}" in (deploy / "compose.yaml").read_text())
for name in re.findall(r"\$\{([A-Z_]+)", (deploy / "compose.yaml").read_text()):
    rule(f"{name} of compose.yaml is in docs/compose.md", f"`{name}`" in page or name == "SOURCE_REVISION")
rule("every rule was looked at", True)
