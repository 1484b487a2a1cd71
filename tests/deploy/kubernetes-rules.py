"""Holds rendered manifests to what no schema says: that files agree with each other, and what deploy/kubernetes promises.

usage: kubernetes-rules.py NAME RENDERED.yaml OPERATOR_POD.yaml
"""

import sys
from pathlib import Path

import yaml

NAMESPACE = "bulkhead"
API, MIGRATION, OPERATOR = "api", "migration", "operator"
# Which pods a selector must select, by the object that has it.
SELECTED = {
    ("NetworkPolicy", "default-deny"): {API, MIGRATION, OPERATOR},
    ("NetworkPolicy", "from-ingress"): {API},
    ("NetworkPolicy", "to-dns"): {API, MIGRATION, OPERATOR},
    ("NetworkPolicy", "to-postgresql"): {API, MIGRATION, OPERATOR},
    ("NetworkPolicy", "to-identity-provider"): {API},
    ("Service", "bulkhead"): {API},
    ("PodDisruptionBudget", "bulkhead"): {API},
    ("Deployment", "bulkhead"): {API},
}
# The keys of the secrets, which docs/kubernetes.md creates.
SECRETS = {
    "bulkhead-api": {"database-url", "oidc-client-secret", "cookie-secret"},
    "bulkhead-migration": {"database-url"},
}
# kubernetes.io/docs/concepts/security/pod-security-standards, "Restricted": volumes.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
# src/config.rs: the default of MIGRATION_LOCK_TIMEOUT_SECONDS.
LOCK_TIMEOUT = 300
# The defaults of BODY_TIMEOUT_SECONDS and REQUEST_TIMEOUT_SECONDS.
SLOWEST_REQUEST = 5 + 30
# docs/settings.md: after the drain, a stop records counted refusals and closes the pool.
AFTER_DRAIN = 5 + 1

held = 0
broken = []


def rule(holds, text):
    global held
    if holds:
        held += 1
    else:
        broken.append(text)


def selects(selector, labels):
    """Whether a selector without expressions selects; an empty one selects everything."""
    return all(labels.get(key) == value for key, value in (selector or {}).items())


def restricted(name, spec):
    """The pod security standard of the namespace, with no exception."""
    context = spec.get("securityContext", {})
    rule(context.get("runAsNonRoot") is True, f"{name}: runAsNonRoot")
    rule(context.get("runAsUser") == context.get("runAsGroup") == context.get("fsGroup") == 65532, f"{name}: 65532")
    rule(context.get("seccompProfile", {}).get("type") == "RuntimeDefault", f"{name}: seccompProfile")
    rule(not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), f"{name}: the host's namespaces")
    rule(not {"sysctls", "seLinuxOptions", "windowsOptions"} & context.keys(), f"{name}: sysctls, SELinux")
    for volume in spec.get("volumes", []):
        rule(VOLUMES & volume.keys(), f"{name}: the kind of volume {volume['name']}")
    for container in spec["containers"] + spec.get("initContainers", []):
        own = container.get("securityContext", {})
        rule(own.get("allowPrivilegeEscalation") is False, f"{name}: allowPrivilegeEscalation")
        rule(own.get("capabilities") == {"drop": ["ALL"]}, f"{name}: capabilities")
        rule(own.get("readOnlyRootFilesystem") is True, f"{name}: readOnlyRootFilesystem")
        rule(own.keys() <= {"allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem"}, f"{name}: {own}")
        rule(all("hostPort" not in port for port in container.get("ports", [])), f"{name}: hostPort")


