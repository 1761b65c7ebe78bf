"""What the proxy's daemon holds at SERVICES × ENDPOINTS in kernel mode: memory by steps, and what a change takes.

    python -m tests.bench.proxy_memory [SERVICES [ENDPOINTS]]      (root; make bench-proxy-memory)

Objects come as an API server's do, page by page, into the daemon's own parts: store, follower, planner, nf_tables of a
network namespace of its own. Memory is this process's PSS, over an interpreter that has read the modules.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from pyrun.kube.feed.selectors import Selectors
from pyrun.kube.feed.server import slim
from pyrun.kube.feed.store import Held, Key, Store, key_of
from pyrun.proxy.carriers import InKernel
from pyrun.proxy.follow import Follower
from pyrun.proxy.model import Options
from tests.bench.dns import pss_mb
from tests.bench.proxy_plan import NODE, objects, slice_of
from tests.support.proxy.topology import topology

CHANGES = 20


class Steps:
    """Tells of memory and of CPU time since the last one."""

    def __init__(self) -> None:
        self.base = pss_mb(os.getpid())
        self._cpu = time.process_time()

    def tell(self, name: str, count: int = 1) -> None:
        used = (time.process_time() - self._cpu) / count * 1000
        print(f"{name:36} {pss_mb(os.getpid()) - self.base:8.1f} MB more {used:10.2f} ms CPU", flush=True)
        self._cpu = time.process_time()


def held(text: bytes) -> dict[Key, Held]:
    found: dict[Key, Held] = {}
    for value in json.loads(text)["items"]:
        one = slim(value, value["kind"], value["apiVersion"], "bench", packed=True)
        found[key_of(value)] = one
    return found


def pages(services: int, endpoints: int) -> dict[Key, Held]:
    """As they come from a server, 500 at a time, so that no more than a page is there as text and as dicts."""
    found: dict[Key, Held] = {}
    for first in range(0, services, 250):
        found |= held(objects(min(250, services - first), endpoints, first))
    return found


def main() -> None:
    services = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    endpoints = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    with topology():
        store, follower = Store(), Follower(NODE, Options())
        steps = Steps()
        store.replace("bench", pages(services, endpoints))
        steps.tell("objects in the store")
        changes = store.changes()
        follower.update(changes)
        del changes
        steps.tell("planned")
        carrier = InKernel(())
        carrier.apply(follower.planner.rules(), None)
        steps.tell("in the kernel")
        for number in range(CHANGES):
            value = slice_of(7, endpoints - 1 + number % 2)
            store.put("bench", slim(value, value["kind"], value["apiVersion"], "bench", packed=True))
            (change,) = follower.update(store.changes())
            carrier.apply(follower.planner.rules(), change)
        steps.tell("one slice changes", CHANGES)
        Selectors(store, NODE.name).update({**store.all("Service", "EndpointSlice")})
        steps.tell("looked at for selectors, in the end")
        carrier.close(remove=True)
        store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'the interpreter with its modules':36} {steps.base:8.1f} MB\n{'peak of all (RSS)':36} {peak:8.1f} MB")


if __name__ == "__main__":
    main()
