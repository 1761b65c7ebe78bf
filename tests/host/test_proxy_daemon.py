"""The whole daemon in both modes: objects in files, real packets between network namespaces, kills and changes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.main import main
from pyrun.errors import PyrunError
from pyrun.proxy.carriers import AT_ONCE
from pyrun.proxy.cleanup import clean_up
from pyrun.proxy.sctp import probe
from tests.support.daemon import PATIENCE_S, until
from tests.support.proxy.answers import Answer, ask
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.running import Proxy, running
from tests.support.proxy.topology import NODE4, NODE6, Place, packed, topology
from tests.support.proxy.world import PODS, VIP, WEB, Load, World, answers, nobody, pods, settled


@pytest.fixture(params=["userspace", "nftables"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world() -> Iterator[World]:
    with topology() as net:
        made = World(net)
        try:
            yield made
        finally:
            made.close()


def top(proxy: Proxy, capfd: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """The lines of `pyrun proxy top`."""
    capfd.readouterr()
    assert main(["proxy", "top", "--once", "--state", str(proxy.state), *options]) == 0
    return capfd.readouterr().out.splitlines()


def test_round_robin_also_over_an_endpoint_more(
    world: World, tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Scenario 2. And it is counted by Service and by endpoint, where it is counted at all."""
    three = [PODS[number][0] for number in (0, 1, 2)]
    with running(tmp_path, mode, WEB + pods(0, 1, 2)) as proxy:
        found = answers(world.client, 60)
        assert {address: found.count(address) for address in three} == dict.fromkeys(three, 20)
        assert all(found[at] != found[at + 1] and found[at] == found[at + 3] for at in range(57))
        by_service, by_endpoint = (top(proxy, capfd, *options) for options in ((), ("--endpoints",)))
        if mode == "userspace":
            _, line = by_service
            assert line.split()[1] == "60" and line.endswith(f"default/web:tcp cluster {VIP}:80/tcp")
            rows = [line.split() for line in by_endpoint[1:]]
            assert {row[4] for row in rows} == {f"{address}:8080" for address in three}
            assert {(row[1], row[3], row[5]) for row in rows} == {("20", "0", "default/web:tcp/tcp/4/cluster")}
        else:
            assert by_service == by_endpoint and "counts none of them" in by_service[0]
        proxy.write(WEB + pods(0, 1, 2, 3))
        settled(world.client, {PODS[number][0] for number in range(4)})
        found = answers(world.client, 80)
        assert [found.count(PODS[number][0]) for number in range(4)] == [20] * 4


def test_each_service_in_the_mode_that_it_asks_for(world: World, tmp_path: Path) -> None:
    """A data plane and the kernel beside each other: neither refuses what is the other's, nor when the first Service of
    the kernel's comes, nor when the last one goes."""
    both, targets = (f"{{name: tcp, port: {n}}}, {{name: udp, port: {n}, protocol: UDP}}" for n in (80, 8080))
    ours = service("web", VIP, ports=both) + pods(0, 1, ports=targets)
    other = "10.96.0.2"
    kernel = service("kernel", other, ports=both).replace(
        "{name: k", "{annotations: {pyrun.io/proxy-mode: nftables}, name: k"
    )
    kernel += slice_of("kernel", PODS[2][0], ports=targets)
    here, there = {PODS[0][0], PODS[1][0]}, {PODS[2][0]}
    with running(tmp_path / "proxy", "userspace", ours) as proxy:
        for text, right in ((ours, {VIP: here}), (ours + kernel, {VIP: here, other: there}), (ours, {VIP: here})):
            proxy.write(text)
            for address, found in right.items():
                settled(world.client, found, address)
                settled(world.client, found, address, udp=True)
                assert ask(world.client, address, 81) == "reject"
            assert nobody(world.client, "10.96.0.77")
        until(lambda: nobody(world.client, other), "the Service that is gone is still there")


