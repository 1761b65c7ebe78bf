"""A directory of manifests, followed by inotify: what its files want, and of one that is broken what it said last."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from ...errors import PyrunError
from ...kube.feed.looks import LATEST_S, STILL_S, Looks
from ...kube.objects.apps import Deployment
from ...kube.objects.base import Object
from ...kube.objects.config import ConfigMap, Secret
from ...kube.objects.meta import ObjectMeta
from ...kube.objects.pods import Pod
from ..manifests import Fault, read_objects

AGAIN_S = 2.0
TAKEN = "Pod, Deployment, ConfigMap and Secret"
OTHERS = ("Service", "EndpointSlice", "Node")  # for the proxy and the DNS, in one directory
Key = tuple[str, str, str]  # kind, namespace, name
Taken = Pod | ConfigMap | Secret | Deployment


class Wanted(NamedTuple):
    """An object and where it stands: the file, and its first line."""

    object: Object
    file: str
    place: str


@dataclass(slots=True)
class _File:
    objects: dict[Key, Wanted] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class Source:
    """changed: called in the loop when what is wanted is another. objects, faults: as of now. read: the directory could
    be read at least once; complete: and a URL has said what it wants; before that nothing is known to be unwanted."""

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
        self._looks = Looks(self.path)
        self._timer: asyncio.TimerHandle | None = None
        self._latest = 0.0
        self.error = ""
        self.read = False
        self._unheard: set[str] = set()

    @property
    def complete(self) -> bool:
        return self.read and not self._unheard

    def put(self, name: str, objects: dict[Key, Wanted], faults: list[Fault], *, heard: bool) -> None:
        """What another place than the directory says, as if it were a file of that name. heard: it has said so."""
        before, complete = self.objects, self.complete
        self._files[name] = _File(dict(objects), faults)
        (self._unheard.discard if heard else self._unheard.add)(name)
        if self.read and (before != self.objects or complete != self.complete):
            self._changed()

    def start(self) -> None:
        """Reads all of it, and follows it."""
        self.look()
        asyncio.get_running_loop().add_reader(self._looks.fileno(), self._stirred)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._looks.fileno())
        if self._timer is not None:
            self._timer.cancel()
        self._looks.close()

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
        return frozenset(path for path in self._files if not is_url(path))

    @property
    def broken(self) -> frozenset[str]:
        """Of the files that have a fault."""
        return frozenset(path for path, file in self._files.items() if file.faults)

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
        self._looks.stir()
        loop = asyncio.get_running_loop()
        if self._timer is None:
            self._latest = loop.time() + LATEST_S
        else:
            self._timer.cancel()
        self._timer = loop.call_at(min(loop.time() + STILL_S, self._latest), self.look)

    def look(self) -> None:
        """Reads what has changed."""
        self._timer = None
        try:
            gone, changed = self._looks.look()
        except PyrunError as error:
            self._lost(error.text)
            return
        if self.error:
            self._warn(f"{self.path}: is there again")
        self.error, before = "", self.objects
        for path in gone:
            self._files.pop(path, None)
        for path in changed:
            self._read(path)
        first, self.read = not self.read, True
        if first or before != self.objects:
            self._changed()

    def _lost(self, text: str) -> None:
        """What was in it stays; it is looked for again."""
        if text != self.error:
            self.error = text
            self._warn(f"{text}; what was in it stays")
        self._timer = asyncio.get_running_loop().call_later(AGAIN_S, self.look)

    def _read(self, path: str) -> None:
        kept = self._files.get(path)
        objects, faults = read_file(path, self._node, suffix=self.suffix)
        if faults:
            before = kept.objects if kept is not None else self._last.get(path, {})
            objects = before or objects  # what is right in a new file counts
        for fault in faults:
            self._warn(f"{fault}" + ("; what it said before stays" if kept and kept.objects else ""))
        self._files[path] = _File(objects, faults)


def is_url(name: str) -> bool:
    """Whether it is a place that nobody can write to here."""
    return "://" in name


def read_file(
    path: str, node: str, data: bytes | None = None, suffix: str = ""
) -> tuple[dict[Key, Wanted], list[Fault]]:
    """What this node takes. data: what is read in place of the file. suffix: of pods' names."""
    try:
        read, faults = read_objects(path, node, data)
    except PyrunError as error:
        return {}, [Fault(path, 1, 1, "", error.text.removeprefix(f"{path}: "))]
    found: dict[Key, Wanted] = {}
    for document, one in read:
        if getattr(one, "kind", None) in OTHERS:
            continue
        if isinstance(one, Deployment) and suffix:
            text = "is not supported: this node has an API server, whose controllers are for that"
            faults.append(Fault(path, *document.line("/kind"), "/kind", text))
            continue
        if not isinstance(one, Taken):
            text = f"is not supported: this node takes {TAKEN}; {', '.join(OTHERS)} are passed over"
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
