"""pyrun.runtime.runtime in a long-lived program: many threads, under a service manager, and nothing of it changed."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pyrun.errors import FailedPrecondition, PyrunError
from pyrun.oci.dump import dump_spec
from pyrun.oci.load import load_bytes
from pyrun.oci.model import Process
from pyrun.runtime.runtime import Runtime
from pyrun.runtime.store import CREATED, Missing
from pyrun.runtime.store import Container as Stored
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import REPO, Runner, wait_for
from tests.support.executor.faults import children, descriptors

COUNT = int(os.environ.get("PYRUN_TEST_FACE_COUNT", "500"))
SCRIPT = 'while read -r line; do [ "$line" = end ] && exit 3; echo "got $line"; done; exec sleep 1000'
SLEEP = ("sleep", "1000")


def runtime(tmp_path: Path) -> Runtime:
    return Runtime(str(tmp_path / "state"), warn=lambda text: pytest.fail(text))


def config(bundle: Bundle) -> bytes:
    return (bundle.path / "config.json").read_bytes()


def test_a_daemon_of_eight_threads(bundle: BundleMaker, tmp_path: Path) -> None:
    made = bundle(["sh", "-c", SCRIPT])
    address = str(tmp_path / "manager")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        argv = [sys.executable, "-m", "tests.support.container.daemon", str(tmp_path / "state"), str(made.path)]
        done = subprocess.run(
            [*argv, str(COUNT), "8"],
            cwd=REPO, env={**os.environ, "NOTIFY_SOCKET": address}, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with pytest.raises(BlockingIOError):
            manager.recv(1)
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert told == {
        "done": COUNT,
        "wrong": [],
        "ids": [],
        "changed": {},
        "descriptors": [[], 0],
        "children": 0,
        "own": 42,
    }
    assert done.stderr == ""


def test_threads_that_come_first_share_the_inits_image(bundle: BundleMaker, tmp_path: Path) -> None:
    made = bundle(SLEEP)
    script = """
import sys, threading
from pyrun.runtime.runtime import Runtime
from tests.support.executor.faults import descriptors
face, begin = Runtime(sys.argv[1]), threading.Barrier(4)
config = open(sys.argv[2] + "/config.json", "rb").read()
def work(id):
    container = face.run(config, id=id, bundle=sys.argv[2], begin=begin.wait)
    container.delete(force=True)
