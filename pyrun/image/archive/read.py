"""The images of an archive, as sources for the one way in (pyrun/image/fetch.py).

An OCI layout says what its documents and blobs are. A docker archive of old has a manifest.json alone: a manifest is
made for it here, of digests that are counted, and its layers are then held against the config's diffIDs as all are.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pyrun.errors import InvalidArgument
from pyrun.image.archive.files import Files
from pyrun.image.documents import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    JSON_MOST,
    OCI_LAYER,
    Descriptor,
    Index,
    parse_document,
)
from pyrun.image.fetch import Cancelled, Write, digest_of
from pyrun.image.reference import Reference, parse_reference

NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
IMAGES_MOST = 1000
FORMS = ((b"\x1f\x8b", "+gzip"), (b"\x28\xb5\x2f\xfd", "+zstd"))


@dataclass(frozen=True)
class Found:
    """One image of an archive. want: the document to begin with. named: it came with a digest that a registry knows."""

    names: tuple[Reference, ...]
    source: Layout | Docker
    want: Descriptor
    named: bool


class Layout:
    """The blobs of an OCI layout."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def document(self, descriptor: Descriptor | None) -> tuple[bytes, str]:
        assert descriptor is not None
        return self._files.read(_blob(descriptor.digest), JSON_MOST), descriptor.media_type

    def blob(self, descriptor: Descriptor, write: Write, cancelled: Cancelled) -> None:
        _send(self._files, _blob(descriptor.digest), write, cancelled)

    def blame(self, descriptor: Descriptor) -> bool:
        return False


class Docker:
    """One entry of a manifest.json."""

    def __init__(self, files: Files, config: str, layers: list[str]) -> None:
        self._files = files
        self._names: dict[str, str] = {}
        document = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST,
            "config": self._described(config, DOCKER_CONFIG),
            "layers": [self._described(name, OCI_LAYER + self._form(name)) for name in layers],
        }
        self._manifest = json.dumps(document).encode()
        self.want = Descriptor(DOCKER_MANIFEST, digest_of(self._manifest), len(self._manifest))

    def _form(self, name: str) -> str:
        begin = next(self._files.pieces(name), b"")
        return next((form for magic, form in FORMS if begin.startswith(magic)), "")

    def _described(self, name: str, media_type: str) -> dict[str, Any]:
        state, size = hashlib.sha256(), 0
        for data in self._files.pieces(name):
            state.update(data)
            size += len(data)
        digest = f"sha256:{state.hexdigest()}"
        self._names[digest] = name
        return {"mediaType": media_type, "digest": digest, "size": size}

    def document(self, descriptor: Descriptor | None) -> tuple[bytes, str]:
        return self._manifest, DOCKER_MANIFEST

    def blob(self, descriptor: Descriptor, write: Write, cancelled: Cancelled) -> None:
        _send(self._files, self._names[descriptor.digest], write, cancelled)

    def blame(self, descriptor: Descriptor) -> bool:
        return False


def find_images(files: Files) -> list[Found]:
    """All images of the archive. Raises InvalidArgument where it is none."""
    if files.has("index.json") and files.has("oci-layout"):
        return _of_layout(files)
    if files.has("manifest.json"):
        return _of_docker(files)
    raise InvalidArgument("neither index.json nor manifest.json is in it", hint="an OCI layout or a docker archive is")


def _of_layout(files: Files) -> list[Found]:
    index = parse_document(files.read("index.json", JSON_MOST), "")
    if not isinstance(index, Index):
        raise InvalidArgument("index.json is no index")
    made: dict[str, Found] = {}
    for descriptor in index.manifests:
        notes = dict(descriptor.annotations)
        name = next((notes[key] for key in NAMES if _is_whole(notes.get(key, ""))), None)
        names = (parse_reference(name),) if name else ()
        if (before := made.get(descriptor.digest)) is not None:  # one image by two names
            names = (*before.names, *names)
        made[descriptor.digest] = Found(names, Layout(files), descriptor, True)
    return list(made.values())


def _is_whole(name: str) -> bool:
    """A name of an image and not only a tag, which is what layouts mostly have."""
    return "/" in name or ":" in name


def _of_docker(files: Files) -> list[Found]:
    try:
        entries = json.loads(files.read("manifest.json", JSON_MOST))
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"manifest.json: no JSON: {error}")
    if not isinstance(entries, list) or len(entries) > IMAGES_MOST:
        raise InvalidArgument(f"manifest.json: it must be a list of at most {IMAGES_MOST} images")
    made = []
    for entry in entries:
        config, layers = (entry.get("Config"), entry.get("Layers")) if isinstance(entry, dict) else (None, None)
        tags = entry.get("RepoTags") or [] if isinstance(entry, dict) else None
        if not isinstance(config, str) or not _strings(layers) or not _strings(tags):
            raise InvalidArgument("manifest.json: an image has a Config, Layers and RepoTags")
        source = Docker(files, config, layers or [])
        made.append(Found(tuple(parse_reference(tag) for tag in tags or []), source, source.want, False))
    return made


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _send(files: Files, name: str, write: Write, cancelled: Cancelled) -> None:
    for data in files.pieces(name):
        if cancelled():
            return
        write(data)
