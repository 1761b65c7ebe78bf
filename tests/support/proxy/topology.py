"""A node and hosts around it, each a network namespace, by point-to-point veth links as pods have them.

The test itself is in the node's namespace; sockets of the hosts are made by a step into theirs and back, and are used
as any other: no process is needed for a client or a server.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.pods.nets import own_network, setns

CLONE_NEWNET = 0x40000000
PATIENCE_S = 60.0
NODE4, NODE6 = "10.0.0.1", "fd00::1"
REPO = Path(__file__).resolve().parents[3]
_libc = ctypes.CDLL(None, use_errno=True)


def packed(address: str) -> bytes:
    return socket.inet_pton(family_of(address), address)


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Place:
    """A network namespace, kept by a descriptor. address4, address6: its own."""

    def __init__(self, fd: int, address4: str, address6: str) -> None:
        self.fd = fd
        self.address4 = address4
        self.address6 = address6

    def address(self, family: int) -> str:
        return self.address6 if family == socket.AF_INET6 else self.address4

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread in the namespace."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.fd)
            yield
        finally:
            setns(before)
            os.close(before)

    def run(self, *argv: str, input: str | None = None) -> str:
        command = ["nsenter", f"--net={self.path}", *argv]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True, input=input)
        return done.stdout

    def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with self.inside():
            made = socket.socket(family, kind, protocol)
        made.settimeout(PATIENCE_S)
        return made

    def listen(self, port: int, address: str | None = None) -> socket.socket:
        """A TCP server; on its own address of both families by default."""
        with self.inside():
            if address is not None:
                server = socket.create_server((address, port), family=family_of(address), backlog=4096)
            else:
                server = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
        server.settimeout(PATIENCE_S)
        return server

    def connect(self, address: str, port: int, *, timeout: float = PATIENCE_S, source: str = "") -> socket.socket:
        """A TCP connection. Raises what connect() does: ConnectionRefusedError, TimeoutError."""
        client = self.open(family_of(address), socket.SOCK_STREAM)
        try:
            if source:
                client.bind((source, 0))
            client.settimeout(timeout)
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        client.settimeout(PATIENCE_S)
        return client


class Topology:
    """The node's namespace, which is this thread's while `topology()` is open, and the hosts linked to it."""

    def __init__(self, node: Place) -> None:
        self.node = node
        self._hosts: list[Place] = []
        self._names: list[str] = []
        self._macs: list[str] = []  # of the hosts' ends

    def host(self, address4: str, address6: str, name: str | None = None) -> Place:
        """Another host with its addresses, which has everything else by the node."""
        name = name or f"pod{len(self._hosts)}"
        place = Place(new_namespace(), address4, address6)
        self._hosts.append(place)
        mac = f"0e:00:00:00:00:{len(self._hosts):02x}"
        self.node.run(
            *("ip", "-batch", "-"),
            input=f"""link add {name} address {mac} type veth peer name eth0 netns {place.path}
link set {name} up
address add fe80::1/128 dev {name} nodad
route add {address4}/32 dev {name}
route add {address6}/128 dev {name}
""",
        )
        place.run(
            *("ip", "-batch", "-"),
            input=f"""link set lo up
link set eth0 up
address add {address4}/32 dev eth0
address add {address6}/128 dev eth0 nodad
neighbour add 169.254.1.1 lladdr {mac} dev eth0 nud permanent
neighbour add fe80::1 lladdr {mac} dev eth0 nud permanent
route add default via 169.254.1.1 dev eth0 onlink
route add default via fe80::1 dev eth0 onlink
""",
        )
        own = _mac_of(place)
        self._names.append(name)
        self._macs.append(own)
        self.node.run(
            *("ip", "-batch", "-"),
            input=f"""neighbour add {address4} lladdr {own} dev {name} nud permanent
neighbour add {address6} lladdr {own} dev {name} nud permanent
""",
        )
        return place

    def also(self, place: Place, addresses: Iterable[str]) -> None:
        """More addresses of a host, or of the node."""
        index = self._hosts.index(place) if place is not self.node else -1
        here, there = "", ""
        for address in addresses:
            there += f"address add {address} dev lo" + (" nodad\n" if ":" in address else "\n")
            if place is not self.node:
                link, mac = self._names[index], self._macs[index]
                here += f"route add {address} dev {link}\n"
                here += f"neighbour add {address} lladdr {mac} dev {link} nud permanent\n"
        place.run("ip", "-batch", "-", input=there)
        if here:
            self.node.run("ip", "-batch", "-", input=here)

    def close(self) -> None:
        for place in self._hosts:
            os.close(place.fd)


def _mac_of(place: Place) -> str:
    words = place.run("ip", "-o", "link", "show", "eth0").split()
    return words[words.index("link/ether") + 1]


def new_namespace() -> int:
    """A descriptor of a network namespace without a link."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        setns(before)
        os.close(before)


@contextlib.contextmanager
def topology() -> Iterator[Topology]:
    """The thread in a new namespace with NODE4 and NODE6 that forwards, and back."""
    with own_network():
        fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        made = Topology(Place(fd, NODE4, NODE6))
        try:
            commands = f"address add {NODE4}/32 dev lo\naddress add {NODE6}/128 dev lo nodad\n"
            made.node.run("ip", "-batch", "-", input=commands)
            made.node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            yield made
        finally:
            made.close()
            os.close(fd)
