"""What a container left to say of its end: its terminationMessagePath, or the end of its log.

The file is made by us and mounted into the container, so that whatever the container does there is done to this one
inode. Source: kubernetes pkg/kubelet/kuberuntime (getTerminationMessage).
"""

from __future__ import annotations

import os

from ...errors import PyrunError, reason
from ...kube.objects.containers import Container, EphemeralContainer
from ...logs.line import parse_piece

MOST_BYTES = 4096
POD_BYTES = 12 << 10  # of all its containers, each of which has its share (kubelet: MaxPodTerminationMessageLogLength)
LOG_BYTES, LOG_LINES = 2048, 80
READ_BYTES = 256 << 10  # of the log's end: lines of 16 KiB have their times beside them


def make_file(path: str) -> None:
    """Empty, and anybody's to write: who the container's user is does not matter. PyrunError."""
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.fchmod(fd, 0o666)
        finally:
            os.close(fd)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None


def read_message(path: str, c: Container | EphemeralContainer, code: int, log: str, many: int = 1) -> str:
    """At most 4096 bytes; of the log, where the policy says so and it failed, 2048 bytes or 80 lines. many: the pod's
    containers."""
    return _read(path, c, code, log).encode()[: POD_BYTES // many].decode(errors="ignore")


def _read(path: str, c: Container | EphemeralContainer, code: int, log: str) -> str:
    text = _end(path, MOST_BYTES).decode(errors="replace") if c.terminationMessagePath else ""
    if not text and code != 0 and c.terminationMessagePolicy == "FallbackToLogsOnError":
        return _end_of_log(log)
    return text


def _end(path: str, most: int) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        size = os.fstat(fd).st_size
        return os.pread(fd, most, max(0, size - most))
    finally:
        os.close(fd)


def _end_of_log(path: str) -> str:
    text, lines = b"", 0
    for raw in reversed(_end(path, READ_BYTES).split(b"\n")):
        piece = parse_piece(raw)
        if piece is None:
            continue
        _, _, partial, content = piece
        if not partial:
            lines += 1
            content += b"\n"
        if lines > LOG_LINES or len(text) >= LOG_BYTES:
            break
        text = content + text
    return text[-LOG_BYTES:].decode(errors="replace")
