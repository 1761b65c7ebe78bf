"""From objects as they change to the change of the rules: what the daemon does with each thing that its sources tell.

An object is read by itself, so one that is wrong takes nobody with it, and what is wrong with it is kept by its name.
"""

from __future__ import annotations

import dataclasses
import datetime

from .model import EndpointSlice, Fault, Name, Node, Options
from .plan import Planner
from .readers import read_node, read_service, read_slice
from .rules import Change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from ..kube.feed.store import Held, Key

    T = TypeVar("T")

TRIGGERED = "endpoints.kubernetes.io/last-change-trigger-time"  # RFC 3339, by the slices' controller


class Follower:
    """node: as the command line has it; what it leaves out a Node object of its name gives. knows_pods: all Pods of
    this node are among the objects, so that only those of them with hostNetwork have the node's addresses."""

    def __init__(self, node: Node, options: Options, *, knows_pods: bool = False) -> None:
        if knows_pods:
            options = dataclasses.replace(options, host_pods=frozenset())
        self.given = node
        self.node = node
        self.planner = Planner(node, options)
        self.faults: dict[Key, list[Fault]] = {}
        self.services = self.slices = 0  # changes of them so far
        self._options = options
        self.triggered: list[float] = []  # when what update() took was begun elsewhere, seconds since 1970

    def update(self, changes: Mapping[Key, Held | None]) -> list[Change]:
        """The changes of the rules, in order: one for the node, one for its pods, one for all else."""
        made = []
        self.triggered = []
        host_pods = self._options.host_pods or frozenset()
        for key, held in changes.items():
            kind, namespace, name = key
            faults: list[Fault] = []
            if kind == "Service":
                self.planner.take_service((namespace, name), _read(read_service, held, faults))
                self.services += 1
            elif kind == "EndpointSlice":
                self.planner.take_slice((namespace, name), _read(self._read_slice, held, faults))
                self.slices += 1
            elif kind == "Pod" and self._options.host_pods is not None:
                host_pods = self._with_pod((namespace, name), held, host_pods)
            elif kind == "Node" and name == self.given.name:
                made.append(self._take_node(_read(read_node, held, faults)))
            if faults:
                self.faults[key] = faults
            else:
                self.faults.pop(key, None)
        if self._options.host_pods is not None and host_pods != self._options.host_pods:
            self._options = dataclasses.replace(self._options, host_pods=host_pods)
            made.append(self.planner.surroundings(self.node, self._options))
        made.append(self.planner.replan())
        return [change for change in made if change]

    def _take_node(self, found: Node | None) -> Change:
        given = self.given
        if found is None:
            node = given
        else:
            node = dataclasses.replace(
                given,
                addresses=given.addresses or found.addresses,
                zone=given.zone or found.zone,
                pod_cidrs=given.pod_cidrs or found.pod_cidrs,
                deleting=found.deleting,
            )
        if node == self.node:
            return Change()
        self.node = node
        return self.planner.surroundings(node, self._options)

    def _with_pod(self, name: Name, held: Held | None, found: frozenset[Name]) -> frozenset[Name]:
        spec = held.value.get("spec") if held is not None else None
        here = isinstance(spec, dict) and spec.get("hostNetwork") is True and spec.get("nodeName") == self.given.name
        return found | {name} if here else found - {name}

    def _read_slice(self, value: Any, origin: str, faults: list[Fault]) -> EndpointSlice | None:
        annotations = value["metadata"].get("annotations")
        text = annotations.get(TRIGGERED) if isinstance(annotations, dict) else None
        if isinstance(text, str):
            try:
                self.triggered.append(datetime.datetime.fromisoformat(text).timestamp())
            except ValueError:
                pass
        return read_slice(value, origin, faults)


def _read(reader: Callable[[Any, str, list[Fault]], T | None], held: Held | None, faults: list[Fault]) -> T | None:
    return None if held is None else reader(held.value, held.place(), faults)
