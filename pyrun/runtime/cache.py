"""Plans kept for the launcher, so that creating the same container again starts no interpreter.

An entry is the encoded plan of a create that has succeeded, with holes where the container's id, the time and the
creating process stand, and the conditions under which planning would give it again: config.json unchanged, and each
thing of the host that facts.py reads, and our own code. cffi_build/launcher/create.c reads it: it compares the key, the
config and the conditions, fills the holes and runs the plan; whatever is not equal goes to Python. The id's length is
part of the key, so that filling moves nothing.

Where the holes are is not guessed: the same is planned for another id, and the two encodings must differ in the holes
alone. Entries are for root only, in a directory that only root may enter. An entry is kept once its config.json is some
seconds old: engines write a new one for each container, and that plan would never be used again.

Nothing is synced to the disk: the boot id is a condition, so what a power cut tears is never used.
"""

from __future__ import annotations

import posix
import sys
from _struct import Struct

from ..facts import Facts, collect_facts, read_text
from ..plan.cgroup.cgroups import is_writable
from ..plan.model.request import Request
from ..plan.process.process import ignored_caps
from .create import is_old
from .record import MAGIC as RECORD_MAGIC
from .record import seal, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .create import Prepared

MAGIC = b"PYPLAN1\0"
HEADER = Struct("<8s12I")
CONDITION = Struct("<4I")
HOLE = Struct("<2I")
IDENTITY = Struct("<3Q")
VERSION = Struct("<4Q")
CONTENT, LINE, SAME_PLACE, SAME_FILE = range(4)  # kinds of conditions
MISSING = 0xFFFFFFFF  # length of a content that must not be readable
ID, CREATED, CREATOR, PID_FILE, PID_FILE_NEW = range(5)  # kinds of holes; the last two are of exec_kept.py
CREATOR_AT, CREATOR_SIZE = 8 + 3 * 8, 16  # in a record

DIRECTORY = ".plans~"  # no id can have this name
MOST_ENTRIES, MOST_BYTES = 64, 1 << 20
# What of a Request is in the key, or follows from it.
_IN_KEY = (
    "bundle",
    "cgroup",
    "config",
    "id",
    "keyring",
    "park",
    "pid_file",
    "record",
    "rootfs",
    "state_dir",
    "subreaper",
)
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_+-."
_SHIFTED = dict(zip(_ALPHABET, _ALPHABET[1:] + _ALPHABET[:1], strict=True))

# Where each of Facts' attributes comes from: these are the conditions. tests/unit/test_cache.py misses a new one.
FILES = (
    "/proc/sys/kernel/random/boot_id",
    "/proc/self/uid_map",
    "/proc/self/gid_map",
    "/proc/self/limits",
    "/proc/sys/vm/memfd_noexec",
)
OWN_CGROUP = "0::"
LINES = (
    ("/proc/self/status", "CapEff:"),
    ("/proc/self/status", "Uid:"),
    ("/proc/self/status", "Gid:"),
    ("/proc/self/cgroup", OWN_CGROUP),
)
COVERED = {
    "arch": FILES[0],
    "kernel": FILES[0],
    "last_cap": FILES[0],
    "lsm": FILES[0],
    "uid_map": FILES[1],
    "in_userns": FILES[1],
    "gid_map": FILES[2],
    "max_hard": FILES[3],
    "memfd": FILES[4],
    "caps": LINES[0][0],
    "euid": LINES[1][0],
    "egid": LINES[2][0],
    "rootless": LINES[1][0],
    "cgroup_own": LINES[3][0],
    "cgroup_mount": "SAME_PLACE",
    "controllers": "cgroup.controllers",
    "init_path": "SAME_FILE",
    "newuidmap": "root has none",
    "newgidmap": "root has none",
    "cgroup_delegate": "no plan that needs it is kept",
    "net_devices": "no plan that needs it is kept",
    "net_addresses": "no plan that needs it is kept",
    "resctrl_mount": "no plan that needs it is kept",
    "resctrl_schemata": "no plan that needs it is kept",
}


