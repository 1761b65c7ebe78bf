"""A Spec as config.json: what a program that makes its Spec in Python leaves for exec and update to read."""

from __future__ import annotations

import json

from pyrun.oci import tables  # noqa: F401  # which fills MEMBERS
from pyrun.oci.model import Capabilities, Spec, Value
from pyrun.oci.readers import MEMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dump_spec(spec: Spec) -> bytes:
    """Its config.json; load_bytes() makes the same Spec of it."""
    return json.dumps(_plain(spec), ensure_ascii=True).encode()


def _plain(value: Any) -> Any:
    """What json.dumps() takes. A member that has its default is left out."""
    if isinstance(value, Value):
        pairs = zip(MEMBERS[type(value)], value.__slots__, value._defaults, strict=False)
        shown = {name: getattr(value, slot) for name, slot, default in pairs if getattr(value, slot) != default}
        if isinstance(value, Capabilities):
            shown["bounding"] = (*value.bounding, *value.ignored)
        return {name: _plain(member) for name, member in shown.items()}
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    return {name: _plain(entry) for name, entry in value.items()} if isinstance(value, dict) else value
