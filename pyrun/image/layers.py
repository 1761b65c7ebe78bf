"""A layer's blob becomes a directory that overlayfs can take, or an image of one (erofs.py), and goes again.

All that touches the blob's bytes or the directory's entries is pyrun-layer, a process that has that one directory and
no more (layer_program.py). Here is what is asked of it, and the check of what it has found: digests and lengths.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from pyrun.errors import PyrunError, Unimplemented
from pyrun.image import erofs, layer_program
from pyrun.image.layer_program import Progress, what_is_missing

__all__ = [
    "AUTO",
    "DIR",
    "EROFS",
    "LIMITS",
    "Limits",
    "Progress",
    "Unpacked",
    "content_digest",
    "remove",
    "sync",
    "unpack",
    "what_is_missing",
]

MEDIA_TYPES = frozenset(
    {
        *(f"application/vnd.oci.image.layer.v1.tar{form}" for form in ("", "+gzip", "+zstd")),
        *(f"application/vnd.docker.image.rootfs.diff.tar{form}" for form in ("", ".gzip", ".zstd")),
    }
)
Names = tuple[bytes, ...]
DIR, EROFS, AUTO = "dir", "erofs", "auto"  # what a layer is to be
PATIENCE_S = 300.0  # a disk may take a minute for what lies in its caches


@dataclass(frozen=True)
class Limits:
    """What a layer may ask for. bytes: of its tar. ratio: tar to blob, beyond the tar's first ratio_after bytes.
    entries: with the directories that are only implied. path: bytes of a name. header: bytes of an entry's headers."""

    bytes: int = 64 << 30
    ratio: int = 200
    ratio_after: int = 64 << 20
    entries: int = 2_000_000
    path: int = 4095
    header: int = 64 << 10


LIMITS = Limits()


@dataclass(frozen=True)
class Unpacked:
    """digest: of the blob, where it was asked for. bytes, inodes: of the directory with itself, as `du` counts them.
    implied: directories that the layer has no entry for, made 0755 root:root, first of them only where there are
    thousands. devices: entries that were left out, because devices are the node's to give. kind: DIR or EROFS.
    content: what content_digest() says of it, where it was asked for."""

    diff_id: str
    digest: str | None
    size: int
    tar_bytes: int
    entries: int
    bytes: int
    inodes: int
    devices: int
    implied: Names
    landlock: int
    kind: str = DIR
    content: str | None = None


def unpack(
    blob: str | int,
    media_type: str | None,
    into: int,
    *,
    diff_id: str | None = None,
    digest: str | None = None,
    size: int | None = None,
    limits: Limits = LIMITS,
    progress: Progress | None = None,
    deadline_s: float | None = None,
    patience_s: float | None = PATIENCE_S,
    cancel: Callable[[], bool] | None = None,
    kind: str = DIR,
    content: bool = False,
) -> Unpacked:
    """Unpacks `blob` into the directory `into`. A file's path, or a descriptor that is read to its end: file or pipe.

    diff_id, digest, size: what tar and blob must be (``sha256:…``); the blob's bytes are hashed only for `digest`.
    media_type: one that we know, or None; the form itself (plain, gzip, zstd) is told by the first bytes.
    Nothing is waited for to be written out: sync() does that. After an error the directory holds what had been written:
    remove it. PyrunError names the entry. kind: EROFS puts a file system's image with the same files there, and the
    directory to mount it on.
    """
    if media_type is not None and media_type not in MEDIA_TYPES:
        raise Unimplemented(f"a layer of media type {media_type}", hint="tar, plain or by gzip or zstd, is supported")
    for wanted in (diff_id, digest):
        if wanted is not None and not wanted.startswith("sha256:"):
            raise Unimplemented(f"digest {wanted}", hint="only sha256 is supported")
    options = {name: getattr(limits, name) for name in Limits.__dataclass_fields__}
    options |= {"hash": int(digest is not None), "content": int(content)}
    if size is not None:
        options["size"] = size
    if kind == EROFS:
        os.mkdir(erofs.ROOT, 0o755, dir_fd=into)
    fd = os.open(blob, os.O_RDONLY | os.O_CLOEXEC) if isinstance(blob, str) else blob
    try:
        report = layer_program.run(
            "unpack" if kind == DIR else "image",
            into,
            blob=fd,
            options=options,
            progress=progress,
            deadline_s=deadline_s,
            patience_s=patience_s,
            cancel=cancel,
        )
    finally:
        if fd != blob:
            os.close(fd)
    made = _check(_unpacked(report), diff_id, digest, size)
    if kind == DIR:
        return made
    taken, inodes = erofs.usage(into)
    return replace(made, bytes=taken, inodes=inodes, kind=kind)


def _unpacked(report: layer_program.Report) -> Unpacked:
    assert report.values is not None
    values = report.values
    return Unpacked(
        diff_id=f"sha256:{values['tar']}",
        digest=None if values["blob"] == "-" else f"sha256:{values['blob']}",
        size=int(values["in"]),
        tar_bytes=int(values["out"]),
        entries=int(values["entries"]),
        bytes=int(values["bytes"]),
        inodes=int(values["inodes"]),
        devices=int(values["devices"]),
        implied=tuple(report.implied),
        landlock=int(values["landlock"]),
        content=None if values["content"] == "-" else f"sha256:{values['content']}",
    )


def _check(found: Unpacked, diff_id: str | None, digest: str | None, size: int | None) -> Unpacked:
    if size is not None and found.size != size:
        raise PyrunError(f"the blob has {found.size} bytes, not the {size} that its descriptor says")
    if digest is not None and found.digest != digest:
        raise PyrunError(f"the blob is {found.digest}, not {digest}", hint="it was damaged or swapped on the way")
    if diff_id is not None and found.diff_id != diff_id:
        raise PyrunError(
            f"the layer's tar is {found.diff_id}, not {diff_id}, which the image's config says",
            hint="the image was put together wrongly: config and layer do not belong together",
        )
    return found


def remove(
    parent: int, name: str, *, deadline_s: float | None = None, cancel: Callable[[], bool] | None = None
) -> None:
    """Removes the directory `name` in `parent`, a descriptor, with all that is in it; no error where there is none.

    No link is followed, no mount entered, and it may be as deep as it likes. On an error some of it is left, and when
    `cancel` says so, which is Aborted.
    """
    try:
        return os.rmdir(name, dir_fd=parent)  # as every pull's own, when it has ended well
    except FileNotFoundError:
        return
    except OSError:
        pass
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        layer_program.run("remove", fd, deadline_s=deadline_s, cancel=cancel)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def content_digest(
    directory: int, kind: str = DIR, *, progress: Progress | None = None, cancel: Callable[[], bool] | None = None
) -> str:
    """What an unpacked layer is on the disk (`sha256:…`; cffi_build/layers/digest.c says of what): names, bytes,
    owners, modes, times and attributes, or of an image its file. directory: a descriptor. PyrunError names an entry
    that can't be read."""
    verb = "digest" if kind == DIR else "digest-image"
    report = layer_program.run(verb, directory, progress=progress, patience_s=PATIENCE_S, cancel=cancel)
    assert report.values is not None
    return f"sha256:{report.values['content']}"


def sync(directory: int, *, cancel: Callable[[], bool] | None = None) -> None:
    """Writes out the file system that the directory, a descriptor, is on. Told, ResourceExhausted: it did not."""
    layer_program.run("sync", directory, cancel=cancel)
