"""The images of a node: the face that the daemon and `pyrun image` use.

Blocking, and for any number of threads and processes. An image is what its config's digest says; tags and digests are
names for it. It is there with all its layers or not at all, and none of it goes while a container holds it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from sqlite3 import Connection

from pyrun.errors import FailedPrecondition, InvalidArgument, NotFound, PyrunError
from pyrun.image.config import ConfigFile, ImageConfig, load_config
from pyrun.image.contents import Contents, Ingest
from pyrun.image.documents import Descriptor
from pyrun.image.fetch import Fetch, Fetched, Layers, Progress, Source, Tell, digest_of
from pyrun.image.garbage import Stored
from pyrun.image.layers import DIR
from pyrun.image.pull import Pulls, Settings
from pyrun.image.reference import Reference, parse_reference
from pyrun.image.registry.credentials import Auth
from pyrun.image.writer import END_S, Writer

__all__ = ["Image", "Images"]
# Of an image in `damaged`, for people.
LOST = "a layer was gone, or not yet on the disk when the machine stopped, so the image is gone, too: pull it again"
ROOM_S = 60.0  # half of what a kubelet waits for a removal
STOP_S = 10.0  # that the disk is waited for at an end
_HEX = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class Image:
    """id: `sha256:…` of the config. tags: `HOST/REPO:TAG`. digests: `HOST/REPO@sha256:…`. size: bytes on the disk,
    each layer counted though others share it. pulled: ns since 1970. pinned: not to be removed to make room.
    damaged: which of its layers verify() found to be so, and how; "" for none."""

    id: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    pulled: int
    file: ConfigFile
    pinned: bool = False
    damaged: str = ""

    @property
    def config(self) -> ImageConfig:
        return self.file.config

    @property
    def name(self) -> str:
        """The first of its names, else its id."""
        return (*self.tags, *self.digests, self.id)[0]


def _damaged(db: Connection, image_id: str, suspects: dict[str, str]) -> str:
    """What Image.damaged says."""
    one = (image_id,)
    query = "SELECT diff_id, why FROM damaged JOIN image_layers USING (diff_id) WHERE image = ? LIMIT 1"
    if row := db.execute(query, one).fetchone():
        return f"layer {row[0]} is damaged: {row[1]}"
    if suspects:
        for (diff_id,) in db.execute("SELECT diff_id FROM image_layers WHERE image = ?", one).fetchall():
            if diff_id in suspects:
                return f"layer {diff_id} is damaged: {suspects[diff_id]}"
    return ""


class Images:
    """root: the store's directory, absolute. layers: what layers that come are to be: `dir`, `erofs` (Unimplemented
    where that can't be), or `auto`, the latter where it can. Those that are here stay as they are. settings: of pulls.
    pinned: names of images that are not to be removed to make room. warn: told what can't be removed or written out.
    behind: an image is there as soon as it is whole, and the disk gets it behind that, so that a power cut right then
    takes it away again; else the disk has it first. Sweeps away what killed processes and power cuts left; `damaged`
    has the ids of images that had lost a layer, and are gone."""

    def __init__(
        self,
        root: str,
        *,
        layers: str = DIR,
        pinned: Iterable[str] = (),
        settings: Settings | None = None,
        warn: Callable[[str], None] = lambda text: None,
        behind: bool = False,
    ) -> None:
        self._warn = warn
        self._behind = behind
        self.contents = Contents(root, layers)
        self.under_way = Layers()
        self._pinned = frozenset(str(parse_reference(name)) for name in pinned)
        self._files: dict[str, ConfigFile] = {}
        self._pulls = Pulls(settings or Settings(), self._add_pulled)
        self.damaged, dead = self.contents.sweep()
        # It takes seconds where layers are large, and nobody needs to wait for it.
        self._later: list[threading.Thread] = []
        self._later_lock, self._clearing_turn = threading.Lock(), threading.Lock()
        self._clear_later(dead)
        self._writer = Writer(self.contents, warn)
        if behind:
            self.contents.left = frozenset(self.contents.database.words("SELECT diff_id FROM unwritten"))
            self._writer.start()

    @property
    def trouble(self) -> str:
        """What keeps images from the disk, where something does; else ""."""
        return self._writer.trouble

    def _clear_later(self, dead: list[str]) -> None:
        """By a thread a call, one at a time: removing is what a disk is slow with, and pods need it, too."""
        thread = threading.Thread(target=self._clear, args=(dead,), name="clear", daemon=True)
        with self._later_lock:
            self._later = [*(one for one in self._later if one.is_alive()), thread]
            thread.start()

    def _clear(self, dead: list[str]) -> None:
        try:
            with self._clearing_turn:
                self.contents.clear(dead)
        except (PyrunError, OSError) as error:
            if not self.contents.leaving.is_set():
                said = error.text if isinstance(error, PyrunError) else str(error)
                self._warn(f"{self.contents.root}/ingest has what can't be removed until the next start: {said}")

    def settle(self) -> None:
        """Waits until what was left by others is removed, and the disk has what is here, or has refused it."""
        self._writer.settle()
        self._cleared(None)

    def _cleared(self, patience_s: float | None) -> bool:
        with self._later_lock:
            under_way = self._later
        deadline = None if patience_s is None else time.monotonic() + patience_s
        for thread in under_way:
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in under_way)

    def close(self, *, wait: bool = True) -> None:
        """wait: until what is gone has left the disk as well, and that has what is here; else the next start goes on
        with that, and the disk has STOP_S for what has come last. One that hangs is not waited for."""
        if not wait:
            self.contents.leaving.set()
        ended = self._writer.finish(None if wait else STOP_S)
        if self._cleared(None if wait else END_S) and ended:
            self.contents.close()
        else:
            self._warn(f"{self.contents.root}: its disk does not answer, and it is not waited for any longer")

    # --- looking -------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> Image:
        """By id (with or without sha256:, or its first digits), tag, or digest. Raises NotFound."""
        return self._image(self._find_id(reference))

    def list(self) -> list[Image]:
        """All of them, the newest first."""
        found = []
        for image in self.contents.database.words("SELECT id FROM images ORDER BY pulled DESC, id"):
            try:
                found.append(self._image(image))
            except NotFound:  # removed meanwhile
                continue
        return found

    def usage(self) -> tuple[int, int]:
        """(bytes, inodes) of all layers, as they were counted when they were unpacked."""
        row = self.contents.database.rows("SELECT TOTAL(bytes), TOTAL(inodes) FROM layers")[0]
        return int(float(str(row[0]))), int(float(str(row[1])))

    def unwritten(self) -> frozenset[str]:
        """Ids of images that the disk may not have yet."""
        query = "SELECT DISTINCT image FROM image_layers JOIN unwritten USING (diff_id)"
        return frozenset(self.contents.database.words(query))

    def lowers(self, image_id: str) -> tuple[str, ...]:
        """The layers' directories, topmost first. A layer that occurs twice counts where it is topmost: overlayfs takes
        none twice, and the lower of both could not be seen."""
        rows = self.contents.database.words(
            "SELECT diff_id FROM image_layers WHERE image = ? ORDER BY position DESC", image_id
        )
        paths = tuple(self.contents.mounted(diff_id) for diff_id in dict.fromkeys(rows))
        return paths or (f"{self.contents.root}/empty",)

    def holders(self) -> frozenset[str]:
        """Who holds an image."""
        return frozenset(self.contents.database.words("SELECT DISTINCT owner FROM holds"))

    def stored(self) -> tuple[Stored, ...]:
        """What is to be known of each image to say whether it may go."""
        names = {image.id: (image.name, image.pinned) for image in self.list()}
        with self.contents.database.transaction() as db:
            rows = db.execute("SELECT id, pulled, IFNULL(at, 0) FROM images LEFT JOIN used ON image = id").fetchall()
            layers: dict[str, dict[str, int]] = {}
            for id, diff_id, count in db.execute(
                "SELECT image, diff_id, bytes FROM image_layers JOIN layers USING (diff_id)"
            ):
                layers.setdefault(id, {})[diff_id] = count
            holders: dict[str, list[str]] = {}
            for id, owner in db.execute("SELECT image, owner FROM holds ORDER BY owner"):
                holders.setdefault(id, []).append(owner)
        return tuple(
            Stored(
                id,
                names[id][0],
                layers.get(id, {}),
                pulled / 1e9,
                max(pulled, used) / 1e9,
                names[id][1],
                tuple(holders.get(id, ())),
            )
            for id, pulled, used in rows
            if id in names
        )

    def _find_id(self, reference: str) -> str:
        db = self.contents.database
        hexadecimal = reference.removeprefix("sha256:")
        if len(hexadecimal) == 64 and (
            found := db.words("SELECT id FROM images WHERE id = ?", f"sha256:{hexadecimal}")
        ):
            return found[0]
        name = None
        if not reference.startswith("sha256:") and not (len(hexadecimal) == 64 and _HEX.fullmatch(hexadecimal)):
            name = str(parse_reference(reference))
            query = "SELECT image FROM tags WHERE name = ? UNION SELECT image FROM digests WHERE name = ?"
            if found := db.words(query, name, name):
                return found[0]
        if _HEX.fullmatch(hexadecimal):
            found = db.words("SELECT id FROM images WHERE id GLOB ? LIMIT 2", f"sha256:{hexadecimal}*")
            if len(found) > 1:
                raise InvalidArgument(f"more than one image has an id that begins with {hexadecimal}")
            if found:
                return found[0]
        raise NotFound(f"there is no image {name or reference}", hint=f"pyrun image pull {reference} brings it")

    def _image(self, image_id: str) -> Image:
        with self.contents.database.transaction() as db:
            row = db.execute("SELECT pulled FROM images WHERE id = ?", (image_id,)).fetchone()
            if row is None:
                raise NotFound(f"there is no image {image_id}")
            one = (image_id,)
            tags = [name for (name,) in db.execute("SELECT name FROM tags WHERE image = ? ORDER BY name", one)]
            digests = [name for (name,) in db.execute("SELECT name FROM digests WHERE image = ? ORDER BY name", one)]
            size = db.execute("SELECT TOTAL(bytes) FROM image_layers JOIN layers USING (diff_id) WHERE image = ?", one)
            total = int(size.fetchone()[0])
            damaged = _damaged(db, image_id, self.contents.suspects)
            if (file := self._files.get(image_id)) is None:
                data = db.execute("SELECT config FROM images WHERE id = ?", one).fetchone()[0]
                file = self._files[image_id] = load_config(data)
        pinned = not self._pinned.isdisjoint((*tags, *digests))
        return Image(image_id, tuple(tags), tuple(digests), total + len(file.diff_ids), row[0], file, pinned, damaged)

    # --- bringing in ---------------------------------------------------------------------------------------------

    def pull(
        self,
        reference: str,
        *,
        auth: Auth | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> Image:
        """Pulls an image. The registry is always asked what the name means now; layers that are here are not fetched
        again. Who asks for what another is pulling with the same credentials waits for that."""
        return self._image(self._pulls.pull(parse_reference(reference), auth, progress, cancel))

    def _add_pulled(self, reference: Reference, source: Source, cancelled: Callable[[], bool], tell: Tell) -> str:
        return self.add(source, [reference], cancelled=cancelled, tell=tell).id

    def add(
        self,
        source: Source,
        names: Iterable[Reference],
        *,
        want: Descriptor | None = None,
        digests: bool = True,
        cancelled: Callable[[], bool] = lambda: False,
        tell: Callable[[Progress], None] = lambda _: None,
    ) -> Image:
        """Brings an image in from a source, by these names. digests: the names may stand before the manifest's digest,
        too, since a registry has it by that."""
        with Ingest(self.contents) as ingest:
            fetched = Fetch(self.contents, self.under_way, source, cancelled, tell).run(ingest, want)
            extra = self.contents.add_implied(ingest, fetched.file.diff_ids)
            if not self._behind:
                self.contents.write_out(cancelled)
            self._commit(fetched, (*fetched.file.diff_ids, *([extra] if extra else [])), names, digests)
        if self._behind:
            self._writer.ask()
        return self._image(fetched.id)

    def _commit(self, fetched: Fetched, diff_ids: Iterable[str], names: Iterable[Reference], digests: bool) -> None:
        """The moment at which the image is there. diff_ids: of its layers, lowest first."""
        now = time.time_ns()
        with self.contents.database.transaction(durable=not self._behind) as db:
            values = (fetched.id, fetched.manifest, fetched.config, now, digest_of(fetched.manifest))
            db.execute(
                "INSERT INTO images (id, manifest, config, pulled, manifest_digest) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET manifest = excluded.manifest, config = excluded.config,"
                " manifest_digest = excluded.manifest_digest",
                values,
            )
            db.execute("DELETE FROM image_layers WHERE image = ?", (fetched.id,))
            rows = [(fetched.id, position, diff_id) for position, diff_id in enumerate(diff_ids)]
            db.executemany("INSERT INTO image_layers VALUES (?, ?, ?)", rows)
            for name in names:
                if name.tagged:
                    db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (name.tagged, fetched.id))
                if digests:
                    name_and_digest = f"{name.name}@{fetched.digest}"
                    db.execute("INSERT OR IGNORE INTO digests VALUES (?, ?)", (name_and_digest, fetched.id))

    # --- letting go ----------------------------------------------------------------------------------------------

    def hold(self, image_id: str, owner: str) -> tuple[str, ...]:
        """Keeps the image until release(owner). Returns its layers' directories, topmost first."""
        with self.contents.database.transaction() as db:
            if db.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone() is None:
                raise NotFound(f"there is no image {image_id}")
            held = db.execute("SELECT 1 FROM holds WHERE (owner, image) = (?, ?)", (owner, image_id)).fetchone()
            if held is None and (why := _damaged(db, image_id, self.contents.suspects)):
                raise FailedPrecondition(f"image {image_id}: {why}", hint="pull it again: its layer is brought anew")
            fresh = db.execute("INSERT OR IGNORE INTO holds VALUES (?, ?)", (owner, image_id)).rowcount > 0
            db.execute("INSERT OR REPLACE INTO used VALUES (?, ?)", (image_id, time.time_ns()))
        try:
            return self.lowers(image_id)
        except PyrunError:  # a layer that can't be mounted
            if fresh:
                with self.contents.database.transaction() as db:
                    db.execute("DELETE FROM holds WHERE owner = ? AND image = ?", (owner, image_id))
            raise

    def release(self, owner: str) -> None:
        """Ends all that the owner holds."""
        with self.contents.database.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO used SELECT image, ? FROM holds WHERE owner = ?", (time.time_ns(), owner)
            )
            db.execute("DELETE FROM holds WHERE owner = ?", (owner,))

    def tag(self, reference: str, name: str) -> None:
        """One more name for an image; another image loses it."""
        new = parse_reference(name)
        if new.tagged is None:
            raise InvalidArgument(f"{name}: a digest can't be given", hint="name a tag")
        image = self._find_id(reference)
        with self.contents.database.transaction(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO tags VALUES (?, ?)", (new.tagged, image))

    def untag(self, reference: str) -> bool:
        """Takes a tag away; the image goes with its last one. Returns whether it went. By id: the image goes."""
        image = self.find(reference)
        name = (
            None if image.id.startswith(f"sha256:{reference.removeprefix('sha256:')}") else parse_reference(reference)
        )
        if name is None or name.tagged not in image.tags or len(image.tags) == 1:
            self.remove(reference)
            return True
        with self.contents.database.transaction(durable=True) as db:
            db.execute("DELETE FROM tags WHERE name = ?", (name.tagged,))
        return False

    def remove(self, reference: str, *, wait: bool = True) -> None:
        """Removes an image with all its names, and layers that no other one has. No error where there is none; raises
        FailedPrecondition where a container holds it. wait: for the disk as well, which may take long; else it is gone
        for all who ask, and its files go soon, or at the next start. Where the disk is short that is waited for all
        the same, for ROOM_S: who makes room looks at once how much there is, and a kubelet evicts pods where it is too
        little; but its calls have an end as well."""
        try:
            image = self._find_id(reference)
        except NotFound:
            return
        with self.contents.database.transaction(durable=True) as db:
            owners = [owner for (owner,) in db.execute("SELECT owner FROM holds WHERE image = ?", (image,))]
            if owners:
                raise FailedPrecondition(
                    f"image {reference} is in use by {owners[0]}"
                    + (f" and {len(owners) - 1} more" * (len(owners) > 1)),
                    hint="remove the container first",
                )
            db.execute("DELETE FROM images WHERE id = ?", (image,))
        self._files.pop(image, None)
        if wait:
            return self.contents.collect()
        if waste := self.contents.orphans():
            self._clear_later(waste)
        if self.contents.is_short():
            self._cleared(ROOM_S)

    def prune(self, *, all: bool = False) -> tuple[int, int]:
        """Removes images without a tag (all: every one) that nothing holds and that are not pinned. Returns (how many
        images, bytes of the layers that went)."""
        before, gone = self.usage()[0], 0
        for image in self.list():
            if image.pinned or (image.tags and not all):
                continue
            try:
                self.remove(image.id)
            except FailedPrecondition:
                continue
            gone += 1
        self.contents.collect()
        return gone, max(0, before - self.usage()[0])

    def manifest(self, image_id: str) -> tuple[bytes, bytes]:
        """(manifest, config) as they were brought in."""
        rows = self.contents.database.rows("SELECT manifest, config FROM images WHERE id = ?", image_id)
        if not rows:
            raise NotFound(f"there is no image {image_id}")
        manifest, config = rows[0]
        if not (isinstance(manifest, bytes) and isinstance(config, bytes)):
            raise PyrunError(f"{self.contents.root}/meta.db: a document is no bytes")
        return manifest, config
