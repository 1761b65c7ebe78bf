"""The cluster's DNS over a real API server: Services, slices that Kubernetes' controller makes of pods, and namespaces
come, change and go."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.kube.client import path
from tests.support.daemon import until
from tests.support.dns import shown
from tests.support.dns_daemon import DnsDaemon
from tests.support.kube.control_plane import ControlPlane, a_control_plane

SVC = "default.svc.cluster.local."
SERVICES, PODS = path("v1", "services", "default"), path("v1", "pods", "default")


@pytest.fixture
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with a_control_plane(tmp_path_factory.mktemp("plane"), controllers=True) as made:
        yield made


@pytest.fixture
def served(plane: ControlPlane, tmp_path: Path) -> Iterator[DnsDaemon]:
    tmp_path.chmod(0o755)
    daemon = DnsDaemon(tmp_path, "--resolv-conf", "/dev/null")
    daemon.source = ["--kubeconfig", plane.config("admin")]
    try:
        yield daemon
    finally:
        daemon.stop()


def a_service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def a_pod(number: int) -> dict[str, Any]:
    spec: dict[str, Any] = {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}]}
    spec |= {"hostname": f"db-{number}", "subdomain": "db", "terminationGracePeriodSeconds": 0}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"db-{number}", "labels": {"app": "db"}},
        "spec": spec,
    }


def set_ready(plane: ControlPlane, number: int, ready: bool) -> None:
    """As a kubelet does it."""
    address = f"10.1.0.{number}"
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    conditions = [{"type": "Ready", "status": str(ready)}]
    plane.admin.patch(f"{PODS}/db-{number}/status", {"status": {**status, "conditions": conditions}}, "strategic")


def test_objects_of_an_api_server_come_change_and_go(plane: ControlPlane, served: DnsDaemon) -> None:
    admin = plane.admin

    def becomes(name: str, kind: str, *wanted: str, rcode: str = "NOERROR") -> None:
        def is_so() -> bool:
            found, answers, _, _ = shown(served.ask(name, kind))
            return (found, [line.partition(" 5 ")[2] for line in answers]) == (rcode, list(wanted))

        until(is_so, lambda: f"{name} {kind} is {shown(served.ask(name, kind))}: {served.said()}")

    admin.create(path("v1", "nodes"), {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    port = {"name": "http", "port": 80}
    admin.create(SERVICES, a_service("web", clusterIP="10.96.1.1", ports=[port]))
    admin.create(SERVICES, a_service("ext", type="ExternalName", externalName=f"web.{SVC[:-1]}"))
    served.start()
    becomes(f"web.{SVC}", "A", "A 10.96.1.1")
    becomes(f"_http._tcp.web.{SVC}", "SRV", f"SRV 0 100 80 web.{SVC}")
    becomes(f"ext.{SVC}", "A", f"CNAME web.{SVC}", "A 10.96.1.1")
    becomes("quiet.svc.cluster.local", "A", rcode="NXDOMAIN")

    # They come: a headless Service, whose endpoints are its pods', and a namespace.
    admin.create(
        SERVICES, a_service("db", clusterIP="None", selector={"app": "db"}, ports=[{"name": "sql", "port": 5432}])
    )
    becomes(f"db.{SVC}", "A", rcode="NXDOMAIN")
    for number in (1, 2):
        admin.create(PODS, a_pod(number))
        set_ready(plane, number, True)
    becomes(f"db.{SVC}", "A", "A 10.1.0.1", "A 10.1.0.2")
    becomes(f"db-2.db.{SVC}", "A", "A 10.1.0.2")
    becomes(f"_sql._tcp.db.{SVC}", "SRV", *[f"SRV 0 100 5432 db-{number}.db.{SVC}" for number in (1, 2)])
    becomes("1.0.1.10.in-addr.arpa", "PTR", f"PTR db-1.db.{SVC}")
    becomes("10-1-0-2.default.pod.cluster.local", "A", "A 10.1.0.2")
    admin.create(path("v1", "namespaces"), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "quiet"}})
    becomes("quiet.svc.cluster.local", "A")

    # They change.
    set_ready(plane, 2, False)
    becomes(f"db.{SVC}", "A", "A 10.1.0.1")
    becomes(f"db-2.db.{SVC}", "A", rcode="NXDOMAIN")
    admin.patch(f"{SERVICES}/db", {"spec": {"publishNotReadyAddresses": True}})
    becomes(f"db-2.db.{SVC}", "A", "A 10.1.0.2")
    admin.patch(f"{SERVICES}/web", {"spec": {"ports": [{**port, "port": 81}]}})
    becomes(f"_http._tcp.web.{SVC}", "SRV", f"SRV 0 100 81 web.{SVC}")
    admin.patch(f"{SERVICES}/ext", {"spec": {"externalName": f"db-1.db.{SVC[:-1]}"}})
    becomes(f"ext.{SVC}", "A", f"CNAME db-1.db.{SVC}", "A 10.1.0.1")

    # They go.
    admin.delete(f"{PODS}/db-2")
    becomes(f"db-2.db.{SVC}", "A", rcode="NXDOMAIN")
    becomes("10-1-0-2.default.pod.cluster.local", "A", rcode="NXDOMAIN")
    for name in ("ext", "web", "db"):
        admin.delete(f"{SERVICES}/{name}")
        becomes(f"{name}.{SVC}", "A", rcode="NXDOMAIN")
    becomes(SVC, "A")
