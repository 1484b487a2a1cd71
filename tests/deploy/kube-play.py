"""Writes what podman is to play, as JSON, which is YAML: kube-play.py FOLDER database IMAGE | FOLDER api IMAGE ADDRESS PORT

database: a PostgreSQL with the roles of docs/kubernetes.md. api: the Deployment of deploy/kubernetes, one replica of it, published at
PORT of the loopback. In the Deployment changes the image, what podman cannot do, and what stands in for an identity provider: a key
for development, FOLDER/development/key.
"""

import json
import pathlib
import secrets
import sys

import yaml

folder, what, image, *rest = sys.argv[1:]
folder = pathlib.Path(folder)


# A folder of this machine stands for a secret: podman 4.3 gives a container the values of a Secret as they are encoded.
def secret(name, **values):
    (folder / name).mkdir()
    for key, value in values.items():
        (folder / name / key.replace("_", "-")).write_text(value)
    return {"path": str(folder / name), "type": "Directory"}


def write(name, *objects):
    (folder / f"{name}.yaml").write_text("---\n".join(json.dumps(each, indent=1) + "\n" for each in objects))


passwords = folder / "passwords.json"
if what == "database":
    owner, api = secrets.token_hex(16), secrets.token_hex(16)
    passwords.write_text(json.dumps([owner, api]))
    roles = f"""
        CREATE ROLE bulkhead_app NOLOGIN;
        CREATE ROLE bulkhead_owner LOGIN PASSWORD '{owner}';
        CREATE ROLE bulkhead_api LOGIN PASSWORD '{api}';
        GRANT bulkhead_app TO bulkhead_owner, bulkhead_api;
        CREATE DATABASE bulkhead OWNER bulkhead_owner;
    """
    container = {
        "name": "postgres",
        "image": image,
        # The image's user postgres, as in deploy/compose.yaml.
        "securityContext": {"runAsUser": 999, "runAsGroup": 999},
        "env": [{"name": "POSTGRES_PASSWORD_FILE", "value": "/run/password/superuser"}],
        "volumeMounts": [
            {"name": "roles", "mountPath": "/docker-entrypoint-initdb.d"},
            {"name": "password", "mountPath": "/run/password"},
        ],
    }
    volumes = [
        {"name": "roles", "configMap": {"name": "bulkhead-roles"}},
        {"name": "password", "hostPath": secret("superuser", superuser=secrets.token_hex(16))},
    ]
    write(
        "database",
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bulkhead-roles"}, "data": {"roles.sql": roles}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "bulkhead-database"},
            "spec": {"containers": [container], "volumes": volumes},
        },
    )
else:
    address, port = rest
    owner, api = json.loads(passwords.read_text())
    url = f"postgres://{{}}:{{}}@{address}/bulkhead".format
    of_name = {
        "bulkhead-api": {
            "database_url": url("bulkhead_api", api),
            "cookie_secret": secrets.token_hex(32),
            "oidc_client_secret": secrets.token_hex(16),
        },
        "bulkhead-migration": {"database_url": url("bulkhead_owner", owner)},
    }
    deployment = yaml.safe_load(pathlib.Path("deploy/kubernetes/base/manifests/30-deployment.yaml").read_text())
    deployment["spec"]["replicas"] = 1
    pod = deployment["spec"]["template"]["spec"]
    for volume in pod["volumes"]:
        name = volume.pop("secret")["secretName"]
        volume["hostPath"] = secret(name, **of_name[name])
    (container,) = pod["containers"]
    container["image"] = image
    container["ports"][0] |= {"hostIP": "127.0.0.1", "hostPort": int(port)}
    more = {
        # The database is on a network of this machine that nothing else is on.
        "DATABASE_ALLOW_UNVERIFIED": "true",
        # Without a provider, `dev-token` makes the tokens.
        "ENVIRONMENT": "development",
        "DEVELOPMENT_KEY_FILE": "/run/secrets/development/key",
        "LOG_FORMAT": "json",
    }
    kept = [each for each in container["env"] if not each["name"].startswith("OIDC_")]
    container["env"] = kept + [{"name": name, "value": value} for name, value in more.items()]
    container["volumeMounts"].append({"name": "development", "mountPath": "/run/secrets/development"})
    pod["volumes"].append({"name": "development", "hostPath": {"path": str(folder / "development"), "type": "Directory"}})
    write("api", deployment)
