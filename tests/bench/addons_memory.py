"""What monitoring, logging and the dashboard take beside a node of twenty pods: PSS of each process, and processor time
while nobody asks for anything.

    make bench-addons-memory [ARGS="--seconds 60"]

`pyrun metrics --store`, `pyrun collect` and `pyrun dashboard` run over `pyrun cri`, as `pyrun addons`, or with --apart
each as a program; somebody has logged in once and seen the state. The first figure of `addons` is the parent's, then
come metrics, collect and the dashboard's two. PSS is of smaps_rollup, processor time of
/proc/PID/stat.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.pod_logs import memory_of
from tests.support.container.runner import REPO, wait_for
from tests.support.cri.node import Node, a_node
from tests.support.dashboard import Served, a_dashboard

PODS = 20
SCRIPT = "trap exit TERM; while :; do echo tick; sleep 10; done"
PATIENCE_S = 60.0


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


@contextlib.contextmanager
def an_addon(said: Path, *argv: str) -> Iterator[int]:
    with said.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", "pyrun", *argv], stdout=file, stderr=file)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def measure(names: dict[str, list[int]], seconds: float) -> None:
    before = {pid: ticks(pid) for pids in names.values() for pid in pids}
    begun = time.monotonic()
    time.sleep(seconds)
    spent = (time.monotonic() - begun) * os.sysconf("SC_CLK_TCK")
    memory = cpu = 0.0
    for name, pids in names.items():
        pss = [memory_of(pid) / 1024 for pid in pids]
        share = sum(ticks(pid) - before[pid] for pid in pids) / spent * 100
        print(f"{name:12} {' + '.join(f'{one:.1f}' for one in pss):>32} MiB PSS {share:8.3f} % of a processor")
        memory, cpu = memory + sum(pss), cpu + share
    print(f"{'together':12} {memory:32.1f} MiB PSS {cpu:8.3f} % of a processor in {seconds:.0f} s")


@contextlib.contextmanager
def addons(node: Node, work: Path, apart: bool) -> Iterator[tuple[Served, dict[str, int]]]:
    """The dashboard, and the process of each."""
    socket = f"unix://{node.socket}"
    metrics = ("metrics", "--listen", socket, "--address", "127.0.0.1:0", "--store", str(work / "metrics"))
    collect = ("collect", "--dir", str(node.logs), "--store", str(work / "logs"))
    with contextlib.ExitStack() as stack:
        pids = {}
        if apart:
            pids["metrics"] = stack.enter_context(an_addon(work / "metrics.log", *metrics))
            pids["collect"] = stack.enter_context(an_addon(work / "collect.log", *collect))
        beside = () if apart else (shlex.join(metrics), shlex.join(collect))
        served = stack.enter_context(a_dashboard(work, node.socket, node.logs, beside=beside))
        yield served, pids | {"dashboard" if apart else "addons": served.process.pid}


def run(node: Node, work: Path, seconds: float, apart: bool) -> None:
    for number in range(PODS):
        name = f"p{number}"
        directory = node.logs / f"default_{name}_uid-{name}"
        (directory / "app").mkdir(parents=True)
        node.run(node.run_pod(name, log_directory=str(directory)), "app", SCRIPT, name, log_path="app/0.log")
    with addons(node, work, apart) as (served, pids):
        served.login()
        assert len([key for key in served.get("/api/state") if key.startswith("pod/")]) == PODS
        wait_for(lambda: (work / "metrics" / "metrics.db").exists(), PATIENCE_S, "the store")
        time.sleep(25)  # a reading or two, and the dashboard goes on for some seconds after who looks is gone
        measure({name: family(pid) for name, pid in pids.items()}, seconds)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--apart", action="store_true")
    given = options.parse_args()
    rootfs = (REPO / ".cache/rootfs/busybox").resolve()
    with tempfile.TemporaryDirectory(prefix="addons-memory-") as work, a_node(Path(work), rootfs) as node:
        node.configure('cgroup_driver = "cgroupfs"\ncni_conf_dir = ""\n')
        node.start()
        run(node, Path(work), given.seconds, given.apart)
        node.clear()


if __name__ == "__main__":
    main()
