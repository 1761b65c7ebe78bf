"""How long the verbs take, against runc and crun: medians of interleaved rounds on the same busybox bundle.

    tests/view .venv/bin/python tests/bench/bench.py [--rounds N] [--runtime NAME=PATH]... [--json FILE] [--check]

Machines are noisy, so only ratios within one run count: every round measures every runtime once, in turning order. A
time is from posix_spawn to wait, which copies nothing of this process; waiting for a container's process to end is not
in it. crun gets the config.json without linux.resources.devices, for it first raises a limit that takes
CAP_SYS_RESOURCE.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

from tests.support.bundle import make_bundle, make_config  # noqa: E402

DEVNULL = os.open("/dev/null", os.O_RDWR)
VERBS = ("create+start+delete", "run", "create", "start", "state", "kill", "delete", "exec", "list")
# The most that pyrun may take of runc's time.
TARGETS = {
    "create+start+delete": 0.75,
    "run": 0.9,
    "start": 1.0,
    "state": 1.0,
    "kill": 1.0,
    "delete": 1.0,
    "exec": 1.0,
    "list": 2.0,
}
PSS_TARGET_KB = 300
WHEEL_TARGET_BYTES = 5_000_000
EXPLAIN_TARGET_S = 1.0
EXPLAIN_MOUNTS = (1000, 2000, 5000, 10000)


class Peer:
    """One runtime: its command, its bundles (one ends at once, one sleeps) and the times seen, in ms per verb."""

    def __init__(self, name: str, path: str, work: Path, rootfs: Path) -> None:
        self.name = name
        self.argv = [path, "--root", str(work / name / "state")]
        devices = {"devices": [{"allow": False, "access": "rwm"}]}
        resources = {} if name == "crun" else {"resources": devices}
        quick = make_config(["/bin/true"], linux=resources)
        lasting = make_config(["/bin/sleep", "1000"], linux=resources)
        self.quick = make_bundle(work / name / "quick", quick, rootfs).path
        self.lasting = make_bundle(work / name / "lasting", lasting, rootfs).path
        self.pid_file = work / name / "pid"
        self.stderr = str(work / name / "stderr")
        self.times: dict[str, list[float]] = {verb: [] for verb in VERBS}

    def spawn(self, *args: str | os.PathLike[str]) -> float:
        """Runs one command line to its end; returns ms. Raises with its stderr when it fails."""
        argv = [*self.argv, *map(str, args)]
        actions = [
            (os.POSIX_SPAWN_DUP2, DEVNULL, 0),
            (os.POSIX_SPAWN_DUP2, DEVNULL, 1),
            (os.POSIX_SPAWN_OPEN, 2, self.stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        start = time.perf_counter_ns()
        pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        took = (time.perf_counter_ns() - start) / 1e6
        if status != 0:
            raise RuntimeError(f"{' '.join(argv)}: status {status}\n{Path(self.stderr).read_text()}")
        return took

    def timed(self, verb: str, *args: str | os.PathLike[str]) -> float:
        took = self.spawn(verb, *args)
        self.times[verb].append(took)
        return took

    def pidfd(self) -> int:
        return os.pidfd_open(int(self.pid_file.read_text()))

    def round(self, number: int) -> None:
        """Every verb once."""
        id = f"bench-{self.name}-{number}"
        self.timed("run", "--bundle", self.quick, id)
        cycle = self.timed("create", "--bundle", self.quick, "--pid-file", self.pid_file, id)
        process = self.pidfd()
        cycle += self.timed("start", id)
        wait_gone(process)
        cycle += self.timed("delete", id)
        self.times["create+start+delete"].append(cycle)
        self.spawn("create", "--bundle", self.lasting, "--pid-file", self.pid_file, id)
        process = self.pidfd()
        self.spawn("start", id)
        self.timed("exec", id, "/bin/true")
        self.timed("state", id)
        self.timed("list")
        self.timed("kill", id, "KILL")
        wait_gone(process)
        self.spawn("delete", id)

    def parked_pss(self) -> int:
        """Proportional set size of a created container's init, in kB."""
        id = f"bench-{self.name}-parked"
        self.spawn("create", "--bundle", self.lasting, "--pid-file", self.pid_file, id)
        rollup = Path("/proc", self.pid_file.read_text().strip(), "smaps_rollup").read_text()
        self.spawn("delete", "--force", id)
        return int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])


def wait_gone(pidfd: int) -> None:
    """Waits until the process has ended, which is when its pidfd is readable."""
    ready, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    if not ready:
        raise RuntimeError("the container's process did not end within 10 s")


def measure_verbs(peers: list[Peer], rounds: int) -> None:
    """One round to warm the caches, then `rounds` that count, the runtimes' order turning by one each time."""
    for peer in peers:
        peer.round(0)
        peer.times = {verb: [] for verb in VERBS}
    for number in range(1, rounds + 1):
        turn = number % len(peers)
        for peer in [*peers[turn:], *peers[:turn]]:
            peer.round(number)


