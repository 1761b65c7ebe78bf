"""Services, slices and nodes out of files, once: for commands that look at what is there without a daemon."""

from __future__ import annotations

import os

from ..errors import PyrunError, reason
from ..kube.feed.looks import is_ours
from ..kube.feed.slices import plan_slices, selector_of
from ..kube.manifest import Document, scan
from .model import Objects
from .objects import take
from .readers import read_slice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Files:
    """What files say. broken: lines about files and documents that are none."""

    def __init__(self) -> None:
        self.objects = Objects()
        self.broken: list[str] = []
        self._documents: dict[str, Document] = {}

    def place(self, origin: str) -> dict[str, Any]:
        """`FILE:LINE /pointer` as file, line and column of that very value, and the pointer."""
        start, slash, pointer = origin.partition(" /")
        pointer = slash.strip() + pointer
        document = self._documents.get(start)
        if document is None:
            return {"place": start, "pointer": pointer}
        line, column = document.line(pointer)
        return {"file": document.name, "line": line, "column": column, "pointer": pointer}

    def place_text(self, origin: str) -> str:
        found = self.place(origin)
        if "file" not in found:
            return origin
        return f"{found['file']}:{found['line']}" + (f" {found['pointer']}" if found["pointer"] else "")

    def warnings(self) -> list[str]:
        """A line for each thing that is not served for a fault of its own."""
        faults = [
            f"{self.place_text(f'{fault.origin} {fault.pointer}')}: {fault.text}" for fault in self.objects.faults
        ]
        return self.broken + faults


def read_files(paths: tuple[str, ...]) -> Files:
    """All objects in these files, and in the files of these directories that end in .yaml, .yml or .json. Services with
    a selector have slices made of the Pods that are there. PyrunError where a path can't be read, or where nothing but
    faults is in them."""
    found = Files()
    documents: list[Document] = []
    for path in paths:
        for name in _files_of(path):
            try:
                good, faults = scan(name)
            except PyrunError as error:
                found.broken.append(error.text)
                continue
            documents += good
            found.broken += [fault.text for fault in faults]
    if found.broken and not documents:
        more = f" (and {len(found.broken) - 1} more)" if len(found.broken) > 1 else ""
        raise PyrunError(f"{found.broken[0]}{more}", hint="there is no object besides")
    for document in documents:
        origin = document.place()
        found._documents[origin] = document
        take(found.objects, document.value, origin)
    _add_selected(found, documents)
    return found


def _files_of(path: str) -> list[str]:
    try:
        if os.path.isdir(path):
            return [os.path.join(path, name) for name in sorted(os.listdir(path)) if is_ours(name)]
        os.stat(path)
    except OSError as error:
        raise PyrunError(f"read {path}: {reason(error)}")
    except ValueError:
        raise PyrunError(f"read {path!a}: the path contains a NUL byte")
    return [path]


def _add_selected(found: Files, documents: list[Document]) -> None:
    pods = [document.value for document in documents if document.value.get("kind") == "Pod"]
    if not pods:
        return
    for document in documents:
        if document.value.get("kind") != "Service" or selector_of(document.value) is None:
            continue
        space = _namespace(document.value)
        try:
            made = plan_slices(document.value, [pod for pod in pods if _namespace(pod) == space])
        except (AttributeError, KeyError, TypeError, ValueError):
            found.broken.append(f"{document.place()}: its pods can't be found: this is not the shape of such objects")
            continue
        for value in made:
            one = read_slice(value, f"{document.place()} /spec/selector", found.objects.faults)
            if one is not None:
                found.objects.slices.setdefault(one.id, one)


def _namespace(value: dict[str, Any]) -> Any:
    metadata = value.get("metadata")
    return (metadata.get("namespace") if isinstance(metadata, dict) else None) or "default"
