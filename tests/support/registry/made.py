"""Images made on the fly: layers from tars, in any compression, docker's or OCI's documents, indexes."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyrun.image.documents import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
)
from tests.support.layers import Tar

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, check=True, stdout=subprocess.PIPE).stdout


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda tar: gzip.compress(tar, 1, mtime=0),
    "zstd": zstd,
    "": lambda tar: tar,
}


@dataclass
class Made:
    """An image's documents and blobs. top: the digest to ask for. id: the config's."""

    top: str
    id: str
    media_type: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    diff_ids: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def source(self) -> MadeSource:
        return MadeSource(self)

    def descriptor(self) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.top, "size": len(self.blobs[self.top])}


class MadeSource:
    """The image as pyrun.image.fetch wants one, without a registry."""

    def __init__(self, made: Made) -> None:
        self.made = made

    def document(self, descriptor: Descriptor | None) -> tuple[bytes, str]:
        digest = descriptor.digest if descriptor else self.made.top
        return self.made.blobs[digest], self.made.types[digest]

    def blob(self, descriptor: Descriptor, write: Any, cancelled: Any) -> None:
        data = self.made.blobs[descriptor.digest]
        for at in range(0, len(data), 1 << 18):
            write(data[at : at + (1 << 18)])

    def blame(self, descriptor: Descriptor) -> bool:
        return False


def make_image(
    tars: list[bytes],
    config: dict[str, Any] | None = None,
    *,
    form: str = "gzip",
    docker: bool = False,
    architecture: str = "amd64",
    **more: Any,
) -> Made:
    """An image of these layers' tars, lowest first. config: its `config` object. more: members of the manifest."""
    blobs = {digest_of(blob := FORMS[form](tar)): blob for tar in tars}
    diff_ids = [digest_of(tar) for tar in tars]
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config_blob = json.dumps(document).encode()
    base = DOCKER_LAYER if docker else OCI_LAYER
    kind = f"{base}{('.' if docker else '+') + form if form else ''}"
    layers = [{"mediaType": kind, "digest": digest_of(b := FORMS[form](tar)), "size": len(b)} for tar in tars]
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": {
            "mediaType": DOCKER_CONFIG if docker else OCI_CONFIG,
            "digest": digest_of(config_blob),
            "size": len(config_blob),
        },
        "layers": layers,
        **more,
    }
    data = json.dumps(manifest).encode()
    top, media_type = digest_of(data), str(manifest["mediaType"])
    blobs |= {digest_of(config_blob): config_blob, top: data}
    made_layers = tuple(str(layer["digest"]) for layer in layers)
    return Made(top, digest_of(config_blob), media_type, blobs, {top: media_type}, tuple(diff_ids), made_layers)


def make_index(*images: tuple[str, Made], docker: bool = False) -> Made:
    """An index of images by platform: ("linux/amd64", made), …"""
    entries = []
    for platform, made in images:
        os, architecture, *variant = platform.split("/")
        where = {"os": os, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
        entries.append({**made.descriptor(), "platform": where})
    media_type = DOCKER_LIST if docker else OCI_INDEX
    data = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
    blobs, types = {digest_of(data): data}, {digest_of(data): media_type}
    for _, made in images:
        blobs |= made.blobs
        types |= made.types
    first = images[0][1]
    return Made(digest_of(data), first.id, media_type, blobs, types, first.diff_ids, first.layers)


def tree_tar(root: Path) -> bytes:
    """A directory as a layer's tar."""
    command = ["tar", "--numeric-owner", "--sort=name", "--mtime=@1000000000", "-C", str(root), "-c", "."]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def small_tar(name: str, text: str = "hello\n") -> bytes:
    return Tar().dir("./").file(name, text.encode()).bytes()