threads = [threading.Thread(target=work, args=(f"c{i}",)) for i in range(4)]
for one in threads: one.start()
for one in threads: one.join()
print(sum("pyrun-init" in what for what in descriptors().values()), face.ids())
"""
    inject = ["-e", "memfd_create", "-e", "inject=memfd_create:delay_exit=200000"]
    slowly = ["strace", "-fqq", "-o", str(tmp_path / "log"), *inject]
    argv = [*slowly, sys.executable, "-c", script, str(tmp_path / "state"), str(made.path)]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1 []\n", "")


def test_a_create_that_fails_leaves_nothing(bundle: BundleMaker, tmp_path: Path) -> None:
    face, made = runtime(tmp_path), bundle(["nonesuch"])
    with pytest.raises(PyrunError, match="executable file not found"):
        face.create(config(made), id="one", bundle=str(made.path))
    assert (face.ids(), children()) == ([], [])
    fds = descriptors()
    closed = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 99)
    os.close(closed)
    with pytest.raises(PyrunError, match=f"descriptor {closed}"):
        face.create(config(made), id="one", bundle=str(made.path), stdio=(0, closed, 2))
    assert (face.ids(), descriptors()) == ([], fds)


def test_a_create_that_could_not_be_undone_is_over(bundle: BundleMaker, tmp_path: Path) -> None:
    """Its process lives on, and may live for months: it is not "creating" as long."""
    record = tmp_path / "state" / "one" / "record"
    script = f"mount --bind {record} {record}; exit 1"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"PATH={os.environ['PATH']}"]}
    made = bundle(SLEEP, hooks={"prestart": [hook]})
    face = runtime(tmp_path)
    try:
        with pytest.raises(PyrunError, match="could not be undone"):
            face.create(config(made), id="one", bundle=str(made.path))
        assert face.container("one").status() == "stopped"
    finally:
        subprocess.run(["umount", record], check=True)
    face.container("one").delete(force=True)
    assert (face.ids(), children()) == ([], [])


def test_an_exec_nobody_waits_for_does_not_keep_its_container(bundle: BundleMaker, tmp_path: Path) -> None:
    """A zombie in a PID namespace keeps its init from ending: wait() reaps it."""
    face, made = runtime(tmp_path), bundle(SLEEP)
    container = face.run(config(made), id="one", bundle=str(made.path))
    exec = container.exec(Process(cwd="/", args=("/bin/true",)))
    wait_for(lambda: Path(f"/proc/{exec.pid}/stat").read_text().split()[2] == "Z", 10, "the exec to end")
    container.kill("KILL")
    assert container.wait(60) == 137
    assert exec.wait(0) == 0
    container.delete()
    assert (face.ids(), children()) == ([], [])


def test_an_exec_that_came_while_somebody_waited(bundle: BundleMaker, tmp_path: Path) -> None:
    """It keeps the init from ending no more than one that was there before."""
    face, made, codes = runtime(tmp_path), bundle(SLEEP), []
    container = face.run(config(made), id="one", bundle=str(made.path))
    waits = threading.Thread(target=lambda: codes.append(container.wait(60)))
    waits.start()
    time.sleep(0.3)
    exec = container.exec(Process(cwd="/", args=("/bin/sleep", "1000")))
    container.kill("KILL")
    waits.join(60)
    assert (codes, exec.wait(0)) == ([137], 137)
    container.delete()
    assert (face.ids(), children()) == ([], [])


def test_nobody_need_wait_for_a_container_to_see_its_end(bundle: BundleMaker, tmp_path: Path) -> None:
    face, made = runtime(tmp_path), bundle(SLEEP)
    container = face.run(config(made), id="one", bundle=str(made.path))
    exec = container.exec(Process(cwd="/", args=("/bin/true",)))
    wait_for(lambda: Path(f"/proc/{exec.pid}/stat").read_text().split()[2] == "Z", 10, "the exec to end")
    container.kill("KILL")
    wait_for(lambda: container.status() == "stopped", 10, "it to stop")
    container.delete()
    assert (face.ids(), children()) == ([], [])


@pytest.mark.parametrize("successor", [False, True])
def test_what_somebody_else_has_deleted_is_forgotten(bundle: BundleMaker, pyrun: Runner, successor: bool) -> None:
    face, made = Runtime(str(pyrun.root)), bundle(SLEEP)
    container = face.run(config(made), id="one", bundle=str(made.path))
    pyrun.delete("one", "--force").ok()
    if successor:
        pyrun.create_started(made, id="one")
    with pytest.raises(Missing):
        container.delete()
    assert (face._made, children()) == ({}, [])


def test_a_container_that_could_not_be_kept_is_forgotten(
    bundle: BundleMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left for the last of it."""

    def fails(*args: object) -> None:
        raise OSError(24, "too many open files")

    face, made = runtime(tmp_path), bundle(SLEEP)
    monkeypatch.setattr("pyrun.runtime.runtime.Container.take_notify_socket", fails)
    with pytest.raises(OSError, match="too many"):
        face.run(config(made), id="one", bundle=str(made.path), notify=True)
    assert (face.ids(), children(), face._made) == ([], [], {})


def given_up(after: float) -> int:
    """A descriptor that becomes readable after so many seconds."""
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    threading.Timer(after, os.eventfd_write, (fd, 1)).start()
    return fd


