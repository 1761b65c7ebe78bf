"""From a source of documents and blobs (a registry, an archive) into the store: the one way in for every image.

A layer goes from the source through a pipe into pyrun-layer, hashed on its way, and never lies on the disk compressed.
Three at a time, and each at most once in the process: who needs one that is on its way waits for it. Length, digest and
diffID must all be right before a layer gets its name, and all layers must be there before the image gets one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Protocol

from pyrun.errors import Aborted, PyrunError, Unimplemented
from pyrun.image import layers
from pyrun.image.config import LAYERS_MOST, ConfigFile, load_config
from pyrun.image.contents import DIRECTORY, Contents, Ingest
from pyrun.image.documents import JSON_MOST, Descriptor, Index, Manifest, choose, parse_document

PARALLEL = 3
PIPE_BYTES = 1 << 20
NESTED_MOST = 2
UNPACK_PATIENCE_S = 900.0  # without progress; the source has a watchdog of its own, which is quicker
ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "ppc64le": ("ppc64le", ""),
}
LAYER_TYPES = layers.MEDIA_TYPES

Write = Callable[[bytes], None]
Cancelled = Callable[[], bool]


class Damaged(PyrunError):
    """The bytes are not those that were promised. Another mirror may have the right ones."""


class Source(Protocol):
    """Where an image comes from. What it gives is checked here, but for the form of the documents."""

    def document(self, descriptor: Descriptor | None) -> tuple[bytes, str]:
        """(bytes, media type) of a manifest; None: the one that was asked for."""

    def blob(self, descriptor: Descriptor, write: Write, cancelled: Cancelled) -> None:
        """Hands the blob's bytes to `write`, in order, each once."""

    def blame(self, descriptor: Descriptor) -> bool:
        """Is told that the blob was damaged. Returns whether it may be had from elsewhere."""


