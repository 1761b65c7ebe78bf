"""The proxy over a real API server: Services of its own, and slices that Kubernetes' controller makes of pods."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from pyrun.kube.client import Client, path
from pyrun.proxy.event_writer import EventWriter
from pyrun.proxy.events import Notice
from tests.support.daemon import until
from tests.support.kube.control_plane import ControlPlane, a_control_plane
from tests.support.proxy.answers import Answer, Server, ask
from tests.support.proxy.running import Proxy
from tests.support.proxy.topology import Topology, topology
from tests.support.serving import Serving, shut_down

PODS = [(f"10.1.0.{n}", f"fd01::{n}") for n in (1, 2, 3)]
VIP, PORT = "10.96.1.1", 80


@pytest.fixture(scope="module")
def net() -> Iterator[Topology]:
    with topology() as made:
        yield made


@pytest.fixture(scope="module")
def plane(net: Topology, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with a_control_plane(tmp_path_factory.mktemp("plane"), controllers=True) as made:
        yield made


def a_node() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}


def a_pod(name: str) -> dict[str, Any]:
    spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "none"}], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}


def set_ready(plane: ControlPlane, name: str, ip: str, ready: bool = True) -> None:
    """As a kubelet does it."""
    conditions = [{"type": "Ready", "status": str(ready)}]
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
    plane.admin.patch(path("v1", "pods", "default", name, "status"), {"status": status}, "strategic")


class Wire:
    """A way to the API server that can be cut: what was under way is lost, and nobody answers. Its port stays its own
    meanwhile."""

    def __init__(self, to: str) -> None:
        self._to = urlsplit(to).port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._serve()

    def _serve(self) -> None:
        self._serving = Serving()
        self._serving.accept(self._listener, self._connected)

    def _connected(self, near: socket.socket) -> None:
        far = self._serving.hold(socket.create_connection(("127.0.0.1", self._to), 20))
        far.settimeout(None)
        back = self._serving.run(self._carry, far, near)
        self._carry(near, far)
        back.join()
        self._serving.close(far)

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(1 << 16):
                other.sendall(data)
        finally:
            for end in (one, other):
                shut_down(end)

    def cut(self) -> None:
        self._serving.end()
        self._listener.close()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))

    def mend(self) -> None:
        self._listener.listen()
        self._serve()

    def close(self) -> None:
        self.cut()
        self._listener.close()


def ready_addresses(plane: ControlPlane) -> set[str]:
    """Of all slices in the namespace."""
    found, _ = plane.admin.list(path("discovery.k8s.io/v1", "endpointslices", "default"))
    endpoints = [one for each in found for one in each["endpoints"] or () if each["metadata"]["name"].startswith("web")]
    return {address for one in endpoints if one["conditions"]["ready"] for address in one["addresses"]}


def test_services_and_slices_of_an_api_server(net: Topology, plane: ControlPlane, tmp_path: Path) -> None:
    hosts = [net.host(*addresses) for addresses in PODS]
    client = net.host("10.1.0.9", "fd01::9")
    servers = [Server(host, 8080) for host in hosts]

    def seen(count: int = 6) -> set[str]:
        found = [ask(client, VIP, PORT) for _ in range(count)]
        return {one.endpoint.partition(":")[0] if isinstance(one, Answer) else one for one in found}

    admin = plane.admin
    admin.create(path("v1", "nodes"), a_node())
    ports = [{"name": "http", "port": PORT, "targetPort": 8080}]
    spec = {"clusterIP": VIP, "selector": {"app": "web"}, "ports": ports}
    web = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    admin.create(path("v1", "services", "default"), web)
    for number in (0, 1):
        admin.create(path("v1", "pods", "default"), a_pod(f"web-{number}"))
        set_ready(plane, f"web-{number}", PODS[number][0])
    proxy, wire = Proxy(tmp_path, "userspace"), Wire(plane.url)
    tmp_path.chmod(0o700)
    try:
        admins = Path(plane.config("admin"))
        config = admins.with_name("by-wire")
        config.write_text(admins.read_text().replace(plane.url, wire.url))
        proxy.start("--kubeconfig", str(config))
        until(lambda: seen() == {PODS[0][0], PODS[1][0]}, proxy.said())
        set_ready(plane, "web-0", PODS[0][0], False)
        until(lambda: seen() == {PODS[1][0]}, proxy.said())
        # An hour without the server: what changes is not heard of, and forgotten by the time that it is asked for.
        wire.cut()
        admin.create(path("v1", "pods", "default"), a_pod("web-2"))
        set_ready(plane, "web-2", PODS[2][0])
        set_ready(plane, "web-1", PODS[1][0], False)
        until(lambda: ready_addresses(plane) == {PODS[2][0]}, "the controller does nothing")
        plane.forget()
        until(lambda: "refused" in proxy.said(), "it does not say that the server is away")
        assert seen() == {PODS[1][0]}
        wire.mend()
        until(lambda: seen() == {PODS[2][0]}, proxy.said(), 120)
        set_ready(plane, "web-1", PODS[1][0])
        until(lambda: seen() == {PODS[1][0], PODS[2][0]}, proxy.said())
        admin.delete(path("v1", "services", "default", "web"))
        until(lambda: seen(1) == {"reject"} or seen(1) == {"drop"}, proxy.said())
    finally:
        proxy.stop()
        wire.close()
        for server in servers:
            server.close()


def test_what_is_refused_is_an_event_of_its_service(net: Topology, plane: ControlPlane, tmp_path: Path) -> None:
    """Once for a Service however often the daemon starts; what it changes to is told too; who may not is told that."""
    admin = plane.admin
    spec: dict[str, Any] = {"clusterIP": "10.96.1.7", "ports": [{"port": 80}], "type": "LoadBalancer"}
    spec |= {"externalIPs": ["8.8.8.8"], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31007}
    admin.create(
        path("v1", "services", "default"),
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "told"}, "spec": spec},
    )
    taken = net.node.listen(31007)

    def told() -> dict[str, dict[str, Any]]:
        found, _ = admin.list(path("events.k8s.io/v1", "events", "default"))
        mine = [one for one in found if one["regarding"].get("name") == "told" and one["type"] == "Warning"]
        assert len({(one["reason"], one["note"]) for one in mine}) == len(mine)
        return {one["note"]: one for one in mine if one["reportingController"] == "pyrun-proxy"}

    proxy = Proxy(tmp_path, "userspace")
    tmp_path.chmod(0o700)
    config = plane.config("admin")
    try:
        proxy.start("--kubeconfig", config)
        until(lambda: len(told()) == 2, proxy.said())
        by_reason = {one["reason"]: one for one in told().values()}
        external, check = by_reason["ForbiddenExternalIP"], by_reason["FailedToStartServiceHealthcheck"]
        assert external["note"].startswith("8.8.8.8:80: external IPs are not allowed (Service default/told /spec/")
        assert check["note"].startswith("node n1: healthCheckNodePort: :31007: ")
        (service,) = [s for s in admin.list(path("v1", "services", "default"))[0] if s["metadata"]["name"] == "told"]
        assert external["regarding"]["uid"] == service["metadata"]["uid"]
        proxy.stop()
        proxy.start("--kubeconfig", config)  # which says the same again
        admin.patch(path("v1", "services", "default", "told"), {"spec": {"externalIPs": ["8.8.8.8", "9.9.9.9"]}})
        until(lambda: any(note.startswith("9.9.9.9:80") for note in told()), proxy.said())
        assert len(told()) == 3
    finally:
        proxy.stop()
        taken.close()


def test_who_may_not_write_events_is_told_once(plane: ControlPlane) -> None:
    told: list[str] = []
    writer = EventWriter(Client(plane.cluster("nobody")), "n1", lambda key: "u1", told.append)
    writer.start()
    try:
        writer.set([Notice(("Service", "default", f"s{number}"), "ForbiddenEndpoint", "x") for number in range(3)])
        until(lambda: writer.refused == 3, "the server is not asked")
        assert len(told) == 1 and "the right to create events" in told[0] and not writer.written
    finally:
        writer.stop()