@pytest.mark.parametrize("verb", ["create", "start", "exec"])
def test_a_caller_may_give_up(bundle: BundleMaker, tmp_path: Path, verb: str) -> None:
    """In a hook that hangs; in a container that is paused."""
    face, made = runtime(tmp_path), bundle(SLEEP)
    hook = [{"path": "/bin/sh", "args": ["sh", "-c", "exec sleep 1000"], "env": [f"PATH={os.environ['PATH']}"]}]
    made.update(hooks={"create": {"prestart": hook}, "start": {"startContainer": hook}, "exec": {}}[verb])
    fd = given_up(0.3)
    begin = time.monotonic()
    with pytest.raises(PyrunError, match="interrupted"):
        container = face.create(config(made), id="one", bundle=str(made.path), cancel=fd if verb == "create" else -1)
        container.start(cancel=fd if verb == "start" else -1)
        container.pause()
        container.exec(Process(cwd="/", args=("/bin/true",)), cancel=fd, ignore_paused=True)
    assert 0.2 < time.monotonic() - begin < 20
    os.close(fd)
    face.container("one").delete(force=True)
    assert (face.ids(), children()) == ([], [])


def test_wait_has_a_deadline(bundle: BundleMaker, tmp_path: Path) -> None:
    face, made = runtime(tmp_path), bundle(SLEEP)
    container = face.run(config(made), id="one", bundle=str(made.path))
    with pytest.raises(TimeoutError):
        container.wait(0.05)
    threading.Timer(0.3, container.kill, ("KILL",)).start()
    assert container.wait(1e9) == 137
    container.delete(force=True)
    container.delete(force=True)  # there is none: that is no error
    assert (face.ids(), children()) == ([], [])


def test_a_handle_is_of_one_container(bundle: BundleMaker, tmp_path: Path) -> None:
    """Whoever has the id now is another."""
    face, made = runtime(tmp_path), bundle(SLEEP)
    first = face.run(config(made), id="one", bundle=str(made.path))
    face.container("one").delete(force=True)
    second = face.run(config(made), id="one", bundle=str(made.path))
    with pytest.raises(PyrunError, match="does not exist"):
        first.kill("KILL")
    first.delete(force=True)
    assert second.status() == "running"
    second.delete(force=True)


def test_a_container_of_another_process(bundle: BundleMaker, tmp_path: Path) -> None:
    """After its maker has gone, as a daemon that was started anew finds it: its end is seen, its exit code is lost."""
    made = bundle(SLEEP)
    script = f"""
from pyrun.runtime.runtime import Runtime
config = open({str(made.path / "config.json")!r}, "rb").read()
Runtime({str(tmp_path / "state")!r}).run(config, id="one", bundle={str(made.path)!r})
"""
    null: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", script], cwd=REPO, check=True, **null)
    container = runtime(tmp_path).container("one")
    assert container.status() == "running"
    container.kill("KILL")
    assert container.wait(60) is None
    container.delete()


def test_a_spec_is_kept_as_what_it_means(bundle: BundleMaker, tmp_path: Path) -> None:
    """exec and update read it from the state."""
    face, made = runtime(tmp_path), bundle(SLEEP)
    spec = load_bytes(config(made)).replace(hostname="from-python")
    container = face.create(spec, id="one", bundle=str(made.path))
    try:
        assert container.spec() == spec == load_bytes(dump_spec(spec))
    finally:
        container.delete(force=True)


def test_a_start_that_the_end_of_its_container_overtakes(
    bundle: BundleMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was created when that was asked, and has ended when it is to be released."""
    made = bundle(SLEEP)
    container = runtime(tmp_path).create(config(made), id="one", bundle=str(made.path))
    container.kill("KILL")
    wait_for(lambda: container.status() == "stopped", 60, "it to stop")
    with monkeypatch.context() as patched:
        patched.setattr(Stored, "status", lambda _: CREATED)
        with pytest.raises(FailedPrecondition, match="cannot start a container that has stopped"):
            container.start()
    container.delete()