class Entry:
    """key; conditions: (kind, path, data); holes: (offset in plan, kind); config, record: (offset, length) in plan."""

    __slots__ = ("conditions", "config", "holes", "key", "plan", "record")

    def __init__(
        self, key: bytes, plan: bytes, holes: list[tuple[int, int]], config: tuple[int, int], record: tuple[int, int]
    ) -> None:
        self.key = key
        self.plan = plan
        self.holes = holes
        self.config = config
        self.record = record
        self.conditions: list[tuple[int, str, bytes | None]] = []

    def pack(self) -> bytes:
        at = HEADER.size + CONDITION.size * len(self.conditions) + HOLE.size * len(self.holes)
        conditions, body = b"", bytearray()

        def add(data: bytes) -> int:
            body.extend(bytes(-(at + len(body)) % 8))
            offset = at + len(body)
            body.extend(data + b"\0")
            return offset

        for kind, path, data in self.conditions:
            conditions += CONDITION.pack(
                kind,
                add(path.encode("utf-8", "surrogateescape")),
                add(data or b""),
                MISSING if data is None else len(data),
            )
        key, plan = add(self.key), add(self.plan)
        head = HEADER.pack(
            MAGIC,
            key,
            len(self.key),
            HEADER.size,
            len(self.conditions),
            HEADER.size + len(conditions),
            len(self.holes),
            plan,
            len(self.plan),
            *self.config,
            *self.record,
        )
        return head + conditions + b"".join(HOLE.pack(*hole) for hole in self.holes) + bytes(body)


def key_of(root: str, request: Request) -> bytes:
    """The words of the command line that a plan depends on. The launcher makes the same."""
    r = request
    how = "create" if r.park else "run" if r.subreaper else "detach"
    words = (how, root, r.bundle, r.pid_file or "", "keyring" if r.keyring else "", str(len(r.id)))
    return "".join(word + "\0" for word in words).encode("utf-8", "surrogateescape")


def file_name(key: bytes) -> str:
    """FNV-1a, 64 bits, of the key: two keys with one name take turns, as the whole key is compared."""
    value = 0xCBF29CE484222325
    for byte in key:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def other_id(container: str) -> str:
    """An id of the same length that is different in every place."""
    return "".join(_SHIFTED[c] for c in container)


def make_entry(root: str, first: Prepared, second: Prepared) -> Entry | None:
    """The entry for a plan and the same plan for other_id(). None where they differ in more than the holes."""
    a, b = first.plan.encode(), second.plan.encode()
    req = first.request
    record = a.find(RECORD_MAGIC)
    if (
        len(a) != len(b)
        or record < 0
        or b.find(RECORD_MAGIC) != record
        or len(req.record) != len(second.request.record)
    ):
        return None
    created = unpack(req.record).blob("created")
    places = find_places(a, created, b, unpack(second.request.record).blob("created"))
    ids = find_places(a, req.id.encode(), b, second.request.id.encode())
    holes = [(p, CREATED) for p in places] + [(p, ID) for p in ids] + [(record + CREATOR_AT, CREATOR)]
    config = a.find(req.config)
    if fill(a, holes, second) != b or config < 0 or a[record : record + len(req.record)] != req.record:
        return None
    return Entry(key_of(root, req), a, holes, (config, len(req.config)), (record, len(req.record)))


def fill(plan: bytes, holes: list[tuple[int, int]], into: Prepared) -> bytes:
    """The plan for another request, as the launcher fills it."""
    record = into.request.record
    values = (into.request.id.encode(), unpack(record).blob("created"), record[CREATOR_AT : CREATOR_AT + CREATOR_SIZE])
    out = bytearray(plan)
    for at, kind in holes:
        out[at : at + len(values[kind])] = values[kind]
    at = plan.find(RECORD_MAGIC)
    seal(out, at, len(record))
    return bytes(out)


def find_places(a: bytes, first: bytes, b: bytes, second: bytes) -> list[int]:
    """Where a has `first` and b has `second`."""
    found, at = [], a.find(first)
    while at >= 0:
        if b.startswith(second, at):
            found.append(at)
        at = a.find(first, at + 1)
    return found


