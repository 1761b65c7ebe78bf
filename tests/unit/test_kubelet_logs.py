"""A container's log that is followed, without what the machine may have no more of."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.inotify import Watch
from pyrun.kubelet import logs
from pyrun.kubelet.logs import parse_wanted, write_logs
from pyrun.logs.tree import collect_containers


def line(text: str) -> str:
    return f"2026-01-02T03:04:05.000000000Z stdout F {text}\n"


@pytest.mark.parametrize("watches", [True, False])
def test_a_log_is_followed_with_and_without_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watches: bool
) -> None:
    """A machine has 128 inotify instances for all programs of a user, where nobody has set more."""

    def none_left() -> Watch:
        raise PyrunError("inotify: too many open files")

    if not watches:
        monkeypatch.setattr(logs, "Watch", none_left)
    directory = tmp_path / "default_web_0f1e" / "c"
    directory.mkdir(parents=True)
    file = directory / "0.log"
    file.write_text(line("one"))
    [container] = collect_containers(str(tmp_path))
    ours, theirs = socket.socketpair()
    ended = threading.Event()
    wanted = parse_wanted({"follow": "true"}, 0.0)
    follower = threading.Thread(target=write_logs, args=(container, wanted, theirs, ended.is_set))
    follower.start()
    ours.settimeout(60)
    assert ours.recv(100) == b"one\n"
    with file.open("a") as more:
        more.write(line("two"))
    assert ours.recv(100) == b"two\n"
    ended.set()
    follower.join(60)
    assert not follower.is_alive()
    ours.close()
    theirs.close()
