"""Files of objects → objects that are valid and that this node supports, or all that is wrong, with places."""

from __future__ import annotations

import sys
from typing import NamedTuple

from ..errors import PyrunError, reason
from ..kube.manifest import MAX_BYTES, Document, scan
from ..kube.objects.base import Object
from ..kube.validate.objects import read_object
from .supported import unsupported

STDIN = "(stdin)"


def read_stdin() -> bytes:
    """To its end. PyrunError."""
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise PyrunError(f"{STDIN}: {reason(error)}") from None
    if len(data) > MAX_BYTES:
        raise PyrunError(f"{STDIN}: more than {MAX_BYTES >> 20} MiB")
    return data


class Fault(NamedTuple):
    """A place in a file (line and column from 1), the field's JSON pointer there, and what is wrong."""

    file: str
    line: int
    column: int
    pointer: str
    text: str

    def __str__(self) -> str:
        at = f" {self.pointer}" if self.pointer else ""
        return f"{self.file}:{self.line}:{self.column}:{at} {self.text}"


class Read(NamedTuple):
    """document: for places of what the object has."""

    document: Document
    object: Object


def read_objects(path: str, node: str = "", data: bytes | None = None) -> tuple[list[Read], list[Fault]]:
    """All that is right in a file and all that is wrong. data: what is read in its place. path: - for standard input.
    PyrunError where it can't be read."""
    if path == "-" and data is None:
        path, data = STDIN, read_stdin()
    documents, broken = scan(path) if data is None else scan(data, path)
    faults = [Fault(error.name, *error.position, "", error.what) for error in broken]
    read = []
    for document in documents:
        found, wrong = read_object(document.value)
        if found is not None:
            wrong = list(unsupported(found, node))
        if wrong or found is None:
            faults += [Fault(document.name, *document.line(f.pointer), f.pointer, f.text) for f in wrong]
        else:
            read.append(Read(document, found))
    return read, sorted(faults, key=lambda f: (f.line, f.column))


def read_all(paths: tuple[str, ...], node: str = "") -> tuple[list[Read], list[Fault]]:
    """Of several files; one that can't be read is a fault."""
    read: list[Read] = []
    faults: list[Fault] = []
    for path in paths:
        try:
            good, wrong = read_objects(path, node)
        except PyrunError as error:
            faults.append(Fault(path, 1, 1, "", error.text))
            continue
        read += good
        faults += wrong
    return read, faults
