"""What kubeadm puts into a cluster so that nodes can join: tokens, rights to ask for certificates, and cluster-info."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pyrun.kube.certificates import Pair, key_hashes, parse_pair, write_private
from pyrun.kube.client import path
from tests.support.kube.control_plane import ControlPlane

RBAC = "rbac.authorization.k8s.io"
# Each token is of the first; what one of the second asks for, a controller approves.
BY_HAND = "system:bootstrappers"
BY_ITSELF = "system:bootstrappers:trusted"
CERTIFICATES = "system:certificates.k8s.io:certificatesigningrequests"
BINDINGS = {
    "ask": ("system:node-bootstrapper", BY_HAND),
    "approve-new": (f"{CERTIFICATES}:nodeclient", BY_ITSELF),
    "approve-again": (f"{CERTIFICATES}:selfnodeclient", "system:nodes"),
}


def prepare(plane: ControlPlane) -> None:
    for name, (bound, group) in BINDINGS.items():
        made = binding(name, "ClusterRole", bound, "Group", group)
        plane.admin.create(path(f"{RBAC}/v1", "clusterrolebindings"), made)
    info = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}
    role = {"apiVersion": f"{RBAC}/v1", "kind": "Role", "metadata": {"name": "cluster-info"}, "rules": [info]}
    plane.admin.create(path(f"{RBAC}/v1", "roles", "kube-public"), role)
    made = binding("cluster-info", "Role", "cluster-info", "User", "system:anonymous")
    plane.admin.create(path(f"{RBAC}/v1", "rolebindings", "kube-public"), made)
    cluster = {"server": plane.url, "certificate-authority-data": base64.b64encode(authority(plane)).decode()}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]}
    data = {"kubeconfig": json.dumps(config | {"contexts": None, "current-context": ""})}
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info"}, "data": data}
    plane.admin.create(path("v1", "configmaps", "kube-public"), made)


def binding(name: str, kind: str, role: str, whose: str, subject: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": kind, "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": whose, "name": subject}],
    }


def token(plane: ControlPlane, id: str, *, trusted: bool = True, lives: timedelta = timedelta(hours=1)) -> str:
    """A bootstrap token. trusted: what it asks for is approved by a controller."""
    secret = "0123456789abcdef"
    data = {
        "token-id": id,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "expiration": (datetime.now(UTC) + lives).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    if trusted:
        data["auth-extra-groups"] = BY_ITSELF
    metadata = {"name": f"bootstrap-token-{id}", "namespace": "kube-system"}
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "bootstrap.kubernetes.io/token"}
    plane.admin.create(path("v1", "secrets", "kube-system"), {**made, "stringData": data})
    return f"{id}.{secret}"


def authority(plane: ControlPlane) -> bytes:
    return Path(plane.ca).read_bytes()


def authority_hash(plane: ControlPlane) -> str:
    (found,) = key_hashes(authority(plane))
    return found


def aged(plane: ControlPlane, path: Path) -> Pair:
    """Puts a certificate of the same key and subject into the file, of which nine days of ten are over."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    data, now = path.read_bytes(), datetime.now(UTC)
    old = x509.load_pem_x509_certificate(data)
    key: Any = serialization.load_pem_private_key((plane.path / "ca.key").read_bytes(), None)
    made = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=90))
        .not_valid_after(now + timedelta(days=9))
    )
    for extension in old.extensions:
        made = made.add_extension(extension.value, extension.critical)
    pem = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    pair = parse_pair(pem, data)
    write_private(str(path), pair.certificate + data[data.index(b"-----BEGIN PRIVATE KEY") :])
    return pair