def measure_explain(command: str, work: Path) -> dict[str, float]:
    """CPU seconds (user and system) of `explain`, by number of mounts."""
    seconds = {}
    for count in EXPLAIN_MOUNTS:
        config = make_config()
        mount = {"type": "bind", "source": "/tmp", "options": ["rbind", "ro", "nosuid"]}
        config["mounts"] += [{"destination": f"/mnt/{number // 100}/{number}", **mount} for number in range(count)]
        bundle = work / f"mounts{count}"
        (bundle / "rootfs").mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(config))
        with open(work / "explained", "wb") as out:
            process = subprocess.Popen([command, "explain", bundle], stdin=DEVNULL, stdout=out)
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"explain of {count} mounts: exit status {process.returncode}")
        seconds[str(count)] = round(usage.ru_utime + usage.ru_stime, 3)
    return seconds


def measure_wheel() -> int | None:
    """Bytes that our wheel takes once installed, or None where `./bootstrap install` has not built one."""
    wheels = sorted(REPO.glob(".cache/wheel/pyrun-*.whl"))
    if not wheels:
        return None
    with zipfile.ZipFile(wheels[-1]) as wheel:
        return sum(entry.file_size for entry in wheel.infolist())


def report_verbs(medians: dict[str, dict[str, float]]) -> list[str]:
    """The table in Markdown: medians in ms, and pyrun's share of each peer's time."""
    others = [name for name in medians if name != "pyrun"]
    ratios = others if "pyrun" in medians else []
    header = ["verb", *(f"{name} ms" for name in medians), *(f"pyrun / {name}" for name in ratios), "target"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for verb in VERBS:
        cells = [verb, *(f"{times[verb]:.1f}" for times in medians.values())]
        cells += [f"{medians['pyrun'][verb] / medians[name][verb]:.2f}" for name in ratios]
        cells += [f"≤ {TARGETS[verb]} runc" if verb in TARGETS else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def find_misses(result: dict[str, Any]) -> list[str]:
    """The targets that this run missed."""
    misses = []
    medians = result["medians_ms"]
    if "pyrun" in medians and "runc" in medians:
        for verb, target in TARGETS.items():
            ratio = medians["pyrun"][verb] / medians["runc"][verb]
            if ratio > target:
                misses.append(f"{verb}: {ratio:.2f} of runc, target {target}")
    if result["parked_pss_kb"].get("pyrun", 0) > PSS_TARGET_KB:
        misses.append(f"parked init: {result['parked_pss_kb']['pyrun']} kB, target {PSS_TARGET_KB}")
    if (result["wheel_bytes"] or 0) > WHEEL_TARGET_BYTES:
        misses.append(f"wheel: {result['wheel_bytes']} bytes, target {WHEEL_TARGET_BYTES}")
    if max(result["explain_cpu_s"].values(), default=0) > EXPLAIN_TARGET_S:
        misses.append(f"explain: {result['explain_cpu_s']} s, target {EXPLAIN_TARGET_S}")
    return misses


def find_runtimes(chosen: list[str]) -> dict[str, str]:
    """Name -> path of the runtimes to measure; a peer that is not on the machine is left out."""
    paths = {"runc": "runc", "crun": "crun", "pyrun": str(REPO / "pyrun" / "bin" / "pyrun")}
    if chosen:
        pairs = [item.partition("=") for item in chosen]
        paths = {name: path or paths.get(name, name) for name, _, path in pairs}
    found = {name: shutil.which(path) for name, path in paths.items()}
    for name in [name for name, path in found.items() if path is None]:
        print(f"bench: no {name} on this machine", file=sys.stderr)
    return {name: path for name, path in found.items() if path}


def run_bench(runtimes: dict[str, str], rounds: int, work: Path) -> dict[str, Any]:
    """All measurements, as one value."""
    rootfs = Path(subprocess.check_output([REPO / "bundles" / "make-rootfs", "busybox"], text=True).strip())
    peers = [Peer(name, path, work, rootfs) for name, path in runtimes.items()]
    measure_verbs(peers, rounds)
    return {
        "rounds": rounds,
        "medians_ms": {p.name: {verb: round(statistics.median(p.times[verb]), 2) for verb in VERBS} for p in peers},
        "parked_pss_kb": {peer.name: peer.parked_pss() for peer in peers},
        "wheel_bytes": measure_wheel(),
        "explain_cpu_s": measure_explain(runtimes["pyrun"], work) if "pyrun" in runtimes else {},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="pyrun's verbs against runc's and crun's")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runtime", action="append", default=[], metavar="NAME[=PATH]", help="runc, crun and pyrun")
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    args = parser.parse_args()
    if "PYRUN_VIEW" not in os.environ:
        parser.error("run it through tests/view, which gives a pure cgroup v2")
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as work:
        result = run_bench(find_runtimes(args.runtime), args.rounds, Path(work))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    print(f"medians of {args.rounds} interleaved rounds\n")
    print("\n".join(report_verbs(result["medians_ms"])))
    print("\nparked init, PSS: " + ", ".join(f"{name} {kb} kB" for name, kb in result["parked_pss_kb"].items()))
    if result["wheel_bytes"]:
        print(f"installed wheel: {result['wheel_bytes'] / 1e6:.2f} MB")
    if result["explain_cpu_s"]:
        curve = ", ".join(f"{count}: {seconds:.2f}" for count, seconds in result["explain_cpu_s"].items())
        print(f"explain, CPU seconds by number of mounts: {curve}")
    misses = find_misses(result)
    for miss in misses:
        print(f"missed: {miss}")
    return 1 if args.check and misses else 0


if __name__ == "__main__":
    sys.exit(main())
