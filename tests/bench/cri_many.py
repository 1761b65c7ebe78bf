"""`make many-cri`: a thousand containers on one `pyrun cri`, from the first to the last of them and gone again.

They are in pods of fifty, each writes a line in ten seconds, and the daemon is killed in the middle of it. What is left
is looked for as the tests do (Node.check()).

    make many-cri ARGS="--containers 1000 --each 50"
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyrun import cri_api as v1
from tests.bench.pod_logs import memory_of
from tests.support.container.runner import REPO, wait_for
from tests.support.cri.node import Node, a_node

SCRIPT = "trap exit TERM; while :; do echo tick; sleep 10; done"
PART = 50  # of the first and the last, whose times are compared
PATIENCE_S = 120.0


@contextmanager
def told(what: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    print(f"{what:44} {time.monotonic() - begun:8.1f} s", flush=True)


def took(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1e3


def supervisors() -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.joinpath("comm").read_text() == "pyrun-pod\n":
                yield int(path.name)
        except OSError:
            continue


def make_all(node: Node, count: int, each: int) -> list[str]:
    """The pods, full; it prints how long one took at the beginning and at the end."""
    pods, times = [], []
    for number in range(count):
        name = f"p{number // each}"
        if number % each == 0:
            pods.append(node.run_pod(name))
        pod = pods[-1]
        times.append(took(lambda pod=pod, n=number, name=name: node.run(pod, f"c{n}", SCRIPT, name)))  # type: ignore[misc]
    first, last = statistics.median(times[:PART]), statistics.median(times[-PART:])
    print(f"{'create and start, the first and the last':44} {first:8.1f} ms {last:8.1f} ms")
    return pods


def running(node: Node) -> int:
    state = {"state": int(v1.CONTAINER_RUNNING)}
    return len(node.call("ListContainers", filter={"state": state}).containers)


def look(node: Node, count: int) -> None:
    assert running(node) == count
    for rpc in ("ListPodSandbox", "ListContainers", "ListContainerStats"):
        print(f"{rpc:44} {statistics.median(took(lambda rpc=rpc: node.call(rpc)) for _ in range(5)):8.1f} ms")  # type: ignore[misc]
    print(f"{'daemon, PSS':44} {memory_of(node.pid) / 1024:8.1f} MiB")
    each = [memory_of(pid) for pid in supervisors()]
    print(f"{'a supervisor, PSS':44} {statistics.median(each):8.0f} KiB")


def replace(node: Node, count: int) -> None:
    """Killed and begun again: all run on, and all write on."""
    node.kill()
    print(f"{'killed; the next one serves after':44} {node.start():8.1f} s")
    assert running(node) == count
    sizes = {path: path.stat().st_size for path in node.logs.glob("*/*.log")}
    assert len(sizes) == count
    wait_for(lambda: all(path.stat().st_size > size for path, size in sizes.items()), PATIENCE_S, "a line of each")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--containers", type=int, default=1000)
    options.add_argument("--each", type=int, default=50)
    given = options.parse_args()
    rootfs = (REPO / ".cache/rootfs/busybox").resolve()
    with tempfile.TemporaryDirectory(prefix="cri-many-") as work, a_node(Path(work), rootfs) as node:
        node.configure('cgroup_driver = "cgroupfs"\ncni_conf_dir = ""\n')
        node.start()
        with told(f"{given.containers} containers run"):
            pods = make_all(node, given.containers, given.each)
        node.check()
        look(node, given.containers)
        replace(node, given.containers)
        node.check()
        with told("all are stopped and removed"):
            for pod in pods:
                node.call("RemovePodSandbox", pod_sandbox_id=pod)
        node.check()
        print("nothing is left")


if __name__ == "__main__":
    main()
