"""Deployments: the template is a pod's, and the selector must choose what it makes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from ..objects.apps import Deployment
from ..objects.meta import LabelSelector, ObjectMeta
from ..objects.pods import Pod
from ..strict import Fault
from .meta import validate_meta
from .names import at_least, one_of
from .pod import validate_pod

TEMPLATE = "/spec/template"
LONGEST_NAME = 253 - len("-0123456789-abcde")
PERCENT = re.compile(r"(100|[0-9]{1,2})%")


def pod_of(found: Deployment) -> Pod:
    """A pod of its template, by the Deployment's own name."""
    template, meta = found.spec.template, found.metadata or ObjectMeta()
    made = msgspec.structs.replace(template.metadata or ObjectMeta(), name=meta.name, namespace=meta.namespace)
    return Pod(metadata=made, spec=template.spec)


def validate_deployment(found: Deployment) -> Iterator[Fault]:
    """After defaults."""
    yield from validate_meta(found.metadata)
    if found.metadata is not None and len(found.metadata.name or "") > LONGEST_NAME:
        yield Fault("/metadata/name", f"is longer than {LONGEST_NAME} characters: pods' names are longer than it")
    spec, meta = found.spec, found.spec.template.metadata or ObjectMeta()
    for field in ("name", "namespace", "generateName"):
        if getattr(meta, field):
            yield Fault(f"{TEMPLATE}/metadata/{field}", "is not for a template: pods have the Deployment's")
    for fault in validate_pod(pod_of(found)):
        if not fault.pointer.startswith(("/metadata/name", "/metadata/namespace")):
            yield Fault(f"{TEMPLATE}{fault.pointer}", fault.text)
    if spec.template.spec is not None:
        if (spec.template.spec.restartPolicy or "Always") != "Always":
            yield Fault(f"{TEMPLATE}/spec/restartPolicy", "must be Always in a Deployment")
        if spec.template.spec.activeDeadlineSeconds is not None:
            yield Fault(f"{TEMPLATE}/spec/activeDeadlineSeconds", "is not for a Deployment")
    for field in ("replicas", "minReadySeconds", "revisionHistoryLimit"):
        yield from at_least(getattr(spec, field), 0, f"/spec/{field}")
    if spec.progressDeadlineSeconds is not None and spec.progressDeadlineSeconds <= (spec.minReadySeconds or 0):
        yield Fault("/spec/progressDeadlineSeconds", "must be more than minReadySeconds")
    yield from _selector(spec.selector, meta.labels or {})
    yield from _strategy(found)


def _selector(found: LabelSelector, labels: dict[str, str]) -> Iterator[Fault]:
    if not found.matchLabels and not found.matchExpressions:
        yield Fault("/spec/selector", "is empty; it must choose the template's labels")
    for key, value in (found.matchLabels or {}).items():
        if labels.get(key) != value:
            yield Fault("/spec/selector/matchLabels", f"does not choose the template: it has no label {key}={value}")
    for i, one in enumerate(found.matchExpressions or ()):
        at = f"/spec/selector/matchExpressions/{i}"
        yield from one_of(one.operator, ("In", "NotIn", "Exists", "DoesNotExist"), f"{at}/operator")
        values, there = one.values or [], one.key in labels
        if bool(values) != (one.operator in ("In", "NotIn")):
            yield Fault(f"{at}/values", "are for In and NotIn, which need one at least")
        chosen = {
            "In": labels.get(one.key) in values,
            "NotIn": labels.get(one.key) not in values,
            "Exists": there,
            "DoesNotExist": not there,
        }
        if not chosen.get(one.operator, True):
            yield Fault(at, "does not choose the template's labels")


def _strategy(found: Deployment) -> Iterator[Fault]:
    strategy = found.spec.strategy
    if strategy is None:
        return
    yield from one_of(strategy.type, ("Recreate", "RollingUpdate"), "/spec/strategy/type")
    rolling = strategy.rollingUpdate
    if rolling is None:
        return
    at = "/spec/strategy/rollingUpdate"
    if strategy.type == "Recreate":
        yield Fault(at, "is not for type Recreate")
    for field in ("maxSurge", "maxUnavailable"):
        value = getattr(rolling, field)
        if isinstance(value, int) and value < 0:
            yield Fault(f"{at}/{field}", f"must be at least 0, is {value}")
        if isinstance(value, str):
            if not re.fullmatch(r"[0-9]+%", value):
                yield Fault(f"{at}/{field}", f"must be a number, or a percentage such as 25%, is {value!r}")
            elif field == "maxUnavailable" and not PERCENT.fullmatch(value):
                yield Fault(f"{at}/{field}", "is more than 100%")
    if rolling.maxSurge in (0, "0%") and rolling.maxUnavailable in (0, "0%"):
        yield Fault(f"{at}/maxUnavailable", "may not be 0 when maxSurge is 0: nothing could ever be replaced")
