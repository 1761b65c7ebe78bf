"""The store's files: layers as directories or as images of them, and what is on its way in or out.

A layer is unpacked below ingest/ and renamed to layers/HEX of its diffID, with a row; an image's row comes last. So
what a kill leaves is only in ingest/ or has no row, and is swept away by the next start. Until the disk has a layer
another row says so (unwritten), and in which boot of the machine: in a later one nobody knows what has become of it,
and it goes, with its images, before any of them is seen. An ingest
directory is flock'ed by whoever fills or removes it: another process' sweep sees that it lives. What changes rows and
directories together holds the store's lock, for moments only: trees are removed outside of it.

A layer that is an image (erofs.py) is mounted when somebody asks for it, and stays so as long as something holds it;
a start and an end take away mounts that nothing needs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from sqlite3 import Connection

from pyrun.errors import Aborted, FailedPrecondition, PyrunError, ResourceExhausted, reason
from pyrun.image import erofs, layers
from pyrun.image.config import LAYERS_MOST
from pyrun.image.database import ADD_LAYER, IDLE, ORPHANS, Database
from pyrun.image.implied import layer_id, make_implied, plan_implied
from pyrun.image.layer_program import BadEntry, Told
from pyrun.runtime.store import boot_id

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
RESERVE = 64 << 20  # bytes of the disk that images leave alone
SHORT = 4  # less than one part in so many is left: a kubelet makes room from 15 % on, unless it is told otherwise
LOCK_PATIENCE_S = 60.0


class Ingest:
    """A directory for what is not there yet, with its leases on layers. Use it as a context."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self.name = secrets.token_hex(16)
        with contents.locked():
            os.mkdir(self.name, 0o700, dir_fd=contents.ingest)
            self.fd = os.open(self.name, DIRECTORY, dir_fd=contents.ingest)
            fcntl.flock(self.fd, fcntl.LOCK_EX)

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *_: object) -> None:
        self._contents.end(self)


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


