"""fileKeyRef: a variable out of a file that the pod itself has written into a volume (KEP-3721).

Source: kubernetes pkg/kubelet/util/env. VAR='value', nothing in the quotes means anything, and it may have lines; a
comment is a line that begins with #, or follows a value. Who writes it is the pod, so nothing of it is trusted: it is
found beneath the volume, must be a file, and is not read without end.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from ...openat2 import openat2
from .sub_path import INSIDE

MOST = 1 << 20
BLANK = " \t"


def read_beneath(root: int, path: str) -> str | None:
    """None where it is not there. OSError."""
    try:
        fd = openat2(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=root, resolve=INSIDE)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        data = file.read(MOST + 1)
    if len(data) > MOST:
        raise OSError(errno.EFBIG, f"it has more than {MOST} bytes")
    return data.decode(errors="replace")


def value_in(text: str, key: str) -> str | None:
    """PURE. The first value of that name, None where there is none. ValueError of what is wrong before it, by line."""
    lines = iter(enumerate(text.split("\n"), start=1))
    for number, line in lines:
        line = line.removesuffix("\r").lstrip(BLANK)
        if not line or line.startswith("#"):
            continue
        name, equals, rest = line.partition("=")
        if not equals or not name:
            raise ValueError(f"line {number}: is no NAME='value'")
        if name != name.rstrip(BLANK):
            raise ValueError(f"line {number}: nothing may stand between the name and =")
        if not rest or rest[0] in BLANK:  # as in a shell it is empty then
            value = ""
        elif rest[0] != "'":
            raise ValueError(f"line {number}: the value must be in single quotes")
        else:
            value, after = _quoted(rest[1:], lines, number)
            if after and not after.startswith("#"):
                raise ValueError(f"line {number}: {after!r} is after the value")
        if name == key:
            return value
    return None


def _quoted(rest: str, lines: Iterator[tuple[int, str]], begun: int) -> tuple[str, str]:
    """(all up to the next quote, what follows it in its line)."""
    value = ""
    while "'" not in rest:
        value += rest + "\n"
        try:
            rest = next(lines)[1].removesuffix("\r")
        except StopIteration:
            raise ValueError(f"line {begun}: its quote has no end") from None
    inside, _, after = rest.partition("'")
    return value + inside, after.strip(BLANK)
