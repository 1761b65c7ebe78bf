"""The record: packed and read back, damage is noticed, and the launcher's C reads the same layout."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from pyrun.plan import lifecycle
from pyrun.runtime import record
from pyrun.runtime.record import BLOBS, HEADER, SUMMED_FROM, Record, unpack

CFFI = Path(__file__).resolve().parents[2] / "cffi_build" / "launcher"
C_TYPES = {"char": 1, "u32": 4, "u64": 8}


def make_record() -> Record:
    blobs: dict[str, object] = {f"b_{name}": name.encode() * (i + 1) for i, name in enumerate(BLOBS)}
    return Record(
        pid=41,
        start=42,
        status=1,
        cgroup=45,
        place=(46, 47),
        boot_id="0123456789-abcdef-0123456789-abcdef0",
        flags=5,
        **blobs,
    )


def test_what_is_packed_is_read_back() -> None:
    made = make_record()
    back = unpack(made.pack())
    for name in Record.__slots__:
        assert getattr(back, name) == getattr(made, name), name


def old_record() -> bytes:
    """What a pyrun before this record wrote of the same container."""
    new = make_record().pack()
    numbers = struct.unpack_from("<3Q40x36s", new, 8)
    shift = HEADER.size - record.OLD_HEADER.size
    table = struct.unpack_from(f"<{2 * len(BLOBS)}I", new, HEADER.size)
    moved = [value - shift * (i % 2 == 0) for i, value in enumerate(table)]
    head = record.OLD_HEADER.pack(record.OLD_MAGIC, *numbers, 0, 5, len(BLOBS))
    whole = bytearray(head + struct.pack(f"<{len(moved)}I", *moved) + new[HEADER.size + 8 * len(BLOBS) :])
    record.SUM.pack_into(whole, record.OLD_SUM_AT, record.checksum(whole, record.OLD_SUM_AT, record.OLD_SUMMED_FROM))
    return bytes(whole)


def test_an_older_record_is_read() -> None:
    back = unpack(old_record())
    assert (back.cgroup, back.place) == (0, (0, 0))
    for name in set(Record.__slots__) - {"cgroup", "place"}:
        assert getattr(back, name) == getattr(make_record(), name), name
    with pytest.raises(ValueError):
        unpack(old_record()[:-8] + bytes(8))


def test_pid_start_and_status_are_where_the_executor_writes_them() -> None:
    data = make_record().pack()
    assert struct.unpack_from("<4Q", data, 8) == (41, 42, 1, 45)


def test_plans_in_a_record_are_aligned() -> None:
    data = make_record().pack()
    for i in range(len(BLOBS)):
        offset, _ = struct.unpack_from("<II", data, HEADER.size + 8 * i)
        assert offset % 8 == 0


@pytest.mark.parametrize("keep", [0, 7, 119, 120, 190, 215, 216, 250, -1])
def test_a_record_cut_short_is_damaged(keep: int) -> None:
    with pytest.raises(ValueError):
        unpack(make_record().pack()[:keep])


def test_what_steps_write_is_not_in_the_checksum() -> None:
    data = bytearray(make_record().pack())
    struct.pack_into("<4Q", data, 8, 51, 52, 0, 53)
    assert (unpack(bytes(data)).pid, unpack(bytes(data)).status) == (51, 0)


def test_any_other_byte_that_changes_is_noticed() -> None:
    data = bytearray(make_record().pack())
    for at in [*range(8), *range(SUMMED_FROM, len(data))]:
        data[at] ^= 0x80
        with pytest.raises(ValueError):
            unpack(bytes(data))
        data[at] ^= 0x80
    assert unpack(bytes(data)).pid == 41


@pytest.mark.parametrize("size", [8, 64, 512])
def test_zeros_in_place_of_what_was_written_are_noticed(size: int) -> None:
    data = make_record().pack()
    for at in range(SUMMED_FROM, len(data) - size, 8):
        if any(data[at : at + size]):
            with pytest.raises(ValueError):
                unpack(data[:at] + bytes(size) + data[at + size :])


@pytest.mark.parametrize("at", [0, 116, 120, 124])  # magic, count, an offset, a length
def test_a_record_with_a_wrong_number_is_damaged(at: int) -> None:
    data = bytearray(make_record().pack())
    data[at + 3] ^= 0x40
    record.seal(data)
    with pytest.raises(ValueError):
        unpack(bytes(data))


def c_struct(source: str, name: str) -> list[tuple[str, int, int]]:
    """(field, offset, size) of a struct in C that has no padding of the compiler's."""
    match = re.search(rf"struct {name} \{{(.*?)\n\}};", source, re.S)
    assert match, name
    fields, at = [], 0
    for kind, names in re.findall(r"\b(char|u32|u64) ([^;{}]+);", match[1].partition("struct {")[0]):
        for field in names.split(","):
            plain, _, count = field.strip().rstrip("]").partition("[")
            size = C_TYPES[kind] * int(count or 1)
            fields.append((plain, at, size))
            at += size
    return fields


def test_the_launcher_has_the_same_layout() -> None:
    source = (CFFI / "launcher.h").read_text()
    fields = c_struct(source, "record")
    assert [name for name, _, _ in fields][:3] == ["magic", "pid", "start"]
    assert sum(size for _, _, size in fields) == HEADER.size
    names = ("magic", "pid", "start", "status", "cgroup", "pidns", "timens", "boot_id")
    values = {name: i for i, name in enumerate((*names, "sum", "flags", "count"))}
    packed = HEADER.pack(b"MAGICMAG", 1, 2, 3, 4, 5, 6, b"b" * 36, 8, 9, 10)
    for name, offset, size in fields:
        if name in values and size in (4, 8) and name != "magic":
            assert int.from_bytes(packed[offset : offset + size], "little") == values[name], name


def test_the_launcher_has_the_same_blobs_and_flags() -> None:
    source = (CFFI / "launcher.h").read_text()
    blobs = re.search(r"enum blob \{ (.*?), B_COUNT \}", source)
    assert blobs and tuple(name.removeprefix("B_").lower() for name in blobs[1].split(", ")) == BLOBS
    for name, value in re.findall(r"#define (HAS_\w+|SHARED_PIDNS|SYSTEMD) (\d+)u", source):
        assert getattr(record, name) == int(value), name
    assert next(offset for name, offset, _ in c_struct(source, "record") if name == "sum") == record.SUM_AT
    held = re.search(r"enum held \{ (.*?) \}", source)
    assert held and held[1] == "HELD_STATE, HELD_CGROUP" and (lifecycle.STATE, lifecycle.CGROUP) == (0, 1)
    assert f"first = {record.SUMMED_FROM}, " in (CFFI / "record.c").read_text()
