"""The launcher against Python: the same command lines, on containers in the same state, must look the same.

And it must do the plain cases itself: a copy of it whose package is a stub shows when it would have called Python.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrun.runtime.record import HEADER, unpack
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.record import locked, sealed
from tests.support.container.runner import Result, Runner, python_argv, wait_for
from tests.support.executor.stub import LAUNCHER, TO_PYTHON, bare_launcher

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
Script = Callable[[Runner, Bundle], list[Result]]


@pytest.fixture
def bare(tmp_path: Path) -> list[str]:
    """The launcher with a package whose Python exits with TO_PYTHON and prints what it was told of a failed plan."""
    return bare_launcher(tmp_path)


def make_runners(tmp_path: Path) -> dict[str, Runner]:
    roots = {name: tmp_path / name for name in ("launcher", "python--")}  # of one length
    return {
        "launcher": Runner(roots["launcher"], [str(LAUNCHER)]),
        "python--": Runner(roots["python--"], python_argv()),
    }


def with_program(bundle: BundleMaker) -> Bundle:
    """A bundle that runs /bin/mine, which can be taken away."""
    made = bundle(["/bin/mine"])
    (made.rootfs / "bin" / "mine").write_text("#!/bin/sh\nexec sleep 1000\n")
    (made.rootfs / "bin" / "mine").chmod(0o755)
    return made


def told(result: Result, runner: Runner) -> tuple[int, str, str]:
    """What a caller sees, without what must differ: the root's path, pids and times."""
    out, err = (TIME.sub("TIME", text.replace(str(runner.root), "ROOT")) for text in (result.out, result.err))
    if out.startswith("{"):
        state = json.loads(out)
        out = json.dumps(state | {"pid": bool(state["pid"]), "created": len(state["created"])}) + out[-3:]
    return result.rc, out, err


def stop(run: Runner, id: str = "c") -> None:
    run("kill", id, "KILL").ok()
    run.wait_status(id, "stopped")


def life(run: Runner, _: Bundle) -> list[Result]:
    return [run("state", "c"), run("start", "c"), run("state", "c"), run("start", "c"), run("delete", "c")]


def signals(run: Runner, _: Bundle) -> list[Result]:
    run("start", "c").ok()  # its shell, as process 1, takes no notice
    words = ["TERM", "SIGTERM", "sigterm", "15", "USR1", "CONT", "0", "65", "999999999999", "NOPE", "-9", "", "RTMIN+1"]
    out = [run("kill", "c", word) for word in words] + [run("kill", "c", "9", "9"), run("kill", "-a", "c", "CONT")]
    return [*out, run("kill", "--all", "c", "TERM"), run("kill", "--all=false", "c", "TERM"), run("kill", "c")]


def stopped(run: Runner, _: Bundle) -> list[Result]:
    stop(run)
    out = [run("state", "c"), run("kill", "c", "KILL"), run("kill", "--all", "c", "KILL"), run("start", "c")]
    out += [run("delete", "c"), run("state", "c"), run("kill", "c"), run("start", "c"), run("delete", "c")]
    return [*out, run("delete", "--force", "c"), run("delete", "-f", "c"), run("delete", "-force", "c")]


def created_is_deleted(run: Runner, _: Bundle) -> list[Result]:
    return [run("delete", "c"), run("delete", "--force", "c"), run("state", "c")]


def running_is_deleted(run: Runner, _: Bundle) -> list[Result]:
    return [run("start", "c"), run("delete", "c"), run("delete", "-f", "c"), run("state", "c")]


def program_gone(run: Runner, bundle: Bundle) -> list[Result]:
    (bundle.rootfs / "bin" / "mine").unlink()
    return [run("start", "c"), run("state", "c"), run("start", "c"), run("delete", "c")]


