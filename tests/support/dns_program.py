"""A pyrun-dns for tests: on loopback ports that the kernel chooses, ended with the test."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from pyrun.dns.program import PROGRAM, sockets_at, start
from pyrun.dns.responder import Responder
from pyrun.errors import PyrunError

LOOPBACK = ((bytes([127, 0, 0, 0]), 8), (bytes(15) + b"\1", 128))
PATIENCE_S = 60.0
PROGRAM_TESTED = Path(os.environ.get("PYRUN_TEST_DNS", PROGRAM))


class Running:
    """responder: Python's end. address, port: where it answers."""

    def __init__(self, responder: Responder, control: str, address: str, port: int) -> None:
        self.responder = responder
        self.control = control
        self.address = address
        self.port = port

    def udp(self, query: bytes, patience_s: float = PATIENCE_S) -> bytes:
        """The reply; empty when none comes in time."""
        with self.client() as client:
            client.send(query)
            return client.recv(65535) if select.select([client], [], [], patience_s)[0] else b""

    def client(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        client = socket.socket(family, socket.SOCK_DGRAM)
        client.connect((self.address, self.port))
        return client

    def tcp(self, query: bytes) -> bytes:
        with socket.create_connection((self.address, self.port), PATIENCE_S) as client:
            client.sendall(framed(query))
            return read_framed(client)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


def read_framed(client: socket.socket) -> bytes:
    """One message; empty when the connection ended."""
    with client.makefile("rb") as stream:
        size = int.from_bytes(stream.read(2), "big")
        return stream.read(size)


@contextlib.contextmanager
def running(
    *,
    address: str = "127.0.0.1",
    prefixes: Sequence[tuple[bytes, int]] = LOOPBACK,
    rate: int = 0,
    forwards: bool = False,
    program: Path = PROGRAM_TESTED,
) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="pyrun-dns-") as directory, contextlib.ExitStack() as stack:
        control = f"{directory}/control.sock"
        pid = start(control, program)
        stack.callback(end, pid)
        responder = Responder.connect(control)
        stack.callback(responder.close)
        responder.configure(prefixes, rate=rate, forwards=forwards, cache_bytes=1 << 20)
        sockets = somewhere(address)
        port = sockets[0].getsockname()[1]
        responder.add_sockets(sockets)
        for one in sockets:
            one.close()
        yield Running(responder, control, address, port)


def somewhere(address: str) -> list[socket.socket]:
    """Sockets at a port that is free for both protocols: one that is drawn for UDP may have a TCP connection."""
    for _ in range(100):
        with contextlib.suppress(PyrunError):
            return sockets_at(address, 0)
    return sockets_at(address, 0)


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
