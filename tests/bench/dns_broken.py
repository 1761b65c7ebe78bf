"""Broken objects at the DNS: each value of a Service, EndpointSlice or Pod in turn is one of another type.

    python -m tests.bench.dns_broken [--count N]

None of them may end the plan or take another object's names away; what is wrong is named, up to a bound, and the memory
that faults take has one. A million by default, in rounds of 1,000 beside a Service, slices and a pod that are right.
"""

from __future__ import annotations

import argparse
import copy
import random
import resource
import sys
import time
from collections.abc import Iterator
from typing import Any

from pyrun.dns import wire
from pyrun.dns.answer import answer
from pyrun.dns.directory import all_faults, gather
from pyrun.dns.encode import encode_table
from pyrun.dns.objects import FAULTS_MOST, Faults
from pyrun.dns.plan import Options, plan_dns
from pyrun.kube.feed.store import Held, Key, Told, key_of
from tests.support.dns import HTTP, endpoint, endpoint_slice, pod, service

WRONG: tuple[Any, ...] = (
    7,
    "x",
    None,
    [],
    {"a": 1},
    -1,
    1 << 70,
    True,
    [7],
    {},
    "\ud800",
    "a" * 70,
    1.5,
    [{}],
    [[]],
    ".",
)
RIGHT = {"web.default": "10.96.0.5", "db.default": "10.1.0.1", "own.default": "10.1.0.7"}
ROUND = 1_000


def right() -> list[dict[str, Any]]:
    mine = pod("me", "10.1.0.7")
    mine["metadata"]["labels"] = {"app": "me"}
    mine["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return [
        service("web", clusterIP="10.96.0.5", ports=[HTTP]),
        service("db", clusterIP="None", ports=[HTTP]),
        endpoint_slice("db", endpoint("10.1.0.1", "db-0"), ports=(HTTP,)),
        service("own", clusterIP="None", selector={"app": "me"}, ports=[{**HTTP, "targetPort": "http"}]),
        mine,
    ]


def models() -> list[dict[str, Any]]:
    one = pod("p", "10.1.1.1", hostname="h", subdomain="s", dnsConfig={"searches": ["a.test"]})
    one["metadata"]["labels"] = {"app": "me"}
    one["spec"]["containers"] = [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]
    one["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    return [
        service("s", clusterIP="10.96.1.1", clusterIPs=["10.96.1.1"], ports=[HTTP], selector={"app": "other"}),
        service("e", type="ExternalName", externalName="www.example.org"),
        endpoint_slice("s", endpoint("10.1.2.1", "s-0", True), ports=(HTTP,)),
        one,
        {"kind": "Namespace", "metadata": {"name": "n"}},
    ]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(one, (*path, key))


def broken(chance: random.Random, number: int) -> dict[str, Any]:
    value = copy.deepcopy(chance.choice(models()))
    value["metadata"]["name"] = f"{value['metadata']['name']}{number}"
    found: Any = value
    *path, last = chance.choice([path for path in places(value) if path[0] != "kind" and path[-1] != "name"])
    for key in path:
        found = found[key]
    found[last] = chance.choice(WRONG)
    return value


def check(chance: random.Random, count: int) -> int:
    """Plans so many broken objects beside those that are right. How many faults there are. AssertionError."""
    held: dict[Key, Held] = {key_of(value): Told(value, "test") for value in right()}
    for number in range(count):
        value = broken(chance, number)
        try:
            held.setdefault(key_of(value), Told(value, "test"))
        except ValueError:  # its source says so
            continue
    objects = gather(held)
    options = Options(autopath=True, namespaces=tuple(objects.namespaces))
    table, faults = plan_dns(objects.services, objects.slices, objects.pods, options), Faults()
    assert encode_table(table, 1, faults)
    for name, address in RIGHT.items():
        found = answer(table, wire.name_of(f"{name}.svc.cluster.local"), wire.A)
        texts = [".".join(map(str, record.data)) for record in found.answers]
        assert address in texts, (name, texts)
    lines = all_faults(objects, [*table.refused, *faults], table.refused_more + faults.more)
    assert len(lines) <= 4 * FAULTS_MOST + 1 and all(" " in line for line in lines)
    return len(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    args = parser.parse_args()
    chance, begun, named = random.Random(args.seed), time.process_time(), 0
    peaks = []
    for _ in range(0, args.count, ROUND):
        named += check(chance, ROUND)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    took = time.process_time() - begun
    print(f"seed {args.seed}: {args.count} broken objects, {named} faults named, {took:.0f} s of CPU")
    print(f"memory at most: {peaks[0]} MB after the first round, {peaks[-1]} MB after the last")
    if peaks[-1] > 2 * peaks[0]:
        sys.exit("memory grows with each round")


if __name__ == "__main__":
    main()
