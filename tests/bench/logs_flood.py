"""Pods that write as fast as they can, and lines of ten megabytes, beside one that writes a line ten times a second:
what a node keeps of them, from the program to `pyrun logs`.

    make flood-logs [ARGS="--mb 1000"]

`pyrun node run` rotates the logs and `pyrun collect` seals them, once with room for all, once for a part. Each
line has a number. What is not read at the end must be counted as dropped, line by line; with room for all nothing is.
Of the quiet pod each line is there, and the longest gap between two is shown.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pyrun.logs.query import Query
from pyrun.logs.read import read_container
from pyrun.logs.tree import collect_containers
from tests.bench.addons_memory import an_addon
from tests.support.container.disk import unmount
from tests.support.container.runner import REPO
from tests.support.cri.node import a_node
from tests.support.node.agent import AgentNode, pod, sh

PATIENCE_S = 600.0
LENGTH, LONG = 1000, 10_000_000
LONG_LINES = 20
PLENTY, LITTLE = "8G", "2M"
FLOOD = (
    'exec awk \'BEGIN {{ p = sprintf("%{pad}s", "");'
    ' for (i = 0; i < {lines}; i++) {{ printf "%09d %09d%09d%s\\n", i, rand() * 1e9, rand() * 1e9, p;'
    ' if (i % {often} == 0) system("sleep 0.5") }} }}\''  # it lasts for some of the rotation's looks
)
LONGS = (
    "i=0; while [ $i -lt {lines} ]; do printf '%09d' $i; head -c {length} /dev/zero | tr '\\0' x; echo;"
    " i=$((i+1)); done"
)
QUIET = "trap 'exit 0' TERM; i=0; while :; do printf '%09d\\n' $i; i=$((i+1)); sleep 0.1; done"
Read = dict[str, tuple[list[int], float]]  # by pod: the lines' numbers, and the longest time between two


def read(logs: Path, store: Path) -> Read:
    found: Read = {}
    for one in collect_containers(str(logs), str(store)):
        numbers, gap, before, begins = [], 0.0, 0, True
        for line in read_container(one, Query()):
            if begins:
                numbers.append(int(line.content[:9]))
                gap = max(gap, (line.time - before) / 1e9 if before else 0.0)
                before = line.time
            begins = not line.cut  # a line of ten megabytes is told in parts
        found[one.pod] = numbers, gap
    return found


def dropped(store: Path) -> dict[str, int]:
    argv = [sys.executable, "-m", "pyrun", "collect", "--store", str(store), "--status", "--format", "json"]
    rows: list[dict[str, Any]] = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)["dropped"]
    return {row["pod"]: sum(one["lines"] for one in rows if one["pod"] == row["pod"]) for row in rows}


def one_round(work: Path, keep: str, flood: int) -> None:
    """flood: how many lines."""
    written = {"flood": flood}
    if keep == PLENTY:  # of a line whose file has gone before it ended there is an end alone
        written["long"] = LONG_LINES
    with contextlib.ExitStack() as last, a_node(work, (REPO / ".cache/rootfs/busybox").resolve()) as node:
        last.callback(unmount, node.state / "volumes")
        agent = AgentNode(node)
        node.words = tuple("10M" if word == "64k" else word for word in node.words)
        node.start()
        collect = ("collect", "--dir", str(node.logs), "--store", str(work / "store"), "--keep-bytes", keep)
        with an_addon(work / "collect.log", *collect):
            agent.write("quiet", pod("quiet", sh("c", QUIET)))
            agent.wait_ready("quiet")
            begun = time.monotonic()
            scripts = {
                "flood": FLOOD.format(pad=LENGTH - 29, lines=flood, often=50_000_000 // LENGTH),
                "long": LONGS.format(lines=LONG_LINES, length=LONG),
            }
            for name in written:
                agent.write(name, pod(name, sh("c", scripts[name]), restartPolicy="Never"))
            agent.wait(lambda pods: all(_ended(pods.get(name)) for name in written), PATIENCE_S)
            took = time.monotonic() - begun
            time.sleep(25)  # two looks of the rotation, and what it set aside is sealed
        # What is too much goes once a minute, and now.
        subprocess.run([sys.executable, "-m", "pyrun", *collect, "--once"], check=True)
        found, gone = read(node.logs, work / "store"), dropped(work / "store")
        agent.clear()
    print(f"{keep} for blocks: {flood * LENGTH / took / 1e6:.0f} MB/s of short lines")
    for name, (numbers, gap) in sorted(found.items()):
        lines = written.get(name, numbers[-1] + 1)
        print(
            f"  {name:6} {lines} written, {len(numbers)} read, {gone.get(name, 0)} dropped and counted; gap {gap:.2f} s"
        )
        assert numbers == list(range(lines - len(numbers), lines)), f"{name}: not the newest, each once"
        assert len(numbers) + gone.get(name, 0) == lines, f"{name}: lines are gone that nobody has counted"
    assert keep != PLENTY or not gone, f"dropped with room for all: {gone}"
    assert keep == PLENTY or gone.get("flood"), "nothing was dropped: the room was enough"
    assert not gone.get("quiet")


def _ended(pod: Any) -> bool:
    return bool(pod) and pod["status"]["phase"] in ("Succeeded", "Failed")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--mb", type=int, default=1000, help="what the flood writes, in all")
    given = options.parse_args()
    for keep in (PLENTY, LITTLE):
        with tempfile.TemporaryDirectory(prefix="logs-flood-") as work:
            one_round(Path(work), keep, given.mb * 1_000_000 // LENGTH)


if __name__ == "__main__":
    main()
