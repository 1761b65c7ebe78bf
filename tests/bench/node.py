"""`make bench-node`: what `pyrun node run` takes and how quick it is, with the kubelet's API, the proxy and the DNS.

    make bench-node ARGS="--rounds 20 --many 100"

Processor time is that of cgroups (with all that has ended in them) or of processes' schedstat; memory is PSS. A
container's own programs are not counted but where it says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.node_run import BenchNode, Said, cpu_of, main_pid
from tests.support.container.disk import unmount, unmount_below
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import REPO
from tests.support.cri.node import a_node

CROWD = 20
SETTLE_S = 5.0
OFTEN = {"periodSeconds": 1, "timeoutSeconds": 30}
COUNTS = "i=0; exec 3<>/fifo; while :; do echo $i; i=$((i+1)); read -t 1 x <&3; done"
# By row: (target, how much of a unit our figure may be)
TARGETS = {
    "file dropped → running, ms": (120, "p95"),
    f"{CROWD} files at once → all run, ms": (1000, "p50"),
    "killed → runs again, ms": (30, "p50"),
    "ConfigMap changed → in the pod, ms": (300, "p50"),
    "an exec probe of true, CPU ms": (1.6, "p50"),
    "an HTTP probe, CPU µs": (25, "p50"),
    f"{CROWD} pods, PSS MiB": (100, "p50"),
    f"{CROWD} pods idle, % of a core": (0.5, "p50"),
    "killed with pods: restarts": (0, "p50"),
    "killed with pods: readiness changes": (0, "p50"),
    "killed with pods: lines lost": (0, "p50"),
    "killed with pods: tells of all again, ms": (1000, "p50"),
}
Figures = dict[str, list[float]]  # by row


def note(figures: Figures, row: str, value: float) -> None:
    figures.setdefault(row, []).append(value)
    print(f"{row}: {value:.2f}", flush=True)


# --- how quick --------------------------------------------------------------------------------------------------------


def one_round(node: BenchNode, number: int, figures: Figures) -> None:
    """One pod: it comes, its container dies, it goes."""
    name = f"one-{number}"
    cpu, begun = node.all_cpu_s(), node.drop(name)
    note(figures, "file dropped → running, ms", (node.said.wait({name})[name] - begun) * 1e3)
    node.wait_ready({name})
    note(figures, "the same, all CPU ms until it is ready", (node.all_cpu_s() - cpu) * 1e3)
    time.sleep(1.5)
    cpu, begun = node.all_cpu_s(), time.monotonic()
    os.kill(main_pid(name), 9)
    note(figures, "killed → runs again, ms", (node.said.wait({name})[name] - begun) * 1e3)
    note(figures, "the same, all CPU ms until then", (node.all_cpu_s() - cpu) * 1e3)
    node.remove(name)


def config_round(node: BenchNode, number: int, figures: Figures) -> None:
    """A ConfigMap that changes, until a pod has it."""
    name = f"conf-{number}"

    def config(value: str) -> dict[str, Any]:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}}

    mount = {"name": "conf", "mountPath": "/conf"}
    node.drop(name, config("old"), volumeMounts=[mount])
    node.said.wait({name})
    file = Path(f"/proc/{main_pid(name)}/root/conf/value")
    assert file.read_text() == "old"
    begun = node.drop(name, config("new"), volumeMounts=[mount])
    while file.read_text() != "new":
        assert time.monotonic() < begun + 60
        time.sleep(0.001)
    note(figures, "ConfigMap changed → in the pod, ms", (time.monotonic() - begun) * 1e3)
    node.remove(name)


# --- what it takes ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def a_crowd(node: BenchNode, kind: str, **fields: Any) -> Iterator[tuple[float, float]]:
    """That many pods, all ready. Gives the seconds from the first file to the last pod's start, and processor seconds
    until they have settled."""
    names = {f"{kind}-{number}" for number in range(CROWD)}
    cpu, begun = node.all_cpu_s(), [node.drop(name, **fields) for name in sorted(names)]
    took = max(node.said.wait(names).values()) - begun[0]
    node.wait_ready(names)
    time.sleep(SETTLE_S)
    yield took, node.all_cpu_s() - cpu
    node.remove(*names)


def measure_crowds(node: BenchNode, seconds: float, figures: Figures) -> None:
    with a_crowd(node, "idle") as (took, cpu):
        note(figures, f"{CROWD} files at once → all run, ms", took * 1e3)
        note(figures, "the same, all CPU ms until they have settled", cpu * 1e3)
        note(figures, f"{CROWD} pods, PSS MiB", node.pss_mib())
        whole, own = spent(node, seconds)
        note(figures, f"{CROWD} pods idle, % of a core", whole * 100)
    with a_crowd(node, "exec", readinessProbe={"exec": {"command": ["true"]}, **OFTEN}):
        before = node.probed()
        rate, _ = spent(node, seconds)
        each = (rate - whole) * seconds / (node.probed() - before)
        note(figures, "an exec probe of true, CPU ms", each * 1e3)
    web = {
        "script": "exec httpd -f -p 8080 -h /bin",
        "readinessProbe": {"httpGet": {"port": 8080, "path": "/true"}, **OFTEN},
    }
    with a_crowd(node, "http", **web):
        before = node.probed()
        _, rate = spent(node, seconds)
        each = (rate - own) * seconds / (node.probed() - before)
        note(figures, "an HTTP probe, CPU µs", each * 1e6)


def spent(node: BenchNode, seconds: float) -> tuple[float, float]:
    """Processor seconds a second: of all in its cgroups, and of its own processes that live on."""
    cpu, own, begun = node.all_cpu_s(), node.own_cpu_s(), time.monotonic()
    time.sleep(seconds)
    then, passed = node.own_cpu_s(), time.monotonic() - begun
    lived = sum(value - own.get(pid, 0.0) for pid, value in then.items())
    return (node.all_cpu_s() - cpu) / passed, lived / passed


# --- a kill -----------------------------------------------------------------------------------------------------------


def measure_kill(node: BenchNode, pods: int, figures: Figures) -> None:
    """kill -9 of the agent under pods that are probed and write a line each second."""
    names = {f"many-{number}" for number in range(pods)}
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 5, "timeoutSeconds": 30}
    for name in sorted(names):
        node.drop(name, script=f"mkfifo /fifo; {COUNTS}", readinessProbe=probe)
    node.said.wait(names)
    node.wait_ready(names)
    time.sleep(SETTLE_S)
    before = {pod["metadata"]["name"]: told(pod) for pod in node.pods()}
    node.node.kill()
    time.sleep(3)
    at_kill = {name: len(lines_of(node, name)) for name in names}
    took = node.start()
    cpu = cpu_of(node.node.pid)
    after = {pod["metadata"]["name"]: told(pod) for pod in node.pods()}
    time.sleep(SETTLE_S)
    later = {pod["metadata"]["name"]: told(pod) for pod in node.pods()}
    lost = 0
    for name in names:
        lines = lines_of(node, name)
        assert len(lines) > at_kill[name], f"{name} writes no more"
        lost += lines[-1] + 1 - len(lines)
    row = "killed with pods"
    note(figures, f"{row}: how many", pods)
    note(figures, f"{row}: tells of all again, ms", took * 1e3)
    note(figures, f"{row}: CPU ms until then", cpu * 1e3)
    for index, what in enumerate(("restarts", "readiness changes")):
        changed = sum(before[name][index] != seen[name][index] for seen in (after, later) for name in names)
        note(figures, f"{row}: {what}", changed)
    note(figures, f"{row}: lines lost", lost)
    node.remove(*names)


def told(pod: dict[str, Any]) -> tuple[Any, Any]:
    """What would show a restart, and a change of the readiness."""
    of = pod["status"]["containerStatuses"][0]
    ready = next(one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    return (of["containerID"], of["restartCount"]), (ready["status"], ready["lastTransitionTime"])


def lines_of(node: BenchNode, name: str) -> list[int]:
    """The numbers that it has written."""
    [path] = node.node.logs.glob(f"default_{name}_*/c/0.log")
    text = path.read_text()
    return [int(line.split(" ", 3)[3]) for line in text[: text.rfind("\n") + 1].splitlines()]


# --- the run ----------------------------------------------------------------------------------------------------------


def report(figures: Figures) -> None:
    load = Path("/proc/loadavg").read_text().split()[0]
    print(f"\n{os.cpu_count()} cores, load {load} at the end\n\n| | median | p95 | target |\n|---|---|---|---|")
    for row, values in figures.items():
        print(f"| {row} | {shown(values, 0.5)} | {shown(values, 0.95)} | {judged(row, values)} |")


def shown(values: list[float], part: float) -> str:
    if not values or part > 0.5 and len(values) < 5:
        return ""
    value = quantile(values, part)
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"


def quantile(values: list[float], part: float) -> float:
    return statistics.median(values) if part == 0.5 else sorted(values)[min(len(values) - 1, int(len(values) * part))]


def judged(row: str, values: list[float]) -> str:
    if row not in TARGETS or not values:
        return ""
    target, which = TARGETS[row]
    value = quantile(values, 0.95 if which == "p95" else 0.5)
    if value <= target:
        return f"{target}: met"
    return f"{target}: missed, {value / target:.1f} ×" if target else f"0: missed by {value:.0f}"


def run(node: BenchNode, given: argparse.Namespace, figures: Figures) -> None:
    for number in range(given.rounds):
        one_round(node, number, figures)
        config_round(node, number, figures)
    for _ in range(given.crowds):
        measure_crowds(node, given.seconds, figures)
    if given.many:
        measure_kill(node, given.many, figures)


@contextlib.contextmanager
def a_bench_node(work: Path) -> Iterator[BenchNode]:
    """It runs."""
    said = Said(work / "said")
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(a_node(work / "node", (REPO / ".cache/rootfs/busybox").resolve()))
        stack.callback(unmount, node.state / "volumes")
        made = BenchNode(node, said)
        made.start()
        yield made


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=20)
    options.add_argument("--crowds", type=int, default=2, help=f"rounds with {CROWD} pods")
    options.add_argument("--seconds", type=float, default=30, help="of each look at processor time")
    options.add_argument("--many", type=int, default=100, help="pods under which the agent is killed; 0: none")
    given = options.parse_args()
    assert (CGROUP_ROOT / "init").exists(), "it runs in tests/view"
    work, figures = Path(tempfile.mkdtemp(prefix="bench-node-")), Figures()
    try:
        with a_bench_node(work) as node:
            try:
                run(node, given, figures)
            finally:
                report(figures)
    finally:
        unmount_below(work)
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
