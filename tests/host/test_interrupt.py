"""A signal while a container is made: either it is made and the exit status says so, or nothing is left."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from pyrun.errors import PyrunError
from pyrun.runtime.runtime import Runtime
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import Runner, wait_for

VERBS = [["create"], ["run", "--detach"], ["run"]]
DEVNULL = subprocess.DEVNULL


ENDING = [signal.SIGHUP, signal.SIGINT, signal.SIGTERM]
KINDS = ["createRuntime", "createContainer"]  # a child of pyrun's, and of the init's


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[-1])
@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_hangs_is_ended_and_all_is_undone(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, verb: list[str], number: signal.Signals, kind: str
) -> None:
    made = bundle(["sleep", "1000"])
    begun = tmp_path / "begun"
    made.update(
        hooks={
            kind: [
                {
                    "path": "/bin/sh",
                    "args": ["sh", "-c", f"echo $$ >{begun}.new; mv {begun}.new {begun}; exec sleep 1000"],
                }
            ]
        }
    )
    made.drop_namespace("pid")  # which would take the hook with it
    command = pyrun.command(*verb, "--bundle", made.path, "one")
    process = subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=subprocess.PIPE)
    wait_for(begun.exists, 20, "the hook")
    hook = os.pidfd_open(int(begun.read_text()))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"interrupted" in err
    assert pyrun.ids() == []
    assert select.select([hook], [], [], 10)[0], "the hook still runs"
    os.close(hook)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[-1])
def test_a_signal_that_comes_while_a_hook_runs_undoes_all(pyrun: Runner, bundle: BundleMaker, verb: list[str]) -> None:
    made = bundle(["sleep", "1000"])
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "kill -INT $PPID; exec sleep 1000"]}
    made.update(hooks={"createRuntime": [hook]})
    pyrun(*verb, "--bundle", made.path, "one").fails(1, "interrupted", "/hooks/createRuntime/0")
    assert pyrun.ids() == []


def test_a_signal_that_is_ignored_interrupts_nothing(pyrun: Runner, bundle: BundleMaker) -> None:
    """As nohup has it."""
    made = bundle(["sleep", "1000"])
    made.update(hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -HUP $PPID; sleep 0.1"]}]})
    command = ["nohup", *pyrun.command("create", "--bundle", made.path, "one")]
    assert subprocess.run(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, timeout=60).returncode == 0
    assert pyrun.state("one")["status"] == "created"


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


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[-1])
def test_what_a_warm_planner_planned_is_undone_as_well(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path, verb: list[str]
) -> None:
    """The launcher carries the plan out, and hands the signal on to Python, which tells of it."""
    planner = subprocess.Popen(pyrun.command("planner"), stdin=DEVNULL)
    try:
        wait_for((pyrun.root / ".planner~").exists, 20, "the planner")
        made, begun = bundle(["sleep", "1000"]), tmp_path / "begun"
        made.update(
            hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f": >{begun}; exec sleep 1000"]}]}
        )
        command = pyrun.command(*verb, "--bundle", made.path, "one")
        process = subprocess.Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=subprocess.PIPE)
        wait_for(begun.exists, 20, "the hook")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1 and b"interrupted" in err
        assert pyrun.ids() == []
    finally:
        planner.terminate()
        planner.wait(60)


def test_a_program_gives_up_by_a_descriptor_of_its_own(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    made, begun = bundle(["sleep", "1000"]), tmp_path / "begun"
    made.update(hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f": >{begun}; exec sleep 1000"]}]})
    cancel = os.eventfd(0)

    def give_up() -> None:
        wait_for(begun.exists, 20, "the hook")
        os.eventfd_write(cancel, 1)

    thread = threading.Thread(target=give_up)
    thread.start()
    with pytest.raises(PyrunError, match="interrupted"):
        config = (made.path / "config.json").read_bytes()
        Runtime(str(pyrun.root)).create(config, id="one", bundle=str(made.path), cancel=cancel)
    thread.join()
    assert os.eventfd_read(cancel) == 1 and pyrun.ids() == []
    os.close(cancel)
