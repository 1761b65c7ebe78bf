"""What one Service can't have here and now: it is named, the others are served, and no program is taken for another."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import until
from tests.support.proxy.answers import Answer, ask
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import OPTIONS, running
from tests.support.proxy.topology import NODE4, REPO, topology
from tests.support.proxy.world import PODS, VIP, WEB, World, pods, settled


@pytest.fixture
def world() -> Iterator[World]:
    with topology() as net:
        made = World(net)
        try:
            yield made
        finally:
            made.close()


def test_a_service_of_the_kernel_where_it_can_not(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused by name, and the others are served: one that the kernel lacked something for took all with it."""
    path = tmp_path / "sitecustomize.py"
    path.write_text(
        f"import sys\nsys.path.insert(0, {str(REPO)!r})\nimport pyrun.proxy.nft.messages as m\nmade = m._expression\n"
        "m._expression = lambda one, *parts: made('absent' if one == 'masq' else one, *parts)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kernel = service("kernel", "10.96.0.2").replace(
        "{name: k", "{annotations: {pyrun.io/proxy-mode: nftables}, name: k"
    )
    kernel += slice_of("kernel", PODS[2][0])
    with running(tmp_path / "proxy", "userspace", WEB + pods(0, 1)) as proxy:
        proxy.write(WEB + pods(0, 1) + kernel)
        (one,) = until(lambda: proxy.unserved(capfd), proxy.said)
        why = one["unserved"]["why"]
        assert one["service"] == "default/kernel" and "masquerade (CONFIG_NFT_MASQ, module nft_masq)" in why
        settled(world.client, {PODS[0][0], PODS[1][0]})
        assert not isinstance(ask(world.client, "10.96.0.2", 80, silent=True), Answer)


@pytest.mark.parametrize("mode", ["userspace", "nftables"])
def test_a_family_of_which_the_node_has_no_address(
    world: World, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pods have one: they are served by it, and nothing of that is left in the end."""
    own = [one for one in OPTIONS if one != NODE4]
    own.remove("--node-ip")
    monkeypatch.setattr("tests.support.proxy.running.OPTIONS", own)
    world.node.run("ip", "address", "del", f"{NODE4}/32", "dev", "lo")
    with running(tmp_path, mode, WEB + pods(0, 1)):
        settled(world.client, {PODS[0][0], PODS[1][0]})
    assert "10.96.0.0" not in world.node.run("ip", "route", "show", "table", "all")
    assert len(world.node.run("ip", "rule").splitlines()) == 3


def test_a_daemon_that_is_followed_keeps_node_ports_of_datagrams(world: World, tmp_path: Path) -> None:
    """The data plane's own sockets are no program's of the node: for moments these were refused, and flows moved."""
    ports = "{name: tcp, port: 80, nodePort: 30080}, {name: udp, port: 80, protocol: UDP, nodePort: 30080}"
    targets = "{name: tcp, port: 8080}, {name: udp, port: 8080, protocol: UDP}"
    text = service("web", VIP, "type: NodePort", ports=ports) + pods(0, 1, ports=targets)
    with running(tmp_path, "userspace", text) as proxy:
        settled(world.client, {PODS[0][0], PODS[1][0]}, NODE4, 30080, udp=True)
        proxy.kill()
        proxy.start()
        settled(world.client, {PODS[0][0], PODS[1][0]}, NODE4, 30080, udp=True)
        assert "on this node has udp port" not in proxy.said()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.bind((NODE4, 30081))
            proxy.stop()
            proxy.write(text.replace("30080}", "30081}"))
            proxy.start()
            assert "a program on this node has udp port 30081" in proxy.said()
