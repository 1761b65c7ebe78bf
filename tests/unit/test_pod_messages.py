"""The supervisor's messages: Python's numbers and sizes against C's, and what the decoder of each side refuses."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from pyrun.pod import messages as m
from tests.support.container.runner import REPO

HEADER = (REPO / "cffi_build" / "pod" / "message.h").read_text()
PX = (REPO / "cffi_build" / "executor" / "px.h").read_text()


def struct_size(text: str, name: str) -> int:
    """Of a struct of integers, arrays of char and names of such, laid out as C does on a 64-bit machine."""
    body = re.search(rf"struct {name} {{(.*?)\n}};", text, re.S)
    assert body
    code = "@"
    kinds = {"u32": "I", "i32": "i", "u64": "Q", "i64": "q", "char": "s", "int": "i", "unsigned int": "I"}
    for line in re.sub(r"/\*.*?\*/", "", body[1], flags=re.S).split(";"):
        match = re.match(r"\s*(unsigned int|\w+)\s+(.*)", line.strip(), re.S)
        if not match:
            continue
        for name in match[2].split(","):
            size = re.search(r"\[(\w+)\]", name)
            number = {"POD_NAME": m.NAME}.get(size[1], None) if size else None
            code += f"{number if number is not None else int(size[1])}s" if size else kinds[match[1]]
    return struct.calcsize(code + "0Q" if "Q" in code or "q" in code else code)


def define(name: str) -> int:
    match = re.search(rf"#define {name} (\w+?)u?\b", HEADER)
    assert match
    return int(match[1], 0)


def test_sizes() -> None:
    assert struct_size(HEADER, "pod_request") == m.REQUEST.size + 4000 == m.MESSAGE
    assert struct_size(HEADER, "pod_reply") == m.REPLY.size
    assert struct_size(HEADER, "pod_known") == m.KNOWN_ONE.size
    assert struct_size(HEADER, "pod_exit") == m.EXIT_RECORD.size == 48
    assert struct_size(PX, "px_result") == m.RESULT_HEAD.size + 4096


def test_numbers() -> None:
    kinds = re.search(r"enum pod_kind {(.*?)};", HEADER, re.S)
    assert kinds
    value, found = 0, {}
    for word in kinds[1].split(","):
        name, _, number = word.strip().partition(" = ")
        value = int(number) if number else value + 1
        found[name.removeprefix("POD_")] = value
    del found["KINDS"], found[""]
    assert found == {name: getattr(m, name) for name in found} and len(found) == 16
    assert define("POD_MAGIC") == m.MAGIC and define("POD_TOLD") == m.TOLD and define("POD_NAME") == m.NAME
    flags = [define(f"POD_{name}") for name in ("TTY", "OPEN_STDIN", "STDIN_ONCE", "HAS_LOG")]
    assert flags == [m.TTY, m.OPEN_STDIN, m.STDIN_ONCE, m.HAS_LOG]


def test_names_that_are_too_long() -> None:
    with pytest.raises(ValueError, match="too long"):
        m.request(m.DROP, "x" * 65)
    with pytest.raises(ValueError, match="too long"):
        m.request(m.CREATE, "x", path="/" * 4000)


@pytest.mark.parametrize("data", [b"", b"x" * 10, bytes(m.REPLY.size)])
def test_replies_that_are_none(data: bytes) -> None:
    with pytest.raises(ValueError, match="short|version"):
        m.Reply(data)


def exit_bytes(**changes: int) -> bytes:
    fields = {"pid": 7, "status": 256, "start": 99, "ended": 1_700_000_000_000_000_000, "oom": 2, **changes}
    body = m.EXIT_RECORD.pack(m.EXIT_MAGIC, *fields.values(), 0, 0)[:-4]
    return body + struct.pack("<I", m.checksum(body))


def test_an_exit_record() -> None:
    known = m.read_exit(exit_bytes(), "c1")
    assert known is not None
    assert (known.ctr, known.pid, known.exit_code, known.start, known.oom_kills) == ("c1", 7, 1, 99, 2)


@pytest.mark.parametrize("data", [b"", bytes(48), exit_bytes()[:-1], exit_bytes()[:-5] + b"\1\1\1\1\1"])
def test_an_exit_record_that_is_not_whole(data: bytes) -> None:
    assert m.read_exit(data, "c1") is None


@pytest.mark.parametrize(("status", "code"), [(0, 0), (256, 1), (9, 137), (15, 143), (0x8B, 139)])
def test_exit_codes(status: int, code: int) -> None:
    assert m.exit_code(status) == code


def test_the_package_has_the_program() -> None:
    assert Path(REPO / "pyrun" / "bin" / "pyrun-pod").exists()
