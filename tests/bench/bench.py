"""How long the verbs take, against runc and crun: medians of interleaved rounds on the same busybox bundle.

    tests/view .venv/bin/python tests/bench/bench.py [--rounds N] [--runtime NAME=PATH]... [--json FILE] [--write]
        [--check]

Machines are noisy, so only ratios within one run count: every round measures every runtime once, in turning order.
Each container gets a config.json of its own, as engines write them. pyrun is measured as it is, where Python plans
every create, run and exec, and as `pyrun planned`, with `pyrun planner` running beside it. Then follow the memory of a
created container, the size of the wheel, the growth of `explain`, and a table of where the time goes (where.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

from pyrun.cli.planner import NAME  # noqa: E402
from tests.bench.peer import DEVNULL, VERBS, Peer  # noqa: E402
from tests.bench.where import Where, report_where  # noqa: E402
from tests.support.container.bundle import make_config  # noqa: E402

# pyrun is measured twice: as it is, and with `pyrun planner` running beside it.
PLANNED = "pyrun planned"
OURS = ("pyrun", PLANNED)
# The most that ours may take of another's time, by verb: ours, the other, the share.
TARGETS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "create+start+delete": (("pyrun", "runc", 0.75), (PLANNED, "runc", 0.3), (PLANNED, "crun", 0.7)),
    "run": (("pyrun", "runc", 0.9), (PLANNED, "crun", 1.1)),
    "exec": (("pyrun", "runc", 1.0), (PLANNED, "crun", 0.6)),
    **dict.fromkeys(("start", "state", "kill", "delete"), (("pyrun", "runc", 1.0),)),
}
PSS_TARGET_KB = 300
WHEEL_TARGET_BYTES = 5_000_000
EXPLAIN_TARGET_S = 1.0
EXPLAIN_MOUNTS = (1000, 2000, 5000, 10000)
PAGES = (REPO / "docs" / "figures.md", REPO / "README.md")
# What a wheel is made from.
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "pyrun", "cffi_build")


def measure_verbs(peers: list[Peer], where: Where | None, rounds: int) -> None:
    """`rounds` that count, the runtimes' order turning by one each time."""
    for peer in peers:  # a round that does not count
        peer.round()
        peer.times = {verb: [] for verb in VERBS}
    for number in range(rounds):
        turn = number % len(peers)
        for peer in [*peers[turn:], *peers[:turn]]:
            peer.round()
        if where:
            where.round()


@contextmanager
def planner(peer: Peer) -> Iterator[None]:
    """`pyrun planner` for this peer's state directory."""
    process = subprocess.Popen([*peer.argv, "planner"], stdin=DEVNULL)
    name = peer.directory / "state" / NAME
    while not name.exists():
        if process.poll() is not None:
            raise RuntimeError(f"pyrun planner: exit status {process.returncode}")
        time.sleep(0.01)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError("pyrun planner has ended: its figures would be those of Python")
    finally:
        process.terminate()
        process.wait()


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


def measure_wheel(work: Path) -> int:
    """Bytes that our wheel takes once installed. It is built from a copy, for building writes into the tree."""
    copy = work / "tree"
    copy.mkdir()
    for name in SOURCES:
        source = REPO / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("bin", "__pycache__", "*.so"))
        elif source.exists():
            shutil.copy(source, copy / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(work / "wheel"), str(copy)], check=True, stdin=DEVNULL)
    with zipfile.ZipFile(next((work / "wheel").glob("pyrun-*.whl"))) as wheel:
        return sum(entry.file_size for entry in wheel.infolist())


