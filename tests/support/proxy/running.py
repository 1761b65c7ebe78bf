"""`pyrun proxy run` in the node of a topology, with a directory of objects, and what it says of itself."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyrun.cli.main import main
from tests.support.daemon import PATIENCE_S, Daemon, until
from tests.support.proxy.topology import NODE4, NODE6

OPTIONS = ["--node", "n1", "--node-ip", NODE4, "--node-ip", NODE6]
OPTIONS += ["--cluster-cidr", "10.1.0.0/16", "--cluster-cidr", "fd01::/64"]
OPTIONS += ["--service-cidr", "10.96.0.0/16", "--service-cidr", "fd96::/112"]


class Proxy(Daemon):
    """The daemon. Its thread of the test is in the node's namespace, and so is what it starts."""

    def __init__(self, directory: Path, mode: str) -> None:
        super().__init__(directory, "pyrun-dataplane")
        self.mode = mode

    def start(self, *options: str) -> None:
        words = ["--objects", str(self.objects), "--state", str(self.state), *OPTIONS, *options]
        words += ["--proxy-mode", self.mode]
        with open(self.log, "ab") as log:
            argv = [sys.executable, "-m", "pyrun", "proxy", "run", *words]
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home)
        until(self._is_ready, lambda: f"it is not ready: {self.said()}")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        return self.get(10256, "/healthz")[0] == 200

    def get(self, port: int, path: str = "/", host: str = "127.0.0.1") -> tuple[int, str]:
        """Status and body by HTTP; (0, "") where nothing listens."""
        connection = http.client.HTTPConnection(host, port, timeout=60)
        with contextlib.closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except ConnectionError:
                return 0, ""

    def status(self, capfd: Any) -> dict[str, Any]:
        capfd.readouterr()
        assert main(["proxy", "status", "--state", str(self.state), "--format", "json"]) in (0, 1)
        found: dict[str, Any] = json.loads(capfd.readouterr().out)
        return found

    def unserved(self, capfd: Any) -> list[dict[str, Any]]:
        """What `pyrun proxy list` says that is not served."""
        capfd.readouterr()
        assert main(["proxy", "list", "--format", "json", "--state", str(self.state)]) == 0
        return [one for one in json.loads(capfd.readouterr().out) if one["unserved"]]

    def stop(self) -> None:
        """As systemd does it: all is taken away."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_S) == 0, self.said()

    def plane_pid(self) -> int:
        """The data plane's, by its program, among processes of this network namespace."""
        own = os.readlink("/proc/thread-self/ns/net")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                _, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
                comm = Path(f"/proc/{pid}/comm").read_text()
                if os.readlink(f"/proc/{pid}/ns/net") == own and comm.startswith("pyrun-data") and rest[1] != "Z":
                    return int(pid)
        return 0


@contextlib.contextmanager
def running(directory: Path, mode: str, text: str, *options: str) -> Iterator[Proxy]:
    """A daemon that has carried out these objects, and is stopped in the end whatever happens."""
    directory.mkdir(exist_ok=True)
    directory.chmod(0o700)
    made = Proxy(directory, mode)
    made.write(text)
    try:
        made.start(*options)
        yield made
    finally:
        if made.process is not None and made.process.poll() is not None:
            made.start(*options)  # it was killed: the next one takes over, and takes away what is left
        made.stop()
