"""`pyrun update`: new resource limits for a container, by options or as the linux.resources object of config.json."""

from __future__ import annotations

import json
import sys

from pyrun.oci.load import LIMIT, read_file
from pyrun.runtime.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

# Option -> where its value stands in linux.resources.
PLACES = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_idle": ("cpu", "idle"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}


def run(g: Globals, o: Options) -> int:
    if o.kernel_memory is not None or o.kernel_memory_tcp is not None:
        g.warn("--kernel-memory is ignored: cgroup v2 has no such limit")
    rdt = {"l3CacheSchema": o.l3_cache_schema, "memBwSchema": o.mem_bw_schema}
    given = {name: line for name, line in rdt.items() if line}
    Runtime(g.root, warn=g.warn).container(o.id).update(_document(o), file=_name(o), rdt=given)
    return 0


def _document(o: Options) -> bytes:
    if o.resources is None:
        return json.dumps(from_options(o)).encode()
    return sys.stdin.buffer.read(LIMIT + 1) if o.resources == "-" else read_file(o.resources)


def _name(o: Options) -> str:
    if o.resources is None:
        return "the options' resources"
    return "stdin" if o.resources == "-" else str(o.resources)


def from_options(o: Options) -> dict[str, Any]:
    """linux.resources as the options have it; only what was given."""
    made: dict[str, Any] = {}
    for attribute, (group, member) in PLACES.items():
        value = getattr(o, attribute)
        # To runc 0 is "not given" for the others, and callers pass it for each that they leave alone.
        if value is None or value == "" or (value == 0 and attribute not in ("cpu_burst", "cpu_idle", "pids_limit")):
            continue
        made.setdefault(group, {})[member] = value
    return made
