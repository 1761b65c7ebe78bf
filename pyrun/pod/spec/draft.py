"""The config.json in the making: the document, and for each part of it the place in the request that asked for it."""

from __future__ import annotations

from ...errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

CONTEXT = "linux.security_context"


class Draft:
    """doc: the config.json's object. origins: JSON pointer into it -> dotted place in the request; pod.… is the
    pod's part."""

    __slots__ = ("doc", "origins")

    def __init__(self) -> None:
        self.doc: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def note(self, pointer: str, place: str) -> None:
        self.origins[pointer] = place

    def origin(self, pointer: str | None) -> str | None:
        """The place that asked for what is at a pointer, or for the nearest that lies above it."""
        while pointer:
            if pointer in self.origins:
                return self.origins[pointer]
            pointer = pointer.rpartition("/")[0]
        return None


def refuse(place: str, text: str, hint: str | None = None) -> NoReturn:
    raise InvalidArgument(f"{place}: {text}", hint=hint)


def check_path(place: str, path: str) -> str:
    """An absolute path that is none of the ways to say something else."""
    if not path.startswith("/"):
        refuse(place, f"{path!r} is no absolute path" if path else "is missing")
    if "\0" in path:
        refuse(place, "a path has no NUL in it")
    if len(path.encode("utf-8", "surrogateescape")) > 4095:
        refuse(place, "a path has at most 4095 bytes")
    return path
