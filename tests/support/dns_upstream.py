"""Other servers for the forwarder's tests: Debian's unbound and dnsmasq as they are, and one that we make do what no
honest server does."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.dns import ask
from tests.support.serving import end_threads

PATIENCE_S = 60.0
ZONE = """
  local-zone: "example.test." static
  local-data: "example.test. 300 IN SOA ns.example.test. me.example.test. 1 2 3 4 20"
  local-data: "www.example.test. 60 IN A 192.0.2.1"
  local-data: "short.example.test. 1 IN A 192.0.2.2"
  local-data: "alias.example.test. 60 IN CNAME www.example.test."
  local-data: "txt.example.test. 60 IN TXT hello"
"""
ZONE += "".join(f'  local-data: "big.example.test. 60 IN A 198.51.100.{n}"\n' for n in range(1, 120))


def free_port() -> int:
    """A port that is free for UDP and TCP on 127.0.0.1."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                return port


@contextlib.contextmanager
def unbound(port: int = 0) -> Iterator[int]:
    """An unbound that has ZONE, at this port of 127.0.0.1."""
    if not shutil.which("unbound"):
        pytest.skip("unbound is not installed: apt-get install unbound")
    port = port or free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = os.path.join(directory, "unbound.conf")
        with open(config, "w") as file:
            file.write(
                f'server:\n  do-daemonize: no\n  username: ""\n  chroot: ""\n  directory: "{directory}"\n'
                f'  pidfile: ""\n'
                f'  interface: 127.0.0.1\n  port: {port}\n  use-syslog: no\n  module-config: "iterator"\n'
                f"  max-udp-size: 1232\n  num-threads: 1\n  access-control: 127.0.0.0/8 allow\n{ZONE}"
            )
        with _process(["unbound", "-c", config], port):
            yield port


@contextlib.contextmanager
def dnsmasq(address: str = "192.0.2.77", asks: int | None = None) -> Iterator[int]:
    """A dnsmasq that gives every name below corp.test this address, and asks this port of loopback for all others."""
    if not shutil.which("dnsmasq"):
        pytest.skip("dnsmasq is not installed: apt-get install dnsmasq-base")
    port = free_port()
    words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        "--conf-file=/dev/null",
    ]
    words += [f"--port={port}", "--listen-address=127.0.0.1", f"--address=/corp.test/{address}", "--pid-file="]
    words += [] if asks is None else [f"--server=127.0.0.1#{asks}"]
    with _process([*words, "--user=root", "--local-ttl=60"], port, "ready.corp.test"):
        yield port


@contextlib.contextmanager
def _process(words: list[str], port: int, name: str = "ready.test") -> Iterator[None]:
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(port, name):
            assert process.poll() is None and time.monotonic() < deadline, f"{words[0]} does not answer"
        yield
    finally:
        process.kill()
        process.wait()


def _answers(port: int, name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        client.connect(("127.0.0.1", port))
        try:
            client.send(ask(name, "A"))
            return bool(client.recv(4096))
        except OSError:
            time.sleep(0.02)
            return False


class Strange:
    """A server that does with each query what its function says: (query, where it came from, its socket). Queries that
    look whether it leads back to the asker are left out, and unanswered. queries: the others, as they came."""

    def __init__(self, act: Callable[[bytes, tuple[str, int], socket.socket], None]) -> None:
        self.act = act
        self.queries: list[bytes] = []
        self.sources: list[tuple[str, int]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.1)
        self.port = int(self.socket.getsockname()[1])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Strange:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        end_threads(self._thread)
        self.socket.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                query, source = self.socket.recvfrom(4096)
            except (TimeoutError, ConnectionError):
                continue
            if query[12] == 16:  # the random label of such a look
                continue
            self.queries.append(query)
            self.sources.append(source)
            self.act(query, source, self.socket)


def positive(query: bytes, address: str = "192.0.2.9", ttl: int = 60) -> bytes:
    """A reply with one A record."""
    end = len(query) - 11
    record = b"\xc0\x0c\0\1\0\1" + ttl.to_bytes(4, "big") + b"\0\4" + socket.inet_aton(address)
    return query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:end] + record