def test_no_endpoints_and_health_checks(world: World, tmp_path: Path, mode: str) -> None:
    """Scenarios 4 and 19: rejected where nothing is ready; load balancers hear it, and hear it when that changes."""
    more = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 32100"
    text = service("web", VIP, more, ports="{name: tcp, port: 80, nodePort: 30080}")
    with running(tmp_path, mode, text) as proxy:
        assert ask(world.client, VIP, 80) == "reject"
        assert ask(world.outside, NODE4, 30080) == "reject"
        assert proxy.get(32100)[0] == 503
        assert proxy.get(10256, "/livez")[0] == 200
        proxy.write(text + pods(0, node="n1"))
        settled(world.client, {PODS[0][0]})
        until(lambda: proxy.get(32100)[0] == 200, "the load balancer never hears of the endpoint")
        assert '"localEndpoints": 1' in proxy.get(32100, host=NODE4)[1]
        with urllib.request.urlopen(f"http://{NODE4}:32100/healthz", timeout=60) as answered:
            assert answered.headers["X-Load-Balancing-Endpoint-Weight"] == "1"
        answer = ask(world.outside, NODE4, 30080)
        assert isinstance(answer, Answer) and answer.source == world.outside.address4
        proxy.write(text + pods(0, node="n2"))
        until(lambda: proxy.get(32100)[0] == 503, "the load balancer never hears that it is gone")
        node = "---\n{apiVersion: v1, kind: Node, metadata: {name: n1, deletionTimestamp: '2026-01-01T00:00:00Z'}}\n"
        proxy.write(text + pods(0, node="n1") + node)
        until(lambda: proxy.get(10256, "/healthz")[0] == 503, "a node that is taken away still wants traffic")
        assert proxy.get(10256, "/livez")[0] == 200 and proxy.get(32100)[0] == 503


def test_refused_by_every_endpoint(world: World, tmp_path: Path) -> None:
    """Scenario 4: nobody listens there, so the client sees a reset and no silence."""
    with running(tmp_path, "userspace", WEB + slice_of("web", PODS[0][0], PODS[1][0], target=9)):
        assert ask(world.client, VIP, 80) == "reject"


