"""A directory of manifests, followed by inotify: what its files want, and of one that is broken what it said last.

A file is read when it has been closed or moved into place and the directory has been still for a moment, so that what
an editor does is one change; names that editors and downloads leave beside are not looked at.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from ... import inotify
from ...errors import PyrunError
from ...kube.feed.directory import is_ours
from ...kube.objects.base import Object
from ...kube.objects.config import ConfigMap, Secret
from ...kube.objects.meta import ObjectMeta
from ...kube.objects.pods import Pod
from ..manifests import Fault, read_objects

STILL_S, LATEST_S, AGAIN_S = 0.03, 0.5, 2.0
OTHERS = ("Service", "EndpointSlice", "Node")  # for the proxy and the DNS, in one directory
Key = tuple[str, str, str]  # kind, namespace, name
Taken = Pod | ConfigMap | Secret


class Wanted(NamedTuple):
    """An object and where it stands: the file, and its first line."""

    object: Object
    file: str
    place: str


@dataclass(slots=True)
class _File:
    mark: tuple[int, ...]
    objects: dict[Key, Wanted] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class Source:
    """changed: called in the loop when what is wanted is another. objects, faults: as of now. read: the directory could
    be read at least once; before that nothing is known to be unwanted."""

    def __init__(
        self,
        path: str,
        node: str,
        changed: Callable[[], None],
        warn: Callable[[str], None],
        last: Iterable[Wanted],
        suffix: str = "",
    ) -> None:
        """last: what an agent before this one had, for files that are broken now. suffix: of pods' names, where an API
        server has pods of all nodes."""
        self.suffix = suffix
        self.path, self._node, self._changed, self._warn = os.path.abspath(path), node, changed, warn
        self._last: dict[str, dict[Key, Wanted]] = {}
        for one in last:
            self._last.setdefault(one.file, {})[key_of(one.object)] = one
        self._files: dict[str, _File] = {}
        self._watch = inotify.Watch()
        self._wd = -1
        self._timer: asyncio.TimerHandle | None = None
        self._latest = 0.0
        self.error = ""
        self.read = False

    def start(self) -> None:
        """Reads all of it, and follows it."""
        self.look()
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._stirred)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._watch.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._watch.close()

    @property
    def objects(self) -> dict[Key, Wanted]:
        """Of the file that has it first, by name, where two have it."""
        found: dict[Key, Wanted] = {}
        for _, file in sorted(self._files.items()):
            for key, one in file.objects.items():
                found.setdefault(key, one)
        return found

    @property
    def paths(self) -> frozenset[str]:
        """Of the files that are looked at."""
        return frozenset(self._files)

    def in_file(self, path: str) -> dict[Key, Wanted]:
        file = self._files.get(path)
        return dict(file.objects) if file is not None else {}

    @property
    def faults(self) -> list[Fault]:
        found = [fault for _, file in sorted(self._files.items()) for fault in file.faults]
        return [*found, *self._twice()]

    def _twice(self) -> list[Fault]:
        kept, found = self.objects, []
        for path, file in sorted(self._files.items()):
            for key, one in file.objects.items():
                if kept[key] is not one:
                    text = f"{key[0]} {key[1]}/{key[2]} is in {kept[key].place}, too, and that counts"
                    found.append(Fault(path, line_of(one.place), 1, "", text))
        return found

    # --- reading ---

    def _stirred(self) -> None:
        """Something has happened: it is looked at when nothing does any more."""
        for event in self._watch.read():
            if event.wd == self._wd and event.mask & (inotify.DELETE_SELF | inotify.MOVE_SELF | inotify.IGNORED):
                self._wd = -1
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._latest = loop.time() + LATEST_S
        else:
            self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + STILL_S, self._latest), self.look)

    def look(self) -> None:
        """What has changed, by inode, size and times."""
        self._timer = None
        try:
            if self._wd < 0:
                self._wd = self._watch.add(self.path, inotify.CHANGES | inotify.ONLYDIR)
            names = sorted(name for name in os.listdir(self.path) if is_ours(name))
        except (OSError, PyrunError) as error:
            self._lost(error)
            return
        if self.error:
            self._warn(f"{self.path}: is there again")
        self.error, before = "", self.objects
        paths = {os.path.join(self.path, name) for name in names}
        for path in self._files.keys() - paths:
            del self._files[path]
        for path in sorted(paths):
            self._look_at(path)
        first, self.read = not self.read, True
        if first or before != self.objects:
            self._changed()

    def _lost(self, error: Exception) -> None:
        """What was in it stays; it is looked for again."""
        text = error.text if isinstance(error, PyrunError) else f"{self.path}: {getattr(error, 'strerror', error)}"
        if text != self.error:
            self.error = text
            self._warn(f"{text}; what was in it stays")
        self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self.look)

    def _look_at(self, path: str) -> None:
        try:
            at = os.stat(path)
        except OSError:
            return  # it is just being moved; an event follows
        mark = (at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
        kept = self._files.get(path)
        if kept is not None and kept.mark == mark:
            return
        objects, faults = read_file(path, self._node, suffix=self.suffix)
        if faults:
            before = kept.objects if kept is not None else self._last.get(path, {})
            objects = before or objects  # what is right in a new file counts
        for fault in faults:
            self._warn(f"{fault}" + ("; what it said before stays" if kept and kept.objects else ""))
        self._files[path] = _File(mark, objects, faults)


def read_file(
    path: str, node: str, data: bytes | None = None, suffix: str = ""
) -> tuple[dict[Key, Wanted], list[Fault]]:
    """Pods, ConfigMaps and Secrets. data: what is read in place of the file. suffix: of pods' names."""
    try:
        read, faults = read_objects(path, node, data)
    except PyrunError as error:
        return {}, [Fault(path, 1, 1, "", error.text.removeprefix(f"{path}: "))]
    found: dict[Key, Wanted] = {}
    for document, one in read:
        if getattr(one, "kind", None) in OTHERS:
            continue
        if not isinstance(one, Pod | ConfigMap | Secret):
            text = f"is not supported: this node takes Pod, ConfigMap and Secret; {', '.join(OTHERS)} are passed over"
            faults.append(Fault(path, *document.line("/kind"), "/kind", text))
            continue
        one = with_suffix(one, suffix)
        key = key_of(one)
        if key in found:
            faults.append(Fault(path, *document.line(), "", f"{key[0]} {key[1]}/{key[2]} is in this file twice"))
            continue
        found[key] = Wanted(one, path, document.place())
    return found, faults


def with_suffix(one: Taken, suffix: str) -> Taken:
    """A pod by the name that it has in a cluster, which no other node's has; all else as it is."""
    if not suffix or not isinstance(one, Pod) or one.metadata is None:
        return one
    meta = msgspec.structs.replace(one.metadata, name=f"{one.metadata.name}{suffix}")
    return msgspec.structs.replace(one, metadata=meta)


def key_of(one: Object) -> Key:
    meta: ObjectMeta = getattr(one, "metadata", None) or ObjectMeta()
    return type(one).__name__, meta.namespace or "default", meta.name or ""


def line_of(place: str) -> int:
    """Of FILE:LINE or FILE:LINE:COLUMN."""
    words = place.rpartition("/")[2].split(":")
    return int(words[1]) if len(words) > 1 else 1


def uid_of(pod: Pod, node: str) -> str:
    """The same for the same words on the same node, and another when anything of them is another."""
    if pod.metadata is not None and pod.metadata.uid:
        return pod.metadata.uid
    digest = hashlib.sha256(node.encode() + b"\0" + msgspec.json.encode(pod, order="deterministic")).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"
