"""Runs one plug-in for one command: JSON in, JSON out, an exit status, a deadline.

Its streams are files and not pipes, so that what it leaves running in the background (a DHCP client) keeps nobody
waiting; at the deadline it is killed with its whole session.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

from ....errors import DeadlineExceeded, PyrunError, Unavailable, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAX_BYTES = 4 << 20
SAID = 1000  # characters of what a plug-in says that a message has


class PluginFailed(PyrunError):
    """number: CNI's error code, 0 where there is none."""

    def __init__(self, text: str, number: int = 0, *, hint: str | None = None) -> None:
        super().__init__(text, hint=hint)
        self.number = number


def find_plugin(kind: str, bin_dirs: tuple[str, ...]) -> str:
    """The path of a plug-in. Unavailable."""
    for directory in bin_dirs:
        path = f"{directory}/{kind}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    places = ", ".join(bin_dirs)
    raise Unavailable(f"the CNI plug-in {kind} is in none of {places}", hint="install containernetworking-plugins")


def run_plugin(
    kind: str,
    command: str,
    given: dict[str, Any],
    environment: Mapping[str, str],
    bin_dirs: tuple[str, ...],
    patience_s: float,
) -> dict[str, Any]:
    """What a plug-in answers, {} for nothing. PluginFailed with its own words, DeadlineExceeded, Unavailable."""
    path, what = find_plugin(kind, bin_dirs), f"CNI plug-in {kind} ({command})"
    env = {**os.environ, **environment, "CNI_COMMAND": command, "CNI_PATH": ":".join(bin_dirs)}
    files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("cni-in", "cni-out", "cni-err")]
    try:
        os.write(files[0], json.dumps(given).encode())
        os.lseek(files[0], 0, os.SEEK_SET)
        try:
            process = subprocess.Popen(
                [path], stdin=files[0], stdout=files[1], stderr=files[2], env=env, cwd="/", start_new_session=True
            )
        except OSError as e:
            raise Unavailable(f"{what}: {path}: {reason(e)}") from None
        try:
            status = process.wait(patience_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise DeadlineExceeded(f"{what}: took longer than {patience_s:.0f} s and was killed") from None
        except BaseException:
            _kill(process)
            raise
        out, err = (os.pread(fd, MAX_BYTES + 1, 0) for fd in files[1:])
    finally:
        for fd in files:
            os.close(fd)
    return _answer(what, status, out, err)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)


def _answer(what: str, status: int, out: bytes, err: bytes) -> dict[str, Any]:
    if len(out) > MAX_BYTES:
        raise PluginFailed(f"{what}: answers more than {MAX_BYTES >> 20} MiB")
    try:
        data = json.loads(out) if out.strip() else {}
    except (ValueError, RecursionError):
        data = None
    if status == 0:
        if not isinstance(data, dict):
            raise PluginFailed(f"{what}: its answer is no JSON object: {_short(out)}")
        return data
    how = f"exit status {status}" if status > 0 else f"signal {-status}"
    if isinstance(data, dict) and (data.get("msg") or data.get("code")):
        number = data.get("code")
        number = number if isinstance(number, int) else 0
        details = f"; {data['details']}" if data.get("details") else ""
        raise PluginFailed(f"{what}: {_short(str(data.get('msg')) + details)} (code {number})", number)
    raise PluginFailed(f"{what}: {how}: {_short(err or out) or 'it said nothing'}")


def _short(text: bytes | str) -> str:
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = " ".join(text.split())
    return text if len(text) <= SAID else text[:SAID] + "\u2026"
