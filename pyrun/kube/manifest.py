"""Objects of Kubernetes out of YAML and JSON files, each value with its line and column.

Read as the kubelet reads (scalars.py), but a key that is there twice, a tag (`!!str`) and aliases that blow up are
refused, by file, line and column: what such a file means depends on who reads it. A stream may have several documents,
and a List is its items.

What is not JSON takes PyYAML with libyaml, which only cuts the text into events: values are built of them in
events.py, in a loop, so that no recursion is in reach of a file.
"""

from __future__ import annotations

import json
import os
import stat

from ..errors import PyrunError, reason
from .manifest_error import ManifestError
from .positions import JsonText, Marks, Position, path_of, pointer_of

__all__ = ["Document", "ManifestError", "load", "read", "scan"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

MAX_BYTES = 256 << 20


class Document:
    """One object. value: plain dicts, lists and scalars, not to be changed. name: the file's, for messages."""

    __slots__ = ("_path", "_positions", "name", "value")

    def __init__(
        self, value: dict[str, Any], name: str, positions: Marks | JsonText, path: Sequence[str | int] = ()
    ) -> None:
        self.value = value
        self.name = name
        self._positions = positions
        self._path = [str(part) for part in path]

    def line(self, pointer: str = "") -> Position:
        """Line and column of the value at a JSON pointer (RFC 6901); for one that is not there, of what is nearest
        above it. Of a mapping's value that is where its key stands."""
        return self._positions.find([*self._path, *path_of(pointer)])

    def place(self, pointer: str = "") -> str:
        """FILE:LINE of the value at a pointer, or FILE:LINE:COLUMN where it does not begin the line."""
        line, column = self.line(pointer)
        return f"{self.name}:{line}" if column == 1 else f"{self.name}:{line}:{column}"

    def fault(self, pointer: str, text: str, *, hint: str | None = None) -> ManifestError:
        """An error that names file, line, column and pointer."""
        return ManifestError(self.name, self.line(pointer), f"{pointer or '/'}: {text}", hint=hint)


def load(source: str | bytes, name: str = "") -> list[Document]:
    """The objects in a file (source: its path) or in bytes, in order; a List's items each by itself.

    Raises ManifestError at the first fault, PyrunError when the file can't be read or PyYAML is missing."""
    documents, faults = scan(source, name)
    if faults:
        raise faults[0]
    return documents


def scan(source: str | bytes, name: str = "") -> tuple[list[Document], list[ManifestError]]:
    """As load(), but with what is right of a file that has faults as well: a document that is none does not take the
    others with it; what follows broken syntax is lost."""
    if isinstance(source, str):
        name = name or source
        source = read(source)
    elif len(source) > MAX_BYTES:
        raise PyrunError(f"{name}: more than {MAX_BYTES >> 20} MiB")
    documents: list[Document] = []
    faults: list[ManifestError] = []
    for found in _roots(source, name or "(bytes)"):
        if isinstance(found, ManifestError):
            faults.append(found)
            continue
        for one in _objects(*found, name or "(bytes)"):
            (faults if isinstance(one, ManifestError) else documents).append(one)  # type: ignore[arg-type]
    return documents, faults


def read(path: str) -> bytes:
    """A regular file's bytes; never waits for a pipe's other end. PyrunError."""
    try:
        with open(path, "rb", buffering=0, opener=lambda p, flags: os.open(p, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise PyrunError(f"read {path}: not a regular file")
            data = bytearray()
            while len(data) <= MAX_BYTES and (chunk := file.read(1 << 20)):
                data += chunk
    except OSError as error:
        raise PyrunError(f"read {path}: {reason(error)}")
    except ValueError:
        raise PyrunError(f"read {path!a}: the path contains a NUL byte")
    if len(data) > MAX_BYTES:
        raise PyrunError(f"read {path}: more than {MAX_BYTES >> 20} MiB")
    return bytes(data)


def _roots(data: bytes, name: str) -> Iterator[tuple[Any, Marks | JsonText] | ManifestError]:
    """The root of each document."""
    if data.lstrip()[:1] == b"{":
        try:
            text = data.decode()
            yield json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant), JsonText(text)
            return
        except (ValueError, RecursionError) as error:
            failure = error  # it may be YAML; if not, that reader says what is wrong, and where
        try:
            from .events import roots
        except ImportError:
            yield _json_fault(name, failure)
            return
    else:
        try:
            from .events import roots
        except ImportError:
            hint = "pip install 'pyrun[kube]' has it; JSON needs nothing"
            raise PyrunError(
                f"{name}: YAML takes the Python package PyYAML with libyaml, which is not installed", hint=hint
            )
    yield from roots(data, name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _json_fault(name: str, error: Exception) -> ManifestError:
    if isinstance(error, json.JSONDecodeError):
        return ManifestError(name, (error.lineno, error.colno), error.msg)
    text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ManifestError(name, (1, 1), text)


def _objects(root: Any, positions: Marks | JsonText, name: str) -> Iterator[Document | ManifestError]:
    """The object that a document is, or those of a List: nothing of an empty document. The items of a list of one kind
    (ServiceList) need not say what they are."""
    if root is None:
        return
    whole = Document(root, name, positions)
    if not isinstance(root, dict):
        yield whole.fault("", f"{_called(root)}, and not an object")
        return
    kind = root.get("kind")
    if not (isinstance(kind, str) and kind.endswith("List") and "items" in root):
        yield whole
        return
    items = root["items"]
    if not isinstance(items, list):
        if items is not None:
            yield whole.fault("/items", f"{_called(items)}, and not a list")
        return
    given = {} if kind == "List" else {"apiVersion": root.get("apiVersion"), "kind": kind[:-4]}
    for index, item in enumerate(items):
        if isinstance(item, dict):
            yield Document({**given, **item}, name, positions, ("items", index))
        else:
            yield whole.fault(pointer_of(("items", index)), f"{_called(item)}, and not an object")


def _called(value: Any) -> str:
    for kind, word in ((bool, "true or false"), (str, "a string"), (dict, "an object"), (list, "a list")):
        if isinstance(value, kind):
            return word
    return "nothing" if value is None else "a number"
