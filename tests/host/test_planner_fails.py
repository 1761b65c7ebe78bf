"""A planner that fails in any way leaves the work to Python; and the command `pyrun planner` itself."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from pyrun.cli.planner import MOST_HELD, NAME
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.disk import dead_fuse
from tests.support.container.planned import Planned, listen
from tests.support.container.runner import Runner, python_argv, wait_for
from tests.support.executor.stub import LAUNCHER, TO_PYTHON

pytestmark = pytest.mark.root


@pytest.fixture
def planned(tmp_path: Path) -> Iterator[Planned]:
    made = Planned(tmp_path)
    yield made
    made.close()


# ---- a planner that fails


class Fake:
    """Listens in the planner's place and does as `act` says with each caller."""

    def __init__(self, root: Path, act: Callable[[socket.socket], object]) -> None:
        self._listener = listen(root)
        self._act = act
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            caller, _ = self._listener.accept()
            try:
                with caller:
                    if caller.recv(1 << 18) == b"end":
                        return
                    self._act(caller)
            except OSError:  # it waits 60 ms at most; on a busy machine it has gone before
                continue

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
            last.settimeout(60)
            last.connect(self._listener.getsockname())
            last.send(b"end")
        self._thread.join()
        self._listener.close()


@pytest.fixture
def answer(planned: Planned, bundle: BundleMaker) -> bytes:
    planned.served("run", "-b", bundle(["true"]).path, "x").ok()
    return planned.planner.answers[-1]


def test_an_answer_cut_at_any_byte_is_none(planned: Planned, bundle: BundleMaker, answer: bytes) -> None:
    made, cut = bundle(["true"]), [0]
    fake = Fake(planned.root, lambda caller: caller.send(answer[: cut[0]]) if cut[0] else None)
    try:
        for cut[0] in (*range(64), *range(64, len(answer), 97), len(answer) - 1):
            assert planned.bare("run", "-b", made.path, "x").rc == TO_PYTHON, cut
    finally:
        fake.close()
    assert planned.python("list", "-q").out == ""


def test_an_answer_of_another_kind_is_none(planned: Planned, bundle: BundleMaker, answer: bytes) -> None:
    made, sent = bundle(["true"]), [b""]
    fake = Fake(planned.root, lambda caller: caller.send(sent[0]))
    try:
        for at in range(32 - 4):  # the magic, how, and offsets: their highest bytes make them wild
            if at < 8 or at % 4 == 3:
                sent[0] = answer[:at] + bytes([answer[at] ^ 0x7F]) + answer[at + 1 :]
                assert planned.bare("run", "-b", made.path, "x").rc == TO_PYTHON, at
        plans = [answer[:24] + at.to_bytes(4, "little") + answer[28:] for at in (0, 8, 24, len(answer) & ~7)]
        for sent[0] in (b"\0" * 64, b"\xff" * 200_000, answer[:32] + b"/" * 32 + answer[64:], *plans):
            assert planned.bare("run", "-b", made.path, "x").rc == TO_PYTHON
    finally:
        fake.close()


@pytest.mark.parametrize("way", ["hangs up", "is slow", "takes nobody", "is gone", "a file", "a directory", "a stream"])
def test_whatever_is_wrong_with_it_python_plans(tmp_path: Path, bundle: BundleMaker, way: str) -> None:
    root, made = tmp_path / "state", bundle(["sh", "-c", "echo in; exit 4"])
    fake, kept = None, []
    if way in ("hangs up", "is slow"):
        done = threading.Event()
        fake = Fake(root, lambda caller: done.wait(0.3) if way == "is slow" else None)
    elif way in ("takes nobody", "is gone"):
        kept.append(listen(root))
        if way == "is gone":
            kept.pop().close()
    else:
        root.mkdir(mode=0o700)
        if way == "a directory":
            (root / NAME).mkdir()
        elif way == "a file":
            (root / NAME).write_text("x")
        else:
            kept.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            kept[0].bind(str(root / NAME))
            kept[0].listen(1)
    try:
        for argv in ([str(LAUNCHER)], python_argv()):
            done_ = Runner(root, argv)("run", "-b", made.path, "x")
            assert (done_.rc, done_.out, done_.err) == (4, "in\n", "")
        assert Runner(root, [str(LAUNCHER)])("list", "-q").ok().out == ""
    finally:
        if fake:
            fake.close()
        for one in kept:
            one.close()


# ---- the command


