"""Where an API server is and who we are to it: a kubeconfig file, or what a pod finds in itself.

The form is that of https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/. What it can ask for and we have not
got (exec and auth-provider plug-ins, passwords, proxies) is refused by name when it is read, not when it is missed.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..errors import PyrunError
from . import manifest

IN_CLUSTER = "/var/run/secrets/kubernetes.io/serviceaccount"
REFUSED_USER = {
    "exec": "credentials from a program (exec) are not supported",
    "auth-provider": "auth-provider plug-ins are not supported; Kubernetes itself has dropped them",
    "username": "the API server takes no passwords any more",
    "password": "the API server takes no passwords any more",
}
REFUSED_CLUSTER = {"proxy-url": "a proxy before the API server is not supported"}
WAY_OUT = "a token, tokenFile, or client-certificate and client-key will do"


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server and our credentials. Files are read when they are used, and again when they have changed.

    server: https://HOST:PORT, with a path before /api where it has one. ca: PEM, in place of ca_file; neither: the
    machine's own authorities. certificate, key: PEM bytes in place of the files. headers: of impersonation.
    """

    server: str
    ca_file: str | None = None
    ca: bytes | None = None
    verify: bool = True
    server_name: str | None = None
    token: str | None = None
    token_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    namespace: str = "default"


def load_kubeconfig(path: str, context: str | None = None) -> Cluster:
    """The cluster of a context (by default the current one). PyrunError names the file and the key."""
    documents = manifest.load(path)
    if len(documents) != 1:
        raise PyrunError(f"{path}: {len(documents)} documents, and not one kubeconfig")
    config = documents[0].value
    return parse_kubeconfig(config, path, context)


def parse_kubeconfig(config: Any, path: str, context: str | None = None) -> Cluster:
    """config: as YAML or JSON has it. Names of files in it are relative to the file's directory."""
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise PyrunError(f"{path}: no kubeconfig: it has no kind: Config")
    reader = _Reader(config, path)
    name = context or config.get("current-context")
    if not isinstance(name, str) or not name:
        raise PyrunError(f"{path}: current-context is not set", hint="kubectl config use-context NAME")
    chosen = reader.named("contexts", "context", name)
    cluster = reader.named("clusters", "cluster", chosen.get("cluster"))
    user = reader.named("users", "user", chosen["user"]) if chosen.get("user") else {}
    for refused, of in ((REFUSED_CLUSTER, cluster), (REFUSED_USER, user)):
        for key, why in refused.items():
            if of.get(key):
                raise PyrunError(f"{path}: {key}: {why}", hint=WAY_OUT if of is user else None)
    server = cluster.get("server")
    if not isinstance(server, str) or urlsplit(server).scheme not in ("https", "http") or not urlsplit(server).hostname:
        raise PyrunError(f"{path}: clusters: server {server!r} is no URL of https")
    return Cluster(
        server=server.rstrip("/"),
        ca_file=reader.file(cluster, "certificate-authority"),
        ca=reader.data(cluster, "certificate-authority-data"),
        verify=not cluster.get("insecure-skip-tls-verify", False),
        server_name=cluster.get("tls-server-name"),
        token=user.get("token"),
        token_file=reader.file(user, "tokenFile"),
        certificate_file=reader.file(user, "client-certificate"),
        key_file=reader.file(user, "client-key"),
        certificate=reader.data(user, "client-certificate-data"),
        key=reader.data(user, "client-key-data"),
        headers=tuple(_impersonation(user)),
        namespace=chosen.get("namespace") or "default",
    )


class _Reader:
    def __init__(self, config: dict[str, Any], path: str) -> None:
        self.config = config
        self.path = path

    def named(self, of: str, key: str, name: Any) -> dict[str, Any]:
        """One of a list of {name, KEY: {…}}."""
        for one in self.config.get(of) or []:
            if isinstance(one, dict) and one.get("name") == name and isinstance(one.get(key), dict):
                found: dict[str, Any] = one[key]
                return found
        raise PyrunError(f"{self.path}: {of} has no {name!r}")

    def file(self, of: dict[str, Any], key: str) -> str | None:
        value = of.get(key)
        if not value:
            return None
        return os.path.join(os.path.dirname(os.path.abspath(self.path)), str(value))

    def data(self, of: dict[str, Any], key: str) -> bytes | None:
        value = of.get(key)
        if not value:
            return None
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise PyrunError(f"{self.path}: {key} is no base64") from None


def _impersonation(user: dict[str, Any]) -> list[tuple[str, str]]:
    """https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation"""
    found = [(header, str(user[key])) for key, header in _IMPERSONATED.items() if user.get(key)]
    found += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    extra = user.get("as-user-extra") or {}
    return found + [(f"Impersonate-Extra-{key}", str(value)) for key, values in extra.items() for value in values]


_IMPERSONATED = {"as": "Impersonate-User", "as-uid": "Impersonate-Uid"}


def in_cluster(directory: str = IN_CLUSTER) -> Cluster:
    """What a pod is given: two variables, and its service account's directory. PyrunError outside of one."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise PyrunError(
            "no kubeconfig is given, and $KUBERNETES_SERVICE_HOST and $KUBERNETES_SERVICE_PORT are not set",
            hint="--kubeconfig FILE, outside of a pod",
        )
    host = f"[{host}]" if ":" in host else host
    return Cluster(
        server=f"https://{host}:{port}",
        ca_file=f"{directory}/ca.crt",
        token_file=f"{directory}/token",
        namespace="default",
    )
