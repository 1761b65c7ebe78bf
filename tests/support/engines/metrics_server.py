"""Kubernetes' metrics-server, which asks kubelets what pods use and answers `kubectl top`.

Run as ``python -m tests.support.engines.metrics_server`` it is built, once; tests look whether it is there.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.container.runner import REPO
from tests.support.engines.golang import STRIPPED, build, download_module, find_go, kept
from tests.support.kube.control_plane import HOST, ControlPlane, a_port

MODULE, VERSION = "sigs.k8s.io/metrics-server", "v0.9.0"
CACHE = REPO / ".cache" / "metrics-server" / VERSION
PROGRAM = CACHE / "metrics-server"
NAME, NAMESPACE = "metrics-server", "kube-system"
WAIT_S = 60.0


def make(program: Path) -> None:
    go = find_go(CACHE)
    build(go, download_module(go, f"{MODULE}@{VERSION}", CACHE), program, "build", *STRIPPED, "./cmd/metrics-server")


def _objects(port: int) -> list[dict[str, Any]]:
    """What its own manifest has but the pod: the rights, no more than those, and the API that it answers."""
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"

    def bound(kind: str, name: str, role: str, to: str) -> dict[str, Any]:
        ref = {"apiGroup": rbac, "kind": to, "name": role}
        metadata = {"name": name, "namespace": NAMESPACE} if kind == "RoleBinding" else {"name": name}
        return {"apiVersion": f"{rbac}/v1", "kind": kind, "metadata": metadata, "roleRef": ref, "subjects": [subject]}

    about = {"name": NAME, "namespace": NAMESPACE}
    spec = {"group": "metrics.k8s.io", "version": "v1beta1", "insecureSkipTLSVerify": True, "service": about}
    spec |= {"groupPriorityMinimum": 100, "versionPriority": 100, "service": {**about, "port": port}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": about},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": rules},
        bound("ClusterRoleBinding", NAME, NAME, "ClusterRole"),
        bound("ClusterRoleBinding", f"{NAME}:delegator", "system:auth-delegator", "ClusterRole"),
        bound("RoleBinding", NAME, "extension-apiserver-authentication-reader", "Role"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": about,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": spec,
        },
    ]


@contextlib.contextmanager
def a_metrics_server(plane: ControlPlane) -> Iterator[Path]:
    """Its log; it runs on loopback, and the API server asks it."""
    with a_port() as port:
        yield from _run(plane, port)


def _run(plane: ControlPlane, port: int) -> Iterator[Path]:
    made = {"apiVersion": "v1", "kind": "List", "items": _objects(port)}
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    token = plane.kubectl("create", "token", NAME, "-n", NAMESPACE).strip()
    config = plane.config(NAME, token=token)
    argv = [
        str(PROGRAM),
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        f"--bind-address={HOST}",
        f"--secure-port={port}",
        f"--cert-dir={plane.path / 'metrics-server'}",
        f"--kubelet-certificate-authority={plane.ca}",
        "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-use-node-status-port",
        "--metric-resolution=10s",
        "--kubelet-request-timeout=9s",
    ]
    said = plane.path / "metrics-server.log"
    with said.open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield said
        assert process.poll() is None, said.read_text()[-3000:]
    finally:
        process.kill()
        process.wait(WAIT_S)


if __name__ == "__main__":
    print(kept(PROGRAM, make))
