"""A containerd of the test's own: private root, state and socket, no CRI. Its shim is the engine's half of a test,
ctr the client."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.container.runner import Result

NEEDED = ("containerd", "ctr", "containerd-shim-runc-v2")
CONFIG = """
version = 2
root = "{root}"
state = "{state}"
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri",
"io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{socket}"
[plugins."io.containerd.runtime.v1.linux"]
  no_shim = false
"""


def missing() -> list[str]:
    """The programs that are not installed."""
    return [name for name in NEEDED if shutil.which(name) is None]


class Containerd:
    """A running containerd. ctr(...) runs its client against it, of the same PATH."""

    def __init__(self, socket: Path, log: Path, path: str) -> None:
        self.socket = socket
        self.log = log
        self._ctr = shutil.which("ctr", path=path) or "ctr"

    def ctr(self, *argv: str | os.PathLike[str], timeout: float = 60.0, input: str | None = None) -> Result:
        command = [self._ctr, "--address", str(self.socket), *(os.fspath(a) for a in argv)]
        stdin: dict[str, object] = {"stdin": subprocess.DEVNULL} if input is None else {"input": input}
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **stdin)  # type: ignore[call-overload]
        return Result(tuple(command), done.returncode, done.stdout, done.stderr)


@contextmanager
def containerd(directory: Path, path: str | None = None) -> Iterator[Containerd]:
    """Starts one below a short directory (a unix socket's path has 107 bytes at most) and ends it, shims and all.
    `path` is a PATH that has the programs of NEEDED; ours by default."""
    path = path or os.environ["PATH"]
    directory.mkdir(parents=True, exist_ok=True)
    config, socket, log = directory / "config.toml", directory / "c.sock", directory / "log"
    config.write_text(CONFIG.format(root=directory / "root", state=directory / "state", socket=socket))
    with log.open("wb") as out:
        argv = [shutil.which("containerd", path=path) or "containerd", "--config", str(config)]
        env = os.environ | {"PATH": path}  # where it finds its shim
        daemon = subprocess.Popen(argv, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not socket.exists():
            assert daemon.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield Containerd(socket, log, path)
    finally:
        daemon.terminate()
        daemon.wait(60)