def collect_conditions(mount: str, init: str, *, exec_only: bool = False) -> list[tuple[int, str, bytes | None]]:
    """What must still hold, as it is now. mount: of cgroup2. init: pyrun-init. Code is last, for it changes least.

    exec_only: without what no plan of exec depends on, which is where the caller is."""
    files = FILES if exec_only else (*FILES, mount + "/cgroup.controllers")
    out: list[tuple[int, str, bytes | None]] = [(CONTENT, path, _content(path)) for path in files]
    out += [(LINE, path, _line(path, start)) for path, start in LINES if not exec_only or start != OWN_CGROUP]
    stat = _place(mount)
    out.append((SAME_PLACE, mount, stat))
    names = [
        module.__file__
        for name, module in list(sys.modules.items())
        if name.startswith("pyrun") and getattr(module, "__file__", None)
    ]
    names += [init, *_libraries("libseccomp")]
    return out + [(SAME_FILE, name, version_of(name)) for name in sorted({n for n in names if n})]


def _content(path: str) -> bytes | None:
    text = read_text(path)
    return text.encode("utf-8", "surrogateescape") if text else None


def _line(path: str, start: str) -> bytes | None:
    return next(
        (line.encode("utf-8", "surrogateescape") for line in read_text(path).splitlines() if line.startswith(start)),
        None,
    )


def _place(path: str) -> bytes:
    """Device, inode and the id of the mount: another mount on the path has another."""
    info = posix.stat(path)
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        mount = next(
            int(line.split()[1])
            for line in read_text(f"/proc/self/fdinfo/{fd}").splitlines()
            if line.startswith("mnt_id:")
        )
    finally:
        posix.close(fd)
    return IDENTITY.pack(info.st_dev, info.st_ino, mount)


def version_of(path: str) -> bytes:
    info = posix.stat(path)
    return VERSION.pack(info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _libraries(name: str) -> set[str]:
    return {line.split(None, 5)[5] for line in read_text("/proc/self/maps").splitlines() if f"/{name}" in line}


def worth_keeping(prepared: Prepared) -> bool:
    """Whether the launcher could ever use it, and whether it may come again."""
    facts, req, spec = prepared.facts, prepared.request, prepared.spec
    plain = Request()
    if facts.euid != 0 or facts.rootless or facts.in_userns or (spec.process and spec.process.terminal):
        return False
    if spec.process and ignored_caps(spec.process, facts, own_userns=False):  # to be warned about each time
        return False
    if spec.linux and (spec.linux.net_devices or spec.linux.intel_rdt or is_writable(spec)):
        return False
    if any(getattr(req, name) != getattr(plain, name) for name in Request.__slots__ if name not in _IN_KEY) or (
        req.park and req.subreaper
    ):
        return False
    return facts.cgroup_mount is not None and (facts.cgroup_mount + "/").startswith("/sys/fs/cgroup/")


def keep(root: str, first: Prepared, second: Prepared) -> bool:
    """Writes the entry. False where it can't be: that is no error, the next create is Python's again."""
    mount = first.facts.cgroup_mount
    entry = make_entry(root, first, second)
    if entry is None or mount is None:
        return False
    try:
        entry.conditions = collect_conditions(mount, first.facts.init_path)
        # What has changed since it was planned by is not what it was planned by.
        fresh = all(is_old(path) for kind, path, _ in entry.conditions if kind == SAME_FILE)
        if not fresh or not _same_facts(first.facts, collect_facts()):
            return False
        data = entry.pack()
        return len(data) <= MOST_BYTES and _write(f"{root}/{DIRECTORY}", file_name(entry.key), data)
    except (OSError, StopIteration):
        return False


def _same_facts(a: Facts, b: Facts) -> bool:
    return all(getattr(a, name) == getattr(b, name) for name in Facts.__slots__)


def _write(directory: str, name: str, data: bytes) -> bool:
    try:
        posix.mkdir(directory, 0o700)
    except FileExistsError:
        info = posix.lstat(directory)
        if info.st_uid != posix.geteuid() or info.st_mode & 0o170077 != 0o040000:
            return False
    names = posix.listdir(directory)
    for old in names if len(names) >= MOST_ENTRIES else ():
        posix.unlink(f"{directory}/{old}")
    new = f"{directory}/{name}.{posix.getpid()}"
    fd = posix.open(new, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC | posix.O_NOFOLLOW, 0o600)
    written = 0
    try:
        written = posix.write(fd, data)
    finally:
        posix.close(fd)
        if written != len(data):  # the disk is full
            posix.unlink(new)
    if written == len(data):
        posix.rename(new, f"{directory}/{name}")
    return written == len(data)
