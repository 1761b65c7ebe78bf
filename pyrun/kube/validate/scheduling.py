"""Where a pod may run: tolerations, affinities, spreading, gates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..objects.meta import LabelSelector
from ..objects.pods import PodSpec
from ..objects.scheduling import (
    NodeSelectorRequirement,
    NodeSelectorTerm,
    PodAffinity,
    PodAffinityTerm,
    PodAntiAffinity,
)
from ..strict import Fault
from .names import at_least, check, key_fault, keys, label_value_fault, number_range, one_of

TOLERATION_EFFECTS = ("", "NoSchedule", "PreferNoSchedule", "NoExecute")
OF_LABELS = ("In", "NotIn", "Exists", "DoesNotExist")
REQUIRED, PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


def validate_scheduling(spec: PodSpec) -> Iterator[Fault]:
    yield from keys(spec.nodeSelector, "/spec/nodeSelector", values=True)
    yield from _tolerations(spec)
    yield from _spread(spec)
    yield from _affinity(spec)
    names: set[str] = set()
    for i, gate in enumerate(spec.schedulingGates or ()):
        at = f"/spec/schedulingGates/{i}/name"
        yield from check(key_fault(gate.name), at)
        if gate.name in names:
            yield Fault(at, f"{gate.name!r} is there twice")
        names.add(gate.name)
    if names and spec.nodeName:
        yield Fault("/spec/nodeName", "must not be set while there are schedulingGates")


def _tolerations(spec: PodSpec) -> Iterator[Fault]:
    for i, toleration in enumerate(spec.tolerations or ()):
        at = f"/spec/tolerations/{i}"
        operator = toleration.operator or "Equal"
        yield from one_of(operator, ("Exists", "Equal", "Lt", "Gt"), f"{at}/operator")
        yield from one_of(toleration.effect, TOLERATION_EFFECTS, f"{at}/effect")
        if toleration.key:
            yield from check(key_fault(toleration.key), f"{at}/key")
        elif operator != "Exists":
            yield Fault(f"{at}/operator", "must be Exists where there is no key")
        if operator == "Exists" and toleration.value:
            yield Fault(f"{at}/value", "is not for operator Exists")
        if operator == "Equal":
            yield from check(label_value_fault(toleration.value or ""), f"{at}/value")
        if operator in ("Lt", "Gt") and not _NUMBER.fullmatch(toleration.value or ""):
            yield Fault(f"{at}/value", f"must be a whole number for operator {operator}, is {toleration.value!r}")
        if toleration.tolerationSeconds is not None and toleration.effect != "NoExecute":
            yield Fault(f"{at}/effect", "must be NoExecute with tolerationSeconds")


def _spread(spec: PodSpec) -> Iterator[Fault]:
    pairs: set[tuple[str, str]] = set()
    for i, one in enumerate(spec.topologySpreadConstraints or ()):
        at = f"/spec/topologySpreadConstraints/{i}"
        yield from at_least(one.maxSkew, 1, f"{at}/maxSkew")
        if not one.topologyKey:
            yield Fault(f"{at}/topologyKey", "is empty")
        yield from one_of(one.whenUnsatisfiable, ("DoNotSchedule", "ScheduleAnyway"), f"{at}/whenUnsatisfiable")
        yield from at_least(one.minDomains, 1, f"{at}/minDomains")
        if one.minDomains is not None and one.whenUnsatisfiable != "DoNotSchedule":
            yield Fault(f"{at}/minDomains", "is for whenUnsatisfiable DoNotSchedule")
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            yield from one_of(getattr(one, field), ("Honor", "Ignore"), f"{at}/{field}")
        yield from validate_selector(one.labelSelector, f"{at}/labelSelector")
        if (pair := (one.topologyKey, one.whenUnsatisfiable)) in pairs:
            yield Fault(f"{at}/topologyKey", f"there is another of {pair[0]} with {pair[1]}")
        pairs.add(pair)


def validate_selector(found: LabelSelector | None, at: str) -> Iterator[Fault]:
    if found is None:
        return
    yield from keys(found.matchLabels, f"{at}/matchLabels", values=True)
    for i, one in enumerate(found.matchExpressions or ()):
        here = f"{at}/matchExpressions/{i}"
        yield from check(key_fault(one.key), f"{here}/key")
        yield from one_of(one.operator, OF_LABELS, f"{here}/operator")
        yield from _values(one.operator, one.values, here)
        for j, value in enumerate(one.values or ()):
            yield from check(label_value_fault(value), f"{here}/values/{j}")


def _values(operator: str, values: list[str] | None, at: str) -> Iterator[Fault]:
    if operator in ("In", "NotIn") and not values:
        yield Fault(f"{at}/values", f"is missing; operator {operator} needs one at least")
    if operator in ("Exists", "DoesNotExist") and values:
        yield Fault(f"{at}/values", f"is not for operator {operator}")
    if operator in ("Gt", "Lt") and len(values or ()) != 1:
        yield Fault(f"{at}/values", f"has {len(values or ())}; operator {operator} needs one")


def _affinity(spec: PodSpec) -> Iterator[Fault]:
    if spec.affinity is None:
        return
    node, at = spec.affinity.nodeAffinity, "/spec/affinity/nodeAffinity"
    if node is not None:
        required = node.requiredDuringSchedulingIgnoredDuringExecution
        if required is not None:
            here = f"{at}/{REQUIRED}/nodeSelectorTerms"
            if not required.nodeSelectorTerms:
                yield Fault(here, "has no term; one at least is needed")
            for i, term in enumerate(required.nodeSelectorTerms):
                yield from _term(term, f"{here}/{i}")
        for i, preferred in enumerate(node.preferredDuringSchedulingIgnoredDuringExecution or ()):
            here = f"{at}/{PREFERRED}/{i}"
            yield from number_range(preferred.weight, 1, 100, f"{here}/weight")
            yield from _term(preferred.preference, f"{here}/preference")
    for field in ("podAffinity", "podAntiAffinity"):
        found: PodAffinity | PodAntiAffinity | None = getattr(spec.affinity, field)
        if found is not None:
            yield from _of_pods(found, f"/spec/affinity/{field}")


def _term(term: NodeSelectorTerm, at: str) -> Iterator[Fault]:
    for i, one in enumerate(term.matchExpressions or ()):
        here = f"{at}/matchExpressions/{i}"
        yield from check(key_fault(one.key), f"{here}/key")
        yield from _requirement(one, (*OF_LABELS, "Gt", "Lt"), here)
    for i, one in enumerate(term.matchFields or ()):
        here = f"{at}/matchFields/{i}"
        yield from one_of(one.key, ("metadata.name",), f"{here}/key")
        yield from _requirement(one, ("In", "NotIn"), here)


def _requirement(one: NodeSelectorRequirement, operators: tuple[str, ...], at: str) -> Iterator[Fault]:
    yield from one_of(one.operator, operators, f"{at}/operator")
    yield from _values(one.operator, one.values, at)


def _of_pods(found: PodAffinity | PodAntiAffinity, at: str) -> Iterator[Fault]:
    for i, term in enumerate(found.requiredDuringSchedulingIgnoredDuringExecution or ()):
        yield from _pod_term(term, f"{at}/{REQUIRED}/{i}")
    for i, preferred in enumerate(found.preferredDuringSchedulingIgnoredDuringExecution or ()):
        here = f"{at}/{PREFERRED}/{i}"
        yield from number_range(preferred.weight, 1, 100, f"{here}/weight")
        yield from _pod_term(preferred.podAffinityTerm, f"{here}/podAffinityTerm")


def _pod_term(term: PodAffinityTerm, at: str) -> Iterator[Fault]:
    yield from check(key_fault(term.topologyKey), f"{at}/topologyKey")
    for field in ("labelSelector", "namespaceSelector"):
        yield from validate_selector(getattr(term, field), f"{at}/{field}")
