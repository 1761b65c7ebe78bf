"""What `pyrun node apply` and `delete` do to the manifests directory: an object a file, which is replaced whole."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

from ...errors import FailedPrecondition, InvalidArgument, NotFound, PyrunError, reason
from ...kube.objects.apps import Deployment
from ...kube.validate.objects import read_object
from ..supported import unsupported
from .source import TAKEN, Key, Source, Taken, is_url, key_of, with_suffix

HALF, HALF_S = ".pyrun-half", 60.0  # how a file's name ends that is not written yet, and for how long at most
MODE = 0o600  # a Secret's as any other's


def file_of(source: Source, key: Key) -> str:
    """By which name an object is kept that came by apply. No part of a name may hold an underscore."""
    kind, namespace, name = key
    return os.path.join(source.path, f"{kind.lower()}_{namespace}_{name}.json")


def apply(source: Source, given: list[dict[str, Any]], node: str) -> list[dict[str, str]]:
    """All of them or none: [{kind, namespace, name, what: created, configured or unchanged}]. PyrunError."""
    plans: list[tuple[Key, str, dict[str, Any], str]] = []
    for value in given:
        found, faults = read_object(value)
        if found is not None:
            faults = list(unsupported(found, node))
        if found is None or faults:
            raise InvalidArgument("; ".join(f"{fault.pointer} {fault.text}" for fault in faults))
        if not isinstance(found, Taken) or (isinstance(found, Deployment) and source.suffix):
            raise InvalidArgument(f"{value.get('kind')}: this node takes {TAKEN}")
        found = with_suffix(found, source.suffix)
        key = key_of(found)
        if any(key == other for other, *_ in plans):
            raise InvalidArgument(f"{key[0]} {key[1]}/{key[2]} is given twice")
        path = file_of(source, key)
        kept = source.objects.get(key)
        if kept is not None and kept.file != path:
            raise FailedPrecondition(f"{key[0]} {key[1]}/{key[2]} is in {kept.place}", hint="edit it there")
        what = "created" if kept is None else "unchanged" if kept.object == found else "configured"
        plans.append((key, path, value, what))
    for _, path, value, what in plans:
        if what != "unchanged":
            write_file(path, (json.dumps(value, indent=2) + "\n").encode(), MODE)
    return [
        {"kind": kind, "namespace": namespace, "name": name, "what": what}
        for (kind, namespace, name), _, _, what in plans
    ]


def write_file(path: str, data: bytes, mode: int) -> None:
    """Whole, or not at all; what somebody left who was killed here goes. PyrunError."""
    directory, name = os.path.split(path)
    made = os.path.join(directory, f".{name}.{os.urandom(4).hex()}{HALF}")  # two may apply the same at once
    try:
        _sweep(directory)
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(made, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(made)
        raise PyrunError(f"{path}: {reason(error)}") from None


def _sweep(directory: str) -> None:
    with os.scandir(directory) as found:
        for one in found:
            if one.name.startswith(".") and one.name.endswith(HALF):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - one.stat(follow_symlinks=False).st_mtime > HALF_S:
                        os.unlink(one.path)


def delete(source: Source, key: Key, *, gone: bool) -> str:
    """Removes the file that has the object and nothing else. gone: one that no file has any more is no error."""
    kept = source.objects.get(key)
    if kept is None:
        if gone:
            return ""
        raise NotFound(f"there is no {key[0]} {key[1]}/{key[2]}")
    if is_url(kept.file):
        raise FailedPrecondition(f"{key[0]} {key[1]}/{key[2]} comes of {kept.file}", hint="take it out there")
    if len(source.in_file(kept.file)) > 1:
        raise FailedPrecondition(f"{kept.file} has other objects, too", hint=f"take it out there, at {kept.place}")
    try:
        os.unlink(kept.file)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise PyrunError(f"{kept.file}: {reason(error)}") from None
    return kept.file
