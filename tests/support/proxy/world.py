"""A client, an outsider and four pods around a node whose proxy runs, and what its tests ask of them."""

from __future__ import annotations

import threading
from typing import Any

from tests.support.daemon import until
from tests.support.proxy.answers import Answer, Server, ask
from tests.support.proxy.objects import service, slice_of
from tests.support.proxy.topology import Place, Topology
from tests.support.serving import end_threads

VIP = "10.96.0.1"
PODS = [(f"10.1.0.{n}", f"fd01::{n}") for n in (1, 2, 3, 4)]
WEB = service("web", VIP)


class World:
    def __init__(self, net: Topology) -> None:
        self.pods = [net.host(*addresses) for addresses in PODS]
        self.client = net.host("10.1.0.9", "fd01::9")
        self.outside = net.host("203.0.113.2", "2600:5200::2")
        self.servers = [Server(pod, 8080) for pod in self.pods]
        self.node = net.node

    def close(self) -> None:
        for server in self.servers:
            server.close()


def pods(*numbers: int, **more: Any) -> str:
    return slice_of("web", *[PODS[number][0] for number in numbers], **more)


def answers(client: Place, count: int, address: str = VIP, port: int = 80, *, udp: bool = False) -> list[str]:
    """The addresses of those who answered, in order; what else came of it as it is."""
    found = [ask(client, address, port, udp=udp) for _ in range(count)]
    return [one.endpoint.rpartition(":")[0] if isinstance(one, Answer) else one for one in found]


def settled(client: Place, right: set[str], address: str = VIP, port: int = 80, *, udp: bool = False) -> None:
    """Waits until all of these answer and no other."""
    until(lambda: set(answers(client, 3 * len(right), address, port, udp=udp)) == right, f"{right} have it never")


def nobody(client: Place, address: str) -> bool:
    """No Service has this address."""
    return not isinstance(ask(client, address, 80, silent=True), Answer)


class Load:
    """A client that asks without a pause, and counts what went wrong."""

    def __init__(self, client: Place, address: str = VIP, port: int = 80) -> None:
        self._client, self._to = client, (address, port)
        self._ended = threading.Event()
        self.good = 0
        self.bad: list[object] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.is_set():
            found = ask(self._client, *self._to)
            if isinstance(found, Answer):
                self.good += 1
            else:
                self.bad.append(found)

    def more(self, count: int) -> None:
        """Waits for so many good answers from now on."""
        wanted = self.good + count
        until(lambda: self.good >= wanted or self.bad, "no answer comes")

    def end(self) -> None:
        self._ended.set()
        end_threads(self._thread)