def command_lines(run: Runner, _: Bundle) -> list[Result]:
    lines = [
        "state",
        "state c d",
        "state --bogus c",
        "state ../c",
        "state a/b",
        "state .",
        "state -- c",
        "state c --debug=true",
        "--debug state c",
        "--debug=false state c",
        "--log-format json state nope",
        "--log-format xml state c",
        "--rootless false state c",
        "--rootless=maybe state c",
        "--systemd-cgroup state c",
        "--cgroup-manager disabled state c",
        "--criu x state c",
        "state c --log-format=text",
        "-debug=true start nope",
        "kill",
        "delete --force=maybe c",
        "delete --force=false c",
        "nope c",
        "",
    ]
    out = [run(*line.split()) for line in lines if not line.endswith("--help")]
    return [*out, run("state", ""), run("state", "x" * 256), run("--log", "/nonexistent/x", "state", "c")]


def damaged(run: Runner, _: Bundle) -> list[Result]:
    stop(run)
    record = run.root / "c" / "record"
    whole = record.read_bytes()
    out = []
    for data in (
        whole[:50],
        whole[:300],
        b"X" + whole[1:],
        sealed(whole[: HEADER.size + 4] + b"\xff" * 4 + whole[HEADER.size + 8 :]),
        whole[:1024] + bytes(512) + whole[1536:],  # sectors that a power cut took
        whole[:-8],
        sealed(whole)[:-8] + b"\1" * 8,
    ):
        record.write_bytes(data)
        out += [run("state", "c"), run("start", "c"), run("kill", "c"), run("delete", "c")]
    record.unlink()
    out += [run("state", "c"), run("delete", "c"), run("delete", "--force", "c")]
    os.rmdir(unpack(whole).text("cgroup"))  # only the record knew of it
    return out


def another_boot(run: Runner, _: Bundle) -> list[Result]:
    """The pid in the record is another process's now: of another boot, or of another start."""
    record = run.root / "c" / "record"
    whole = record.read_bytes()
    out = []
    for name, value in (("start", unpack(whole).start ^ 1), ("boot_id", "0" * 36)):
        other = unpack(whole)
        setattr(other, name, value)
        record.write_bytes(other.pack())
        out += [run("state", "c"), run("kill", "c", "KILL"), run("start", "c")]
    record.write_bytes(whole)
    return [*out, run("state", "c"), run("delete", "-f", "c")]


def half_made(run: Runner, _: Bundle) -> list[Result]:
    """Status 0: its create, which holds a lock on the record, is still at work, or was cut short."""
    record = run.root / "c" / "record"
    made = unpack(record.read_bytes())
    out = []
    made.status = 0
    record.write_bytes(made.pack())
    with locked(record):
        out += [run("state", "c"), run("start", "c"), run("kill", "c", "CONT"), run("delete", "c")]
    return [*out, run("state", "c"), run("start", "c"), run("kill", "c", "CONT"), run("delete", "c")]


def paused(run: Runner, _: Bundle) -> list[Result]:
    cgroup = Path(unpack((run.root / "c" / "record").read_bytes()).text("cgroup"))
    out = [run("start", "c")]
    (cgroup / "cgroup.freeze").write_text("1")
    wait_for(lambda: "frozen 1" in (cgroup / "cgroup.events").read_text(), 30, "the cgroup to freeze")
    out += [run("state", "c"), run("delete", "c"), run("kill", "c", "KILL")]
    run.wait_status("c", "stopped")
    return [*out, run("state", "c"), run("delete", "c")]


