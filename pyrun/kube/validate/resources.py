"""Requests and limits, of containers and of pods."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from fractions import Fraction

from ..objects.base import Quantity
from ..objects.containers import ResourceRequirements
from ..objects.pods import PodSpec
from ..quantity import parse
from ..resources import container_requests, counted, limits
from ..strict import Fault, escaped
from .names import key_fault

HUGE = "hugepages-"
KNOWN = ("cpu", "memory", "ephemeral-storage")
OF_PODS = ("cpu", "memory")  # and hugepages-*: KEP-2837


def validate_resources(found: ResourceRequirements | None, at: str, *, of_pod: bool = False) -> Iterator[Fault]:
    """After defaults: a request that is not given is its limit."""
    if found is None:
        return
    limits = yield from _quantities(found.limits, f"{at}/limits", of_pod)
    bad = (found.limits or {}).keys() - limits.keys()
    own = {name: text for name, text in (found.requests or {}).items() if name not in bad}
    requests = yield from _quantities(own, f"{at}/requests", of_pod)
    for name, request in requests.items():
        limit = limits.get(name)
        path = f"{at}/requests/{escaped(name)}"
        if limit is not None and request > limit:
            yield Fault(path, f"{_told(found.requests, name)} is more than the limit {_told(found.limits, name)}")
        if not _overcommits(name):
            if limit is None:
                yield Fault(f"{at}/limits/{escaped(name)}", f"is missing; {name} can't be requested without a limit")
            elif limit != request:
                yield Fault(path, f"must equal the limit, as {name} is never overcommitted")
    huge = [n for n in limits.keys() | requests.keys() if n.startswith(HUGE)]
    if huge and not of_pod and not {"cpu", "memory"} & (limits.keys() | requests.keys()):
        yield Fault(at, f"{sorted(huge)[0]} needs cpu or memory as well")
    names: set[str] = set()
    for i, claim in enumerate(found.claims or ()):
        here = f"{at}/claims/{i}/name"
        if of_pod:
            yield Fault(here, "is not for a pod as a whole")
        elif not claim.name:
            yield Fault(here, "is empty")
        elif claim.name in names:
            yield Fault(here, f"{claim.name!r} is there twice")
        names.add(claim.name)


def validate_overhead(spec: PodSpec) -> Iterator[Fault]:
    yield from _quantities(spec.overhead, "/spec/overhead", of_pod=False)


def validate_whole(spec: PodSpec) -> Iterator[Fault]:
    """The pod's own against its containers': no limit of one is above the pod's, nor what they request together."""
    own = spec.resources
    if own is None:
        return
    for name in OF_PODS:
        try:
            asked, has = (own.requests or {}).get(name), container_requests(spec).get(name, 0)
            if asked is not None and has > counted({name: asked})[name]:
                unit = "m" if name == "cpu" else ""
                yield Fault(
                    f"/spec/resources/requests/{name}", f"{asked} is less than the {has}{unit} of its containers"
                )
            most = counted(own.limits).get(name)
            for field in ("initContainers", "containers"):
                for i, c in enumerate(getattr(spec, field) or ()):
                    if most is not None and limits(c).get(name, 0) > most:
                        text = f"is more than the pod's limit {(own.limits or {})[name]}"
                        yield Fault(f"/spec/{field}/{i}/resources/limits/{name}", text)
        except ValueError:  # told of each quantity that is none
            continue


def _overcommits(name: str) -> bool:
    return name in KNOWN


def _told(found: dict[str, Quantity] | None, name: str) -> str:
    return str((found or {}).get(name, ""))


def _quantities(
    found: dict[str, Quantity] | None, at: str, of_pod: bool
) -> Generator[Fault, None, dict[str, Fraction]]:
    """Those that are good, by name."""
    good = {}
    for name, text in (found or {}).items():
        path = f"{at}/{escaped(name)}"
        try:
            amount = parse(text)
        except ValueError as error:
            yield Fault(path, str(error))
            continue
        if fault := _name_fault(name, of_pod):
            yield Fault(path, fault)
        elif amount < 0:
            yield Fault(path, f"{text} is less than nothing")
        elif name == "cpu" and (amount * 1000).denominator != 1:
            yield Fault(path, f"{text} is finer than 1m, a thousandth of a processor")
        elif name != "cpu" and amount.denominator != 1:
            yield Fault(path, f"{text} is no whole number" + (", did you mean Mi?" if str(text).endswith("m") else ""))
        elif name.startswith(HUGE) and not _pages(name, amount):
            yield Fault(path, f"{text} is no whole number of pages of {name.removeprefix(HUGE)}")
        else:
            good[name] = amount
    return good


def _pages(name: str, amount: Fraction) -> bool:
    try:
        size = parse(name.removeprefix(HUGE))
    except ValueError:
        return False
    return size > 0 and amount > 0 and amount % size == 0


def _name_fault(name: str, of_pod: bool) -> str | None:
    if name.startswith(HUGE):
        return None
    if of_pod:
        return None if name in OF_PODS else f"{name} is not for a pod as a whole: cpu, memory and hugepages-SIZE are"
    if name in KNOWN:
        return None
    if "/" not in name:
        return f"there is no resource {name}; an extended one has a domain, such as example.com/{name}"
    if name.startswith("requests."):
        return "must not begin with requests."
    return key_fault(name)
