"""Whether images are still what came: their documents and layers, as they lie on the disk, against their digests.

A layer's blob is not kept, so its diffID can't be computed again; compared is the digest of what was unpacked, recorded
when blob and tar had been checked (layers.content_digest). It finds what a disk, a power cut or a hand has changed, and
not who may write meta.db as well. What is found damaged is marked: no new container gets it, and the next pull brings
it again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from pyrun.errors import NotFound, PyrunError, reason
from pyrun.image import layer_program, layers
from pyrun.image.contents import DIRECTORY, Contents, Ingest
from pyrun.image.documents import Manifest, parse_document
from pyrun.image.store import Images

OK, DAMAGED, UNKNOWN = "ok", "damaged", "unknown"
NOT_RECORDED = "an older version unpacked it, and recorded nothing to compare with"


@dataclass(frozen=True)
class Part:
    """kind: config, manifest or layer. digest: its name. state: OK, DAMAGED or UNKNOWN, with why for the latter two."""

    kind: str
    digest: str
    state: str
    why: str = ""


@dataclass(frozen=True)
class Verified:
    """id, name: of an image."""

    id: str
    name: str
    parts: tuple[Part, ...]

    def having(self, state: str) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.state == state)


def verify(images: Images, ids: Iterable[str], *, cancel: Callable[[], bool] | None = None) -> list[Verified]:
    """Reads all that these images are of; a layer once, though several have it. An image that is removed meanwhile is
    left out. Aborted when `cancel` says so."""
    seen: dict[str, Part] = {}
    found = []
    with Ingest(images.contents) as ingest:
        for image_id in ids:
            query = "SELECT diff_id FROM image_layers WHERE image = ? ORDER BY position"
            for diff_id in images.contents.database.words(query, image_id):
                if diff_id not in seen and images.contents.lease(ingest, diff_id, damaged=True):
                    seen[diff_id] = _layer(images.contents, diff_id, cancel)
            of_image = dict.fromkeys(images.contents.database.words(query, image_id))
            parts = (*_documents(images, image_id), *(seen[diff_id] for diff_id in of_image if diff_id in seen))
            with suppress(NotFound):
                found.append(Verified(image_id, images.find(image_id).name, parts))
    return found


def check_database(images: Images) -> list[str]:
    """What SQLite finds wrong with meta.db; nothing where it is sound."""
    return [said for said in images.contents.database.words("PRAGMA integrity_check") if said != "ok"]


def _documents(images: Images, image_id: str) -> list[Part]:
    try:
        manifest, config = images.manifest(image_id)
    except PyrunError as error:
        return [Part("config", image_id, DAMAGED, error.text)]
    ((wanted,),) = images.contents.database.rows("SELECT manifest_digest FROM images WHERE id = ?", image_id)
    found = _digest(config)
    parts = [Part("config", image_id, OK) if found == image_id else Part("config", image_id, DAMAGED, f"it is {found}")]
    if wanted is None:
        return [*parts, _unrecorded_manifest(manifest, image_id)]
    found = _digest(manifest)
    state, why = (OK, "") if found == wanted else (DAMAGED, f"it is {found}")
    return [*parts, Part("manifest", str(wanted), state, why)]


def _unrecorded_manifest(manifest: bytes, image_id: str) -> Part:
    """One that an older version brought: at least it can be read, and names this config."""
    name = _digest(manifest)
    try:
        document = parse_document(manifest, "")
    except PyrunError as error:
        return Part("manifest", name, DAMAGED, error.text)
    if not isinstance(document, Manifest) or document.config.digest != image_id:
        return Part("manifest", name, DAMAGED, "it is of another image")
    return Part("manifest", name, UNKNOWN, NOT_RECORDED)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _layer(contents: Contents, diff_id: str, cancel: Callable[[], bool] | None) -> Part:
    """Looks at it and marks it. One that a pull has brought anew meanwhile is looked at anew."""
    while True:
        with contents.locked():
            (row,) = contents.database.rows("SELECT kind, content FROM layers WHERE diff_id = ?", diff_id)
            try:
                directory = os.open(diff_id.removeprefix("sha256:"), DIRECTORY, dir_fd=contents.layers)
            except OSError as error:
                part = Part("layer", diff_id, DAMAGED, f"its directory: {reason(error)}")
                contents.mark(part.why, diff_id)
                return part
        try:
            part = _compared(diff_id, directory, str(row[0]), row[1], cancel)
            with contents.locked():
                if _is_there(contents, diff_id, directory):
                    contents.mark(part.why if part.state == DAMAGED else None, diff_id)
                    return part
        finally:
            os.close(directory)


def _compared(diff_id: str, directory: int, kind: str, recorded: object, cancel: Callable[[], bool] | None) -> Part:
    try:
        found = layers.content_digest(directory, kind, cancel=cancel)
    except layer_program.BadEntry as error:
        return Part("layer", diff_id, DAMAGED, error.text)
    if recorded is None:
        return Part("layer", diff_id, UNKNOWN, NOT_RECORDED)
    if found != recorded:
        return Part("layer", diff_id, DAMAGED, "what is there is not what was unpacked")
    return Part("layer", diff_id, OK)


def _is_there(contents: Contents, diff_id: str, directory: int) -> bool:
    """Whether it is still the layer's; where there is none any more it was the last one."""
    try:
        there = os.stat(diff_id.removeprefix("sha256:"), dir_fd=contents.layers, follow_symlinks=False)
    except OSError:
        return True
    return os.path.samestat(there, os.fstat(directory))
