"""A container in which an exec waits halfway (gate.py), for tests of what others can do to it meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.container.bundle import Bundle
from tests.support.container.gate import start_gated
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Runner, wait_for

ATTACKER = Path(__file__).with_name("attacker.py")
UP = "/.." * 12


class Gated:
    """The exec that waits at the FIFO /gate of the container: its pid, and its number inside."""

    def __init__(self, pyrun: Runner, made: Bundle, position: str, *options: str) -> None:
        self.id = pyrun.create_started(made)
        self.init = pyrun.pid(self.id)
        self.gate = made.rootfs / "gate"
        self.process = start_gated(pyrun.root, self.id, position, *options)
        own = Path(f"/proc/{self.init}/cgroup").read_text().rpartition("0::")[2].strip()
        self.procs = Path(f"{CGROUP_ROOT}{own}/cgroup.procs")
        wait_for(self._waits, 10, "the exec to come to its gate")

    def _waits(self) -> bool:
        others = [int(pid) for pid in self.procs.read_text().split() if int(pid) != self.init]
        if len(others) != 1:
            return False
        self.pid = others[0]
        status = Path(f"/proc/{self.pid}/status").read_text()
        self.inside = int(status.partition("NSpid:")[2].splitlines()[0].split()[-1])
        wchan = Path(f"/proc/{self.pid}/wchan").read_text()
        return self.inside != self.pid and ("fifo" in wchan or "wait_for_partner" in wchan)

    def release(self) -> int:
        os.close(os.open(self.gate, os.O_WRONLY))
        return self.process.wait(60)

    def __enter__(self) -> Gated:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def attack(at: Gated, capabilities: list[str], *namespaces: str, init: bool = False) -> list[str]:
    """What a process with the container's capabilities and in its PID namespace can do to the one at the gate, or to
    the container's init; it is in these other namespaces of the container's as well.
    """
    victim = (at.init, 1) if init else (at.pid, at.inside)
    names = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities)])
    enter = [f"--{name}" for name in ("pid", *namespaces)]
    command = ["nsenter", "-t", str(at.init), *enter, "--", "setpriv", "--bounding-set", names, "--inh-caps", "-all"]
    command += [os.path.realpath(sys.executable), "-IS", "-", *map(str, victim)]
    with ATTACKER.open() as program:  # a mapped root may not find it by its path
        done = subprocess.run(command, stdin=program, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()


def ways_to(pid: int, marker: Path) -> list[str]:
    """What a process has open, or has as its root or working directory, from where a file of the host's is found."""
    ways = ["root", "cwd", *(f"fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))]
    return [way for way in ways if os.path.exists(f"/proc/{pid}/{way}{UP}{marker}")]