SCRIPTS: list[Script] = [
    life,
    signals,
    stopped,
    created_is_deleted,
    running_is_deleted,
    program_gone,
    command_lines,
    damaged,
    another_boot,
    half_made,
    paused,
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_both_ways_look_the_same(tmp_path: Path, bundle: BundleMaker, script: Script) -> None:
    seen = {}
    for name, runner in make_runners(tmp_path).items():
        made = with_program(bundle)
        made.path.rename(made.path.with_name("same"))
        made.path = made.path.with_name("same")
        runner.create(made, id="c")
        try:
            seen[name] = [(r.argv[len(runner.argv) + 2 :], *told(r, runner)) for r in script(runner, made)]
        finally:
            runner("delete", "--force", "c")
            shutil.rmtree(made.path)
        assert not runner.ids()
    assert len(seen["launcher"]) == len(seen["python--"])
    for launcher, python in zip(seen["launcher"], seen["python--"], strict=True):
        assert launcher == python


@pytest.mark.parametrize("hook", ["poststart", "poststop", "startContainer"])
def test_hooks_of_later_verbs_run(pyrun: Runner, bundle: BundleMaker, tmp_path: Path, hook: str) -> None:
    made = bundle(["sleep", "1000"])
    inside = hook == "startContainer"
    mark = made.rootfs / "mark" if inside else tmp_path / "mark"
    path = "/bin/touch"
    made.update(hooks={hook: [{"path": path, "args": ["touch", "/mark" if inside else str(mark)]}]})
    id = pyrun.create_started(made)
    assert mark.exists() == (hook != "poststop")
    pyrun("delete", "-f", id).ok()
    assert mark.exists()


def test_the_plain_cases_start_no_interpreter(
    pyrun: Runner, bundle: BundleMaker, bare: list[str], tmp_path: Path
) -> None:
    id = pyrun.create(bundle(["sleep", "1000"]))
    run = Runner(pyrun.root, bare)
    log = tmp_path / "log"
    for verb in (["state", id], ["start", id], ["kill", id, "0x"], ["kill", id, "KILL"]):
        result = run("--log", log, "--log-format", "json", *verb)
        assert result.rc == (TO_PYTHON if "0x" in verb else 0), result.describe()
    run.wait_status(id, "stopped")
    run("kill", "--all", id, "KILL").ok()
    run("delete", id).ok()
    run("delete", "--force", id).ok()
    assert log.read_text() == ""
    assert run("delete", id).rc == run("ps", id).rc == run("--version").rc == TO_PYTHON


def test_a_force_delete_starts_no_interpreter(pyrun: Runner, bundle: BundleMaker, bare: list[str]) -> None:
    for _ in range(2):
        id = pyrun.create(bundle(["sleep", "1000"]))
        Runner(pyrun.root, bare)("delete", "-f", id).ok()
    assert not pyrun.ids()


@pytest.mark.parametrize("change", [lambda p: p.chmod(0o620), lambda p: p.chmod(0o602), lambda p: os.chown(p, 1, 0)])
def test_a_record_that_others_could_have_written_is_not_run(
    pyrun: Runner, bundle: BundleMaker, bare: list[str], change: Callable[[Path], None]
) -> None:
    id = pyrun.create(bundle(["sleep", "1000"]))
    change(pyrun.root / id / "record")
    run = Runner(pyrun.root, bare)
    assert {run(*verb, id).rc for verb in (["state"], ["start"], ["kill"], ["delete", "-f"])} == {TO_PYTHON}


def test_a_copy_of_a_record_is_not_that_of_another_container(pyrun: Runner, bundle: BundleMaker) -> None:
    """The plans in it are the first one's: deleting the copy must not end that."""
    id = pyrun.create(bundle(["sleep", "1000"]), id="one")
    (pyrun.root / "two").mkdir()
    shutil.copy2(pyrun.root / id / "record", pyrun.root / "two" / "record")
    for verb in ("state", "kill", "start", "delete"):
        pyrun(verb, "two").fails(1, "not that of two")
    assert "not that of two" in pyrun("list").ok().err
    pyrun.delete("two", "--force").ok()
    assert pyrun.state(id)["status"] == "created"


def test_without_root_the_state_is_below_the_runtime_directory(pyrun: Runner, bundle: BundleMaker) -> None:
    """Both ways find it there, and neither looks there when it is root who calls."""
    if not all(parent.stat().st_mode & 0o001 for parent in LAUNCHER.parents):
        pytest.skip("the repository lies where only root may go")
    id = pyrun.create(bundle(["sleep", "1000"]))
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        there = Path(home, "pyrun", id)
        there.mkdir(parents=True)
        (there / "record").write_bytes((pyrun.root / id / "record").read_bytes())
        for path in (Path(home), there.parent, there, there / "record"):
            os.chown(path, 65534, 65534)
        env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": home}
        seen = []
        for argv in ([str(LAUNCHER)], ["/usr/bin/python3", *python_argv()[1:]]):
            for user in ([], ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]):
                done = subprocess.run([*user, *argv, "state", id], env=env, capture_output=True, text=True)
                seen.append((done.returncode, done.stdout, done.stderr))
    assert seen[:2] == seen[2:]
    assert [code for code, _, _ in seen[:2]] == [1, 0]


