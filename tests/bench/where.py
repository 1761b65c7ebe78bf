"""Where pyrun's time goes, per verb: a table of medians.

What Python does is measured in a stand-in for pyrun/__main__.py (where_child.py) that notes the time on its way:

* interpreter: from posix_spawn to the first line of Python;
* imports: the modules that the verb needs, and the C module;
* plan: the command line, config.json, the host's facts, the plan and its encoding; what is done in Python afterwards;
* kernel: the plan carried out in C, and the program of `run` and `exec` waited for;
* exit: from the last line to the wait's return.

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
BY_PYTHON = ("create", "run", "exec", "list")
BY_LAUNCHER = ("create", "run", "start", "state", "kill", "delete")


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


def measure_python(work: Path, rootfs: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Verb -> column -> ms, for what Python does."""
    peer = Peer("where", [str(REPO / "pyrun" / "bin" / "python")], work, rootfs)
    found = {verb: Parts() for verb in BY_PYTHON}
    through = Peer("through", [str(REPO / "pyrun" / "bin" / "pyrun")], work, rootfs)
    through.round()  # it keeps the verbs' modules in one file each, as the first use of an installation does
    through.argv[1:] = peer.argv[1:]
    for _ in range(rounds):
        peer.renew()
        found["run"].run(peer, "run", "--bundle", peer.quick, ID)
        found["create"].run(peer, "create", "--bundle", peer.lasting, "--pid-file", peer.pid_file, ID)
        process = peer.pidfd()
        through.call("start", ID)
        found["exec"].run(peer, "exec", ID, "/bin/true")
        found["list"].run(peer, "list")
        through.call("kill", ID, "KILL")
        wait_gone(process)
        through.call("delete", ID)
    return {verb: parts.medians() for verb, parts in found.items()}


def measure_where(again: Peer, work: Path, rootfs: Path, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """ms: {"python": {verb: {column: ...}}, "launcher": {verb: {"total": ...}}}. again: it has been measured."""
    launcher = {verb: {"total": statistics.median(again.times[verb])} for verb in BY_LAUNCHER}
    return {"python": measure_python(work, rootfs, rounds), "launcher": launcher}


def report_where(where: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """The table in Markdown, ms."""
    lines = ["| verb | total | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for verb, parts in where["python"].items():
        cells = [f"{parts[name]:.1f}" for name in ("total", *COLUMNS)]
        lines.append(f"| {verb} | " + " | ".join(cells) + " |")
    for verb, parts in where["launcher"].items():
        kept = " again" if verb in BY_PYTHON else ""
        total = f"{parts['total']:.1f}"
        lines.append(f"| {verb}{kept} | {total} | – | – | – | {total} | |")
    return lines
