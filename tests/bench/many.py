"""Many containers at once, by the runtime alone: how long each takes to make, and what they and pyrun cost in memory.

    tests/view .venv/bin/python -m tests.bench.many [--count 500] [--runtime crun]

Each is busybox's sleep in a full set of namespaces, all from one bundle. Memory is seen twice: while all are created
and parked, and while all run. `others` are processes of pyrun's that are no container's init; there should be none.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.bundle import Bundle, make_bundle, make_config
from tests.support.runner import REPO, Runner, runtime_argv


class Many:
    """`count` containers of one bundle."""

    def __init__(self, runner: Runner, bundle: Bundle, count: int) -> None:
        self.runner = runner
        self.bundle = bundle
        self.ids = [f"m{number:05d}" for number in range(count)]

    def each(self, *argv: str) -> list[float]:
        """Milliseconds that a command took for each container. RuntimeError when one fails."""
        took = []
        for id in self.ids:
            command = self.runner.command(*argv, id)
            begin = time.perf_counter()
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
            took.append((time.perf_counter() - begin) * 1e3)
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}")
        return took

    def create(self) -> list[float]:
        return self.each("create", "--bundle", str(self.bundle.path))

    def listed(self) -> tuple[float, list[dict[str, Any]]]:
        """Seconds that `list` took, and what it says."""
        begin = time.perf_counter()
        out = self.runner("list", "--format", "json").ok().out
        return time.perf_counter() - begin, json.loads(out)

    def memory(self) -> dict[str, float]:
        """What the inits take (PSS, KiB each, the median), pyrun's other processes, and what is available in all."""
        inits = {int(one["pid"]) for one in self.listed()[1]}
        others = [pid for pid in own_processes() if pid not in inits]
        return {
            "init KiB": statistics.median(pss(pid) for pid in inits),
            "others": len(others),
            "others KiB": sum(pss(pid) for pid in others),
            "available MiB": meminfo("MemAvailable") / 1024,
        }


def own_processes() -> list[int]:
    """Processes that run a program of the runtime's: pyrun, pyrun-init, or an interpreter with its package. Not those
    outside of this cgroup namespace, which are another run's."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            exe, argv = os.readlink(f"/proc/{name}/exe"), Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            outside = "0::/.." in Path(f"/proc/{name}/cgroup").read_text()
        except OSError:
            continue
        if outside:
            continue
        if "pyrun-init" in exe or exe.endswith("/bin/pyrun") or any(a.endswith(b"pyrun/__main__.py") for a in argv):
            found.append(int(name))
    return found


def pss(pid: int) -> int:
    """KiB; 0 when it is gone."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(row.split()[1]) for row in rows if row.startswith("Pss:")), 0)


def meminfo(key: str) -> int:
    """KiB"""
    rows = Path("/proc/meminfo").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith(key + ":"))


def measure(many: Many, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole life of all of them, in figures: milliseconds, but for `memory`."""
    before = meminfo("MemAvailable") / 1024
    made = many.create()
    say("created")
    parked = many.memory()
    started = many.each("start")
    say("started")
    running = many.memory()
    took, listed = many.listed()
    if {one["status"] for one in listed} != {"running"} or len(listed) != len(many.ids):
        raise RuntimeError(f"list has {len(listed)} containers, and not all run")
    deleted = many.each("delete", "--force")
    for memory in (parked, running):
        memory["KiB each, in all"] = (before - memory.pop("available MiB")) * 1024 / len(many.ids)
    return {"create": made, "start": started, "list": [took * 1e3], "delete": deleted, "memory": [parked, running]}


def table(figures: dict[str, Any]) -> str:
    """Rows of median, 95th percentile, and the last tenth against the first: does the number matter?"""
    rows = [f"{'ms':8} {'median':>8} {'p95':>8} {'first tenth':>12} {'last tenth':>12}"]
    for verb in ("create", "start", "list", "delete"):
        took = figures[verb]
        part = max(1, len(took) // 10)
        values = (statistics.median(took), sorted(took)[int(len(took) * 0.95) - (len(took) > 1)])
        ends = (statistics.median(took[:part]), statistics.median(took[-part:]))
        rows.append(f"{verb:8} {values[0]:8.1f} {values[1]:8.1f} {ends[0]:12.1f} {ends[1]:12.1f}")
    for state, memory in zip(("parked", "running"), figures["memory"], strict=True):
        rows.append(f"{state:8} " + ", ".join(f"{name} {value:.0f}" for name, value in memory.items()))
    return "\n".join(rows)


def prepare(directory: Path, count: int, runtime: list[str]) -> Many:
    """The bundle, old enough for its plan to be kept."""
    made = subprocess.run([REPO / "bundles" / "make-rootfs", "busybox"], check=True, stdout=subprocess.PIPE, text=True)
    config = make_config(["sleep", "100000"], process={"rlimits": None})
    bundle = make_bundle(directory / "bundle", config, Path(made.stdout.strip()))
    os.utime(bundle.path / "config.json", (1e9, 1e9))
    return Many(Runner(directory / "state", runtime), bundle, count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--runtime", help="another runtime, such as crun")
    options = parser.parse_args()
    runtime = [shutil.which(options.runtime) or options.runtime] if options.runtime else runtime_argv()
    with tempfile.TemporaryDirectory() as name:
        many = prepare(Path(name), options.count, runtime)
        try:
            figures = measure(many, lambda what: print(f"{options.count} {what}", file=sys.stderr, flush=True))
        finally:
            many.runner.delete_all()
    print(table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
