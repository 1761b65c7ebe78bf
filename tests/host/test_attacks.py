"""Bad moments and bad surroundings: what a user, an engine or a broken disk may do, tried on real containers."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from pyrun.runtime.record import unpack
from tests.support.container.bundle import BundleMaker
from tests.support.container.record import locked
from tests.support.container.runner import REPO, Runner, python_argv, wait_for

SLEEP = ["sleep", "1000"]


@pytest.fixture(params=["launcher", "python"])
def either(request: pytest.FixtureRequest, pyrun: Runner) -> Runner:
    """The runtime by its launcher, and without it: the same must come of both."""
    return pyrun if request.param == "launcher" else Runner(pyrun.root, python_argv())


# --- records that are not what they were -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["fifo", "endless", "directory", "nothing"])
def test_what_took_a_records_place_does_not_hold_up_the_others(
    either: Runner, pyrun: Runner, bundle: BundleMaker, what: str
) -> None:
    whole = pyrun.create(bundle(SLEEP))
    place = pyrun.root / "broken"
    place.mkdir()
    match what:
        case "fifo":
            os.mkfifo(place / "record")
        case "endless":
            (place / "record").symlink_to("/dev/zero")
        case "directory":
            (place / "record").mkdir()
    listed = either("list", timeout=60).ok()
    assert whole in listed.out
    assert "broken" in listed.err
    either("state", "broken", timeout=60).fails(1, "broken")
    if what == "directory":  # not a file of ours, so not ours to remove
        (place / "record").rmdir()
    either.delete("broken", "--force").ok()
    assert pyrun.ids() == [whole]


# --- surroundings ----------------------------------------------------------------------------------------------------


def test_an_empty_notify_socket_is_none(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(SLEEP)
    made.config["process"]["args"] = ["sh", "-c", "env > /env; exec sleep 1000"]
    made.save()
    id = pyrun.new_id()
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "NOTIFY_SOCKET": ""}
    assert pyrun.popen("create", "-b", made.path, id, env=environment, **nothing).wait(60) == 0
    pyrun("start", id, env={"NOTIFY_SOCKET": ""}, timeout=60).ok()  # it would wait for READY=1
    wait_for(lambda: (made.rootfs / "env").exists(), 30, "the program")
    assert "NOTIFY_SOCKET" not in (made.rootfs / "env").read_text()


def test_a_pid_file_in_the_root_directory_is_written_there(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """Its new name stands beside it, and not in the working directory, which may be on another file system."""
    file = Path(f"/pyrun-test-{os.getpid()}.pid")
    here = Path("/sys")  # no file can be made there
    try:
        id = pyrun.create(bundle(SLEEP), "--pid-file", file, cwd=here)
        assert file.read_text() == str(pyrun.pid(id))
    finally:
        file.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "-b", "/nonexistent", "x"], "no such file or directory"),
        (["--root", "/proc/none", "create", "x"], "no such file or directory"),
        (["--root", "/etc/passwd", "list"], "not a directory"),
    ],
)
def test_reasons_are_in_small_letters(pyrun: Runner, words: list[str], said: str) -> None:
    """Engines look for them, word for word."""
    assert said in pyrun(*words).fails(1).err


# --- at once ---------------------------------------------------------------------------------------------------------


def test_a_create_that_was_deleted_leaves_its_successor_alone(pyrun: Runner, bundle: BundleMaker) -> None:
    """The first create sits in a hook while the container is deleted by force and made anew; what it undoes then has
    the names of the new one's state and cgroup."""
    made, other, id = bundle(SLEEP), bundle(SLEEP), pyrun.new_id()
    gate = made.path / "gate"
    os.mkfifo(gate)
    made.update(hooks={"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", f"read x <{gate}; true"]}]})
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    first = pyrun.popen("create", "-b", made.path, id, stderr=subprocess.PIPE, **nothing)
    wait_for(lambda: pyrun("state", id).rc == 0 and pyrun.state(id)["pid"] != 0, 10, "the first init")
    pyrun.delete(id, "--force").ok()
    assert pyrun.create_started(other, id=id) == id
    gate.write_text("go\n")
    _, said = first.communicate(timeout=60)
    assert first.returncode == 1
    assert b"could not be undone" not in said, said
    assert pyrun.state(id)["status"] == "running"