def report_verbs(medians: dict[str, dict[str, float]]) -> list[str]:
    """The table in Markdown: medians in ms, and pyrun's share of each peer's time."""
    pairs = [(mine, other) for mine in OURS for other in medians if mine in medians and other not in OURS]
    header = ["verb", *(f"{name} ms" for name in medians), *(f"{a} / {b}" for a, b in pairs), "target"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for verb in VERBS:
        cells = [verb, *(f"{times[verb]:.1f}" for times in medians.values())]
        cells += [f"{medians[mine][verb] / medians[other][verb]:.2f}" for mine, other in pairs]
        cells += [", ".join(f"{mine} ≤ {share} {other}" for mine, other, share in TARGETS.get(verb, ()))]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def find_misses(result: dict[str, Any]) -> list[str]:
    """The targets that this run missed."""
    misses = []
    medians = result["medians_ms"]
    for verb, targets in TARGETS.items():
        for mine, other, share in targets:
            if mine in medians and other in medians and (ratio := medians[mine][verb] / medians[other][verb]) > share:
                misses.append(f"{verb}, {mine}: {ratio:.2f} of {other}, target {share}")
    if result["parked_pss_kb"].get("pyrun", 0) > PSS_TARGET_KB:
        misses.append(f"parked init: {result['parked_pss_kb']['pyrun']} kB, target {PSS_TARGET_KB}")
    if result["wheel_bytes"] > WHEEL_TARGET_BYTES:
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
    peers = [Peer(name, [path], work, rootfs) for name, path in runtimes.items()]
    ours = next((peer for peer in peers if peer.name == "pyrun"), None)
    where = Where(work, rootfs) if ours else None
    if ours:
        peers.append(Peer(PLANNED, [runtimes["pyrun"]], work, rootfs))
    with planner(peers[-1]) if ours else nullcontext():
        measure_verbs(peers, where, rounds)
    return {
        "rounds": rounds,
        "cores": len(os.sched_getaffinity(0)),
        "medians_ms": {p.name: {verb: round(statistics.median(p.times[verb]), 2) for verb in VERBS} for p in peers},
        "parked_pss_kb": {peer.name: peer.parked_pss() for peer in peers if peer.name != PLANNED},
        "where_ms": where.medians(ours) if where and ours else {},
        "explain_cpu_s": measure_explain(runtimes["pyrun"], work) if ours else {},
        "wheel_bytes": measure_wheel(work) if ours else 0,
    }


def report_beside(result: dict[str, Any]) -> list[str]:
    """The figures that need no table."""
    curve = ", ".join(f"{count}: {seconds:.2f}" for count, seconds in result["explain_cpu_s"].items())
    return [
        "parked init, PSS: " + ", ".join(f"{name} {kb} kB" for name, kb in result["parked_pss_kb"].items()),
        f"installed wheel: {result['wheel_bytes'] / 1e6:.2f} MB",
        f"explain, CPU seconds by number of mounts: {curve}",
    ]


def _measured(result: dict[str, Any]) -> str:
    return f"{result['rounds']} rounds on a machine with {result['cores']} cores"


def print_report(result: dict[str, Any]) -> None:
    print(f"medians of {_measured(result)}\n")
    print("\n".join(report_verbs(result["medians_ms"])))
    print()
    print("\n".join(report_beside(result)))
    if result["where_ms"]:
        print("\nwhere the time goes, ms\n")
        print("\n".join(report_where(result["where_ms"])))


def renew_figures(text: str, result: dict[str, Any]) -> str:
    """A page with the figures of this run in the places of the old ones, known by how they begin."""
    for lines in (report_verbs(result["medians_ms"]), report_where(result["where_ms"])):
        old = re.compile("^" + re.escape(lines[0]) + r"\n(\|.*\n)+", re.MULTILINE)
        text = old.sub(lambda _, lines=lines: "\n".join(lines) + "\n", text)  # type: ignore[misc]
    for line in report_beside(result):
        text = re.sub("^" + re.escape(line.split(": ")[0]) + ": .*", line, text, flags=re.MULTILINE)
    text = re.sub(r"\d+ rounds on a machine with \w+ cores", _measured(result), text)
    life = {name: times["create+start+delete"] for name, times in result["medians_ms"].items()}
    if {"runc", "crun", *OURS} <= set(life):
        bare, planned = ([f"{life[mine] / life[other]:.2f}" for other in ("runc", "crun")] for mine in OURS)
        words = "{} of runc's time, and {} of crun's; with `pyrun planner` {} and {}"
        old_words = re.escape(words).replace(r"\{\}", r"[\d.]+")
        text = re.sub(old_words, words.format(*bare, *planned), text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="pyrun's verbs against runc's and crun's")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--runtime", action="append", default=[], metavar="NAME[=PATH]", help="runc, crun and pyrun")
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    parser.add_argument("--write", action="store_true", help="renew the figures in docs/figures.md and README.md")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    args = parser.parse_args()
    if "PYRUN_VIEW" not in os.environ:
        parser.error("run it through tests/view, which gives a pure cgroup v2")
    with tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp") as work:
        result = run_bench(find_runtimes(args.runtime), args.rounds, Path(work))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
    for page in PAGES if args.write else ():
        page.write_text(renew_figures(page.read_text(), result))
    print_report(result)
    misses = find_misses(result)
    for miss in misses:
        print(f"missed: {miss}")
    return 1 if args.check and misses else 0


if __name__ == "__main__":
    sys.exit(main())
