"""Bad moments and bad surroundings: what a user, an engine or a broken disk may do, tried on real containers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.bundle import BundleMaker
from tests.support.runner import Runner, python_argv, wait_for

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
    listed = either("list", timeout=10).ok()
    assert whole in listed.out
    assert "broken" in listed.err
    either("state", "broken", timeout=10).fails(1, "broken")
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
    assert pyrun.popen("create", "-b", made.path, id, env=environment, **nothing).wait(30) == 0
    pyrun("start", id, env={"NOTIFY_SOCKET": ""}, timeout=10).ok()  # it would wait for READY=1
    wait_for(lambda: (made.rootfs / "env").exists(), 5, "the program")
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
