"""What tests of the translation of the CRI share: the config.json of a request, its plan, its refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pyrun.errors import InvalidArgument, PyrunError
from pyrun.oci.load import load_bytes
from pyrun.plan.create import plan_create
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.request import Request
from pyrun.pod.spec import plan_root
from tests.support.cri.requests import (
    ID,
    Image,
    Pod,
    container,
    draft,
)

LAYERS = ("/var/lib/pyrun/image/layers/b/diff", "/var/lib/pyrun/image/layers/a/diff")


def doc(config: Any = None, **words: Any) -> dict[str, Any]:
    return draft(container() if config is None else config, **words).doc


def planned(made: dict[str, Any], config: Any, pod: Pod, host: Any, image: Image | None = None) -> Plan:
    """The plan that the config.json leads to; nothing is run."""
    spec = load_bytes(json.dumps(made).encode())
    overlay = plan_root(config, image or Image(), LAYERS, "/ctr", pod)
    words: dict[str, Any] = {"id": ID, "bundle": "/ctr", "rootfs": "/ctr/rootfs", "state_dir": "/run/pyrun/c"}
    request = Request(**words, config=b"{}", record=b"r", cgroup="/sys/fs/cgroup/c", overlay=overlay)
    return plan_create(spec, host.facts, request)


def mount(made: dict[str, Any], destination: str) -> dict[str, Any]:
    (found,) = [m for m in made["mounts"] if m["destination"] == destination]
    return dict(found)


def refused(place: str, *words: str, config: Any, error: type[PyrunError] = InvalidArgument, **more: Any) -> None:
    with pytest.raises(error) as caught:
        draft(config, **more)
    assert caught.value.text.startswith(place), caught.value.text
    for word in words:
        assert word in str(caught.value)
