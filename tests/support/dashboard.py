"""`pyrun dashboard` for tests, and a client that says what no browser would."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60.0


@dataclass
class Served:
    """place: host:port. said: what it wrote."""

    place: str
    token: str
    process: subprocess.Popen[bytes]
    said: Path

    @property
    def url(self) -> str:
        return f"http://{self.place}/"

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """(status, headers, body). Headers are given with _ for -; a Host replaces the right one."""
        connection = http.client.HTTPConnection(self.place, timeout=PATIENCE_S)
        try:
            named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
            connection.putrequest(method, path, skip_host="host" in named, skip_accept_encoding=True)
            for name, value in named.items():
                connection.putheader(name, value)
            if body is not None:
                connection.putheader("content-length", str(len(body)))
            connection.endheaders(body.encode() if body is not None else None)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """As a tool that has the token."""
        status, _, body = self.ask(path, authorization=f"Bearer {self.token}")
        assert status == 200, (status, body)
        return json.loads(body)

    def login(self) -> tuple[str, str]:
        """(cookie, key), as a browser gets them."""
        body = json.dumps({"token": self.token})
        status, headers, told = self.ask("/api/login", "POST", body, origin=self.url.rstrip("/"))
        assert status == 200, told
        return headers["set-cookie"].split(";")[0], json.loads(told)["key"]


@contextmanager
def a_dashboard(directory: Path, socket: Path, logs: Path, *more: str, beside: Sequence[str] = ()) -> Iterator[Served]:
    """beside: what `pyrun addons` runs with it; without them it is a program by itself."""
    state = directory / "dashboard"
    argv = ["dashboard", "--address", "127.0.0.1:0", "--state", str(state), "--dir", str(logs), "--node-name", "n1"]
    argv += ["--store", str(directory / "metrics"), "--listen", f"unix://{socket}", *more]
    if beside:
        argv = ["addons", *beside, shlex.join(argv)]
    said = directory / "dashboard.log"
    with said.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pyrun", *argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        last = time.monotonic() + PATIENCE_S
        while not (url := re.search(r"https?://(\S+)/ ", said.read_text())):
            assert process.poll() is None and time.monotonic() < last, said.read_text()
            time.sleep(0.02)
        yield Served(url[1], (state / "token").read_text().strip(), process, said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, said.read_text()
    finally:
        process.kill()
        process.wait()