def secrets(name, spec):
    """Every file that a variable names is a key of a secret that is mounted, and nothing else is mounted."""
    volumes = {volume["name"]: volume["secret"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        mounts = {mount["mountPath"]: volumes.get(mount["name"], {}) for mount in container.get("volumeMounts", [])}
        rule(len(mounts) == len(volumes), f"{name}: every volume is mounted once")
        for variable in container.get("env", []):
            if not variable["name"].endswith("_FILE"):
                rule("value" in variable, f"{name}: {variable['name']} has a value")
                continue
            path = Path(variable["value"])
            secret = mounts.get(str(path.parent), {}).get("secretName")
            rule(path.name in SECRETS.get(secret, ()), f"{name}: {variable['name']}: no secret has {path}")
    for secret in volumes.values():
        # Without this, everybody in the container could read them.
        rule(secret["defaultMode"] == 0o440, f"{name}: the mode of {secret['secretName']}")
    return {secret["secretName"] for secret in volumes.values()}


def variables(container):
    return {variable["name"]: variable.get("value") for variable in container.get("env", [])}


def deployment(spec, migrates):
    """Timings, probes, and how the pods are replaced and spread."""
    template = spec["template"]["spec"]
    (container,) = template["containers"]
    env = variables(container)
    stop = int(env["SHUTDOWN_DELAY_SECONDS"]) + int(env["SHUTDOWN_DRAIN_SECONDS"]) + AFTER_DRAIN
    rule(stop < template["terminationGracePeriodSeconds"], f"terminationGracePeriodSeconds is longer than {stop} s")
    startup, live, ready = (container[f"{kind}Probe"] for kind in ("startup", "liveness", "readiness"))
    for probe, route in ((startup, "startup"), (live, "live"), (ready, "ready")):
        rule(probe["httpGet"] == {"path": f"/api/v1/health/{route}", "port": "http"}, f"the probe of {route}")
    patience = startup["periodSeconds"] * startup["failureThreshold"]
    rule(LOCK_TIMEOUT < patience < spec["progressDeadlineSeconds"], f"{LOCK_TIMEOUT} s < {patience} s < the rollout's")
    rule("replicas" not in spec, "the autoscaler alone decides about replicas")
    rule(spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}, "the strategy")
    rule("lifecycle" not in container, "no hook: the image has no shell")
    rule(container["args"] == (["start"] if migrates else ["serve"]), f"the command {container['args']}")
    labels = spec["template"]["metadata"]["labels"]
    for constraint in template["topologySpreadConstraints"]:
        rule(constraint["labelSelector"]["matchLabels"] == labels, "the labels of a spread constraint")
        rule(constraint["matchLabelKeys"] == ["pod-template-hash"], "each release is spread by itself")
    return container


def main():
    name, rendered, operator = sys.argv[1:]
    objects = [one for one in yaml.safe_load_all(Path(rendered).read_text()) if one]
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    rule(len(by_name) == len(objects), "no object occurs twice")
    rule(all(one["metadata"].get("namespace") == NAMESPACE for one in objects if one["kind"] != "Namespace"), "the namespace")
    namespace = by_name.get(("Namespace", NAMESPACE))
    if namespace:
        labels = namespace["metadata"]["labels"]
        for mode in ("enforce", "audit", "warn"):
            rule(labels.get(f"pod-security.kubernetes.io/{mode}") == "restricted", f"the namespace: {mode}")

    api = by_name["Deployment", "bulkhead"]["spec"]
    job = by_name.get(("Job", "bulkhead-migration"))
    operator = yaml.safe_load(Path(operator).read_text())
    pods = {API: api["template"], OPERATOR: operator}
    if job:
        pods[MIGRATION] = job["spec"]["template"]

    accounts = {name for kind, name in by_name if kind == "ServiceAccount"}
    rule(accounts == {"bulkhead-api", "bulkhead-migration"}, f"the accounts {accounts}")
    rule(not any(kind.startswith(("Role", "ClusterRole")) for kind, _ in by_name), "no account has a role")
    for account in accounts:
        rule(by_name["ServiceAccount", account]["automountServiceAccountToken"] is False, f"{account}: no token")
    for role, pod in pods.items():
        spec = pod["spec"]
        account = "bulkhead-api" if role == API else "bulkhead-migration"
        rule(spec["serviceAccountName"] == account, f"{role}: the account {spec['serviceAccountName']}")
        rule(spec["automountServiceAccountToken"] is False, f"{role}: no token")
        rule(spec["enableServiceLinks"] is False, f"{role}: no variables of services")
        restricted(role, spec)
        mounted = secrets(role, spec)
        expected = {"bulkhead-migration"} if role != API else {"bulkhead-api"} | (set() if job else {"bulkhead-migration"})
        rule(mounted == expected, f"{role}: the secrets {mounted}")

    images = {container["image"] for role in pods for container in pods[role]["spec"]["containers"] if role != OPERATOR}
    rule(len(images) == 1 and "@sha256:" in next(iter(images)), f"one image, by digest: {images}")
    container = deployment(api, migrates=not job)
    (port,) = container["ports"]

    found = set()
    for (kind, object_name), one in by_name.items():
        spec = one.get("spec", {})
        selector = {
            "NetworkPolicy": lambda spec: spec["podSelector"].get("matchLabels"),
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "Deployment": lambda spec: spec["selector"]["matchLabels"],
        }.get(kind)
        if not selector:
            continue
        found.add((kind, object_name))
        chosen = {role for role, pod in pods.items() if selects(selector(spec), pod["metadata"]["labels"])}
        expected = SELECTED.get((kind, object_name), set()) & pods.keys()
        rule(chosen == expected, f"{kind} {object_name} selects {sorted(chosen)}, not {sorted(expected)}")
    rule(found == SELECTED.keys(), f"missing or unknown: {found ^ SELECTED.keys()}")

    policies = {name: one["spec"] for (kind, name), one in by_name.items() if kind == "NetworkPolicy"}
    denied = policies["default-deny"]
    rule(set(denied["policyTypes"]) == {"Ingress", "Egress"} and not {"ingress", "egress"} & denied.keys(), "default-deny")
    for policy in policies.values():
        for peers in policy.get("ingress", []) + policy.get("egress", []):
            rule(peers.get("from") or peers.get("to"), "a policy that allows everybody")
            rule(peers.get("ports"), "a policy that allows every port")
    ports = [allowed["port"] for rules in policies["from-ingress"]["ingress"] for allowed in rules["ports"]]
    rule(ports == [port["containerPort"]], f"the ingress reaches {ports}")
    (service_port,) = by_name["Service", "bulkhead"]["spec"]["ports"]
    rule(service_port["targetPort"] == port["name"] == "http", "the Service's port")

    scaler = by_name["HorizontalPodAutoscaler", "bulkhead"]["spec"]
    rule((scaler["scaleTargetRef"]["kind"], scaler["scaleTargetRef"]["name"]) == ("Deployment", "bulkhead"), "its target")
    rule(scaler["metrics"][0]["containerResource"]["container"] == container["name"], "the autoscaler's container")
    rule(scaler["minReplicas"] > by_name["PodDisruptionBudget", "bulkhead"]["spec"]["maxUnavailable"], "the budget")
    connections = int(variables(container).get("DATABASE_MAX_CONNECTIONS", 10)) + 4
    rule(2 * scaler["maxReplicas"] * connections + 10 <= 100, "the connections of a rollout fit PostgreSQL's default")

    route = by_name.get(("HTTPRoute", "bulkhead"))
    if route:
        way_in(route["spec"], service_port["port"])
    hooks(job, by_name)
    for text in broken:
        print(f"tests/deploy/kubernetes: {name}: {text}", file=sys.stderr)
    print(f"{name}: {len(objects)} objects, {held} rules hold, {len(broken)} are broken")
    sys.exit(bool(broken))


def way_in(route, port):
    """The route fits the Service and deploy/kubernetes/gateway.yaml, which offers HTTPS alone and waits for slow requests."""
    _, gateway = yaml.safe_load_all(Path("deploy/kubernetes/gateway.yaml").read_text())
    (listener,) = gateway["spec"]["listeners"]
    (parent,) = route["parentRefs"]
    rule(parent == gateway["metadata"] | {"sectionName": listener["name"]}, f"the route's Gateway {parent}")
    rule(route["hostnames"] == [listener["hostname"]], "the route's names")
    rule((listener["protocol"], listener["port"], listener["tls"]["mode"]) == ("HTTPS", 443, "Terminate"), "HTTPS")
    allowed = listener["allowedRoutes"]["namespaces"]
    rule(allowed["from"] == "Selector", "who may answer for the name")
    rule(allowed["selector"] == {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}, "the API's namespace may")
    (rules,) = route["rules"]
    rule(rules["backendRefs"] == [{"name": "bulkhead", "port": port}], "the route's Service")
    timeout = rules["timeouts"]["request"]
    rule(SLOWEST_REQUEST < int(timeout.removesuffix("s")), f"the gateway waits {timeout}, a request takes {SLOWEST_REQUEST} s")
    rule(rules["timeouts"].keys() == {"request"}, "no other time of the route's")


def hooks(job, by_name):
    """What the Job of a hook needs is there before it."""
    argo, helm = "argocd.argoproj.io/", "helm.sh/"
    annotations = (job or {}).get("metadata", {}).get("annotations", {})
    account = by_name["ServiceAccount", "bulkhead-migration"]["metadata"].get("annotations", {})
    if argo + "hook" in annotations:
        rule(annotations[argo + "hook-delete-policy"] == "BeforeHookCreation", "Argo CD deletes the last Job")
        wave = int(annotations[argo + "sync-wave"])
        for (kind, name), one in by_name.items():
            own = int(one["metadata"].get("annotations", {}).get(argo + "sync-wave", 0))
            before = kind in ("Namespace", "ServiceAccount", "NetworkPolicy")
            if kind != "Job":
                rule(own < wave if before else own > wave, f"{kind} {name}: its wave {own}")
    if helm + "hook" in annotations:
        rule(annotations[helm + "hook"] == account[helm + "hook"] == "pre-install,pre-upgrade", "Helm's hooks")
        rule(int(account[helm + "hook-weight"]) < int(annotations[helm + "hook-weight"]), "the account is first")
        rule(annotations[helm + "hook-delete-policy"] == "before-hook-creation", "Helm deletes the last Job")
        rule(("Namespace", NAMESPACE) not in by_name, "the namespace is there before the chart")


try:
    main()
except KeyError as missing:
    sys.exit(f"tests/deploy/kubernetes: {sys.argv[1]}: there is no {missing}")
