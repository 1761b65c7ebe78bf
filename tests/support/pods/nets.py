"""A network namespace for a test, with the test in it; pods in it, sandboxes and no more; and what they reach."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pyrun import cri_api as v1
from pyrun.facts import Facts, collect_facts
from pyrun.pod.network import NetResult, Network, PodNet
from pyrun.pod.sandbox import Sandbox, complete_sandbox, end_sandbox, make_sandbox

CLONE_NEWNET = 0x40000000
SERVER = """
import socket, sys
s = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True, backlog=20)
print("listening", flush=True)
while True:
    c, a = s.accept()
    c.sendall(a[0].removeprefix("::ffff:").encode())
    c.close()
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as s:
    print(s.recv(100).decode())
"""


def setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """This thread, and those that it makes, in a new network namespace, and back."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        setns(before)
        os.close(before)


def pod_id() -> str:
    return secrets.token_hex(32)


def pod_config(**words: object) -> v1.Message:
    """A PodSandboxConfig with a name."""
    meta = v1.PodSandboxMetadata(name="web", uid="u1", namespace="default", attempt=0)
    return v1.PodSandboxConfig(**{"metadata": meta, "hostname": "web", **words})


class Pod:
    """A sandbox with a network."""

    def __init__(
        self, network: Network, root: Path, config: v1.Message | None = None, facts: Facts | None = None
    ) -> None:
        self.network = network
        self.id = pod_id()
        self.config = config if config is not None else pod_config()
        self.sandbox: Sandbox = make_sandbox(str(root / self.id), self.id, self.config, facts or collect_facts())
        self.net = PodNet.of(self.id, self.config, self.sandbox.net)
        self._servers: list[subprocess.Popen[str]] = []
        facts = facts or collect_facts()
        try:
            self.result: NetResult = network.add(self.net)
            complete_sandbox(self.sandbox, self.config, self.result.dns, facts)
        except BaseException:
            network.remove(self.net)
            end_sandbox(self.sandbox.directory)
            raise

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        assert self.sandbox.net
        command = ["nsenter", f"--net={self.sandbox.net}", *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def serve(self, port: int) -> None:
        """A server that tells each caller by which address it sees him."""
        command = ["nsenter", f"--net={self.sandbox.net}", sys.executable, "-c", SERVER, str(port)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._servers.append(server)
        assert server.stdout and server.stdout.readline() == "listening\n"

    def ask(self, address: str, port: int) -> str:
        """What a server says; "" where it can't be reached."""
        return self.run(sys.executable, "-c", CLIENT, address, str(port)).stdout.strip()

    def pings(self, address: str) -> bool:
        """Asked up to three times: the kernel may still be bringing a new link up, and drops what is sent meanwhile."""
        return any(self.run("ping", "-c1", "-W2", address).returncode == 0 for _ in range(3))

    def end(self) -> None:
        for server in self._servers:
            server.kill()
            server.communicate()
        self._servers.clear()
        self.network.remove(self.net)
        end_sandbox(self.sandbox.directory)


def ask_from_node(address: str, port: int) -> str:
    command = [sys.executable, "-c", CLIENT, address, str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def links() -> set[str]:
    """The names of the links of this thread's network namespace."""
    text = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {line.split(": ")[1].partition("@")[0] for line in text.splitlines()}


def wait_until(what: object, patience_s: float = 30.0) -> bool:
    deadline = time.monotonic() + patience_s
    while not (found := bool(what())) and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)
    return found
