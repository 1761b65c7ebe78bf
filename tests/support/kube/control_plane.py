"""A real control plane on loopback: etcd, kube-apiserver and, where asked for, kube-controller-manager and -scheduler.

`make control-plane` builds them. Identities are static tokens (TOKENS); the authority, the API server's certificate and
the accounts' key are made anew each time. Data are thrown away: its end is a SIGKILL.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.kube.client import Client
from pyrun.kube.kubeconfig import Cluster
from tests.support.kube import build

HOST = "127.0.0.1"
SERVICES, SERVICES_6 = "10.96.0.0/16", "fd96::/112"
TOKENS = {
    "admin": ("admin", "system:masters"),
    "kcm": ("system:kube-controller-manager", "system:masters"),
    "scheduler": ("system:kube-scheduler", "system:masters"),
    "proxy": ("system:kube-proxy", ""),
    "nobody": ("nobody", ""),
}
UP_S = 120.0
# Where no pod is to run: what would change pods by what else the cluster has.
UNWANTED = "ServiceAccount,TaintNodesByCondition,Priority,DefaultTolerationSeconds"
CONTROLLERS = (
    "endpointslice-controller,endpointslice-mirroring-controller,namespace-controller,serviceaccount-controller"
)
# What workloads on nodes need besides.
WORKLOADS = (
    "deployment-controller,replicaset-controller,root-ca-certificate-publisher-controller,node-lifecycle-controller,"
    "taint-eviction-controller,garbage-collector-controller,pod-garbage-collector-controller,disruption-controller"
)
# What nodes that come need.
JOINING = (
    "bootstrap-signer-controller,certificatesigningrequest-approving-controller,"
    "certificatesigningrequest-signing-controller"
)


PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")  # for nodes, all of them


def program(name: str) -> Path:
    """Its path; skips where it has not been built."""
    found = build.built(name)
    if found is None:
        how = f"`make control-plane` builds it (15 CPU minutes, once){build.why_not()}"
        pytest.skip(f"no {name} {build.VERSION} here: {how}")
    return found


def hold_port() -> socket.socket:
    """One with a port of loopback that the kernel gives nobody else until it is closed. It does not listen, so a
    program that is told the port, and sets SO_REUSEADDR too as Go's do, listens there, and may again and again."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, 0))
    return held


@contextlib.contextmanager
def a_port() -> Iterator[int]:
    """Where nobody listens but who is told it."""
    with hold_port() as held:
        yield held.getsockname()[1]


