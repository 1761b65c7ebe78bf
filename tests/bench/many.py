"""Many containers at once, by the runtime alone: how long each takes to make, and what they and the runtime cost in
memory.

    tests/view .venv/bin/python -m tests.bench.many [--count 500] [pyrun crun ...]
    .venv/bin/python -m tests.bench.many --guest        in a guest with 4 GB, which is booted for it

Each is busybox's sleep in a full set of namespaces, all from one bundle. Memory is seen twice: while all are created
and parked, and while all run. Other processes are those of the
runtime that are no container's init; there should be none.
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

from tests.support.container.bundle import Bundle, make_bundle, make_config
from tests.support.container.runner import REPO, Runner, runtime_argv

GUEST_MIB = 4096
RUNTIMES = ("pyrun", "crun", "runc")
IN_GUEST = """
export PYRUN_VIEW=vm PYRUN_TEST_RUNTIME=/usr/local/bin/pyrun PYTHONPATH=/job/site:/usr/local/lib/pyrun
cd /job/src && python3 -m tests.bench.many {words}
"""
ROWS = (
    ("create, ms", "create"),
    ("start, ms", "start"),
    ("delete --force, ms", "delete"),
    ("list of all, ms", "list"),
)


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
        others = [pid for pid in own_processes(self.runner.argv[0]) if pid not in inits]
        return {
            "init KiB": statistics.median(pss(pid) for pid in inits),
            "others": len(others),
            "others KiB": sum(pss(pid) for pid in others),
            "available MiB": meminfo("MemAvailable") / 1024,
        }


def own_processes(program: str) -> list[int]:
    """Processes that run a program of the runtime's: the program itself, a copy of it in a memfd, pyrun-init, or an
    interpreter with pyrun's package. Not those outside of this cgroup namespace, which are another run's."""
    found, name = [], os.path.basename(program)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            exe = os.path.basename(os.readlink(f"/proc/{pid}/exe")).removeprefix("memfd:").partition(" ")[0]
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            outside = "0::/.." in Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue
        ours = exe in (name, f"{name}_cloned", "pyrun", "pyrun-init") or any(
            a.endswith(b"pyrun/__main__.py") for a in argv
        )
        if ours and not outside:
            found.append(int(pid))
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


def table(count: int, all_figures: dict[str, dict[str, Any]]) -> str:
    """A column for each runtime. A verb's row has the median, the 95th percentile, and the median of the last tenth
    over that of the first: does the number matter?"""
    names = list(all_figures)
    rows = [f"| {count} at once | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, key in ROWS:
        rows.append(f"| {title} | " + " | ".join(spread(all_figures[name][key]) for name in names) + " |")
    for number, state in enumerate(("created", "running")):
        for key in all_figures[names[0]]["memory"][number]:
            values = [f"{all_figures[name]['memory'][number][key]:.0f}" for name in names]
            rows.append(f"| {state}: {key} | " + " | ".join(values) + " |")
    return "\n".join(rows)


def spread(took: list[float]) -> str:
    """Median, 95th percentile and growth."""
    if len(took) == 1:
        return f"{took[0]:.0f}"
    part = max(1, len(took) // 10)
    growth = statistics.median(took[-part:]) / statistics.median(took[:part])
    return f"{statistics.median(took):.1f} (p95 {sorted(took)[int(len(took) * 0.95) - 1]:.1f}, × {growth:.2f})"


def prepare(directory: Path, count: int, runtime: list[str]) -> Many:
    made = subprocess.run([REPO / "bundles" / "make-rootfs", "busybox"], check=True, stdout=subprocess.PIPE, text=True)
    config = make_config(["sleep", "100000"], process={"rlimits": None})
    bundle = make_bundle(directory / "bundle", config, Path(made.stdout.strip()))
    return Many(Runner(directory / "state", runtime), bundle, count)


def figures_of(name: str, count: int) -> dict[str, Any]:
    """One runtime's; its containers are gone then."""
    runtime = runtime_argv() if name == "pyrun" else [shutil.which(name) or name]
    with tempfile.TemporaryDirectory() as directory:
        many = prepare(Path(directory), count, runtime)
        try:
            return measure(many, lambda what: print(f"{name}: {count} {what}", file=sys.stderr, flush=True))
        finally:
            many.runner.delete_all()


def in_guest(words: list[str]) -> int:
    """The same in a guest, its output on ours."""
    os.environ.setdefault("PYRUN_VM_MEMORY", str(GUEST_MIB))  # before what reads it is imported
    from tests.support.vm.__main__ import run

    return run(IN_GUEST.format(words=" ".join(words)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--guest", action="store_true", help="boot a guest with 4 GB, and measure in it")
    parser.add_argument("runtime", nargs="*", default=list(RUNTIMES), help="pyrun, or another runtime's name")
    options = parser.parse_args()
    if options.guest:
        return in_guest(["--count", str(options.count), *options.runtime])
    print(table(options.count, {name: figures_of(name, options.count) for name in options.runtime}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
