"""bpf(2): programs, maps and links, by descriptor; and those of others, by the numbers that the kernel gives them.

Source: bpf(2), include/uapi/linux/bpf.h. Each function raises OSError with the system call's errno. A descriptor that
is returned is the caller's to close.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAP_HASH, MAP_ARRAY, MAP_SOCKMAP = 1, 2, 15
PROG_SK_LOOKUP, ATTACH_SK_LOOKUP = 30, 36
LINK_NETNS = 5
F_NO_PREALLOC = 1
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT, _PROG_LOAD = range(6)
_OBJ_PIN, _OBJ_GET = 6, 7
_PROG_FD_BY_ID, _MAP_FD_BY_ID, _INFO, _PROG_QUERY = 13, 14, 15, 16
_LOOKUP_BATCH, _UPDATE_BATCH, _DELETE_BATCH = 24, 26, 27
_LINK_CREATE, _LINK_UPDATE, _LINK_FD_BY_ID, _LINK_NEXT_ID, _LINK_DETACH = 28, 29, 30, 31, 34
_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
_ATTR = 128  # bytes of union bpf_attr that are given; the kernel takes fewer or more
AT_ONCE = 4096  # entries in one call

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """One call. EAGAIN is what a signal makes of a program's check (bpf_check() in the kernel): asked again."""
    number = _NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) on {os.uname().machine}")
    attr = ctypes.create_string_buffer(bytes(attributes), _ATTR) if isinstance(attributes, bytes) else attributes
    for _ in range(100):
        result = int(_libc.syscall(number, command, ctypes.byref(attr), ctypes.sizeof(attr)))
        code = ctypes.get_errno()
        if result >= 0 or code not in (errno.EAGAIN, errno.EINTR):
            break
    if result < 0:
        raise OSError(code, os.strerror(code))
    return result


def _name(name: str) -> bytes:
    return name.encode()[:15].ljust(16, b"\0")


# --- maps -------------------------------------------------------------------------------------------------------------


def map_create(kind: int, key: int, value: int, entries: int, name: str, flags: int = 0) -> int:
    """A map's descriptor. key, value: bytes; entries: the most that it holds."""
    return _bpf(_MAP_CREATE, struct.pack("<IIIIIII16s", kind, key, value, entries, flags, 0, 0, _name(name)))


def map_put(fd: int, key: bytes, value: bytes) -> None:
    _element(_MAP_UPDATE, fd, key, value)


def map_delete(fd: int, key: bytes) -> None:
    """ENOENT where it is not there."""
    _element(_MAP_DELETE, fd, key, b"")


def map_get(fd: int, key: bytes, value: int) -> bytes:
    """value: bytes of the value. ENOENT where it is not there."""
    room = ctypes.create_string_buffer(value)
    _element(_MAP_LOOKUP, fd, key, room)
    return room.raw


def _element(command: int, fd: int, key: bytes, value: bytes | ctypes.Array[ctypes.c_char]) -> None:
    key_at = ctypes.create_string_buffer(key, len(key))
    value_at = ctypes.create_string_buffer(value, len(value)) if isinstance(value, bytes) else value
    where = ctypes.addressof(value_at) if len(value_at) else 0
    _bpf(command, struct.pack("<I4xQQQ", fd, ctypes.addressof(key_at), where, 0))


def put_many(fd: int, pairs: Sequence[tuple[bytes, bytes]]) -> None:
    """Entries of a hash map, AT_ONCE a call. Those before a fault are in it."""
    for at in range(0, len(pairs), AT_ONCE):
        some = pairs[at : at + AT_ONCE]
        _batch(_UPDATE_BATCH, fd, b"".join([key for key, _ in some]), b"".join([value for _, value in some]), len(some))


def delete_many(fd: int, keys: Sequence[bytes]) -> None:
    """Takes entries out of a hash map; that one is not there is no fault."""
    for at in range(0, len(keys), AT_ONCE):
        some = keys[at : at + AT_ONCE]
        try:
            _batch(_DELETE_BATCH, fd, b"".join(some), b"", len(some))
        except OSError as e:
            if e.errno != errno.ENOENT:
                raise
            for key in some:  # the batch ended at the one that is not there
                _delete_if_there(fd, key)


def _delete_if_there(fd: int, key: bytes) -> None:
    try:
        map_delete(fd, key)
    except OSError as e:
        if e.errno != errno.ENOENT:
            raise


def _batch(command: int, fd: int, keys: bytes, values: bytes, count: int) -> None:
    keys_at, values_at = ctypes.create_string_buffer(keys, len(keys)), ctypes.create_string_buffer(values, len(values))
    pointers = ctypes.addressof(keys_at), ctypes.addressof(values_at) if values else 0
    _bpf(command, struct.pack("<QQQQIIQQ", 0, 0, *pointers, count, fd, 0, 0))


def entries(fd: int, key: int, value: int) -> Iterator[tuple[bytes, bytes]]:
    """All of a map that nobody else changes. key, value: bytes of each."""
    before = b""
    following = ctypes.create_string_buffer(key)
    while True:
        before_at = ctypes.create_string_buffer(before, key)
        try:
            at = ctypes.addressof(before_at) if before else 0
            _bpf(_MAP_NEXT, struct.pack("<I4xQQQ", fd, at, ctypes.addressof(following), 0))
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            raise
        before = following.raw
        yield before, map_get(fd, before, value)


# --- programs and links -----------------------------------------------------------------------------------------------


