"""Which endpoints of a Service's port get its traffic, by the rules of Kubernetes 1.37.

Usable are those that are ready; where none is, those that still serve while they terminate (KEP-1669). Traffic with
policy Cluster goes to any on any node, or if hints say so (KEP-2433, KEP-4444) to those for this node or zone; traffic
with policy Local to those on this node, whatever hints say. The two fall back to terminating ones each on its own.
"""

from __future__ import annotations

from typing import NamedTuple

NODE, ZONE, ALL = "node", "zone", ""


class Candidate(NamedTuple):
    """An endpoint of one port. local: on this node. origin: of its slice, with the pointer to it."""

    address: bytes
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    local: bool = False
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()
    origin: str = ""

    @property
    def last_resort(self) -> bool:
        """Used only where nothing is ready."""
        return self.serving and self.terminating and not self.ready


class Selection(NamedTuple):
    """cluster, local: the endpoints for each policy, () for one that the Service does not use. some: whether there is a
    usable one anywhere. topology: by which hints those of `cluster` were chosen."""

    cluster: tuple[Candidate, ...]
    local: tuple[Candidate, ...]
    some: bool
    topology: str


def select(
    candidates: list[Candidate],
    *,
    uses_cluster: bool,
    uses_local: bool,
    node: str,
    zone: str,
    prefer_same_node: bool = True,
) -> Selection:
    """candidates: of one port and family, each address and port once, in the order in which they shall take turns."""
    ready = [one for one in candidates if one.ready]
    usable = ready or [one for one in candidates if one.last_resort]
    topology, cluster = ALL, usable
    local: list[Candidate] = []
    if uses_cluster and ready:
        topology = topology_by_hints(ready, node, zone, prefer_same_node)
        if topology == NODE:
            cluster = [one for one in ready if node in one.node_hints]
        elif topology == ZONE:
            cluster = [one for one in ready if zone in one.zone_hints]
    if uses_local:
        near = [one for one in candidates if one.local]
        local = [one for one in near if one.ready] or [one for one in near if one.last_resort]
    return Selection(tuple(cluster) if uses_cluster else (), tuple(local), bool(usable), topology)


def topology_by_hints(ready: list[Candidate], node: str, zone: str, prefer_same_node: bool = True) -> str:
    """Hints count when every ready endpoint has them and at least one names us: of nodes first, then of zones."""
    if prefer_same_node and node and all(one.node_hints for one in ready):
        if any(node in one.node_hints for one in ready):
            return NODE
    if zone and all(one.zone_hints for one in ready) and any(zone in one.zone_hints for one in ready):
        return ZONE
    return ALL


def unique(candidates: list[Candidate]) -> list[Candidate]:
    """Each address and port once. An endpoint may be in two slices while it moves from one to the other: then what is
    better of it counts, ready before terminating, and on this node before elsewhere."""
    found: dict[tuple[bytes, int], Candidate] = {}
    for one in candidates:
        key = one.address, one.port
        if key not in found or _rank(one) > _rank(found[key]):
            found[key] = one
    return list(found.values())


def _rank(one: Candidate) -> tuple[bool, bool, bool]:
    return one.ready, one.last_resort, one.local
