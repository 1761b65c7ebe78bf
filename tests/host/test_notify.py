"""$NOTIFY_SOCKET: what a container says of its readiness comes to the caller's service manager, and nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.runtime import notify
from pyrun.runtime.runtime import Runtime
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import Runner, wait_for
from tests.support.executor.faults import descriptors

SAY = (
    "use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0);send(S, $_, 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or die $! for @ARGV"
)


class Manager:
    """The service manager's socket: keeps what it is sent, and answers barriers."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.heard: list[str] = []
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
            if data == b"end":
                return
            self.heard.append(data.decode())
            for fd in fds:
                os.close(fd)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"end", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Manager, dict[str, str]]]:
    name = str(tmp_path / "m") if request.param == "path" else f"\0pyrun-test-{os.getpid()}"
    made = Manager(name)
    yield made, {"NOTIFY_SOCKET": name.replace("\0", "@")}
    made.close()


def service(bundle: BundleMaker, root: Path, *messages: str, then: str = "sleep 1000") -> Bundle:
    words = " ".join(f"'{m}'" for m in messages)
    return bundle(["sh", "-c", f"sleep 0.3; perl -e '{SAY}' {words}; {then}"], rootfs=root)


def test_start_waits_until_the_program_is_ready(
    pyrun: Runner, bundle: BundleMaker, debian_rootfs: Path, manager: tuple[Manager, dict[str, str]]
) -> None:
    listener, env = manager
    made = service(bundle, debian_rootfs, "STATUS=soon", "MAINPID=1", "X=1\nREADY=1\nMAINPID=2")
    pyrun.create(made, id="one", env={**os.environ, **env})
    assert listener.heard == []
    begin = time.monotonic()
    pyrun("start", "one", env=env).ok()
    assert time.monotonic() - begin > 0.3
    assert listener.heard == ["READY=1\n", f"MAINPID={pyrun.pid('one')}\n", "BARRIER=1"]
    pyrun.delete("one", "--force").ok()
    assert pyrun.ids() == []


def test_start_does_not_wait_for_a_program_that_ends(
    pyrun: Runner, bundle: BundleMaker, debian_rootfs: Path, manager: tuple[Manager, dict[str, str]]
) -> None:
    listener, env = manager
    pyrun.create(service(bundle, debian_rootfs, "STATUS=never", then="exit 0"), id="one", env={**os.environ, **env})
    pyrun("start", "one", env=env).ok()
    assert listener.heard == []
    pyrun.delete("one").ok()


def test_a_start_that_waits_can_be_given_up(
    pyrun: Runner, bundle: BundleMaker, manager: tuple[Manager, dict[str, str]]
) -> None:
    """The program runs by then, and goes on."""
    _, env = manager
    pyrun.create(bundle(["sleep", "1000"]), id="one", env={**os.environ, **env})
    cancel, before = os.eventfd(0), descriptors()
    threading.Timer(0.5, os.eventfd_write, (cancel, 1)).start()
    container = Runtime(str(pyrun.root)).container("one")
    with pytest.raises(PyrunError, match="interrupted before the program was ready"):
        container.start(cancel=cancel, notify=env["NOTIFY_SOCKET"].replace("\0", "@").encode())
    assert descriptors() == before
    os.close(cancel)
    assert container.status() == "running"
    container.delete(force=True)


def test_a_manager_that_hangs_up_costs_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before the barrier."""

    class HangsUp(socket.socket):
        def sendmsg(self, *args: object) -> int:
            raise ConnectionRefusedError

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    monkeypatch.setattr(notify, "_connect", lambda address: HangsUp(fileno=os.dup(ours.fileno())))
    sent, received = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sent.send(b"READY=1")
    before = descriptors()
    assert notify.hand_on(received.fileno(), 7, b"/manager")
    assert descriptors() == before and theirs.recv(100) == b"READY=1\n"
    for one in (ours, theirs, sent, received):
        one.close()


def test_start_without_a_manager_does_not_wait(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """The directory is made by create, the socket by start."""
    made = bundle(["sh", "-c", "ls /run/notify; echo $NOTIFY_SOCKET; sleep 1000"])
    pyrun.create(made, id="one", env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "none")})
    pyrun("start", "one").ok()
    assert pyrun.exec("one", "ls", "/run/notify").ok().out == ""
    pyrun.delete("one", "--force").ok()


def test_run_in_the_foreground_is_the_service_itself(
    pyrun: Runner, bundle: BundleMaker, debian_rootfs: Path, manager: tuple[Manager, dict[str, str]]
) -> None:
    listener, env = manager
    made = service(bundle, debian_rootfs, "READY=1", then="sleep 0.5; exit 6")
    process = subprocess.Popen(pyrun.command("run", "-b", made.path, "one"), env={**os.environ, **env})
    wait_for(lambda: len(listener.heard) == 3, 20, "the message")
    assert listener.heard == ["READY=1\n", f"MAINPID={process.pid}\n", "BARRIER=1"]
    assert process.wait(60) == 6
    assert pyrun.ids() == []


def test_run_detached_waits(
    pyrun: Runner, bundle: BundleMaker, debian_rootfs: Path, manager: tuple[Manager, dict[str, str]]
) -> None:
    listener, env = manager
    made = service(bundle, debian_rootfs, "READY=1")
    null = subprocess.DEVNULL
    command = pyrun.command("run", "--detach", "-b", made.path, "one")
    subprocess.run(command, env={**os.environ, **env}, stdin=null, stdout=null, stderr=null, check=True)
    assert listener.heard == ["READY=1\n", f"MAINPID={pyrun.pid('one')}\n", "BARRIER=1"]


def test_container_without_the_variable_has_no_socket(pyrun: Runner, bundle: BundleMaker) -> None:
    done = pyrun.run(bundle(["sh", "-c", "ls /run/notify 2>/dev/null; env"])).ok()
    assert "NOTIFY" not in done.out
    assert "notify" not in done.out