class Contents:
    """The directories of a store. root: absolute; made if it is not there. kind: of the layers that come: `dir`,
    `erofs`, or `auto`, which is erofs where this kernel, and the file system of `root`, take it; `erofs` is
    Unimplemented where not. why_dir: why `auto` has become `dir`. leaving: set, so that nothing more is removed
    here; the next start does. suspects: layers that the disk did not take, and why, which it does not let us mark.
    left: layers that who was killed has left unwritten; what the disk had told him of them nobody knows."""

    def __init__(self, root: str, kind: str = layers.DIR) -> None:
        self.root = root
        self.kind = kind
        for path in (root, *(f"{root}/{name}" for name in ("ingest", "layers", "empty"))):
            make_private(path)
        self.ingest = os.open(f"{root}/ingest", DIRECTORY)
        self.layers = os.open(f"{root}/layers", DIRECTORY)
        self._lock_fd = os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._held = weakref.finalize(self, _close, (self.ingest, self.layers, self._lock_fd))
        self._lock = threading.RLock()
        self._depth = 0
        self.leaving = threading.Event()
        self.suspects: dict[str, str] = {}  # replaced as a whole: any thread may read it
        self.left: frozenset[str] = frozenset()
        self._boot = boot_id()
        self.database = Database(f"{root}/meta.db")
        self.why_dir: PyrunError | None = None
        if kind != layers.DIR:
            try:
                self._try_mount()
                self.kind = layers.EROFS
            except BaseException as error:
                full = isinstance(error, ResourceExhausted)  # which is no reason not to start: images may go
                if not isinstance(error, PyrunError) or (kind != layers.AUTO and not full):
                    self.close()
                    raise
                if kind == layers.AUTO:
                    self.why_dir, self.kind = error, layers.DIR

    def _try_mount(self) -> None:
        """Mounts an image of nothing. Only that tells whether it can be done: kernels differ, and file systems do.
        ResourceExhausted: on a disk that is full nobody can tell."""
        try:
            with Ingest(self) as ingest, open(os.memfd_create("layer"), "rb") as nothing:
                layers.unpack(nothing.fileno(), None, ingest.fd, kind=layers.EROFS)
                path = f"{self.root}/ingest/{ingest.name}"
                erofs.mount(path)
                erofs.unmount(path)
        except OSError as error:
            kind = ResourceExhausted if error.errno in (errno.ENOSPC, errno.EDQUOT) else PyrunError
            raise kind(f"{self.root}/ingest: {reason(error)}") from None

    def close(self) -> None:
        """Once or more often; what is forgotten without it keeps no descriptor."""
        if self._held.alive:
            with suppress(PyrunError):
                self.unmount_idle()
        self.database.close()
        self._held()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone among all threads and processes."""
        with self._lock:
            if not self._depth:
                self._take_file_lock()
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    fcntl.flock(self._lock_fd, fcntl.LOCK_UN)

    def _take_file_lock(self) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                return fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise PyrunError(f"{self.root}/lock: another process has held it for {LOCK_PATIENCE_S:.0f} s")
            time.sleep(0.01)

    # --- layers in -----------------------------------------------------------------------------------------------

    def lease(self, ingest: Ingest, diff_id: str, *, damaged: bool = False) -> bool:
        """Whether the layer is there; then it stays till the ingest ends. One that is known to be damaged counts as
        there only for who asks for that as well."""
        if not damaged and diff_id in self.suspects:
            return False
        query = "SELECT 1 FROM layers WHERE diff_id = ?"
        if not damaged:
            query += " AND diff_id NOT IN (SELECT diff_id FROM damaged)"
        with self.database.transaction() as db:
            there = db.execute(query, (diff_id,)).fetchone() is not None
            if there:
                db.execute("INSERT OR IGNORE INTO leases VALUES (?, ?)", (ingest.name, diff_id))
        return there

    def add_layer(self, ingest: Ingest, name: str, made: layers.Unpacked) -> None:
        """Takes the directory `name` of the ingest, unpacked, in as a layer, with a lease on it. One that was damaged
        goes. Some time later write_out() is due."""
        with self.locked():
            if self.lease(ingest, made.diff_id):  # another was faster; ours goes with the ingest
                return
            self.check_replaceable(made.diff_id)
            target = made.diff_id.removeprefix("sha256:")
            waste = self._set_aside(target)
            os.rename(name, target, src_dir_fd=ingest.fd, dst_dir_fd=self.layers)
            with self.database.transaction() as db:
                values = (made.diff_id, made.bytes, made.inodes, made.kind, made.content)
                db.execute(ADD_LAYER, values)
                db.execute("DELETE FROM damaged WHERE diff_id = ?", (made.diff_id,))
                db.execute("INSERT INTO leases VALUES (?, ?)", (ingest.name, made.diff_id))
                row = (made.diff_id, ingest.name, self._boot)
                db.execute("INSERT OR REPLACE INTO unwritten VALUES (?, ?, ?)", row)
                names = [(made.diff_id, name.hex()) for name in made.implied]  # a name need not be text
                db.executemany("INSERT OR IGNORE INTO implied VALUES (?, ?)", names)
            self.suspects = {known: why for known, why in self.suspects.items() if known != made.diff_id}
        if waste:
            self._discard(waste)

    def write_out(self, cancel: Callable[[], bool]) -> None:
        """Ends when the disk has all layers that are there now. After an error of the disk nobody knows what it has, so
        they are damaged. After another, and when it is cancelled, it is still to be done."""
        self._mark_suspects()
        while brought := self.database.rows("SELECT diff_id, ingest FROM unwritten"):
            if cancel():
                raise Aborted("writing out was cancelled")
            try:
                layers.sync(self.layers, cancel=cancel)
            except (Told, ResourceExhausted) as error:
                why = f"the disk did not take it: {error.text}"
                with self.locked():
                    self.suspects = self.suspects | {str(diff_id): why for diff_id, _ in brought}
                with suppress(PyrunError):
                    self._mark_suspects()
                raise
            self._look_at_left(cancel)
            with self.database.transaction(durable=True) as db:  # but not of one that was brought anew meanwhile
                db.executemany("DELETE FROM unwritten WHERE (diff_id, ingest) = (?, ?)", brought)

    def _look_at_left(self, cancel: Callable[[], bool]) -> None:
        """A kernel tells of an error once. So that it took what is left of another daemon is not enough: it is read
        again, from the disk, and compared with what was unpacked."""
        for diff_id in sorted(self.left):
            query = "SELECT kind, content FROM layers JOIN unwritten USING (diff_id) WHERE diff_id = ?"
            for kind, content in self.database.rows(query, diff_id):
                try:
                    directory = os.open(diff_id.removeprefix("sha256:"), DIRECTORY, dir_fd=self.layers)
                except FileNotFoundError:  # removed just now
                    continue
                try:
                    found = layers.content_digest(directory, str(kind), cancel=cancel)
                    why = "what is there is not what was unpacked" if content not in (None, found) else ""
                except BadEntry as error:
                    why = error.text
                finally:
                    os.close(directory)
                if why:
                    self.mark(why, diff_id, durable=False)
            self.left -= {diff_id}

    def _mark_suspects(self) -> None:
        """The kernel tells of an error once, so what it was of must not get lost where the disk does not take the mark
        either. It need not be on the disk by itself: it comes there before a layer ceases to be unwritten."""
        if not self.suspects:
            return
        with self.locked():
            for diff_id, why in self.suspects.items():
                self.mark(why, diff_id, durable=False)
            self.suspects = {}

    def check_replaceable(self, diff_id: str) -> None:
        """Raises FailedPrecondition where a container runs on the layer, which is damaged: its root would go."""
        query = "SELECT owner FROM holds JOIN image_layers USING (image) WHERE diff_id = ? LIMIT 1"
        if owner := self.database.words(query, diff_id):
            raise FailedPrecondition(
                f"layer {diff_id} is damaged, and {owner[0]} has it",
                hint="remove that container, then pull the image again: its layer is brought anew",
            )

    def mark(self, why: str | None, diff_id: str, *, durable: bool = True) -> None:
        """Keeps in mind that a layer is damaged, or (None) that it is not. Who leases or holds it hears it."""
        with self.database.transaction(durable=durable) as db:
            db.execute("DELETE FROM damaged WHERE diff_id = ?", (diff_id,))
            if why is not None:
                db.execute("INSERT INTO damaged SELECT diff_id, ? FROM layers WHERE diff_id = ?", (why, diff_id))

    def add_implied(self, ingest: Ingest, diff_ids: tuple[str, ...]) -> str | None:
        """The layer of directories that the others only imply (implied.py): its name, None where it is not needed. The
        others are there, with leases, lowest first."""
        order = tuple(dict.fromkeys(reversed(diff_ids)))
        marks = ",".join("?" * len(order))
        rows = self.database.rows(f"SELECT diff_id, path FROM implied WHERE diff_id IN ({marks})", *order)
        if not rows:
            return None
        names: dict[str, set[str]] = {diff_id: set() for diff_id in order}
        for diff_id, path in rows:
            names[str(diff_id)].add(os.fsdecode(bytes.fromhex(str(path))))
        lowers = [self.mounted(diff_id) for diff_id in order]
        kept = plan_implied(lowers, [frozenset(names[diff_id]) for diff_id in order])
        made = layer_id(diff_ids)
        if not kept or self.lease(ingest, made):
            return made if kept else None
        if len(order) >= LAYERS_MOST:
            raise PyrunError(
                f"the image has {len(order)} layers, and one more is needed for directories that they only imply",
                hint=f"{LAYERS_MOST} is the most; such as /{kept[0].path}",
            )
        name = made.removeprefix("sha256:")
        os.mkdir(name, 0o755, dir_fd=ingest.fd)
        directory = os.open(name, DIRECTORY, dir_fd=ingest.fd)
        try:
            taken, inodes = make_implied(directory, kept, lowers[0])
            content = layers.content_digest(directory)
        except OSError as error:
            raise PyrunError(f"{self.root}: directories that layers imply: {reason(error)}") from None
        finally:
            os.close(directory)
        self.add_layer(ingest, name, layers.Unpacked(made, None, 0, 0, 0, taken, inodes, 0, (), 0, content=content))
        return made

    def path(self, diff_id: str) -> str:
        """The layer's directory; of an image, that on which it is mounted when it is."""
        is_image = self.database.rows("SELECT 1 FROM layers WHERE diff_id = ? AND kind = 'erofs'", diff_id)
        return self._path(diff_id) + (f"/{erofs.ROOT}" if is_image else "")

    def _path(self, diff_id: str) -> str:
        return f"{self.root}/layers/{diff_id.removeprefix('sha256:')}"

    def mounted(self, diff_id: str) -> str:
        """The same, and it is mounted. Have a lease on it, or hold an image of it: it stays as long."""
        path = self.path(diff_id)
        if path != (layer := self._path(diff_id)) and not erofs.is_mounted(layer):
            with self.locked():
                if not erofs.is_mounted(layer):
                    erofs.mount(layer)
        return path

    def unmount_idle(self) -> None:
        """Takes away the mounts of layers that nothing holds."""
        with self.locked():
            for diff_id in self.database.words(IDLE):
                erofs.unmount(self._path(diff_id))

    def room(self) -> int:
        """Bytes that new layers may take. Raises ResourceExhausted where there are none."""
        found = os.fstatvfs(self.layers)
        room = found.f_bavail * found.f_frsize - RESERVE
        if room <= 0:
            raise ResourceExhausted(f"{self.root}: the disk is full", hint="pyrun image prune makes room")
        return room

    def is_short(self) -> bool:
        """Whether so little is left, bytes or inodes, that a kubelet may be making room."""
        found = os.fstatvfs(self.layers)
        left = (found.f_bavail, found.f_blocks), (found.f_favail, found.f_files)
        return any(SHORT * free < of for free, of in left)  # of: 0 where there is no end of inodes

    # --- layers out ----------------------------------------------------------------------------------------------

    def end(self, ingest: Ingest) -> None:
        """Ends an ingest: its leases and its directory go."""
        with self.database.transaction() as db:
            db.execute("DELETE FROM leases WHERE ingest = ?", (ingest.name,))
        try:  # its lock is kept so long, or else another process' sweep would remove it at the same time
            layers.remove(self.ingest, ingest.name)
        finally:
            os.close(ingest.fd)

    def collect(self) -> None:
        """Removes layers that nothing needs."""
        self.discard_all(self.orphans())

    def orphans(self) -> list[str]:
        """Forgets layers that nothing needs. Returns what is to be removed from ingest/, which takes time. The disk has
        forgotten them, too: a power cut must not bring a row back when there may be a new directory of its name."""
        with self.locked():
            if not self.database.rows(ORPHANS):
                return []
            with self.database.transaction(durable=True) as db:
                gone = [diff_id for (diff_id,) in db.execute(ORPHANS).fetchall()]
                db.executemany("DELETE FROM layers WHERE diff_id = ?", [(diff_id,) for diff_id in gone])
            # The rows first: without a row a directory is nothing, but a row without its directory would be a lie.
            waste = [self._set_aside(diff_id.removeprefix("sha256:")) for diff_id in gone]
        return [name for name in waste if name]

    def discard_all(self, waste: list[str]) -> None:
        """What orphans() gave. What another process removes at the moment stays his. One that can't be removed holds up
        no other; the first error is raised then."""
        failed: Exception | None = None
        for name in waste:
            if self.leaving.is_set():
                return
            try:
                self._discard(name)
            except (PyrunError, OSError) as error:
                failed = failed or error
        if failed is not None:
            raise failed

    def _set_aside(self, name: str) -> str | None:
        """Moves a layer's directory out of sight, to be removed; None where there is none."""
        waste = f"waste-{secrets.token_hex(16)}"
        erofs.unmount(f"{self.root}/layers/{name}")
        try:
            os.rename(name, waste, src_dir_fd=self.layers, dst_dir_fd=self.ingest)
        except FileNotFoundError:
            return None
        return waste

    def sweep(self) -> tuple[list[str], list[str]]:
        """Forgets what killed processes or a power cut left. Returns the ids of images that have lost a layer, and with
        it their rows, since somebody removed its directory by hand or the machine stopped before the disk had it; and
        what is to be removed from ingest/, which takes time."""
        with self.locked():
            dead = [name for name in os.listdir(self.ingest) if not self._lives(name)]
            rows = {diff_id.removeprefix("sha256:") for diff_id in self.database.words("SELECT diff_id FROM layers")}
            there = set(os.listdir(self.layers))
            query = "SELECT diff_id FROM unwritten WHERE boot != ?"
            lost = {diff_id.removeprefix("sha256:") for diff_id in self.database.words(query, self._boot)}
            lost |= rows - there
            with self.database.transaction(durable=bool(lost)) as db:  # as orphans() has it
                alive = set(os.listdir(self.ingest)) - set(dead)
                for (name,) in db.execute("SELECT DISTINCT ingest FROM leases").fetchall():
                    if name not in alive:
                        db.execute("DELETE FROM leases WHERE ingest = ?", (name,))
                damaged = self._forget(db, [f"sha256:{name}" for name in lost])
            dead += [waste for name in (there - rows) | lost if (waste := self._set_aside(name))]
            self.unmount_idle()
        return damaged, dead

    def clear(self, dead: list[str]) -> None:
        """Removes directories of ingest/, and layers that nothing needs."""
        try:
            self.discard_all(dead)
        finally:
            self.collect()

    def _discard(self, name: str) -> None:
        """Removes a directory of ingest/, unless another process is doing so."""
        try:
            fd = os.open(name, DIRECTORY, dir_fd=self.ingest)
        except FileNotFoundError:
            return
        except NotADirectoryError:  # a link or a file that a hand has put in a layer's place
            return os.unlink(name, dir_fd=self.ingest)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            erofs.unmount(f"{self.root}/ingest/{name}")  # of one who was killed while he tried it
            layers.remove(self.ingest, name, cancel=self.leaving.is_set)
        except BlockingIOError:
            pass
        finally:
            os.close(fd)

    def _lives(self, name: str) -> bool:
        try:
            fd = os.open(name, DIRECTORY, dir_fd=self.ingest)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _forget(self, db: Connection, missing: list[str]) -> list[str]:
        damaged: set[str] = set()
        for diff_id in missing:
            users = db.execute("SELECT DISTINCT image FROM image_layers WHERE diff_id = ?", (diff_id,)).fetchall()
            damaged |= {image for (image,) in users}
        for image in damaged:
            db.execute("DELETE FROM holds WHERE image = ?", (image,))
            db.execute("DELETE FROM images WHERE id = ?", (image,))
        for diff_id in missing:
            db.execute("DELETE FROM leases WHERE diff_id = ?", (diff_id,))
            db.execute("DELETE FROM layers WHERE diff_id = ?", (diff_id,))
        return sorted(damaged)


def make_private(path: str) -> None:
    """The directory, root's alone (CVE-2024-25621). An open one is closed, a link refused."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        fd = os.open(path, DIRECTORY)
        try:
            if os.fstat(fd).st_mode & 0o077:
                os.fchmod(fd, 0o700)
        finally:
            os.close(fd)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}", hint="the store of images is a directory that only root may enter")