def test_a_create_whose_record_was_deleted_does_not_succeed(pyrun: Runner, bundle: BundleMaker) -> None:
    """Nothing would ever find the container again."""
    made, id = bundle(SLEEP), pyrun.new_id()
    script = f"rm -r {pyrun.root}/{id}"
    made.update(hooks={"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]})
    pyrun("create", "-b", made.path, id).fails(1, "ESTALE", "hint: somebody deleted the container")


def test_a_container_that_has_no_init_yet_can_be_deleted_by_force(
    either: Runner, pyrun: Runner, bundle: BundleMaker
) -> None:
    """Its create is at work, as the lock on the record has it: it is this test."""
    pyrun.create(bundle(SLEEP), id="early")
    record = unpack((pyrun.root / "early" / "record").read_bytes())
    pyrun.delete("early", "--force").ok()
    record.pid = record.start = record.status = record.cgroup = 0
    (pyrun.root / "early").mkdir(mode=0o700)
    (pyrun.root / "early" / "record").write_bytes(record.pack())
    with locked(pyrun.root / "early" / "record"):
        assert '"status": "creating"' in either("state", "early").ok().out
        either("kill", "early", "KILL").fails(1, "container not running")
        for text in (None, ""):  # its config.json comes behind the record
            if text is not None:
                (pyrun.root / "early" / "config.json").write_text(text)
            either.exec("early", "true").fails(1, "still being created")
        either.delete("early").fails(1, "creating")
        either.delete("early", "--force").ok()
    assert pyrun.ids() == []


def test_plans_run_in_threads_of_one_process(pyrun: Runner, bundle: BundleMaker) -> None:
    """As a daemon will have it: each create fails with what its own hook said, and leaves nothing."""
    made = [bundle(SLEEP) for _ in range(4)]
    for i, one in enumerate(made):
        say = f"echo {str(i) * 500}; exit 1"
        one.update(hooks={"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", say]}]})
    script = f"""
import sys, threading
sys.path.insert(0, {str(REPO)!r})
from pyrun.errors import PyrunError
from pyrun.runtime.prepare import read_config
from pyrun.runtime.runtime import Runtime
runtime = Runtime({str(pyrun.root)!r})
wrong = []
def work(i, bundle):
    for n in range(10):
        try:
            runtime.create(read_config(bundle), id=f"thread{{i}}-{{n}}", bundle=bundle)
            wrong.append("it was created")
        except PyrunError as e:
            text = str(e)
            if str(i) * 100 not in text or any(str(k) * 9 in text for k in range(4) if k != i):
                wrong.append(text)
        except BaseException as e:
            wrong.append(repr(e))
threads = [threading.Thread(target=work, args=x) for x in enumerate({[str(one.path) for one in made]!r})]
for t in threads: t.start()
for t in threads: t.join()
print(*wrong, sep="\\n", end="")
"""
    done = subprocess.run([python_argv()[0], "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert pyrun.ids() == []


# --- what a config asks for, and what the init says ------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["create", "run"])
def test_capabilities_that_cannot_be_had_are_warned_about_each_time(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, verb: str
) -> None:
    """config.md, Linux Process: MUST be logged as a warning; SHOULD NOT fail."""
    sets = {name: ["CAP_CHOWN", "CAP_OF_TOMORROW"] for name in ("bounding", "effective", "permitted")}
    made = bundle(["true"], process={"capabilities": sets})
    for i in range(3):
        log = tmp_path / f"{i}.log"
        words: list[str | Path] = ["--log", log, "--log-format", "json", verb, "-b", made.path, f"caps{i}"]
        assert pyrun.popen(*words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).wait(60) == 0
        (entry,) = [json.loads(line) for line in log.read_text().splitlines()]
        assert entry["level"] == "warning"
        assert entry["msg"].endswith("ignoring unknown or unavailable capabilities: CAP_OF_TOMORROW")


@pytest.mark.parametrize("hook", [1, 9, 0xFFFFFF])
def test_a_forged_message_of_the_init_is_no_bug_of_ours(
    either: Runner, pyrun: Runner, bundle: BundleMaker, hook: int
) -> None:
    """Who may trace the parked init in the container can write to its status pipe: here that a hook failed, of none."""
    id = pyrun.create(bundle(SLEEP))
    status = os.open(pyrun.root / id / "status", os.O_RDWR | os.O_NONBLOCK)
    os.write(status, struct.pack("<4IiiI", 3, 2, 0xFFFFFFFF, hook << 8, 2, 0, 3) + b"abc")
    said = either("start", id, timeout=60).fails(1).err
    os.close(status)
    assert "internal error" not in said
    assert "forged" in said


@pytest.mark.parametrize("process", [{"args": ["x" * 100_000]}, {"cwd": "/" + "x" * 3000}])
def test_a_message_is_not_as_long_as_the_name_in_it(
    pyrun: Runner, bundle: BundleMaker, process: dict[str, object]
) -> None:
    assert len(pyrun.run(bundle(process=process)).fails(1).err) < 3000