@pytest.fixture
def pyrun_planner(pyrun: Runner) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts `pyrun planner`, and waits until it has taken the name."""
    started: list[subprocess.Popen[bytes]] = []

    def number() -> int:
        try:
            return (pyrun.root / NAME).lstat().st_ino
        except FileNotFoundError:
            return 0

    def begin() -> subprocess.Popen[bytes]:
        before = number()
        started.append(pyrun.popen("planner", stderr=subprocess.PIPE))
        wait_for(lambda: number() != before, 20, "the planner's socket")
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait(60)
    (pyrun.root / NAME).unlink(missing_ok=True)


def interpreters(pyrun: Runner, made: Bundle, notes: Path) -> int:
    """How many programs called python a run starts, by its own trace of system calls."""
    command = ["strace", "-f", "-qq", "-e", "trace=execveat", "-o", str(notes), *pyrun.argv]
    Runner(pyrun.root, command)("run", "-b", made.path, "x").ok()
    return notes.read_text().count("bin/python")


def test_by_hand(
    pyrun: Runner, bundle: BundleMaker, pyrun_planner: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    made = bundle(["true"])
    first = pyrun_planner()
    assert (pyrun.root.stat().st_mode & 0o777, (pyrun.root / NAME).is_socket()) == (0o700, True)
    wait_for(lambda: interpreters(pyrun, made, tmp_path / "notes") == 0, 30, "a run without an interpreter")
    second = pyrun_planner()
    first.send_signal(signal.SIGINT)  # it does not take the name with it that is the other's now
    first.wait(60)
    wait_for(lambda: interpreters(pyrun, made, tmp_path / "notes") == 0, 30, "the second one's plan")
    second.kill()
    second.wait(60)
    pyrun.run(made).ok()
    pyrun_planner()  # on what the killed one left
    wait_for(lambda: interpreters(pyrun, made, tmp_path / "notes") == 0, 30, "the third one's plan")
    assert pyrun("list", "-q").ok().out == ""


@contextmanager
def on_dead_fuse(made: Bundle) -> Iterator[Path]:
    """A bundle on it."""
    at = made.path.with_name("fuse")
    with dead_fuse(at):
        yield at / "bundle"


@contextmanager
def leased(made: Bundle) -> Iterator[Path]:
    """A bundle with a config.json that somebody holds a lease on: open(2) waits for it, 45 s at most."""
    file = os.open(made.path / "config.json", os.O_RDWR)
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)  # of the kernel's wish to have it back; nobody heeds it
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        yield made.path
    finally:
        os.close(file)


@pytest.mark.parametrize("hung", [on_dead_fuse, leased])
def test_a_config_that_can_t_be_read_holds_up_nobody_else(
    planned: Planned, bundle: BundleMaker, hung: Callable[[Bundle], AbstractContextManager[Path]]
) -> None:
    """Each such request takes a thread, up to a number; from then on callers are sent away at once, until one ends."""
    good, planner = bundle(["true"]), planned.planner

    def is_full(path: Path) -> bool:
        assert planned.bare("create", "--bundle", path, "never").rc == TO_PYTHON
        return planner._watch.held() >= MOST_HELD and "all threads" in planner.why

    with hung(bundle(["true"])) as path:
        assert planned.bare("create", "--bundle", path, "never").rc == TO_PYTHON
        wait_for(lambda: planner._watch.held() > 0, 30, "the deadline")
        planned.served("run", "--bundle", good.path, "one").ok()
        wait_for(lambda: is_full(path), 30, "all threads")
        planner.answers.clear()
        assert planned.bare("run", "--bundle", good.path, "two").rc == TO_PYTHON
        assert planner.answers == []
    planned.served("run", "--bundle", good.path, "three").ok()


def test_it_ends_when_nobody_calls(planned: Planned) -> None:
    planned.planner.serve(0.01)


def test_it_takes_a_socket_from_a_service_manager(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    listener = listen(pyrun.root)
    script = f"import os, sys; os.dup2({listener.fileno()}, 3)"
    script += "; os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.argv[1], sys.argv[1:])"
    command = [python_argv()[0], "-c", script, *python_argv(), "--root", str(pyrun.root), "planner"]
    process = subprocess.Popen(command, pass_fds=[listener.fileno()])
    try:
        made = bundle(["true"])
        wait_for(lambda: interpreters(pyrun, made, tmp_path / "notes") == 0, 30, "a run without an interpreter")
    finally:
        process.kill()
        process.wait(60)
        listener.close()
        (pyrun.root / NAME).unlink()


def test_where_it_can_t_listen_it_says_so(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    done = Runner(tmp_path, [str(LAUNCHER)])("planner").fails(1, NAME, "--root")
    assert "hint" in done.err
