"""Where pyrun's time goes, per verb: a table of medians.

What Python does is measured in a stand-in for pyrun/__main__.py (where_child.py) that notes the time on its way:

* interpreter: from posix_spawn to the first line of Python;
* imports: the modules that the verb needs, and the C module;
* plan: the command line, config.json, the host's facts, the plan and its encoding; what is done in Python afterwards;
* kernel: the plan carried out in C;
* exit: from the last line to the wait's return. Of `run` and `exec` the launcher has that: the program that runs
  meanwhile, and of `run` the removal.

The launcher has neither of the first three: all of its time is the kernel's, its own start and end among it.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from tests.bench.peer import ID, Peer, spawn, wait_gone

REPO = Path(__file__).resolve().parent.parent.parent
COLUMNS = ("interpreter", "imports", "plan", "kernel", "exit")
BY_PYTHON = ("create", "run", "exec")
BY_LAUNCHER = ("start", "state", "kill", "delete")


class Parts:
    """The parts of a verb's runs in ms: one list for each column."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, ...]] = []

    def run(self, peer: Peer, verb: str, *args: str | os.PathLike[str]) -> None:
        notes = peer.directory / "notes"
        argv = [peer.argv[0], "-I", "-S", str(REPO / "tests/bench/where_child.py"), str(notes), *peer.argv[1:], verb]
        start = time.monotonic_ns()
        spawn([*argv, *map(str, args)], peer.directory / "stderr")
        end = time.monotonic_ns()
        begun, imports, work, kernel, done = map(int, notes.read_text().split())
        parts = (begun - start, imports, work, kernel, end - done)
        self.seen.append(tuple(part / 1e6 for part in parts))

    def medians(self) -> dict[str, float]:
        columns = zip(COLUMNS, zip(*self.seen, strict=True), strict=True)
        medians = {name: statistics.median(values) for name, values in columns}
        return {"total": statistics.median(map(sum, self.seen))} | medians


class Where:
    """Takes the verbs apart, a round at a time, so that its figures come from the same minute as the others."""

    def __init__(self, work: Path, rootfs: Path) -> None:
        self._peer = Peer("where", [str(REPO / "pyrun" / "bin" / "python")], work, rootfs)
        self._launcher = Peer("launcher", [str(REPO / "pyrun" / "bin" / "pyrun")], work, rootfs)
        self._launcher.round()  # it keeps a verb's modules in one file, as the first use of an installation does
        self._launcher.argv[1:] = self._peer.argv[1:]
        self._found = {verb: Parts() for verb in BY_PYTHON}

    def round(self) -> None:
        peer, found = self._peer, self._found
        peer.renew()
        found["run"].run(peer, "run", "--bundle", peer.quick, ID)
        found["create"].run(peer, "create", "--bundle", peer.lasting, "--pid-file", peer.pid_file, ID)
        process = peer.pidfd()
        self._launcher.call("start", ID)
        found["exec"].run(peer, "exec", ID, "/bin/true")
        self._launcher.call("kill", ID, "KILL")
        wait_gone(process)
        self._launcher.call("delete", ID)

    def medians(self, whole: Peer) -> dict[str, dict[str, dict[str, float]]]:
        """ms: {"python": {verb: {column: ...}}, "launcher": {verb: {"total": ...}}}. whole: pyrun as installed."""
        launcher = {verb: {"total": statistics.median(whole.times[verb])} for verb in BY_LAUNCHER}
        return {"python": {verb: parts.medians() for verb, parts in self._found.items()}, "launcher": launcher}


def report_where(where: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """The table in Markdown, ms."""
    lines = ["| verb | total | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for verb, parts in where["python"].items():
        cells = [f"{parts[name]:.1f}" for name in ("total", *COLUMNS)]
        lines.append(f"| {verb} | " + " | ".join(cells) + " |")
    for verb, parts in where["launcher"].items():
        total = f"{parts['total']:.1f}"
        lines.append(f"| {verb} | {total} | – | – | – | {total} | |")
    return lines
