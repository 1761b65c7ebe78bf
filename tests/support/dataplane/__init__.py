"""A data plane on the loopback interface, and servers behind it that say who they are."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from pyrun.proxy import client
from pyrun.proxy.client import DataPlane
from pyrun.proxy.messages import Settings
from pyrun.proxy.rules import FORWARD, TCP, Choice, Endpoint, EndpointSet, Frontend, Rules
from tests.support.serving import Serving

PATIENCE_S = 60.0
if "PYRUN_TEST_DATAPLANE" in os.environ:  # one with sanitizers
    client.BINARY = os.environ["PYRUN_TEST_DATAPLANE"]
Handler = Callable[[socket.socket], None]


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def reset(s: socket.socket) -> None:
    """Ends a connection by RST."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


class Server:
    """A server on an address of 127/8: a thread a connection, which runs `handler`. Without one it says its name."""

    def __init__(self, address: str, handler: Handler | None = None, name: str = "", port: int = 0) -> None:
        self.address = address
        self.name = name or address
        self.socket = socket.create_server((address, port), backlog=1024)
        self.port: int = self.socket.getsockname()[1]
        self.peers: list[str] = []
        self.faults: list[BaseException] = []
        self._handler = handler or self._say_name
        self._serving = Serving()
        self._serving.accept(self.socket, self._handle)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(packed(self.address), self.port)

    def _say_name(self, s: socket.socket) -> None:
        s.sendall(self.name.encode())

    def _handle(self, s: socket.socket) -> None:
        s.settimeout(PATIENCE_S)
        try:
            self.peers.append(s.getpeername()[0])
            self._handler(s)
        except OSError as e:
            self.faults.append(e)

    def close(self) -> None:
        self._serving.end()


def refusing(address: str) -> Endpoint:
    """An endpoint at which nobody listens: its port was free a moment ago."""
    with socket.socket() as s:
        s.bind((address, 0))
        return Endpoint(packed(address), s.getsockname()[1])


def forward(key: str, **words: object) -> tuple[Choice, ...]:
    return (Choice((), FORWARD, key, **words),)  # type: ignore[arg-type]


class Plane:
    """A data plane and the socket that it accepts from; its frontends are addresses of 127/8 with that port."""

    def __init__(self, directory: Path, settings: Settings | None = None) -> None:
        os.chmod(directory, 0o700)
        self.directory = str(directory)
        self.settings = settings or Settings()
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=4096)
        self.port: int = self.listener.getsockname()[1]
        self.rules = Rules()
        self.it = DataPlane.start(self.directory, [self.listener], self.settings)

    def serve(self, *endpoints: Server | Endpoint, address: str = "127.9.0.1", affinity: int = 0) -> str:
        """One frontend with these endpoints, beside those that there are. Returns its address."""
        some = tuple(e.endpoint if isinstance(e, Server) else e for e in endpoints)
        key = f"set of {address}"
        frontend = Frontend(address, TCP, packed(address), self.port, forward(key), affinity)
        self.rules = Rules(
            (*(f for f in self.rules.frontends if f.address != packed(address)), frontend),
            (*(s for s in self.rules.sets if s.key != key), EndpointSet(key, some)),
        )
        self.it.apply(self.rules)
        return address

    def connect(self, address: str = "127.9.0.1", source: str = "127.0.0.1") -> socket.socket:
        s = socket.create_connection((address, self.port), PATIENCE_S, (source, 0))
        s.settimeout(PATIENCE_S)
        return s

    def ask(self, address: str = "127.9.0.1", source: str = "127.0.0.1") -> str:
        """Who answers. ConnectionResetError."""
        with self.connect(address, source) as s:
            return read_all(s).decode()

    def close(self) -> None:
        self.listener.close()
        self.it.end()


def read_all(s: socket.socket) -> bytes:
    parts = []
    while part := s.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


@contextlib.contextmanager
def servers(*numbers: int, handler: Handler | None = None) -> Iterator[list[Server]]:
    """Servers at 127.8.0.NUMBER."""
    made = [Server(f"127.8.0.{number}", handler) for number in numbers]
    try:
        yield made
    finally:
        for server in made:
            server.close()
