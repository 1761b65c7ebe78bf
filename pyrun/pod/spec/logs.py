"""Where a container's log goes: beneath the pod's log directory, whatever the request says (CVE-2025-0750)."""

from __future__ import annotations

import os
import re
import stat

from ...errors import InvalidArgument, PyrunError, reason
from .draft import check_path, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def log_path(config: Any, pod: Any) -> str:
    """The absolute path; "" where the request has none. InvalidArgument for one that leads out."""
    if not config.log_path:
        return ""
    if not pod.log_directory:
        refuse("log_path", "is set, and the pod has no log_directory")
    check_path("pod.log_directory", pod.log_directory)
    return f"{pod.log_directory.rstrip('/')}/{'/'.join(_parts(config.log_path))}"


# An annotation of a container, or of a pod for all of its containers.
RATE = "pyrun.dev/log-rate"
_SIZE = re.compile(r"([1-9][0-9]{0,8})([KMG])")
_MOST_KIB = (1 << 24) - 1


def log_rate(config: Any, pod: Any) -> int:
    """KiB of log that are kept of a second; 0 where nobody says. InvalidArgument for what is no rate."""
    text = config.annotations.get(RATE, "") or pod.annotations.get(RATE, "")
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    rate = int(match[1]) << {"K": 0, "M": 10, "G": 20}[match[2]] if match else 0
    if not 16 <= rate <= _MOST_KIB:
        refuse(f"annotations[{RATE}]", f"{text!r} is no size a second from 16K to 15G, such as 512K or 5M")
    return rate


def _parts(path: str) -> list[str]:
    parts = path.split("/")
    if path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts):
        refuse("log_path", f"{path!r} is no plain path below the pod's log_directory")
    if len(path.encode("utf-8", "surrogateescape")) > 4095:
        refuse("log_path", "a path has at most 4095 bytes")
    return parts


def open_log(directory: str, path: str) -> int:
    """The log file, made if it is not there, for appending; path is relative to directory. No symlink below the
    directory is followed, and what is there must be a regular file. PyrunError."""
    parts = _parts(path)
    at = directory
    try:
        os.makedirs(directory, 0o755, exist_ok=True)
        here = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                at = f"{at}/{part}"
                try:
                    os.mkdir(part, 0o755, dir_fd=here)
                except FileExistsError:
                    pass
                below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                os.close(here)
                here = below
            at = f"{at}/{parts[-1]}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            log = os.open(parts[-1], flags, 0o640, dir_fd=here)
        finally:
            os.close(here)
    except OSError as error:
        raise PyrunError(f"log {at}: {reason(error)}") from None
    if not stat.S_ISREG(os.fstat(log).st_mode):
        os.close(log)
        raise InvalidArgument(f"log_path: {at} is no regular file")
    os.set_blocking(log, True)
    return log
