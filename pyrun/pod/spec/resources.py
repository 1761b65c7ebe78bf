"""LinuxContainerResources → linux.resources. 0 says nothing, as in the CRI.

A limit whose controller this node has not got is left out with a warning, since a pod that asks for a share of the
processor is better off without the share than without the processor; strict_limits refuses it.
"""

from __future__ import annotations

from .draft import Draft, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .node import Node

PLACE = "linux.resources"
UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}


def plan_resources(d: Draft, config: Any, node: Node) -> None:
    made = container_resources(config.linux.resources, node)
    for name in made:
        d.note(f"/linux/resources/{name}", f"{PLACE}.{name}")
    d.doc["linux"]["resources"] = made


def container_resources(given: Any, node: Node) -> dict[str, Any]:
    """Also for UpdateContainerResources: the linux.resources object without devices."""
    made: dict[str, Any] = {}
    _check(given)
    cpu = {
        key: value
        for key, value in (("shares", given.cpu_shares), ("quota", given.cpu_quota), ("period", given.cpu_period))
        if value
    }
    sets = {key: value for key, value in (("cpus", given.cpuset_cpus), ("mems", given.cpuset_mems)) if value}
    kept = (cpu if cpu and node.has("cpu", PLACE + ".cpu_*") else {}) | (
        sets if sets and node.has("cpuset", PLACE + ".cpuset_*") else {}
    )
    if kept:
        made["cpu"] = kept
    memory = _memory(given, node)
    if memory:
        made["memory"] = memory
    pages = _hugepages(given, node)
    if pages:
        made["hugepageLimits"] = pages
    unified = {
        key: value for key, value in given.unified.items() if node.has(key.partition(".")[0], f"{PLACE}.unified[{key}]")
    }
    if unified:
        made["unified"] = dict(sorted(unified.items()))
    return made


def _check(given: Any) -> None:
    for name in ("cpu_period", "cpu_shares", "memory_limit_in_bytes"):
        if getattr(given, name) < 0:
            refuse(f"{PLACE}.{name}", f"{getattr(given, name)} is no limit")
    for key, value in given.unified.items():
        if not key or "/" in key or "\0" in key + value or key in (".", ".."):
            refuse(f"{PLACE}.unified", f"{key!r} is not the name of a file of a cgroup")
        if key.startswith("cgroup."):
            refuse(f"{PLACE}.unified", f"{key} is the runtime's")


def _memory(given: Any, node: Node) -> dict[str, int]:
    """Without a word on swap a container has none of its own: its limit is that of both, which is what cgroup v1's
    memory.memsw counted."""
    limit, swap = given.memory_limit_in_bytes, given.memory_swap_limit_in_bytes
    if not limit and not swap or not node.has("memory", f"{PLACE}.memory_limit_in_bytes"):
        return {}
    made = {"limit": limit} if limit else {}
    if not node.swap:
        if swap and swap != limit:
            text = "memory_swap_limit_in_bytes: this kernel does not count swap"
            node.left_out(f"{PLACE}.memory_swap_limit_in_bytes", text)
        return made
    if swap and swap != -1 and not limit:
        refuse(f"{PLACE}.memory_swap_limit_in_bytes", "needs memory_limit_in_bytes, of which it is a part")
    if 0 < swap < limit:
        refuse(f"{PLACE}.memory_swap_limit_in_bytes", f"{swap} is below memory_limit_in_bytes {limit}")
    return made | {"swap": swap or limit}


def _hugepages(given: Any, node: Node) -> list[dict[str, Any]]:
    """The kubelet names every size that it knows, with 0 for those a pod may not use. A size that this kernel has not
    got can't be used anyway; a limit on it that is not 0 would be missed."""
    if not given.hugepage_limits or not node.has("hugetlb", f"{PLACE}.hugepage_limits"):
        return []
    made = []
    for index, entry in enumerate(given.hugepage_limits):
        place = f"{PLACE}.hugepage_limits.{index}.page_size"
        if entry.page_size not in node.page_sizes:
            if entry.limit:
                node.left_out(place, f"huge pages of {entry.page_size}: this kernel has none of that size")
            continue
        made.append({"pageSize": entry.page_size, "limit": entry.limit})
    return made
