"""Writes the first inputs of the supervisor's fuzzer: ``python pod_seeds.py DIR``. Messages, and logs."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from pyrun.pod import messages as m  # noqa: E402

READ, ROOM, PLENTY, SWITCH, TIME = 0, 8, 10, 12, 14


def read(data: bytes, stream: int = 0) -> bytes:
    return bytes((READ | stream,)) + len(data).to_bytes(2, "little") + data


def logs() -> list[bytes]:
    long = read(b"x" * 20_000) + read(b"x" * 20_000) + read(b"\n")
    short = b"".join(read(b"one\ntwo\nthr", n & 1) for n in range(8))
    full = bytes((ROOM, 3)) + read(b"line\n" * 200) + bytes((TIME, 10, PLENTY, TIME, 200)) + read(b"more\n")
    switch = read(b"x" * 17_000) + bytes((SWITCH,)) + read(b"end\n") + bytes((TIME, 20)) + read(b"tail\n")
    return [bytes((0, patience)) + body for patience in (0, 5) for body in (long, short, full, switch, full + switch)]


def messages() -> list[bytes]:
    fds = {m.CREATE: 1, m.EXEC: 4, m.LOG: 1}
    named = [k for k in range(m.HELLO, m.GO + 1) if k not in (m.HELLO, m.END, m.EVENTS, m.GO)]
    found = [
        bytes((1, fds.get(k, 0))) + m.request(k, "ab" * 32 if k in named else "") for k in range(m.HELLO, m.GO + 1)
    ]
    return [*found, bytes((1, 2)) + m.request(m.CREATE, "c1", m.HAS_LOG | m.TTY, 10_000, "/sys/fs/cgroup/pod/c1")]


if __name__ == "__main__":
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*logs(), *messages()]):
        (out / f"{number:03}").write_bytes(data)