def test_cve_2021_25740_what_no_endpoint_may_lead_to(
    world: World, tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Scenario 13: neither the node's own servers nor its loopback are reached, and who asks for it is told."""
    secret = socket.create_server((NODE4, 10250))
    inner = socket.create_server(("127.0.0.1", 10250))
    text = WEB + slice_of("web", "127.0.0.1", NODE4, "169.254.169.254", "10.96.0.1", target=10250)
    text += service("grab", "10.96.0.2", f"externalIPs: [{NODE4}, 8.8.8.8]", ports="{name: tcp, port: 10250}")
    text += slice_of("grab", PODS[0][0])
    try:
        with running(tmp_path, mode, text) as proxy:
            assert ask(world.client, VIP, 80) == "reject"
            with world.client.connect(NODE4, 10250):
                assert select.select([secret], [], [], 20)[0]  # itself, and not a pod's
            assert not select.select([inner], [], [], 0)[0]
            refused = "\n".join(proxy.status(capfd)["refused"])
            for why in ("127.0.0.1: loopback", "169.254.169.254: link-local", "an address of this node", "a loop"):
                assert why in refused
                assert why in proxy.said()
            assert "externalIPs/1: 8.8.8.8:10250: external IPs are not allowed" in refused
    finally:
        secret.close()
        inner.close()


def test_a_node_port_that_a_program_has_is_left_to_it(
    world: World, tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Scenario 14 (#76892): refused with a way out, and taken when the port is free."""
    ssh = socket.create_server((NODE4, 30022))
    text = service("web", VIP, "type: NodePort", ports="{name: tcp, port: 80, nodePort: 30022}") + pods(0)
    with running(tmp_path, mode, text) as proxy:
        try:
            with world.outside.connect(NODE4, 30022):
                assert select.select([ssh], [], [], 20)[0]
            settled(world.client, {PODS[0][0]})
            (refused,) = proxy.status(capfd)["refused"]
            assert "a program on this node has tcp port 30022" in refused and "another nodePort" in refused
            (one,) = proxy.unserved(capfd)
            assert (one["service"], one["port"], one["address"]) == ("default/web", 30022, NODE4)
            said_everywhere(proxy, capfd, one)
        finally:
            ssh.close()
        settled(world.outside, {PODS[0][0]}, NODE4, 30022)
        until(lambda: not proxy.unserved(capfd), "it is still said to be unserved")


def said_everywhere(proxy: Proxy, capfd: pytest.CaptureFixture[str], one: dict[str, Any]) -> None:
    """As long as it stands, the other commands say the same."""
    why, since, options = one["unserved"]["why"], one["unserved"]["since"], ["--state", str(proxy.state)]
    texts = []
    for words in (["list"], ["explain", one["service"]], ["status"]):
        capfd.readouterr()
        assert main(["proxy", *words, *options]) == 0
        texts.append(capfd.readouterr().out)
    table, text, status = texts
    assert f"no, since {since}" in table and f"{one['service']}: " in table and why in table
    assert f"not served, since {since}: {why}" in text and f"  {one['unserved']['reason']}: " in text
    assert f"not served since {since}: {one['service']}: " in status


def test_node_ports_on_loopback(world: World, tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Carried in user space; refused by name where the kernel would have to, which is no reason against the rest."""
    ports = "{name: tcp, port: 80, nodePort: 30080}, {name: udp, port: 80, protocol: UDP, nodePort: 30080}"
    ports += ", {name: sctp, port: 80, protocol: SCTP, nodePort: 30080}"
    targets = "{name: tcp, port: 8080}, {name: udp, port: 8080, protocol: UDP}, {name: sctp, port: 9, protocol: SCTP}"
    text = service("web", VIP, "type: NodePort", ports=ports) + pods(0, 1, ports=targets)
    right = {PODS[0][0], PODS[1][0]}
    loopback = Place(world.node.fd, "127.0.0.1", "::1")
    with running(tmp_path / "proxy", mode, text, "--nodeport-addresses", "127.0.0.0/8,10.0.0.0/8") as proxy:
        settled(world.client, right)
        settled(world.outside, right, NODE4, 30080)
        refused = [line for line in proxy.status(capfd)["refused"] if "loopback" in line]
        if mode == "nftables" or not probe().sockets:
            (sctp,) = [line for line in refused if "127.0.0.1:30080/sctp" in line]
            assert ("no sockets of SCTP" if mode == "userspace" else "userspace does") in sctp
            refused.remove(sctp)
        if mode == "nftables":
            assert len(refused) == 2 and all("/spec/ports/" in line and "userspace" in line for line in refused)
            return
        assert not refused
        settled(loopback, right, "127.0.0.1", 30080)
        settled(loopback, right, "127.0.0.1", 30080, udp=True)


def syn(place: Place, target: str, port: int) -> bytes:
    """A frame of a host to the node that begins a connection."""
    words = place.run("ip", "-4", "neighbour", "show", "dev", "eth0").split()
    there = place.run("cat", "/sys/class/net/eth0/address").strip()
    ends = [bytes.fromhex(mac.replace(":", "")) for mac in (words[words.index("lladdr") + 1], there)]
    addresses = packed(place.address4) + packed(target)
    segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 1000, 0, 0)
    summed = checksum(addresses + struct.pack("!HH", 6, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", summed) + segment[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + addresses
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    return b"".join(ends) + b"\x08\x00" + head + segment


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def test_cve_2020_8558_a_neighbour_does_not_reach_what_is_on_loopback(world: World, tmp_path: Path) -> None:
    """Not even where route_localnet is set, as kube-proxy's iptables mode leaves it behind."""
    world.node.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
    text = service("web", VIP, "type: NodePort", ports="{name: tcp, port: 80, nodePort: 30080}") + pods(0)
    loopback = Place(world.node.fd, "127.0.0.1", "::1")
    with running(tmp_path, "userspace", text, "--nodeport-addresses", "127.0.0.0/8,10.0.0.0/8"):
        settled(loopback, {PODS[0][0]}, "127.0.0.1", 30080)
        settled(world.outside, {PODS[0][0]}, NODE4, 30080)
        with world.outside.open(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as wire:
            wire.bind(("eth0", 0x0800))
            for target in ("127.0.0.1", NODE4):  # in this order: once the second is answered, the first is not
                wire.send(syn(world.outside, target, 30080))
            answered: set[bytes] = set()
            last = time.monotonic() + PATIENCE_S
            while packed(NODE4) not in answered:
                assert time.monotonic() < last, answered
                frame = wire.recv(2000)
                if frame[23] == socket.IPPROTO_TCP and frame[30:34] == packed(world.outside.address4):
                    answered.add(frame[26:30])
            assert answered == {packed(NODE4)}


def test_a_program_that_has_a_port_of_datagrams(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The data plane can't have its socket, and goes on with the rest: saying it had killed it. Who asks is told which
    Service it is, why, since when and what to do; and it is served once the port is free."""
    ports = "{name: tcp, port: 80}, {name: dns, port: 53, protocol: UDP}"
    targets = "{name: tcp, port: 8080}, {name: dns, port: 8080, protocol: UDP}"
    with running(tmp_path, "userspace", WEB + pods(0)) as proxy:
        pid = until(proxy.plane_pid, "there is no data plane")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            program.bind(("0.0.0.0", 53))
            proxy.write(service("web", VIP, ports=ports) + pods(1, ports=targets))
            settled(world.client, {PODS[1][0]})
            until(lambda: "UDP port 53 of a service is not to be had" in proxy.said(), proxy.said)
            (one,) = until(lambda: proxy.unserved(capfd), "nobody is told")
            assert (one["service"], one["protocol"], one["port"]) == ("default/web", "udp", 53)
            assert "a program on this node has udp port 53 on all addresses; have it listen" in one["unserved"]["why"]
            said_everywhere(proxy, capfd, one)
            assert proxy.plane_pid() == pid, proxy.said()
        assert isinstance(until(lambda: ask_dns(world), "it is never served"), Answer)
        until(lambda: not proxy.unserved(capfd), "it is still said to be unserved")


def ask_dns(world: World) -> Answer | None:
    found = ask(world.client, VIP, 53, udp=True, silent=True)  # refusals are rarer than questions
    return found if isinstance(found, Answer) else None


def test_rules_that_can_not_be_carried_out(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is said by whoever is asked, since when and what is wrong, and tried again until it is done."""
    text = WEB + pods(0)
    with running(tmp_path, "userspace", text) as proxy:
        world.node.run("ip", "-6", "address", "del", f"{NODE6}/128", "dev", "lo")
        six = service("six", "fd96::9", "type: LoadBalancer, ipFamilies: [IPv6]")
        proxy.write(f"{text}{six}status: {{loadBalancer: {{ingress: [{{ip: 'fd99::1'}}]}}}}\n")
        (hurdle,) = until(lambda: proxy.status(capfd)["hurdles"], proxy.said)
        assert hurdle["what"] == "rules" and "they are not in force: route local fd99::1/128" in hurdle["why"]
        main(["proxy", "status", "--state", str(proxy.state)])
        assert "rules: they are not in force: route local fd99::1/128" in capfd.readouterr().out
        assert main(["proxy", "list", "--state", str(proxy.state)]) == 0
        assert f"since {hurdle['since']}" in capfd.readouterr().err
        settled(world.client, {PODS[0][0]})
        world.node.run("ip", "-6", "address", "add", f"{NODE6}/128", "dev", "lo")
        until(lambda: not proxy.status(capfd)["hurdles"], proxy.said)
        local = world.node.run("ip", "-6", "route", "show", "table", "local")
        assert "fd99::1 " in local and "fd96::/112 " in local, "the latter had gone with the address"


def test_a_data_plane_that_dies_again_and_again(world: World, tmp_path: Path) -> None:
    """It is started at once a few times, then after longer and longer pauses; connections wait for it."""
    with running(tmp_path, "userspace", WEB + pods(0, 1)) as proxy:
        settled(world.client, {PODS[0][0], PODS[1][0]})
        for _ in range(AT_ONCE + 2):
            os.kill(until(proxy.plane_pid, "there is none"), signal.SIGKILL)
            assert set(answers(world.client, 4)) <= {PODS[0][0], PODS[1][0]}
        said = [line for line in proxy.said().splitlines() if "has died" in line]
        assert [line.rpartition("is started")[2] for line in said] == [""] * AT_ONCE + [" in 0.5 s", " in 1 s"]


def test_a_broken_edit_leaves_what_was_good(
    world: World, tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(tmp_path, mode, WEB + pods(0)) as proxy:
        settled(world.client, {PODS[0][0]})
        proxy.write("kind: [\n")
        place = f"{proxy.objects}/objects.yaml:2:1"
        until(lambda: place in proxy.said(), "nobody is told of it")
        assert answers(world.client, 4) == [PODS[0][0]] * 4
        assert any(place in line for line in proxy.status(capfd)["faults"])
        proxy.write(WEB + pods(1))
        settled(world.client, {PODS[1][0]})
        os.unlink(proxy.objects / "objects.yaml")
        until(lambda: nobody(world.client, VIP), "the Service is there for ever")


KERNELS = (" fe80::", "fe80::/64 ", "multicast ff00::/8 ")  # it adds them by itself, a while after a link came up


def test_a_stop_takes_everything_away(world: World, tmp_path: Path, mode: str) -> None:
    def left() -> list[str]:
        said = ("ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all", "nft list ruleset")
        words = [line.split() for line in (*said, "sysctl net.ipv4.tcp_tw_reuse")]
        texts = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in words]
        lines = "".join(texts).splitlines()
        return sorted({line for line in lines if not any(late in line for late in KERNELS)})

    before = left()
    with running(tmp_path, mode, WEB + pods(0, 1)) as proxy:
        settled(world.client, {PODS[0][0], PODS[1][0]})
        assert left() != before
        assert ("net.ipv4.tcp_tw_reuse = 1" in left()) == (mode == "userspace")
        proxy.kill()
        proxy.start()  # takes over, and so knows what was before the other one
        proxy.stop()
        assert left() == before
        assert proxy.plane_pid() == 0
        proxy.start()
        with pytest.raises(PyrunError, match="pyrun proxy"):
            clean_up(str(proxy.state))
        settled(world.client, {PODS[0][0], PODS[1][0]})
        proxy.kill()
        assert left() != before
        assert main(["proxy", "cleanup", "--state", str(proxy.state)]) == 0
        assert left() == before
        assert proxy.plane_pid() == 0
        assert main(["proxy", "cleanup", "--state", str(proxy.state)]) == 0  # nothing is no fault


def test_a_killed_daemon_is_not_missed(world: World, tmp_path: Path, mode: str) -> None:
    """Scenario 7: not one failed connection while it is gone, and while the next one takes over."""
    with running(tmp_path, mode, WEB + pods(0, 1)) as proxy:
        plane = proxy.plane_pid()
        load = Load(world.client)
        load.more(200)
        for _ in range(2):
            proxy.kill()
            load.more(200)
            proxy.start()
            load.more(200)
        load.end()
        assert not load.bad
        assert proxy.plane_pid() == plane
        proxy.write(WEB + pods(2))
        settled(world.client, {PODS[2][0]})


def test_what_changed_while_nobody_looked(world: World, tmp_path: Path, mode: str) -> None:
    """The next daemon makes of what an earlier one left what the files say now."""
    gone = service("gone", "10.96.0.2") + slice_of("gone", PODS[0][0])
    with running(tmp_path, mode, WEB + pods(0, 1) + gone) as proxy:
        settled(world.client, {PODS[0][0]}, "10.96.0.2")
        proxy.kill()
        proxy.write(WEB + pods(2, 3))
        proxy.start()
        settled(world.client, {PODS[2][0], PODS[3][0]})
        assert nobody(world.client, "10.96.0.2")


def test_a_killed_data_plane_is_replaced(world: World, tmp_path: Path) -> None:
    """Scenario 8: who connects meanwhile waits, and is served, by what has changed since it began too."""
    with running(tmp_path, "userspace", WEB + pods(0, 1)) as proxy:
        settled(world.client, {PODS[0][0], PODS[1][0]})
        for turn in range(3):
            some = {PODS[0][0], PODS[1][0]} if turn < 2 else {PODS[2][0], PODS[3][0]}
            if turn == 2:
                proxy.write(WEB + pods(2, 3))
                settled(world.client, some)
            before = proxy.plane_pid()
            os.kill(before, signal.SIGKILL)
            assert set(answers(world.client, 4)) == some
            until(lambda before=before: proxy.plane_pid() not in (0, before), "there is no other")  # type: ignore[misc]
        assert "has died; another is started" in proxy.said()


def replace(program: Path, more: bytes) -> None:
    """As a package's upgrade does it."""
    new = program.with_suffix(".new")
    new.write_bytes(program.read_bytes() + more)
    new.chmod(0o755)
    new.rename(program)


def test_a_newer_data_plane_takes_over(world: World, tmp_path: Path) -> None:
    """An upgrade of pyrun, with a daemon and while there is none: not one failed request; nor where the new program is
    none."""
    tmp_path.chmod(0o755)
    proxy = Proxy(tmp_path, "userspace")
    program = proxy.install(tmp_path / "installed")
    proxy.write(WEB + pods(0, 1))
    try:
        proxy.start()
        load = Load(world.client)
        load.more(50)
        before = proxy.plane_pid()
        replace(program, b"1")
        until(lambda: f"took over from {before}" in proxy.said(), "none takes over")
        load.more(100)
        until(lambda: not is_there(before), "the old one does not end")
        proxy.kill()
        replace(program, b"2")  # while no daemon is there
        load.more(50)
        proxy.start()
        until(lambda: proxy.said().count("took over from") == 2, "none takes over after a kill")
        load.more(100)
        good, now = program.read_bytes(), proxy.plane_pid()
        program.with_suffix(".new").write_bytes(b"no program")
        program.with_suffix(".new").rename(program)
        until(lambda: "can't take over" in proxy.said(), "nothing is said of it")
        load.more(100)
        assert proxy.plane_pid() == now
        load.end()
        assert not load.bad
        program.write_bytes(good)
    finally:
        proxy.stop()


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


UDP = "{name: dns, port: 53, protocol: UDP}"


def dns(*numbers: int) -> str:
    ports = "{name: dns, port: 8080, protocol: UDP}"
    return service("dns", VIP, ports=UDP) + slice_of("dns", *[PODS[number][0] for number in numbers], ports=ports)


class Sender:
    """One UDP flow of a client that asks again and again on the same socket, as DTLS or QUIC does."""

    def __init__(self, client: Place) -> None:
        self.socket = client.open(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((client.address4, 0))
        self.socket.connect((VIP, 53))
        self.socket.settimeout(0.5)

    def ask(self, patience_s: float = 0.5) -> str:
        """Who answers; "" if nobody does."""
        self._forget()
        self.socket.settimeout(patience_s)
        try:
            self.socket.send(b"who")
            return self.socket.recv(100).decode().partition(":")[0]
        except (TimeoutError, ConnectionRefusedError):
            return ""

    def _forget(self) -> None:
        """What was late: a refusal is told before an answer that is there, which then is none to what is asked next."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    self.socket.recv(100)


def test_udp_flows_go_where_somebody_is(world: World, tmp_path: Path, mode: str) -> None:
    """Scenario 9 (#139628, #122740): an endpoint that goes takes no flow with it, none at all is not for ever, and a
    restart moves nobody."""
    with running(tmp_path, mode, dns(0)) as proxy:
        flow = Sender(world.client)
        until(lambda: flow.ask() == PODS[0][0], "the first endpoint never answers")
        proxy.write(dns(1))
        until(lambda: flow.ask() == PODS[1][0], "the flow stays with an endpoint that is gone")
        proxy.write(dns())
        until(lambda: ask(world.client, VIP, 53, udp=True, silent=True) == "reject", "it is never without endpoints")
        flow.ask()
        proxy.write(dns(0, 1, 2, 3))
        until(flow.ask, "the flow stays in a hole")
        owner = flow.ask(PATIENCE_S)
        assert owner
        proxy.kill()
        assert flow.ask(PATIENCE_S) == owner
        proxy.start()
        assert [flow.ask(PATIENCE_S) for _ in range(8)] == [owner] * 8
        flow.socket.close()


def test_affinity(world: World, tmp_path: Path, mode: str) -> None:
    """Scenario 10: one endpoint for a client, also over a restart; another when it goes, or when it was long ago."""

    def sticky(seconds: int, *numbers: int) -> str:
        config = f"sessionAffinity: ClientIP, sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {seconds}}}}}"
        return service("web", VIP, config) + pods(*numbers)

    with running(tmp_path, mode, sticky(600, 0, 1, 2, 3)) as proxy:
        (owner,) = set(answers(world.client, 12))
        proxy.kill()
        proxy.start()
        assert set(answers(world.client, 8)) == {owner}
        left = [number for number in range(4) if PODS[number][0] != owner]
        proxy.write(sticky(600, *left))
        until(lambda: answers(world.client, 1) != [owner], "the client stays with an endpoint that is gone")
        (owner,) = set(answers(world.client, 12))
        assert owner in {PODS[number][0] for number in left}
    with running(tmp_path / "again", mode, sticky(1, 0, 1, 2, 3)) as proxy:
        seen = set()
        for _ in range(30):
            seen |= set(answers(world.client, 2))
            if len(seen) > 1:
                break
            time.sleep(1.2)
        assert len(seen) > 1, "a pin of a second lasts for ever"


def test_terminating_endpoints_serve_to_the_end(world: World, tmp_path: Path, mode: str) -> None:
    """Scenario 11, in small: pods are replaced one by one under load, and no connection fails."""
    gone = "conditions: {ready: false, serving: true, terminating: true}"
    with running(tmp_path, mode, WEB + pods(0, 1)) as proxy:
        load = Load(world.client)
        load.more(50)
        for text in (
            WEB + pods(0, 1, extra={0: gone}),
            WEB + pods(1, 2, extra={1: gone}),
            WEB + pods(2, 3, extra={2: gone, 3: gone}),
            WEB + pods(3),
        ):
            proxy.write(text)
            load.more(150)
        settled(world.client, {PODS[3][0]})
        load.end()
        assert not load.bad


def test_policies_that_change_under_load(world: World, tmp_path: Path, mode: str) -> None:
    """Scenario 11: each change of a policy, or of who is here, is in force, and no connection fails meanwhile."""
    here, there = "nodeName: n1", "nodeName: n2"
    ends = "conditions: {ready: false, serving: true, terminating: true}"

    def text(inner: str, outer: str, **extra: str) -> str:
        spec = f"type: NodePort, internalTrafficPolicy: {inner}, externalTrafficPolicy: {outer}"
        web = service("web", VIP, spec, ports="{name: tcp, port: 80, nodePort: 30080}")
        return web + pods(*[int(n[1:]) for n in extra], extra={int(n[1:]): fields for n, fields in extra.items()})

    with running(tmp_path, mode, text("Cluster", "Cluster", p0=here, p1=there)) as proxy:
        settled(world.client, {PODS[0][0], PODS[1][0]})
        inside, outside = Load(world.client), Load(world.outside, NODE4, 30080)
        for step, from_inside, from_outside in (
            (text("Local", "Cluster", p0=here, p1=there), {0}, {0, 1}),
            (text("Local", "Local", p0=here, p1=there, p2=here), {0, 2}, {0, 2}),
            (text("Local", "Local", p0=f"{here}, {ends}", p1=there, p2=here), {2}, {2}),
            (text("Local", "Local", p0=f"{here}, {ends}", p1=there, p2=f"{here}, {ends}"), {0, 2}, {0, 2}),
            (text("Cluster", "Local", p1=there, p3=here), {1, 3}, {3}),
            (text("Cluster", "Cluster", p1=there), {1}, {1}),
        ):
            proxy.write(step)
            settled(world.client, {PODS[number][0] for number in from_inside})
            settled(world.outside, {PODS[number][0] for number in from_outside}, NODE4, 30080)
        for load in (inside, outside):
            load.more(20)
            load.end()
            assert not load.bad
