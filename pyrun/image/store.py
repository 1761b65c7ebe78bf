"""Images on the disk: layers as directories, each once for all images that have it, and the rest in SQLite.

An image is visible when the transaction that names it is on the disk; its layers are there before. What is being
unpacked lies in ingest/, which is emptied at the start; a layer that no image and no container has any more is moved
back there, and removed. Usage is what was counted while unpacking.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ..errors import FailedPrecondition, NotFound, PyrunError, reason
from .config import ImageConfig, load_config
from .layers import remove as remove_tree
from .layers import unpack
from .references import parse_reference

SCHEMA = """
CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, config BLOB NOT NULL, manifest BLOB NOT NULL,
    digest TEXT NOT NULL, size INTEGER NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS names (name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS layers (diff_id TEXT PRIMARY KEY, bytes INTEGER NOT NULL, inodes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS image_layers (image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL, diff_id TEXT NOT NULL, PRIMARY KEY (image, position));
CREATE TABLE IF NOT EXISTS holds (owner TEXT PRIMARY KEY, image TEXT NOT NULL);
"""
VERSION = 1
BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class Image:
    """id: the digest of its configuration. tags: names with a tag; digests: names with a manifest's digest. size: of
    its blobs, in bytes. created: when it came here, ns since 1970."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    config: ImageConfig
    created: int = 0
    pinned: bool = False


class Images:
    """root: ROOT/image. Any number of threads may be in it; one process at a time has it."""

    def __init__(self, root: str) -> None:
        self.root = root
        for name in ("", "layers", "ingest"):
            os.makedirs(f"{root}/{name}", 0o700, exist_ok=True)
            os.chmod(f"{root}/{name}", 0o700)
        self._lock = threading.RLock()
        self._unpacking: dict[str, threading.Lock] = {}
        try:
            self._db = sqlite3.connect(f"{root}/meta.db", check_same_thread=False, timeout=BUSY_S, isolation_level=None)
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;" + SCHEMA)
        except sqlite3.Error as e:
            raise PyrunError(f"{root}/meta.db: {e}", hint="is the disk full, or the file damaged?") from None
        self._check_version()
        self._sweep()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # --- looking up ---------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> Image:
        """By its id or the beginning of it, or by a name. NotFound, InvalidArgument."""
        with self._lock:
            id = self._id_of(reference)
            if id is None:
                raise NotFound(f"image {reference!r} is not here", hint=f"pyrun image pull {reference}")
            return self._image(id)

    def all(self) -> list[Image]:
        """The oldest first."""
        with self._lock:
            return [self._image(id) for (id,) in self._db.execute("SELECT id FROM images ORDER BY created, id")]

    def document(self, id: str) -> tuple[bytes, bytes, str]:
        """(configuration, manifest, the manifest's digest) of an image."""
        with self._lock:
            row = self._db.execute("SELECT config, manifest, digest FROM images WHERE id = ?", (id,)).fetchone()
        return bytes(row[0]), bytes(row[1]), str(row[2])

    def has_layer(self, diff_id: str) -> bool:
        with self._lock:
            return self._db.execute("SELECT 1 FROM layers WHERE diff_id = ?", (diff_id,)).fetchone() is not None

    def usage(self) -> tuple[int, int]:
        """Bytes and inodes of all layers."""
        with self._lock:
            row = self._db.execute("SELECT coalesce(sum(bytes), 0), coalesce(sum(inodes), 0) FROM layers").fetchone()
        return int(row[0]), int(row[1])

    def _id_of(self, reference: str) -> str | None:
        bare = reference.removeprefix("sha256:")
        if len(bare) >= 4 and not bare.strip("0123456789abcdef"):
            rows = self._db.execute(
                "SELECT id FROM images WHERE id >= ? AND id < ?", (f"sha256:{bare}", f"sha256:{bare}g")
            ).fetchmany(2)
            if len(rows) == 1:
                return str(rows[0][0])
        if reference.startswith("sha256:"):
            return None
        row = self._db.execute("SELECT image FROM names WHERE name = ?", (parse_reference(reference).name,)).fetchone()
        return None if row is None else str(row[0])

    def _image(self, id: str) -> Image:
        data, size, created = self._db.execute(
            "SELECT config, size, created FROM images WHERE id = ?", (id,)
        ).fetchone()
        names = [name for (name,) in self._db.execute("SELECT name FROM names WHERE image = ? ORDER BY name", (id,))]
        tags = tuple(name for name in names if "@" not in name)
        return Image(id, tags, tuple(name for name in names if "@" in name), size, load_config(bytes(data)), created)

    # --- coming and going ---------------------------------------------------------------------------------------------

    def add_layer(
        self, diff_id: str, blob: str | int, media_type: str | None, *, cancel: Callable[[], bool] | None = None
    ) -> None:
        """Unpacks a layer that is not here yet. Of two threads that want the same one the second waits for the first.
        PyrunError with nothing left of it."""
        with self._lock:
            lock = self._unpacking.setdefault(diff_id, threading.Lock())
        with lock:
            if self.has_layer(diff_id):
                return
            name = f"{diff_id[7:19]}-{os.urandom(6).hex()}"
            try:
                os.makedirs(f"{self.root}/ingest/{name}/diff", 0o755)
                into = os.open(f"{self.root}/ingest/{name}/diff", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    made = unpack(blob, media_type, into, diff_id=diff_id, cancel=cancel, sync=True)
                finally:
                    os.close(into)
                with self._lock:
                    self._take_layer(name, diff_id, made.bytes, made.inodes)
            except BaseException as error:
                self._drop(name)
                if isinstance(error, OSError):
                    raise PyrunError(f"{self.root}/ingest: {reason(error)}", hint="is the disk full?") from None
                raise

    def _take_layer(self, name: str, diff_id: str, bytes_: int, inodes: int) -> None:
        target = f"{self.root}/layers/{diff_id[7:]}"
        if os.path.lexists(target):  # of a pull that was killed between here and the transaction
            self._trash(diff_id)
        os.rename(f"{self.root}/ingest/{name}", target)
        _sync_directory(f"{self.root}/layers")
        self._db.execute("INSERT INTO layers VALUES (?, ?, ?)", (diff_id, bytes_, inodes))

    def add(self, names: list[str], config: bytes, manifest: bytes, digest: str, id: str, size: int) -> Image:
        """Makes an image visible whose layers are all here."""
        loaded = load_config(config)
        with self._lock, self._transaction():
            missing = [one for one in loaded.diff_ids if not self.has_layer(one)]
            if missing:
                raise FailedPrecondition(f"layer {missing[0]} was removed meanwhile", hint="pull again")
            self._db.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET "
                "manifest = excluded.manifest, digest = excluded.digest, size = excluded.size",
                (id, config, manifest, digest, size, time.time_ns()),
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO image_layers VALUES (?, ?, ?)",
                [(id, position, one) for position, one in enumerate(loaded.diff_ids)],
            )
            self._db.executemany("INSERT OR REPLACE INTO names VALUES (?, ?)", [(name, id) for name in names])
            return self._image(id)

    def remove(self, reference: str) -> list[str]:
        """Takes a name away, and with the last of its tags, or by its id, the image. The ids of images that went; no
        error where there is none. FailedPrecondition while a container has it."""
        with self._lock:
            id = self._id_of(reference)
            if id is None:
                return []
            image = self._image(id)
            name = "" if id.startswith(reference) or id[7:].startswith(reference) else parse_reference(reference).name
            if name in image.tags and len(image.tags) > 1:
                self._db.execute("DELETE FROM names WHERE name = ?", (name,))
                return []
            owner = self._db.execute("SELECT owner FROM holds WHERE image = ?", (id,)).fetchone()
            if owner is not None:
                raise FailedPrecondition(
                    f"image {reference!r} is used by container {owner[0][:13]}", hint="remove the container first"
                )
            with self._transaction():
                self._db.execute("DELETE FROM images WHERE id = ?", (id,))
            self._collect()
            return [id]

    def prune(self) -> list[str]:
        """Removes every image that no container has. The ids."""
        with self._lock:
            free = self._db.execute("SELECT id FROM images WHERE id NOT IN (SELECT image FROM holds)").fetchall()
            with self._transaction():
                self._db.executemany("DELETE FROM images WHERE id = ?", free)
            self._collect()
        return [str(id) for (id,) in free]

    def hold(self, image_id: str, owner: str) -> tuple[str, ...]:
        """The directories of its layers, the topmost first; they stay until release(owner), over restarts too."""
        with self._lock:
            rows = self._db.execute(
                "SELECT diff_id FROM image_layers WHERE image = ? ORDER BY position DESC", (image_id,)
            ).fetchall()
            if not rows and self._db.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone() is None:
                raise NotFound(f"image {image_id} is not here")
            self._db.execute("INSERT OR REPLACE INTO holds VALUES (?, ?)", (owner, image_id))
        if not rows:
            raise FailedPrecondition(f"image {image_id} has no layers", hint="a container's root takes one at least")
        return tuple(f"{self.root}/layers/{diff_id[7:]}/diff" for (diff_id,) in rows)

    def release(self, owner: str) -> None:
        """No error where it holds nothing."""
        with self._lock:
            self._db.execute("DELETE FROM holds WHERE owner = ?", (owner,))

    def holders(self) -> list[str]:
        with self._lock:
            return [str(owner) for (owner,) in self._db.execute("SELECT owner FROM holds")]

    # --- inside -------------------------------------------------------------------------------------------------------

    def _check_version(self) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found not in (0, VERSION):
            raise PyrunError(f"{self.root} was written by a newer pyrun", hint="update pyrun, or take another --root")
        self._db.execute(f"PRAGMA user_version = {VERSION}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _collect(self) -> None:
        """Removes layers that no image has."""
        rows = self._db.execute(
            "SELECT diff_id FROM layers WHERE diff_id NOT IN (SELECT diff_id FROM image_layers)"
        ).fetchall()
        for (diff_id,) in rows:
            self._db.execute("DELETE FROM layers WHERE diff_id = ?", (diff_id,))
            self._trash(diff_id)

    def _trash(self, diff_id: str) -> None:
        name = f"trash-{os.urandom(6).hex()}"
        with suppress(FileNotFoundError):
            os.rename(f"{self.root}/layers/{diff_id[7:]}", f"{self.root}/ingest/{name}")
            self._drop(name)

    def _drop(self, name: str) -> None:
        fd = os.open(f"{self.root}/ingest", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(fd, name)
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """What a killed pull has left: in ingest/, and layers that are in no row."""
        for name in os.listdir(f"{self.root}/ingest"):
            if os.path.isdir(f"{self.root}/ingest/{name}"):
                self._drop(name)
            else:
                os.unlink(f"{self.root}/ingest/{name}")
        for name in os.listdir(f"{self.root}/layers"):
            if not self.has_layer(f"sha256:{name}"):
                self._trash(f"sha256:{name}")
        self._collect()


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
