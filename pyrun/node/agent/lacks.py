"""PURE: what is checked and explained, and not carried out yet; refused by name when a manifest is taken."""

from __future__ import annotations

from collections.abc import Iterator

from ...kube.objects.pods import Pod
from ...kube.strict import Fault
from ..plan.observed import KINDS
from ..supported import ALIKE

NOT_YET = "is not supported: `pyrun node run` does not do this yet"


def lacks(pod: Pod) -> Iterator[Fault]:
    assert pod.spec is not None
    for i, _ in enumerate(pod.spec.volumes or ()):
        yield Fault(f"/spec/volumes/{i}", NOT_YET)
    for field in ALIKE:
        for i, c in enumerate(getattr(pod.spec, field) or ()):
            at = f"/spec/{field}/{i}"
            for kind in KINDS:
                if getattr(c, f"{kind}Probe") is not None:
                    yield Fault(f"{at}/{kind}Probe", NOT_YET)
            for name in ("postStart", "preStop"):
                handler = getattr(c.lifecycle, name) if c.lifecycle else None
                if handler is not None and handler.httpGet is not None:
                    yield Fault(f"{at}/lifecycle/{name}/httpGet", NOT_YET)
            for j, variable in enumerate(c.env or ()):
                if variable.valueFrom is not None and variable.valueFrom.fieldRef is not None:
                    yield Fault(f"{at}/env/{j}/valueFrom/fieldRef", NOT_YET)
