"""Sockets whose path is longer than an address may be (unix(7): 107 bytes)."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner


def listener(directory: Path, kind: socket.SocketKind) -> tuple[socket.socket, Path]:
    """A socket that listens, and its path of some 250 bytes."""
    near, far = directory / "near", directory / ("d" * 120) / ("e" * 120)
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(str(near))
    if kind == socket.SOCK_STREAM:
        made.listen()
    made.settimeout(60)
    far.mkdir(parents=True)
    near.rename(far / "socket")
    return made, far / "socket"


@pytest.mark.parametrize("what", ["console", "pidfd", "seccomp"])
def test_a_descriptor_arrives(pyrun: Runner, bundle: BundleMaker, tmp_path: Path, what: str) -> None:
    made, path = listener(tmp_path, socket.SOCK_STREAM)
    config: dict[str, Any] = {"console": {"process": {"terminal": True}}}.get(what, {})
    if what == "seccomp":
        rule = {"names": ["acct"], "action": "SCMP_ACT_NOTIFY"}
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(path), "syscalls": [rule]}
        config = {"linux": {"seccomp": profile}}
    words: list[str | Path] = [] if what == "seccomp" else [f"--{what}-socket", path]
    container = bundle(["sleep", "1000"], **config)
    pyrun.create(container, *words)
    with made, made.accept()[0] as peer:
        peer.settimeout(60)
        _, fds, _, _ = socket.recv_fds(peer, 4096, 1)
    assert len(fds) == 1
    assert what != "console" or os.isatty(fds[0])
    os.close(fds[0])


def test_the_service_manager_hears(
    pyrun: Runner, bundle: BundleMaker, debian_rootfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, path = listener(tmp_path, socket.SOCK_DGRAM)
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    say = "socket(S, 1, 2, 0); send(S, 'READY=1', 0, pack('Sa*x', 1, $ENV{NOTIFY_SOCKET})) or die $!; sleep 1000"
    container = bundle(["perl", "-e", say], rootfs=debian_rootfs)
    with made:
        process = pyrun.popen("run", "--detach", "--bundle", container.path, pyrun.new_id())
        heard = []
        for _ in range(3):
            assert select.select([made], [], [], 30)[0]
            data, fds, _, _ = socket.recv_fds(made, 4096, 1)
            heard.append(data)
            for fd in fds:
                os.close(fd)
        assert process.wait(60) == 0
    assert heard[0] == b"READY=1\n" and heard[2] == b"BARRIER=1"
