"""fieldRef and resourceFieldRef: which fields of a pod a variable or a file may show."""

from __future__ import annotations

import re

from ..objects.volumes import ObjectFieldSelector, ResourceFieldSelector
from ..quantity import parse
from .names import key_fault

BOTH = ("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName")
OF_VARIABLES = ("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs")
OF_FILES = ("metadata.labels", "metadata.annotations")
VARIABLES = (*BOTH, *OF_VARIABLES)
FILES = (*BOTH[:3], *OF_FILES)
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")

RESOURCES = tuple(
    f"{which}.{name}" for which in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage")
)
DIVISORS = {"cpu": ("1m", "1")}
OTHER_DIVISORS = ("1", *(f"1{s}{i}" for s in "kMGTPE" for i in ("",)), *(f"1{s}i" for s in "KMGTPE"))


def keyed(path: str) -> tuple[str, str] | None:
    """metadata.labels['app'] → (labels, app)."""
    match = _KEYED.fullmatch(path)
    return (match[1], match[2]) if match else None


def field_ref_fault(ref: ObjectFieldSelector, *, of_file: bool) -> str | None:
    if (ref.apiVersion or "v1") != "v1":
        return f"apiVersion must be v1, is {ref.apiVersion!r}"
    if found := keyed(ref.fieldPath):
        # A label's key as it is, an annotation's in small letters.
        return key_fault(found[1].lower() if found[0] == "annotations" else found[1])
    taken = FILES if of_file else VARIABLES
    if ref.fieldPath not in taken:
        more = "metadata.labels['KEY'], metadata.annotations['KEY']"
        return f"{ref.fieldPath!r} is not among {', '.join(taken)}, {more}"
    return None


def resource_ref_fault(ref: ResourceFieldSelector, *, of_file: bool) -> str | None:
    if of_file and not ref.containerName:
        return "containerName is missing"
    if ref.resource not in RESOURCES and not re.fullmatch(r"(limits|requests)\.hugepages-.+", ref.resource):
        return f"resource {ref.resource!r} is not among {', '.join(RESOURCES)}"
    if ref.divisor in (None, "0", 0):
        return None
    taken = DIVISORS.get(ref.resource.partition(".")[2], OTHER_DIVISORS)
    try:
        good = parse(ref.divisor) in {parse(d) for d in taken}
    except ValueError as error:
        return f"divisor {error}"
    return None if good else f"divisor {ref.divisor!r} is not among {', '.join(taken)}"