def test_nobody_can_pretend_a_failure(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create(bundle(["sleep", "1000"]))
    env = {"PYRUN_FAILED": "0 0 0 13 0 0 0 "}
    assert "no such" not in pyrun("list", env=env).ok().out
    pyrun("start", id, env=env).ok()


def test_a_failed_start_is_told_with_its_step(pyrun: Runner, bundle: BundleMaker, bare: list[str]) -> None:
    made = with_program(bundle)
    id = pyrun.create(made)
    (made.rootfs / "bin" / "mine").unlink()
    result = Runner(pyrun.root, bare)("start", id)
    assert result.rc == TO_PYTHON
    lane, _, _, errno, *_ = result.out.split()
    assert (lane, errno) == ("2", "2")


def test_a_container_whose_start_failed_is_stopped(pyrun: Runner, bundle: BundleMaker) -> None:
    """Also where its init takes its time to end: all in its PID namespace must have been reaped before."""
    made = with_program(bundle)
    id = pyrun.create(made)
    (made.rootfs / "bin" / "mine").unlink()
    begun = made.rootfs / "begun"
    stdio = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    parent = pyrun.popen("exec", id, "sh", "-c", ": >/begun; exec sleep 1000", **stdio)
    wait_for(begun.exists, 20, "the exec")
    parent.send_signal(signal.SIGSTOP)
    go_on = threading.Timer(1, parent.send_signal, [signal.SIGCONT])
    go_on.start()
    try:
        pyrun("start", id).fails()
        assert pyrun.state(id)["status"] == "stopped"
        pyrun.delete(id).ok()
    finally:
        go_on.join()
        parent.wait(60)


def test_closed_standard_descriptors_stay_closed_to_the_container(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.new_id()
    made = bundle(["sleep", "1000"])
    command = " ".join(pyrun.command("create", "--bundle", made.path, id))
    subprocess.run(["sh", "-c", f"exec {command} 0<&- 1>&- 2>&-"], check=True)
    fds = Path(f"/proc/{pyrun.pid(id)}/fd")
    assert {os.readlink(fds / str(n)) for n in range(3)} == {"/dev/null"}


def test_a_reader_who_leaves_early_kills_nobody(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create(bundle(["sleep", "1000"]))
    read, write = os.pipe()
    os.close(read)
    for argv in (pyrun.command("state", id), [*python_argv(), "--root", str(pyrun.root), "state", id]):
        assert subprocess.run(argv, stdout=write, check=False).returncode == 128 + 13
    os.close(write)


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete"])
def test_without_its_package_it_says_so(tmp_path: Path, verb: str) -> None:
    (tmp_path / "x" / "bin").mkdir(parents=True)
    lost = shutil.copy2(LAUNCHER, tmp_path / "x" / "bin" / "pyrun")
    result = subprocess.run([lost, verb, "nope"], capture_output=True, text=True)
    assert result.returncode != 0 and "__main__.py" in result.stderr
