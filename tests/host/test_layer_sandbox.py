"""What is left to pyrun-layer if a layer takes it over: one directory, no more."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyrun.errors import Aborted
from pyrun.image import layers
from tests.support.layers import Tar, snapshot

REPO = Path(__file__).resolve().parents[2]
SOURCES = ["hosted/layer_probe.c", "layers/sandbox.c", "layers/report.c"]
# chown, dac_override, fowner, fsetid, setfcap, sys_admin
CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 31 | 1 << 21


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe") / "layer-probe"
    command: list[str | Path] = [
        "cc",
        "-std=gnu11",
        "-O1",
        "-Wall",
        "-Werror",
        "-o",
        out,
        *(REPO / "cffi_build" / s for s in SOURCES),
    ]
    subprocess.run(command, check=True)
    return out


FILES = {
    "read": errno.EACCES,
    "read-up": errno.EACCES,
    "write": errno.EACCES,
    "unlink": errno.EACCES,
    "mkdir": errno.EACCES,
    "link-in": errno.EXDEV,
    "device": errno.EPERM,
    "openat": errno.EACCES,
    "memory": errno.ENOMEM,
}
CALLS = ["socket", "exec", "fork", "code", "ptrace", "kill"]


@pytest.mark.parametrize("what", ["nothing", *FILES, *CALLS])
def test_attempt(probe: Path, tmp_path: Path, what: str) -> None:
    for name in ("in", "outside"):
        (tmp_path / name).mkdir()
    (tmp_path / "outside/secret").write_text("s")
    before = snapshot(tmp_path / "outside")
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    pid = os.posix_spawn(probe, ["probe", what], {}, file_actions=[(os.POSIX_SPAWN_DUP2, fd, 3)])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    assert code == (0 if what == "nothing" else FILES.get(what, -signal.SIGSYS))
    assert snapshot(tmp_path / "outside") == before
    assert os.listdir(tmp_path / "in") == (["made"] if what == "nothing" else [])


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[Callable[[], int]]:
    """Unpacks from a pipe that gives half a layer; → the process."""
    blob = Tar().file("a", b"x").file("b", b"y" * 10_000).bytes()
    read, write = os.pipe()
    into = os.open(tmp_path, os.O_RDONLY)
    stop = threading.Event()
    ended = []

    def work() -> None:
        try:
            layers.unpack(read, None, into, cancel=stop.is_set)
        except Aborted as error:
            ended.append(error)

    thread = threading.Thread(target=work)

    def begin() -> int:
        thread.start()
        os.write(write, blob[:4096])
        return child_of(os.getpid())

    yield begin
    stop.set()
    thread.join(60)
    assert ended
    for fd in (read, write, into):
        os.close(fd)


def child_of(parent: int) -> int:
    """The pyrun-layer among its children, once it has begun to read."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            if "(pyrun-layer)" in stat and int(stat.rsplit(")", 1)[1].split()[1]) == parent and "Seccomp:\t2" in status:
                return pid
        time.sleep(0.02)
    raise AssertionError("no pyrun-layer")


def test_what_it_has(stalled: Callable[[], int]) -> None:
    """Each thread: the filter, no new privileges, six capabilities; four descriptors, no environment."""
    leak = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leak, True)
    pid = stalled()
    tasks = os.listdir(f"/proc/{pid}/task")
    assert len(tasks) == 2
    for task in tasks:
        lines = Path(f"/proc/{pid}/task/{task}/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1")
        for kind in ("CapEff", "CapPrm", "CapBnd"):
            assert int(status[kind], 16) & ~CAPABILITIES == 0, kind
        assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2", "3"]
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""
    os.close(leak)


def test_it_ends_with_who_asked(tmp_path: Path) -> None:
    """A daemon is killed: its unpackers write nothing more into what the next daemon sweeps."""
    script = (
        "import os, sys; from pyrun.image import layers; r, w = os.pipe();"
        "layers.unpack(r, None, os.open(sys.argv[1], os.O_RDONLY))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, tmp_path], cwd=REPO)
    pidfd = os.pidfd_open(child_of(parent.pid))
    parent.kill()
    parent.wait()
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(5000)
    os.close(pidfd)


def test_many_threads_at_once(tmp_path: Path) -> None:
    """No descriptor of one unpacker's gets into another, none stays here."""
    before = sorted(os.listdir("/proc/self/fd"))
    blob = Tar().file("f", b"x" * 100_000).bytes()
    (tmp_path / "blob").write_bytes(blob)
    found = []

    def work(n: int) -> None:
        for turn in range(5):
            target = tmp_path / f"{n}-{turn}"
            target.mkdir()
            fd = os.open(target, os.O_RDONLY)
            found.append(layers.unpack(str(tmp_path / "blob"), None, fd).inodes)
            os.close(fd)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [2] * 40 and sorted(os.listdir("/proc/self/fd")) == before