class ControlPlane:
    """path: a directory for its files. admin: its client; config(name): a kubeconfig of one of TOKENS. nodes: for
    pods that run on nodes, with a scheduler, accounts and taints. gates: features that are off by themselves.
    address: of this machine, one that pods reach, where they are to have the API server, and all controllers."""

    def __init__(self, path: Path, nodes: bool = False, gates: Iterable[str] = (), address: str = HOST) -> None:
        self.path, self.nodes, self._gates, self._address = path, nodes, tuple(gates), address
        for name in PROGRAMS if nodes else PROGRAMS[:2]:
            program(name)
        self._held = {name: hold_port() for name in ("etcd", "peer", "api", "kcm", "scheduler")}
        self._ports = {name: held.getsockname()[1] for name, held in self._held.items()}
        self.url = f"https://{HOST}:{self._ports['api']}"
        self.etcd_url = f"http://{HOST}:{self._ports['etcd']}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._certificates()
        lines = [f'{name}-token,{user},{user},"{group}"' for name, (user, group) in TOKENS.items()]
        (path / "tokens.csv").write_text("\n".join(lines) + "\n")
        self.ca = str(path / "ca.crt")
        self.admin = Client(self.cluster("admin"))

    def cluster(self, name: str) -> Cluster:
        return Cluster(server=self.url, ca_file=self.ca, token=f"{name}-token")

    def config(self, name: str, **user: Any) -> str:
        """The path of a kubeconfig. user: in place of the token."""
        value = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.url, "certificate-authority": self.ca}}],
            "users": [{"name": "u", "user": user or {"token": f"{name}-token"}}],
        }
        path = self.path / f"{name}.conf"
        path.write_text(json.dumps(value))
        return str(path)

    # --- programs ---

    def start(self) -> None:
        """etcd and the API server; returns when it is ready."""
        etcd, peer = self.etcd_url, f"http://{HOST}:{self._ports['peer']}"
        self._start(
            "etcd",
            f"--data-dir={self.path / 'etcd'}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        )
        self.start_api()

    def start_api(self) -> None:
        path = self.path
        self._start(
            "kube-apiserver",
            f"--etcd-servers={self.etcd_url}",
            f"--bind-address={HOST if self._address == HOST else '0.0.0.0'}",
            f"--advertise-address={self._address}",
            f"--secure-port={self._ports['api']}",
            f"--tls-cert-file={path / 'api.crt'}",
            f"--tls-private-key-file={path / 'api.key'}",
            f"--client-ca-file={path / 'ca.crt'}",
            f"--token-auth-file={path / 'tokens.csv'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={path / 'sa.pub'}",
            f"--service-account-signing-key-file={path / 'sa.key'}",
            f"--service-cluster-ip-range={SERVICES},{SERVICES_6}",
            "--authorization-mode=Node,RBAC",
            "--enable-bootstrap-token-auth",
            "--enable-admission-plugins=NodeRestriction",
            *([] if self.nodes else [f"--disable-admission-plugins={UNWANTED}"]),
            "--allow-privileged",
            f"--kubelet-certificate-authority={path / 'ca.crt'}",
            f"--kubelet-client-certificate={path / 'kubelet-client.crt'}",
            f"--kubelet-client-key={path / 'kubelet-client.key'}",
            "--kubelet-preferred-address-types=InternalIP",
            *_BY_PROXY,
            f"--proxy-client-cert-file={path / 'aggregator.crt'}",
            f"--proxy-client-key-file={path / 'aggregator.key'}",
            f"--requestheader-client-ca-file={path / 'ca.crt'}",
            f"--endpoint-reconciler-type={'none' if self._address == HOST else 'lease'}",
            "--profiling=false",
            *[f"--feature-gates={gate}=true" for gate in self._gates],
        )
        self.wait("kube-apiserver", self._is_ready)

    def start_controllers(self) -> None:
        """Of Services' slices, namespaces and accounts."""
        config = self.config("kcm")
        some = f"{CONTROLLERS},{JOINING}{',' + WORKLOADS if self.nodes else ''}"
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--leader-elect=false",
            f"--bind-address={HOST}",
            f"--secure-port={self._ports['kcm']}",
            f"--service-account-private-key-file={self.path / 'sa.key'}",
            f"--root-ca-file={self.path / 'ca.crt'}",
            f"--cluster-signing-cert-file={self.path / 'ca.crt'}",
            f"--cluster-signing-key-file={self.path / 'ca.key'}",
            f"--controllers={some if self._address == HOST else '*,' + JOINING}",
        )

    def start_scheduler(self) -> None:
        config = self.config("scheduler")
        self._start(
            "kube-scheduler",
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--leader-elect=false",
            f"--bind-address={HOST}",
            f"--secure-port={self._ports['scheduler']}",
        )

    def node_config(self, name: str) -> str:
        """A kubeconfig of a node, as kubeadm would give it one."""
        self.certificate(name, f"/O=system:nodes/CN=system:node:{name}")
        return self.config(name, **{"client-certificate": f"{name}.crt", "client-key": f"{name}.key"})

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        """What it writes, as the admin."""
        command = self.command(*argv)
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=UP_S, check=False)
        assert done.returncode == 0, f"kubectl {' '.join(argv)}: {done.stderr}\n{done.stdout}"
        return done.stdout

    def command(self, *argv: str) -> list[str]:
        """kubectl, as the admin."""
        words = [str(program("kubectl")), "--kubeconfig", self.config("admin")]
        return [*words, "--cache-dir", str(self.path / "cache"), *argv]

    def _start(self, name: str, *options: str) -> None:
        with (self.path / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                [program(name), *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _is_ready(self) -> bool:
        ready = urllib.request.Request(f"{self.url}/readyz", headers={"Authorization": "Bearer admin-token"})
        context = ssl.create_default_context(cafile=self.ca)
        with urllib.request.urlopen(ready, timeout=5, context=context) as answer:
            return bool(answer.status == 200)

    def wait(self, name: str, true: Any, patience_s: float = UP_S) -> Any:
        """What it returns when that is true at last. name: the program that must run meanwhile."""
        last = time.monotonic() + patience_s
        while True:
            with contextlib.suppress(OSError, PyrunError):
                if found := true():
                    return found
            assert self._running[name].poll() is None, self.said(name)
            assert time.monotonic() < last, self.said(name)
            time.sleep(0.05)

    def said(self, name: str) -> str:
        return (self.path / f"{name}.log").read_text()[-3000:]

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(60)

    def end(self) -> None:
        for name in list(self._running):
            self.kill(name)
        for held in self._held.values():
            held.close()
        shutil.rmtree(self.path / "etcd", ignore_errors=True)

    def forget(self) -> None:
        """All moments but this one: neither etcd nor the API server's own cache has them."""
        self.kill("kube-apiserver")
        self.compact()
        self.start_api()

    def compact(self) -> None:
        """etcd forgets all revisions but the last."""
        status = self._etcd("maintenance/status", {})
        self._etcd("kv/compaction", {"revision": status["header"]["revision"], "physical": True})

    def _etcd(self, what: str, value: object) -> Any:
        request = urllib.request.Request(f"{self.etcd_url}/v3/{what}", json.dumps(value).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=UP_S) as answer:
            return json.load(answer)

    # --- certificates ---

    def _certificates(self) -> None:
        extensions = "keyUsage=critical,keyCertSign,digitalSignature,cRLSign"
        self._openssl(
            "req", "-x509", *_NEW, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca", "-addext", extensions
        )
        own = SERVICES.replace(".0/16", ".1")
        names = f"IP:{HOST},IP:{self._address},IP:{own},DNS:localhost,DNS:kubernetes.default.svc"
        self.certificate("api", "/CN=kube-apiserver", f"subjectAltName={names}")
        self.certificate("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client")
        self.certificate("aggregator", "/CN=aggregator")
        self._openssl("genpkey", *_EC, "-out", "sa.key")
        self._openssl("pkey", "-in", "sa.key", "-pubout", "-out", "sa.pub")

    def certificate(self, name: str, subject: str, extension: str = "extendedKeyUsage=clientAuth,serverAuth") -> None:
        """NAME.crt and NAME.key, signed by the authority."""
        self._openssl("req", *_NEW, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
        (self.path / "ext").write_text(f"keyUsage=critical,digitalSignature\n{extension}\n")
        by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "ext")
        self._openssl("x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.crt")

    def _openssl(self, *argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=self.path, check=True, capture_output=True)


# Whom servers of further APIs believe who it is that asks.
_BY_PROXY = (
    "--requestheader-allowed-names=aggregator",
    "--requestheader-username-headers=X-Remote-User",
    "--requestheader-group-headers=X-Remote-Group",
    "--requestheader-extra-headers-prefix=X-Remote-Extra-",
)
_EC = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@contextlib.contextmanager
def a_control_plane(
    path: Path, controllers: bool = False, nodes: bool = False, gates: Iterable[str] = (), address: str = HOST
) -> Iterator[ControlPlane]:
    plane = ControlPlane(path, nodes, gates, address)
    try:
        plane.start()
        if controllers or nodes:
            plane.start_controllers()
        if nodes:
            plane.start_scheduler()
        yield plane
    finally:
        plane.end()
        plane.admin.close()
