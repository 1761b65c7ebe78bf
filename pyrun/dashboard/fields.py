"""PURE: the fields that each act takes. Both sides look: the web process, so that what a stranger calls a field never
becomes anything else, and the reader, which does not trust that one."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InvalidArgument

FIELDS: dict[str, tuple[str, ...]] = {
    "yaml": ("pod",),
    "plan": ("pod",),
    "services": (),
    "service": ("service",),
    "volumes": (),
    "garbage": (),
    "parts": (),
    "retry": ("pod",),
    "remove-image": ("image",),
    "manifest": ("pod",),
    "change": ("file", "version", "text", "dry"),
    "terminal": ("container", "command", "tty"),
    "tokens": (),
    "make-token": ("name", "role"),
    "revoke-token": ("name",),
}


def check_fields(act: str, given: Iterable[str]) -> None:
    """InvalidArgument names those that it does not take."""
    known = FIELDS[act]
    if unknown := sorted(set(given) - set(known)):
        named = ", ".join(repr(name[:40]) for name in unknown[:5])
        raise InvalidArgument(f"{act} has no {named}", hint=f"it takes {', '.join(known) or 'nothing'}")
