"""The record: one small binary file per container, written by create and read by every other command and by the
launcher.

A header of fixed places, then byte strings. Pid, start time, status and cgroup lie at offset 8, so that the executor
updates them with one pwrite; a checksum is of the rest, for plans in it are replayed. cffi_build/launcher/record.c
reads the same layout; tests/unit/test_record.py holds the two together. The state that `pyrun state` prints is kept
rendered but for pid and status: its two halves.
"""

from __future__ import annotations

from _struct import Struct

MAGIC = b"PYRREC3\0"
HEADER = Struct("<8s4Q16x2Q36sIII")
SUM = Struct("<I")
SUM_AT, SUMMED_FROM = 108, 40  # what is before it the executor writes
# A container may be older than this pyrun. Those before the last record had neither cgroup nor namespaces.
OLD_MAGIC, OLD_HEADER, OLD_SUM_AT, OLD_SUMMED_FROM = b"PYRREC2\0", Struct("<8s3Q16x36sIII"), 84, 32
TABLE = Struct("<II")
BLOBS = (
    "id",
    "bundle",
    "rootfs",
    "created",
    "owner",
    "annotations",
    "cgroup",
    "state_head",
    "state_tail",
    "start",
    "delete",
    "extra",
)
HAS_POSTSTART, HAS_POSTSTOP, SHARED_PIDNS, SYSTEMD, ROOTLESS, NO_KEYRING, NOTIFY = 1, 2, 4, 8, 16, 32, 64
CREATING, CREATED = 0, 1
CLAIMED = 1  # PX_CGROUP_CLAIMED of wire.h


class Record:
    """pid, start (clock ticks since boot) of the init, 0 until it is made; status CREATING or CREATED; cgroup: the
    inode of its cgroup, 0: it has none, CLAIMED: create was about to make it, or had just made it, and nothing of the
    container can be in it; place: the inodes of the PID and the time namespace in which these numbers
    hold, 0 where that is not known; boot_id; flags; and one bytes attribute for each name in BLOBS."""

    __slots__ = (
        "boot_id",
        "cgroup",
        "flags",
        "pid",
        "place",
        "start",
        "status",
        *("b_" + name for name in BLOBS),
    )

    def __init__(self, **values: object) -> None:
        self.pid = self.start = self.status = self.cgroup = self.flags = 0
        self.place = (0, 0)
        self.boot_id = ""
        for name in BLOBS:
            setattr(self, "b_" + name, b"")
        for name, value in values.items():
            setattr(self, name, value)

    def blob(self, name: str) -> bytes:
        value: bytes = getattr(self, "b_" + name)
        return value

    def text(self, name: str) -> str:
        return self.blob(name).decode("utf-8", "surrogateescape")

    def has_cgroup(self, inode: int) -> bool:
        """Whether that cgroup is the container's. Records of an old pyrun believe what has the name."""
        return inode == self.cgroup or not self.place[0]

    def pack(self) -> bytes:
        numbers = (self.pid, self.start, self.status, self.cgroup, *self.place)
        head = HEADER.pack(MAGIC, *numbers, self.boot_id.encode(), 0, self.flags, len(BLOBS))
        at = HEADER.size + TABLE.size * len(BLOBS)
        table, body = b"", b""
        for name in BLOBS:
            value = self.blob(name)
            at_here = (at + len(body) + 7) & ~7
            body += bytes(at_here - at - len(body)) + value + b"\0"
            table += TABLE.pack(at_here, len(value))
        whole = bytearray(head + table + body + bytes(-len(body) % 8))
        seal(whole)
        return bytes(whole)


def seal(record: bytearray) -> None:
    """Puts the checksum into a record."""
    SUM.pack_into(record, SUM_AT, checksum(record))


def checksum(record: bytes | bytearray, at: int = SUM_AT, start: int = SUMMED_FROM) -> int:
    """Of all behind what the executor writes, but the sum itself. A power cut may leave zeros in place of a page."""
    words = memoryview(record)[start:].cast("Q")
    hole = (at - start) // 8
    total = 0xCBF29CE484222325
    for some in words[:hole], (words[hole] & 0xFFFFFFFF,), words[hole + 1 :]:
        for word in some:
            total = (total ^ word) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return (total ^ total >> 32) & 0xFFFFFFFF


def unpack(data: bytes) -> Record:
    """ValueError when it is not a whole record."""
    old = data[: len(OLD_MAGIC)] == OLD_MAGIC
    header = OLD_HEADER if old else HEADER
    if len(data) < header.size + TABLE.size * len(BLOBS):
        raise ValueError("too short")
    magic, pid, start, status, *numbers, boot, sum, flags, count = header.unpack_from(data)
    if magic not in (MAGIC, OLD_MAGIC) or count != len(BLOBS):
        raise ValueError("not a record of this version")
    if len(data) % 8 or sum != (checksum(data, OLD_SUM_AT, OLD_SUMMED_FROM) if old else checksum(data)):
        raise ValueError("its checksum is wrong, so it was not written whole")
    cgroup, *place = (0, 0, 0) if old else numbers
    record = Record(
        pid=pid,
        start=start,
        status=status,
        cgroup=cgroup,
        place=tuple(place),
        boot_id=boot.decode("ascii", "replace"),
        flags=flags,
    )
    for i, name in enumerate(BLOBS):
        off, size = TABLE.unpack_from(data, header.size + i * TABLE.size)
        if off + size >= len(data) or data[off + size] != 0:
            raise ValueError(f"{name} lies outside the file")
        setattr(record, "b_" + name, data[off : off + size])
    return record
