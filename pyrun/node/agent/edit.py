"""Manifests as people edit them from afar: a file's text, what another text of it would change, and the change.

What is edited is the file, so that its comments, its order and its other objects stay. Whoever changes it names the
version that he has seen; what somebody else has written meanwhile is not overwritten."""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from typing import Any

from ...errors import FailedPrecondition, InvalidArgument, NotFound, PyrunError, reason
from ...kube import manifest
from ...kube.objects.pods import Pod
from ..admission import Allocatable
from ..explain import explain_pod
from ..manifests import Fault, read_objects
from .applied import apply, write_file
from .source import Key, Source, is_url, key_of, read_file

LONGEST = 1 << 20
MOST_LINES = 2000


def manifest_of(source: Source, key: Key) -> dict[str, Any]:
    """{file, text, version} of the file that has an object."""
    kept = source.objects.get(key)
    if kept is None:
        raise NotFound(f"no manifest has {key[0]} {key[1]}/{key[2]}")
    if is_url(kept.file):
        raise FailedPrecondition(f"{key[0]} {key[1]}/{key[2]} comes of {kept.file}", hint="edit it there")
    data = _read(kept.file)
    return {"file": kept.file, "text": data.decode("utf-8", "replace"), "version": _version(data)}


def change(
    source: Source, file: str, version: str, text: str, node: str, room: Allocatable, *, dry: bool
) -> dict[str, Any]:
    """{faults, diff, objects: [{kind, namespace, name, what}], plan: [{pod, lines}], written, version}. With faults
    nothing is written. file: one that is there already, or "" for new objects, each of which gets a file of its own."""
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > LONGEST:
        raise InvalidArgument(f"a manifest of more than {LONGEST >> 20} MiB can't be edited here")
    if file and file not in source.paths:
        raise NotFound(f"{file} is no manifest of this node", hint=f"manifests are in {source.path}")
    before = _read(file) if file else b""
    if file and _version(before) != version:
        raise FailedPrecondition(f"{file} was changed meanwhile", hint="load it anew, and edit that")
    name = file or "new"
    read, _ = read_objects(name, node, data)
    wanted, faults = read_file(name, node, data, source.suffix)
    kept = source.objects
    faults += [
        Fault(name, 1, 1, "", f"{key[0]} {key[1]}/{key[2]} is in {kept[key].place}: edit it there")
        for key in wanted
        if key in kept and kept[key].file != file
    ]
    if not faults and not wanted and not file:
        faults = [Fault(name, 1, 1, "", "there is no object in it")]
    found: dict[str, Any] = {
        "faults": [fault._asdict() for fault in faults],
        "diff": _diff(before, data),
        "objects": _changes(source, file, wanted),
        "plan": [
            {"pod": f"{key_of(one.object)[1]}/{key_of(one.object)[2]}", "lines": _plan(one.object, one.document, room)}
            for one in read
            if isinstance(one.object, Pod)
        ],
        "written": False,
        "version": version,
    }
    if dry or faults:
        return found
    if file:
        if _version(_read(file)) != version:
            raise FailedPrecondition(f"{file} was changed meanwhile", hint="load it anew, and edit that")
        write_file(file, data, stat.S_IMODE(os.stat(file, follow_symlinks=False).st_mode))
    else:
        apply(source, [one.document.value for one in read], node)
    return found | {"written": True, "version": _version(data)}


def _plan(pod: Pod, document: manifest.Document, room: Allocatable) -> list[dict[str, str]]:
    return [
        {"part": line.part, "text": line.text, "place": document.place(line.pointer) if line.pointer else ""}
        for line in explain_pod(pod, room)
    ]


def _changes(source: Source, file: str, wanted: dict[Key, Any]) -> list[dict[str, str]]:
    kept = source.in_file(file) if file else {}
    told = []
    for key in sorted(kept.keys() | wanted.keys()):
        if key not in wanted:
            what = "deleted"
        elif key not in kept:
            what = "created"
        else:
            what = "unchanged" if kept[key].object == wanted[key].object else "configured"
        told.append({"kind": key[0], "namespace": key[1], "name": key[2], "what": what})
    return told


def _diff(before: bytes, after: bytes) -> list[str]:
    old, new = (data.decode("utf-8", "replace").splitlines() for data in (before, after))
    if len(old) + len(new) > MOST_LINES * 10:
        return ["(too long to be compared)"]
    return list(difflib.unified_diff(old, new, "as it is", "as it would be", lineterm=""))[:MOST_LINES]


def _read(path: str) -> bytes:
    """Of a regular file: what is behind a link is not edited."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}", hint="only plain files can be edited from here") from None
    with open(fd, "rb") as opened:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument(f"{path} is no regular file")
        data = opened.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise InvalidArgument(f"{path} has more than {LONGEST >> 20} MiB and can't be edited here")
    return data


def _version(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
