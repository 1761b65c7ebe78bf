"""Images of the store into an archive that is an OCI layout and docker's format at once, as docker save makes it.

Layers are kept unpacked, so their tars are made anew. A tar that differs by a byte has another diffID, and a config
that names it another digest: an exported image has an id of its own, and always the same one.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from typing import IO, Any

from pyrun.image.archive.tree import write_tree
from pyrun.image.documents import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, parse_object
from pyrun.image.fetch import digest_of
from pyrun.image.store import Image, Images


def export(images: Images, wanted: list[Image], out: IO[bytes], owner: str) -> None:
    """Writes the archive. owner: who holds the images meanwhile."""
    writer = _Writer(images, out)
    try:
        for image in wanted:
            images.hold(image.id, owner)
        for image in wanted:
            writer.add(image)
        writer.finish()
    finally:
        images.release(owner)


class _Writer:
    def __init__(self, images: Images, out: IO[bytes]) -> None:
        self._images = images
        self._tar = tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT)
        self._there: set[str] = set()
        self._layers: dict[str, dict[str, Any]] = {}
        self._index: list[dict[str, Any]] = []
        self._docker: list[dict[str, Any]] = []

    def add(self, image: Image) -> None:
        layers = [self._layer(diff_id) for diff_id in image.file.diff_ids]
        document = parse_object(self._images.manifest(image.id)[1], "image config")
        document["rootfs"] = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
        config = self._blob(json.dumps(document, sort_keys=True).encode(), OCI_CONFIG)
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        top = self._blob(json.dumps(manifest, sort_keys=True).encode(), OCI_MANIFEST)
        for tag in image.tags or ("",):
            notes = {"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag.rpartition(":")[2]}
            self._index.append(top | ({"annotations": notes} if tag else {}))
        paths = [_path(layer["digest"]) for layer in layers]
        self._docker.append({"Config": _path(config["digest"]), "RepoTags": list(image.tags), "Layers": paths})

    def finish(self) -> None:
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self._index}
        self._file("index.json", json.dumps(index).encode())
        self._file("manifest.json", json.dumps(self._docker).encode())
        self._file("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        self._tar.close()

    def _layer(self, diff_id: str) -> dict[str, Any]:
        if diff_id not in self._layers:
            root = self._images.contents.root
            with open(os.open(root, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600), "w+b") as file:
                digest, size = write_tree(self._images.contents.mounted(diff_id), file)
                file.seek(0)
                self._member(_path(digest), size, file)
            self._layers[diff_id] = {"mediaType": OCI_LAYER, "digest": digest, "size": size}
        return self._layers[diff_id]

    def _blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = digest_of(data)
        self._member(_path(digest), len(data), io.BytesIO(data))
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def _file(self, name: str, data: bytes) -> None:
        self._member(name, len(data), io.BytesIO(data))

    def _member(self, name: str, size: int, file: IO[bytes]) -> None:
        if name in self._there:
            return
        self._there.add(name)
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        self._tar.addfile(info, file)


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