def load_sk_lookup(code: bytes, name: str) -> int:
    """A program's descriptor. code: struct bpf_insn after struct bpf_insn. What the verifier says is in the error."""
    code_at = ctypes.create_string_buffer(code, len(code))
    license_at = ctypes.create_string_buffer(b"Apache-2.0")
    head = (PROG_SK_LOOKUP, len(code) // 8, ctypes.addressof(code_at), ctypes.addressof(license_at))

    def load(level: int, room: ctypes.Array[ctypes.c_char] | None) -> int:
        log = (level, len(room) if room else 0, ctypes.addressof(room) if room else 0)
        tail = (0, 0, _name(name), 0, ATTACH_SK_LOOKUP)
        return _bpf(_PROG_LOAD, struct.pack("<IIQQIIQII16sII", *head, *log, *tail))

    try:
        return load(0, None)
    except OSError as e:
        if e.errno not in (errno.EACCES, errno.EINVAL):
            raise
        return _refused(load, e)


def _refused(load: object, first: OSError) -> int:
    room = ctypes.create_string_buffer(1 << 18)
    try:
        return int(load(1, room))  # type: ignore[operator]
    except OSError as e:
        said = " | ".join(room.value.decode(errors="replace").strip().splitlines()[-4:])
        raise OSError(first.errno, f"{os.strerror(e.errno or 0)}; the verifier says: {said}") from None


def attach(program: int, netns: int) -> int:
    """A link of a program to a network namespace: both are there until the last descriptor of the link is closed."""
    return _bpf(_LINK_CREATE, struct.pack("<IIII", program, netns, ATTACH_SK_LOOKUP, 0))


def replace_program(link: int, program: int) -> None:
    """Another program in the place of the one that is attached; no packet meets none."""
    _bpf(_LINK_UPDATE, struct.pack("<IIII", link, program, 0, 0))


def detach(link: int) -> None:
    """The program meets nothing any more, though descriptors of the link are there."""
    _bpf(_LINK_DETACH, struct.pack("<I", link))


def attached(netns: int) -> list[int]:
    """The numbers of the programs for sk_lookup in a namespace, in their order."""
    room = (ctypes.c_uint32 * 64)()
    attr = ctypes.create_string_buffer(_ATTR)
    struct.pack_into("<IIIIQI", attr, 0, netns, ATTACH_SK_LOOKUP, 0, 0, ctypes.addressof(room), 64)
    _bpf(_PROG_QUERY, attr)
    (count,) = struct.unpack_from("<I", attr, 24)
    return list(room[:count])


def program_of(number: int) -> int:
    return _bpf(_PROG_FD_BY_ID, struct.pack("<I", number))


def map_of(number: int) -> int:
    return _bpf(_MAP_FD_BY_ID, struct.pack("<I", number))


def links() -> Iterator[int]:
    """A descriptor of each link on the machine, closed after its turn. Needs CAP_SYS_ADMIN."""
    number = 0
    while True:
        attr = ctypes.create_string_buffer(_ATTR)
        struct.pack_into("<II", attr, 0, number, 0)
        try:
            _bpf(_LINK_NEXT_ID, attr)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            raise
        (number,) = struct.unpack_from("<I", attr, 4)
        try:
            fd = _bpf(_LINK_FD_BY_ID, struct.pack("<I", number))
        except OSError as e:
            if e.errno == errno.ENOENT:  # gone meanwhile
                continue
            raise
        try:
            yield fd
        finally:
            os.close(fd)


class ProgramInfo:
    """number, tag: the hash of its instructions. name. maps: their numbers."""

    __slots__ = ("maps", "name", "number", "tag")

    def __init__(self, fd: int) -> None:
        room = (ctypes.c_uint32 * 16)()
        info = ctypes.create_string_buffer(232)
        struct.pack_into("<IQ", info, 52, 16, ctypes.addressof(room))
        _info(fd, info)
        self.number, self.tag = struct.unpack_from("<4xI8s", info)
        count, self.name = struct.unpack_from("<I8x16s", info, 52)
        self.name = self.name.rstrip(b"\0").decode(errors="replace")
        self.maps = list(room[: min(count, 16)])


class MapInfo:
    """kind, key and value (bytes), entries (the most), name."""

    __slots__ = ("entries", "key", "kind", "name", "value")

    def __init__(self, fd: int) -> None:
        info = ctypes.create_string_buffer(128)
        _info(fd, info)
        self.kind, _, self.key, self.value, self.entries, _ = struct.unpack_from("<IIIIII", info)
        self.name = struct.unpack_from("<16s", info, 24)[0].rstrip(b"\0").decode(errors="replace")


def link_info(fd: int) -> tuple[int, int, int]:
    """(type, number of the program, inode of the network namespace or 0)"""
    info = ctypes.create_string_buffer(128)
    _info(fd, info)
    kind, _, program, inode = struct.unpack_from("<III4xI", info)
    return kind, program, inode if kind == LINK_NETNS else 0


def _info(fd: int, room: ctypes.Array[ctypes.c_char]) -> None:
    _bpf(_INFO, struct.pack("<IIQ", fd, len(room), ctypes.addressof(room)))


def pin(fd: int, path: str) -> None:
    """Gives a descriptor's object a name in a bpffs, which keeps it."""
    at = ctypes.create_string_buffer(os.fsencode(path))
    _bpf(_OBJ_PIN, struct.pack("<QI", ctypes.addressof(at), fd))


def pinned(path: str) -> int:
    at = ctypes.create_string_buffer(os.fsencode(path))
    return _bpf(_OBJ_GET, struct.pack("<QI", ctypes.addressof(at), 0))
