"""One runtime in a benchmark: its bundles, its state directory, and the times that its verbs took.

A time is from posix_spawn to wait, which copies nothing of this process. Waiting for a container's process to end is
not in it, but for `run`, whose work that is.
"""

from __future__ import annotations

import json
import os
import select
import time
from pathlib import Path
from typing import Any

from tests.support.container.bundle import make_bundle, make_config

DEVNULL = os.open("/dev/null", os.O_RDWR)
VERBS = ("create+start+delete", "run", "create", "start", "state", "kill", "delete", "exec", "list")
ID = "bench"


def spawn(argv: list[str], stderr: Path) -> float:
    """Runs one command line to its end; returns ms. Raises with its stderr when it fails."""
    actions = [
        (os.POSIX_SPAWN_DUP2, DEVNULL, 0),
        (os.POSIX_SPAWN_DUP2, DEVNULL, 1),
        (os.POSIX_SPAWN_OPEN, 2, str(stderr), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
    ]
    start = time.perf_counter_ns()
    pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter_ns() - start) / 1e6
    if status != 0:
        raise RuntimeError(f"{' '.join(argv)}: status {status}\n{stderr.read_text()}")
    return took


class Peer:
    """name; argv: the command. quick: a bundle whose program ends at once; lasting: one that sleeps. times: ms by verb.
    Each container gets a config.json that nobody has seen, as engines write it. crun gets no
    linux.resources.devices, for it first raises a limit that takes CAP_SYS_RESOURCE."""

    def __init__(self, name: str, argv: list[str], work: Path, rootfs: Path) -> None:
        self.name = name
        self.directory = work / name.replace(" ", "-")
        self.argv = [*argv, "--root", str(self.directory / "state")]
        self.number = 0
        devices = {"devices": [{"allow": False, "access": "rwm"}]}
        self.linux: dict[str, Any] = {} if name == "crun" else {"resources": devices}
        self.quick = make_bundle(self.directory / "quick", self._config("/bin/true"), rootfs).path
        self.lasting = make_bundle(self.directory / "lasting", self._config("/bin/sleep", "1000"), rootfs).path
        self.pid_file = self.directory / "pid"
        self.times: dict[str, list[float]] = {verb: [] for verb in VERBS}

    def _config(self, *args: str) -> dict[str, Any]:
        return make_config(args, linux=self.linux, annotations={"bench.number": str(self.number)})

    def renew(self) -> None:
        """Other config.json files."""
        self.number += 1
        (self.quick / "config.json").write_text(json.dumps(self._config("/bin/true"), indent=1))
        (self.lasting / "config.json").write_text(json.dumps(self._config("/bin/sleep", "1000"), indent=1))

    def call(self, *args: str | os.PathLike[str]) -> float:
        return spawn([*self.argv, *map(str, args)], self.directory / "stderr")

    def timed(self, verb: str, *args: str | os.PathLike[str]) -> float:
        took = self.call(verb, *args)
        self.times[verb].append(took)
        return took

    def pidfd(self) -> int:
        return os.pidfd_open(int(self.pid_file.read_text()))

    def round(self) -> None:
        """Every verb once."""
        self.renew()
        self.timed("run", "--bundle", self.quick, ID)
        self.renew()
        cycle = self.timed("create", "--bundle", self.quick, "--pid-file", self.pid_file, ID)
        process = self.pidfd()
        cycle += self.timed("start", ID)
        wait_gone(process)
        cycle += self.timed("delete", ID)
        self.times["create+start+delete"].append(cycle)
        process = self.make_lasting()
        self.timed("exec", ID, "/bin/true")
        self.timed("state", ID)
        self.timed("list")
        self.timed("kill", ID, "KILL")
        wait_gone(process)
        self.call("delete", ID)

    def make_lasting(self) -> int:
        """A started container that stays; returns its pidfd."""
        self.call("create", "--bundle", self.lasting, "--pid-file", self.pid_file, ID)
        process = self.pidfd()
        self.call("start", ID)
        return process

    def parked_pss(self) -> int:
        """Proportional set size of a created container's init, in kB."""
        self.call("create", "--bundle", self.lasting, "--pid-file", self.pid_file, ID)
        rollup = Path("/proc", self.pid_file.read_text().strip(), "smaps_rollup").read_text()
        self.call("delete", "--force", ID)
        return int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])


def wait_gone(pidfd: int) -> None:
    """Waits until the process has ended, which is when its pidfd is readable."""
    ready, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    if not ready:
        raise RuntimeError("the container's process did not end within 10 s")
