"""The messages of the Kubernetes container runtime interface, v1 of cri-api 0.37, as `from pyrun import cri_api as v1`.

It looks like a module that protoc generated: message classes, enums (`v1.NamespaceMode.Name(v1.NODE)`) and their
values; `v1.SERVICES` has the RPCs of both services. All of it is made at import from the rows in this directory's
modules. A leaf: it imports nothing of pyrun, and nothing that the runtime's verbs load may import it.
"""

from __future__ import annotations

from typing import Any

from .build import PACKAGE, Rpc, describe, load, load_services
from .containers import MESSAGES as CONTAINERS
from .images import MESSAGES as IMAGES
from .node import MESSAGES as NODE_STATUS
from .pods import MESSAGES as PODS
from .services import ENUMS
from .services import SERVICES as ROWS
from .stats import MESSAGES as STATS

__all__ = ["FILE", "PACKAGE", "SERVICES", "Message", "Rpc"]

# What a function takes that any message will do for: the classes are made at run time, so mypy knows none of them.
Message = Any

FILE = describe((NODE_STATUS, PODS, CONTAINERS, IMAGES, STATS), ENUMS)
_names = load(FILE)
SERVICES: dict[str, dict[str, Rpc]] = load_services(ROWS, _names)
globals().update(_names)


def __getattr__(name: str) -> Any:
    raise AttributeError(f"cri-api has no {name}")
