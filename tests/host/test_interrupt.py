"""^C while a container is made: either it is made and the exit status says so, or nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner, wait_for

VERBS = [["create"], ["run", "--detach"]]
DEVNULL = subprocess.DEVNULL


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_a_container_that_is_made_is_said_to_be(pyrun: Runner, bundle: BundleMaker, verb: list[str], old: bool) -> None:
    """The hook is pyrun's child, so the signal comes while the plan runs; old: the second time the launcher runs it."""
    made = bundle(["sleep", "1000"])
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "kill -INT $PPID; sleep 0.05"]}
    made.update(hooks={"createRuntime": [hook]})
    if old:
        os.utime(made.path / "config.json", (1e9, 1e9))
    for _ in range(2):
        command = pyrun.command(*verb, "--bundle", made.path, "one")
        assert subprocess.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=60).returncode == 0
        assert pyrun.state("one")["status"] == ("created" if verb == ["create"] else "running")
        pyrun.delete("one", "--force").ok()


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_a_hook_that_hangs_is_ended_and_all_is_undone(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, verb: list[str]
) -> None:
    """As a terminal does it: to each process of the foreground's group."""
    made = bundle(["sleep", "1000"])
    begun = tmp_path / "begun"
    made.update(hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f": >{begun}; exec sleep 1000"]}]})
    command = pyrun.command(*verb, "--bundle", made.path, "one")
    process = subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=subprocess.PIPE, process_group=0)
    wait_for(begun.exists, 20, "the hook")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"/hooks/createRuntime/0" in err
    assert pyrun.ids() == []


def test_a_failed_create_of_the_launcher_is_told_and_its_poststop_hooks_run(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path
) -> None:
    """The signal waits while the plan runs, and still does when Python tells of it."""
    made = bundle(["sleep", "1000"])
    fail, stopped = tmp_path / "fail", tmp_path / "stopped"
    script = f"if [ -e {fail} ]; then kill -INT $PPID; exit 3; fi"
    hooks = {"createRuntime": script, "poststop": f": >{stopped}"}
    made.update(hooks={kind: [{"path": "/bin/sh", "args": ["sh", "-c", text]}] for kind, text in hooks.items()})
    os.utime(made.path / "config.json", (1e9, 1e9))
    pyrun.create(made, id="one")
    pyrun.delete("one", "--force").ok()
    stopped.unlink()
    fail.touch()
    for verb in (["create"], ["run", "--detach"]):
        pyrun(*verb, "--bundle", made.path, "one").fails(1, "/hooks/createRuntime/0")
        assert stopped.exists() and pyrun.ids() == []
        stopped.unlink()