@dataclass(frozen=True)
class Progress:
    """How far a layer is. done, total: bytes of its blob. state: waiting, pulling, done, there."""

    digest: str
    done: int
    total: int
    state: str


Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Fetched:
    """What came in. digest: of the topmost document, by which the name is told."""

    id: str
    digest: str
    manifest: bytes
    config: bytes
    file: ConfigFile


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Layers:
    """The layers that are on their way into a store, by diffID: for all fetches of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Event] = {}

    def claim(self, diff_id: str) -> threading.Event | None:
        """None: the caller shall fetch it, and say done(). Otherwise what ends when another has."""
        with self._lock:
            if (event := self._under_way.get(diff_id)) is not None:
                return event
            self._under_way[diff_id] = threading.Event()
            return None

    def done(self, diff_id: str) -> None:
        with self._lock:
            self._under_way.pop(diff_id).set()


class Fetch:
    """One image on its way in. os, architecture, variant: which of an index's."""

    def __init__(self, contents: Contents, under_way: Layers, source: Source, cancelled: Cancelled, tell: Tell) -> None:
        self.contents = contents
        self.under_way = under_way
        self.source = source
        self._cancelled = cancelled
        self.tell = tell
        self.platform = ("linux", *ARCHITECTURES.get(platform.machine(), (platform.machine(), "")))
        self._failed = threading.Event()

    def cancelled(self) -> bool:
        return self._failed.is_set() or self._cancelled()

    def run(self, ingest: Ingest, want: Descriptor | None = None) -> Fetched:
        """Brings the layers in, held by the ingest's leases. want: the document to begin with."""
        top, manifest_data, manifest = self._resolve(want)
        if len(manifest.layers) > LAYERS_MOST:
            raise PyrunError(f"the image has {len(manifest.layers)} layers", hint=f"{LAYERS_MOST} is the most")
        for layer in manifest.layers:
            if layer.media_type not in LAYER_TYPES:
                raise Unimplemented(
                    f"a layer of media type {layer.media_type[:100]!r}",
                    hint="layers are tar, plain or by gzip or zstd; none is fetched from elsewhere, nor decrypted",
                )
        config_data = self.small_blob(manifest.config)
        file = load_config(config_data)
        if len(file.diff_ids) != len(manifest.layers):
            raise PyrunError(f"the manifest has {len(manifest.layers)} layers, the config {len(file.diff_ids)}")
        if file.os not in ("", "linux"):
            raise PyrunError(f"the image is for {file.os[:40]!r}", hint="this is Linux")
        self._all_layers(ingest, list(zip(manifest.layers, file.diff_ids, strict=True)))
        return Fetched(manifest.config.digest, top, manifest_data, config_data, file)

    def _resolve(self, want: Descriptor | None) -> tuple[str, bytes, Manifest]:
        top = ""
        for _ in range(NESTED_MOST + 1):
            data, media_type = self.source.document(want)
            found = digest_of(data)
            if want is not None and (found, len(data)) != (want.digest, want.size or len(data)):
                raise Damaged(f"manifest: {found} of {len(data)} bytes, not {want.digest} of {want.size}")
            top = top or found
            document = parse_document(data, media_type)
            if isinstance(document, Manifest):
                return top, data, document
            assert isinstance(document, Index)
            want = choose(document, *self.platform)
        raise PyrunError("an index in an index in an index", hint="two are followed")

    def small_blob(self, descriptor: Descriptor) -> bytes:
        """A config's bytes, checked."""
        if descriptor.size > JSON_MOST:
            raise PyrunError(f"the config has {descriptor.size} bytes", hint=f"the most that is read is {JSON_MOST}")
        parts: list[bytes] = []
        self.source.blob(descriptor, parts.append, self.cancelled)
        data = b"".join(parts)
        if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
            raise Damaged(f"config: {digest_of(data)} of {len(data)} bytes, not {descriptor.digest}")
        return data

    # --- layers --------------------------------------------------------------------------------------------------

    def _all_layers(self, ingest: Ingest, wanted: Sequence[tuple[Descriptor, str]]) -> None:
        each = {diff_id: layer for layer, diff_id in wanted}  # a layer may occur twice
        for layer in each.values():
            self.tell(Progress(layer.digest, 0, layer.size, "waiting"))
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="layer") as pool:
            tasks = [pool.submit(self._guarded, ingest, layer, diff_id) for diff_id, layer in each.items()]
            wait(tasks)
        errors = [error for task in tasks if (error := task.exception()) is not None]
        # What was cancelled because another failed is not the cause.
        for error in sorted(errors, key=lambda error: isinstance(error, Aborted)):
            raise error

    def _guarded(self, ingest: Ingest, layer: Descriptor, diff_id: str) -> None:
        try:
            self._layer(ingest, layer, diff_id)
        except BaseException:
            self._failed.set()
            raise

    def _layer(self, ingest: Ingest, layer: Descriptor, diff_id: str) -> None:
        while not self.contents.lease(ingest, diff_id):
            if self.cancelled():
                raise Aborted("the pull was cancelled")
            if (other := self.under_way.claim(diff_id)) is not None:
                other.wait(0.5)
                continue
            try:
                self._fetch_layer(ingest, layer, diff_id)
            finally:
                self.under_way.done(diff_id)
            return
        self.tell(Progress(layer.digest, layer.size, layer.size, "there"))

    def _fetch_layer(self, ingest: Ingest, layer: Descriptor, diff_id: str) -> None:
        if self.contents.lease(ingest, diff_id):
            return
        self.contents.check_replaceable(diff_id)  # before it is brought for nothing
        name = diff_id.removeprefix("sha256:")
        while True:
            try:
                made = self._unpacked(ingest, name, layer, diff_id)
                break
            except OSError as error:
                raise PyrunError(f"layer {layer.digest}: {error}")
            except Damaged:
                if self.cancelled() or not self.source.blame(layer):
                    raise
                layers.remove(ingest.fd, name)
        self.contents.add_layer(ingest, name, made)
        self.tell(Progress(layer.digest, layer.size, layer.size, "done"))

    def _unpacked(self, ingest: Ingest, name: str, layer: Descriptor, diff_id: str) -> layers.Unpacked:
        os.mkdir(name, 0o755 if self.contents.kind == layers.DIR else 0o700, dir_fd=ingest.fd)
        into = os.open(name, DIRECTORY, dir_fd=ingest.fd)
        try:
            return self._piped(layer, diff_id, into)
        finally:
            os.close(into)

    def _piped(self, layer: Descriptor, diff_id: str, into: int) -> layers.Unpacked:
        limits = replace(layers.LIMITS, bytes=min(layers.LIMITS.bytes, self.contents.room()))
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # the user's share of pipe memory is used up: it works with less
            pass
        feed = Feed(self, layer, writer)
        feed.thread.start()
        failure: Exception | None = None
        made = None
        try:
            made = layers.unpack(
                reader,
                layer.media_type,
                into,
                diff_id=diff_id,
                size=layer.size,
                limits=limits,
                patience_s=UNPACK_PATIENCE_S,
                cancel=lambda: self.cancelled() or feed.failed(),
                content=True,
                kind=self.contents.kind,
            )
        except (PyrunError, OSError) as error:
            failure = error
        finally:
            os.close(reader)  # a feed that still writes gets EPIPE
            feed.thread.join()
        if feed.error is not None:  # why the unpacker saw the end too early
            raise feed.error
        if failure is not None:
            raise failure
        assert made is not None
        return made


class Feed:
    """Hands a blob to a pipe, and checks its length and digest on the way."""

    def __init__(self, fetch: Fetch, layer: Descriptor, writer: int) -> None:
        self.error: Exception | None = None
        self._fetch = fetch
        self._layer = layer
        self._writer = writer
        self._hash = hashlib.sha256()
        self._done = 0
        self._told = 0.0
        self.thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def failed(self) -> bool:
        return self.error is not None

    def _run(self) -> None:
        try:
            self._fetch.source.blob(self._layer, self._write, self._fetch.cancelled)
            if self._done != self._layer.size:
                raise Damaged(f"layer {self._layer.digest}: {self._done} bytes, not {self._layer.size}")
            if (found := f"sha256:{self._hash.hexdigest()}") != self._layer.digest:
                raise Damaged(f"layer {self._layer.digest}: the bytes that came are {found}")
        except BrokenPipeError:
            pass  # the unpacker has ended, and says why
        except Exception as error:
            self.error = error
        finally:
            os.close(self._writer)

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._done += len(data)
        if self._done > self._layer.size:
            raise Damaged(f"layer {self._layer.digest}: more than the {self._layer.size} bytes of its descriptor")
        view = memoryview(data)
        while view:
            view = view[os.write(self._writer, view) :]
        if (now := time.monotonic()) - self._told > 0.1:
            self._told = now
            self._fetch.tell(Progress(self._layer.digest, self._done, self._layer.size, "pulling"))
