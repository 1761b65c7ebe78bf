"""What the service proxy's plan takes at SERVICES × ENDPOINTS: reading objects, all at once, one change, all the rules.

    python -m tests.bench.proxy_plan [SERVICES [ENDPOINTS]]

CPU seconds of this process; no root. Objects are plain dicts, as an API server's JSON becomes.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from pyrun.kube.addresses import parse_address, parse_prefix
from pyrun.proxy.model import Node, Objects, Options
from pyrun.proxy.objects import take
from pyrun.proxy.plan import Planner

NODE = Node("n0", (parse_address("192.168.0.2"),), "a", (parse_prefix("10.0.0.0/8"),), (parse_prefix("172.16.0.0/12"),))
CHANGES = 200


def objects(services: int, endpoints: int, first: int = 0) -> bytes:
    """A List of Services with a slice each, numbered from `first` on."""
    items: list[dict[str, Any]] = []
    for number in range(first, first + services):
        high, low = divmod(number, 256)
        ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
        spec = {"type": "ClusterIP", "clusterIP": f"172.16.{high}.{low}", "ports": ports}
        items.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata(number), "spec": spec})
        items.append(slice_of(number, endpoints))
    return json.dumps({"kind": "List", "items": items}).encode()


def metadata(number: int, **more: Any) -> dict[str, Any]:
    return {"namespace": "bench", "name": f"service-{number}", **more}


def slice_of(number: int, endpoints: int) -> dict[str, Any]:
    high, low = divmod(number, 256)
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(number, labels={"kubernetes.io/service-name": f"service-{number}"}),
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [f"10.{at + 1}.{high}.{low}"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": f"n{at}",
                "targetRef": {"kind": "Pod", "namespace": "bench", "name": f"pod-{number}-{at}"},
                "zone": "a",
            }
            for at in range(endpoints)
        ],
    }


def timed(name: str, what: Callable[[], Any], count: int = 1) -> Any:
    begun = time.process_time()
    for _ in range(count):
        found = what()
    print(f"{name:32} {(time.process_time() - begun) / count * 1000:10.3f} ms CPU")
    return found


def main() -> None:
    services = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    endpoints = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    text = objects(services, endpoints)
    print(f"{services} services with {endpoints} endpoints each, {len(text) / 1e6:.1f} MB of JSON")
    items = timed("JSON to dicts", lambda: json.loads(text)["items"])
    found = Objects()

    def read() -> None:
        for number, item in enumerate(items):
            take(found, item, f"o{number}")

    timed("dicts to objects", read)
    planner = Planner(NODE, Options())
    timed("all at once", lambda: planner.update(services=dict(found.services), slices=dict(found.slices)))
    timed("all the rules", planner.rules, CHANGES)
    turns = iter(range(1, CHANGES + 1))
    name = ("bench", "service-7")

    def one() -> None:
        changed = Objects()
        take(changed, slice_of(7, endpoints - next(turns) % 2), "o15")
        assert planner.update(slices={name: changed.slices[name]}) or endpoints < 2

    timed("one slice changes, read anew", one, CHANGES)
    print(f"{'peak memory':32} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:10.1f} MB")


if __name__ == "__main__":
    main()
