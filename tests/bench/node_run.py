"""The node of `make bench-node`: `pyrun node run` with the kubelet's API, proxy and DNS, over a directory of files, in
cgroups of its own.

A container says that it runs through a FIFO that all pods have, so its time is that of its own first act.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyrun.errors import Unavailable
from pyrun.node.agent.ask import ask
from tests.bench.pod_logs import memory_of
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.cri.node import BUSYBOX, Node
from tests.support.kube.authority import Authority
from tests.support.node.agent import is_ready

PATIENCE_S = 300.0
READ_ONLY = 10255


class Said:
    """The FIFO through which containers say that they run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        os.mkfifo(directory / "fifo")
        self._fd = os.open(directory / "fifo", os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def wait(self, names: set[str]) -> dict[str, float]:
        """When each of these was heard of, once all have been."""
        heard: dict[str, float] = {}
        last = time.monotonic() + PATIENCE_S
        while names - heard.keys():
            assert time.monotonic() < last, f"not heard of: {sorted(names - heard.keys())}"
            with contextlib.suppress(BlockingIOError):
                *lines, self._rest = (self._rest + os.read(self._fd, 65536)).split(b"\n")
                now = time.monotonic()
                heard.update({line.decode(): now for line in lines})
                continue
            time.sleep(0.0005)
        return heard


class BenchNode:
    """node: not started yet. said: what its pods have."""

    CGROUPS = ("node-pyrun", "kubepods", "pyrun")

    def __init__(self, node: Node, said: Said) -> None:
        self.node, self.said, self.manifests = node, said, node.path / "manifests"
        self.manifests.mkdir()
        authority = Authority(node.path / "authority")
        node.words = ("node", "run", "--manifests", str(self.manifests), "--logs", str(node.logs), "--node-name", "n1")
        node.words += ("--eviction-hard", "nodefs.available<1%", "--service-cidr", "10.96.0.0/16")
        node.words += ("--client-ca-file", authority.ca, "--address", "127.0.0.1", "--healthz-port", "0")
        node.words += ("--read-only-port", str(READ_ONLY))

    def start(self) -> float:
        """Returns how long it took until it told of all its pods."""
        with in_cgroup(self.CGROUPS[0]):
            begun = time.monotonic()
            self.node.start(wait=False)
        last = begun + PATIENCE_S
        while time.monotonic() < last:
            with contextlib.suppress(Unavailable):
                self.pods()
                return time.monotonic() - begun
            time.sleep(0.002)
        raise AssertionError(self.node.said.read_text())

    def cgroups(self) -> list[Path]:
        return [path for name in self.CGROUPS if (path := CGROUP_ROOT / name).exists()]

    def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = ask(str(self.node.state), "pods", namespace="default")
        return found

    def ready(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods() if is_ready(pod)}

    def probed(self) -> int:
        with urllib.request.urlopen(f"http://127.0.0.1:{READ_ONLY}/metrics/probes", timeout=PATIENCE_S) as answer:
            return _probes(answer.read().decode())

    # --- pods ---

    def drop(self, name: str, *more: Any, script: str = "", **fields: Any) -> float:
        """A pod of one container as a file with these objects beside it. Returns when it was there."""
        words = f"echo $0 >/said/fifo; {script or 'trap exit TERM; sleep 1000000 & wait'}"
        container = {
            "name": "c",
            "image": BUSYBOX,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", words, name],
            **fields,
            "volumeMounts": [{"name": "said", "mountPath": "/said"}, *fields.get("volumeMounts", ())],
        }
        volumes = [{"name": "said", "hostPath": {"path": str(self.said.directory)}}]
        volumes += [{"name": "conf", "configMap": {"name": name}}] if more else []
        spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 2}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}
        return self.put(name, pod, *more)

    def put(self, name: str, *objects: Any) -> float:
        """The file as a whole, moved into place."""
        made = self.manifests.parent / "made"
        made.write_text("\n---\n".join(json.dumps(one) for one in objects))
        begun = time.monotonic()
        made.rename(self.manifests / f"{name}.yaml")
        return begun

    def remove(self, *names: str) -> None:
        """Until none of their processes is left."""
        for name in names:
            (self.manifests / f"{name}.yaml").unlink()
        last = time.monotonic() + PATIENCE_S
        while left := [name for name in names if pids_of(name)]:
            assert time.monotonic() < last, f"still there: {left}"
            time.sleep(0.05)

    def wait_ready(self, names: set[str]) -> None:
        last = time.monotonic() + PATIENCE_S
        while not names <= self.ready():
            assert time.monotonic() < last, f"not ready: {sorted(names - self.ready())}"
            time.sleep(0.2)

    # --- what it takes ---

    def own(self) -> list[int]:
        """Its processes; not the programs of containers."""
        found = []
        for top in self.cgroups():
            for file in top.rglob("cgroup.procs"):
                with contextlib.suppress(OSError):
                    found += [int(pid) for pid in file.read_text().split() if not is_containers(int(pid))]
        return found

    def pss_mib(self) -> float:
        total = 0.0
        for pid in self.own():
            with contextlib.suppress(OSError):
                total += memory_of(pid) / 1024
        return total

    def all_cpu_s(self) -> float:
        """Of all that ran in its cgroups until now, containers and what has ended included."""
        texts = [(top / "cpu.stat").read_text() for top in self.cgroups()]
        return sum(int(text.split()[1]) for text in texts) / 1e6

    def own_cpu_s(self) -> dict[int, float]:
        """Of its processes, by pid."""
        return {pid: cpu_of(pid) for pid in self.own()}


def is_containers(pid: int) -> bool:
    return os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "busybox"


def cpu_of(pid: int) -> float:
    """0 of one that has ended."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def pids_of(name: str) -> list[int]:
    """The first processes of containers that were started with that name."""
    found = []
    for directory in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if directory.name.isdigit() and (directory / "cmdline").read_bytes().split(b"\0")[3:4] == [name.encode()]:
                found.append(int(directory.name))
    return found


def main_pid(name: str) -> int:
    """Of its container: what is first in its namespace of processes."""
    for pid in pids_of(name):
        status = Path(f"/proc/{pid}/status").read_text()
        if re.search(r"^NSpid:\t.*\t1$", status, re.MULTILINE):
            return pid
    raise AssertionError(f"{name} does not run")


@contextlib.contextmanager
def in_cgroup(name: str) -> Iterator[None]:
    """This process, so that what it starts begins there."""
    (CGROUP_ROOT / name).mkdir(exist_ok=True)
    (CGROUP_ROOT / name / "cgroup.procs").write_text("0")
    try:
        yield
    finally:
        (CGROUP_ROOT / "init" / "cgroup.procs").write_text("0")


def _probes(metrics: str) -> int:
    found = re.findall(r"^prober_probe_total\{.*\} ([0-9.e+]+)$", metrics, re.MULTILINE)
    return int(sum(map(float, found)))
