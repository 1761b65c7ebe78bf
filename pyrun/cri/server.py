"""Which function answers which RPC.

A function has the RPC's name in small letters (`PodSandboxStatus` is `pod_sandbox_status`) and lies in a file of
runtime/ or images/; so no list of them can be wrong. An RPC without one answers UNIMPLEMENTED, which a kubelet knows
how to read.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from typing import Any

from ..cri_api import SERVICES
from . import images, runtime

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


def functions() -> dict[str, dict[str, Callable[[Any, Any], Any]]]:
    """Service → RPC → function."""
    found: dict[str, Callable[[Any, Any], Any]] = {}
    for room in (runtime, images):
        for info in pkgutil.iter_modules(room.__path__):
            module = importlib.import_module(f"{room.__name__}.{info.name}")
            for name, value in vars(module).items():
                if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                    found[name.rstrip("_")] = value
    return {
        service: {name: found[snake_case(name)] for name in rpcs if snake_case(name) in found}
        for service, rpcs in SERVICES.items()
    }


def snake_case(name: str) -> str:
    return _WORD.sub("_", name).lower()
