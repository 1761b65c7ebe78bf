"""The planner: with it and without it a command does the same, and who it does not answer plans in Python."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.planner import KEPT, NAME
from pyrun.runtime.record import BLOBS, unpack
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.planned import TRIES, Planned
from tests.support.container.runner import Result, Runner, wait_for
from tests.support.executor.stub import LAUNCHER, TO_PYTHON

pytestmark = pytest.mark.root
IDLE = ["sleep", "1000"]
WHO = ["sh", "-c", "id; pwd; env; umask; ulimit -n; ls -l /proc/self/fd | wc -l; cat /proc/self/cgroup; nproc"]


@pytest.fixture
def planned(tmp_path: Path) -> Iterator[Planned]:
    made = Planned(tmp_path)
    yield made
    made.close()


def told(done: Result) -> tuple[int, str, str]:
    """Times differ."""
    return done.rc, done.out, re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", done.err)


# ---- it is the same

RUNS: dict[str, list[str]] = {
    "true": ["true"],
    "who": WHO,
    "streams": ["sh", "-c", "echo out; echo err >&2; cat; exit 7"],
    "code 255": ["sh", "-c", "exit 255"],
    "killed": ["sh", "-c", "trap - TERM; kill -KILL $$; sleep 1"],
    "status": ["sh", "-c", "grep -E 'Cap|Sig[PBIC]|Seccomp|NoNew|Groups|Uid|Gid|_list' /proc/self/status"],
    "mounts": ["sh", "-c", "cut -d' ' -f4- /proc/self/mountinfo"],
    "limits": ["cat", "/proc/self/limits"],
}


@pytest.mark.parametrize("what", RUNS)
def test_run_is_the_same(planned: Planned, bundle: BundleMaker, what: str) -> None:
    made = bundle(RUNS[what])
    words = ("run", "--bundle", made.path, "same")
    ways = [runner(*words, input="in") for runner in (planned.python, planned.launcher)]
    ways.append(planned.served(*words, input="in"))
    assert told(ways[0]) == told(ways[1]) == told(ways[2])
    assert planned.planner.answers, planned.planner.why
    assert planned.python.ids() == [NAME] or planned.python("list", "-q").out == ""


def test_a_newer_config_with_nulls_is_run_the_same(planned: Planned, bundle: BundleMaker) -> None:
    made = bundle(["true"])
    config = json.loads((made.path / "config.json").read_text())
    config |= {"ociVersion": "1.4.0", "annotations": None, "hooks": None, "vm": None, "news": {"of": "1.4"}}
    config["process"] |= {"rlimits": None, "scheduler": None}
    config["linux"] |= {"sysctl": None, "seccomp": None}
    (made.path / "config.json").write_text(json.dumps(config))
    words = ("run", "--bundle", made.path, "same")
    ways = [runner(*words) for runner in (planned.python, planned.launcher)]
    ways.append(planned.served(*words))
    assert [told(way) for way in ways] == [(0, "", "")] * 3
    assert planned.planner.answers, planned.planner.why
    assert start(planned, made, "cold") == 0, planned.planner.why
    assert [runner.state("cold")["ociVersion"] for runner in (planned.python, planned.bare)] == ["1.3.0"] * 2


@pytest.mark.parametrize("what", RUNS)
def test_exec_is_the_same(planned: Planned, bundle: BundleMaker, what: str) -> None:
    id = planned.python.create_started(bundle(IDLE))
    ways = [runner("exec", id, *RUNS[what], input="in") for runner in (planned.python, planned.launcher)]
    ways.append(planned.served("exec", id, *RUNS[what], input="in"))
    assert told(ways[0]) == told(ways[1]) == told(ways[2])
    assert planned.planner.answers, planned.planner.why


def start(planned: Planned, made: Bundle, id: str, *options: str | Path, verb: str = "create") -> int:
    """Its stdio is /dev/null, since the container outlives the command. Tried again as by Planned.served()."""
    null: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    rc = TO_PYTHON
    for _ in range(TRIES):
        command = planned.bare.command(verb, "--bundle", made.path, *options, id)
        rc = subprocess.run(command, timeout=60, check=False, **null).returncode
        if rc != TO_PYTHON:
            break
    return rc


def test_create_leaves_the_same_record(planned: Planned, bundle: BundleMaker) -> None:
    made = bundle(IDLE, annotations={"a": "b"})
    planned.python.create(made, id="pyth")
    assert start(planned, made, "cold") == 0, planned.planner.why
    a, b = (unpack((planned.root / id / "record").read_bytes()) for id in ("pyth", "cold"))
    assert a.flags == b.flags and a.boot_id == b.boot_id and b.status == 1 and b.pid > 0
    for name in BLOBS:
        then = a.blob(name).replace(a.blob("created"), b.blob("created"))
        assert then.replace(b"/pyth", b"/cold").replace(b'"pyth"', b'"cold"') == b.blob(name) or name == "id", name
    for name in ("environ", "cmdline", "uid_map", "cgroup", "limits"):
        read = [Path(f"/proc/{r.pid}/{name}").read_bytes() for r in (a, b)]
        assert read[0].replace(b"/pyth", b"/cold") == read[1], name
    assert (planned.root / "cold" / "config.json").read_bytes() == (made.path / "config.json").read_bytes()
    for runner in (planned.python, planned.bare):
        assert runner.state("cold")["status"] == "created"
    planned.bare("start", "cold").ok()
    planned.bare("kill", "cold", "KILL").ok()
    planned.bare.wait_status("cold", "stopped")
    planned.bare("delete", "cold").ok()


def test_pid_file_log_detach_and_keep(planned: Planned, bundle: BundleMaker, tmp_path: Path) -> None:
    made = bundle(IDLE)
    pid, log = tmp_path / "pid", tmp_path / "log"
    assert start(planned, made, "one", "--pid-file", pid) == 0
    assert int(pid.read_text()) == planned.python.pid("one")
    assert start(planned, made, "two", "--detach", "--log", log, verb="run") == 0
    assert planned.python.state("two")["status"] == "running" and log.read_text() == ""
    assert start(planned, made, "three", "--log", tmp_path / "no" / "log") == TO_PYTHON
    quick = bundle(["true"])
    planned.served("run", "--keep", "-b", quick.path, "kept").ok()
    assert planned.python.state("kept")["status"] == "stopped"


def test_paths_are_the_caller_s(planned: Planned, bundle: BundleMaker) -> None:
    made = bundle(["cat", "/proc/sys/kernel/hostname"], hostname="here")
    assert planned.served("run", "one", cwd=made.path).ok().out == "here\n"
    assert planned.served("run", "-b", f"../{made.path.name}/.", "one", cwd=made.path).ok().out == "here\n"
    id = planned.python.create_started(bundle(IDLE))
    process = {"args": ["pwd"], "cwd": "/tmp", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}
    (made.path / "process").write_text(json.dumps(process))
    words = ("exec", "--process", "process", id)
    assert planned.served(*words, cwd=made.path).ok().out == "/tmp\n"
    (made.path / "link").symlink_to(made.path / "process")
    assert planned.served("exec", "-p", made.path / "link", id).ok().out == "/tmp\n"
    with open(made.path / "process") as file:
        for path in ("/dev/stdin", "/proc/self/fd/0", f"/proc/{os.getpid()}/cwd{made.path}/process"):
            why = planned.refused(partial(process_file, planned, path, id, file))
            assert "a path through /proc" in why, path


def test_another_proc_is_as_little_the_caller_s(planned: Planned, bundle: BundleMaker, tmp_path: Path) -> None:
    """Its self is the planner here, too, which has other files open."""
    id, proc, process = planned.python.create_started(bundle(IDLE)), tmp_path / "proc", tmp_path / "process"
    proc.mkdir()
    process.write_text(json.dumps({"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}}))
    subprocess.run(["mount", "-t", "proc", "proc", proc], check=True)
    try:
        with open(process) as file:
            path = f"{proc}/self/fd/{file.fileno()}"
            why = planned.refused(lambda: process_file(planned, path, id, subprocess.DEVNULL))
            assert planned.planner.answers == [] and "a path through /proc" in why
    finally:
        subprocess.run(["umount", "-l", proc], check=True)


def test_a_config_is_what_the_file_says_now(planned: Planned, bundle: BundleMaker) -> None:
    made = bundle(["cat", "/proc/sys/kernel/hostname"])
    file = made.path / "config.json"
    config = json.loads(file.read_text())
    for number in (*range(KEPT + 2), 0):
        file.write_text(json.dumps({**config, "hostname": f"h{number}"}))
        assert planned.served("run", "-b", made.path, "x").ok().out == f"h{number}\n"
        assert len(planned.planner._configs) <= KEPT


def process_file(planned: Planned, path: str, id: str, stdin: Any) -> int:
    command = planned.bare.command("exec", "-p", path, id)
    return subprocess.run(command, stdin=stdin, stdout=subprocess.DEVNULL, timeout=60, check=False).returncode


def test_callers_differ(planned: Planned, bundle: BundleMaker) -> None:
    """What the plan has of the caller is this caller's: its limits, its processors, its cgroup, each time."""
    made = bundle(["sh", "-c", "cat /proc/self/limits; grep _list /proc/self/status"], process={"rlimits": None})
    id = planned.python.create_started(bundle(IDLE, process={"rlimits": None}))
    cpu = str(min(os.sched_getaffinity(0)))
    for before in ([], ["prlimit", "--nofile=700:700"], ["taskset", "-c", cpu], ["nice", "-n", "3"]):
        for words in (("run", "-b", str(made.path), "x"), ("exec", id, "sh", "-c", "ulimit -n; nproc; nice")):
            ways = []
            for runner in (planned.python, planned.bare):
                there = Runner(planned.root, [*before, *runner.argv])
                for _ in range(20):
                    done = there(*words)
                    if done.rc != TO_PYTHON:
                        break
                ways.append(told(done))
            assert ways[0] == ways[1], (before, words, planned.planner.why)


def test_signals_are_handed_on(planned: Planned, bundle: BundleMaker) -> None:
    script = ["sh", "-c", "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done"]
    made, id = bundle(script), planned.python.create_started(bundle(IDLE))

    def run(words: list[str]) -> tuple[int, bytes]:
        for _ in range(20):
            process = planned.bare.popen(*words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            assert process.stdout is not None
            if process.stdout.readline() == b"ready\n":
                break
            process.wait(60)
        wait_for(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) == 4, 10, "no more than stdio and a pidfd")
        process.send_signal(signal.SIGTERM)
        out = process.communicate(timeout=60)[0]
        return process.returncode, out

    assert run(["run", "-b", str(made.path), "x"]) == (3, b"got\n")
    assert run(["exec", id, *script]) == (3, b"got\n")


def test_a_run_that_cannot_look_at_its_record_in_the_end_runs_nothing_again(
    planned: Planned, bundle: BundleMaker, tmp_path: Path
) -> None:
    """Whatever is unusual goes to Python: by then that is to delete."""
    made = bundle(["sh", "-c", "echo ready; read x; echo end"])
    (tmp_path / "stub" / "__main__.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    for _ in range(20):
        process = planned.bare.popen("run", "-b", made.path, "x", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        if process.stdout.readline() == b"ready\n":
            break
        process.communicate(timeout=60)
    hidden = "/proc/sys/kernel/random/boot_id"
    subprocess.run(["mount", "--bind", "/dev/null", hidden], check=True)
    try:
        out = process.communicate(b"\n", timeout=60)[0].decode()
    finally:
        subprocess.run(["umount", hidden], check=True)
    assert out.startswith(f"end\n--root {planned.root} ") and out.endswith(" delete x\n")
    planned.python.delete("x").ok()


@pytest.mark.parametrize(("python", "code"), [(0, 5), (1, 1)], ids=["which succeeds", "which fails"])
def test_the_exit_code_is_the_program_s_where_python_deletes(
    planned: Planned, bundle: BundleMaker, tmp_path: Path, python: int, code: int
) -> None:
    """What others have put into the container's cgroup keeps the launcher from removing it."""
    made = bundle(["sh", "-c", "echo; read _; exit 5"], linux={"cgroupsPath": "/x"})
    (tmp_path / "stub" / "__main__.py").write_text(f"import sys\nprint(sys.argv)\nsys.exit({python})\n")
    done = b""
    with subprocess.Popen(["sleep", "1000"]) as other:
        for _ in range(20):
            process = planned.bare.popen("run", "-b", made.path, "x", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert process.stdout is not None
            if process.stdout.readline() == b"\n":
                break
            process.communicate(timeout=60)
        (CGROUP_ROOT / "x" / "cgroup.procs").write_text(str(other.pid))
        done = process.communicate(b"\n", timeout=60)[0]
        other.kill()
    assert b"'delete', 'x'" in done and process.returncode == code


def test_a_caller_who_ignores_its_children(planned: Planned, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "exit 5"])
    ignoring = Runner(planned.root, ["env", "--ignore-signal=CHLD", *planned.bare.argv])
    codes = {ignoring("run", "-b", made.path, "x").rc for _ in range(5)}
    assert 5 in codes and codes <= {5, TO_PYTHON}


def test_what_fails_python_does_again_and_tells(planned: Planned, bundle: BundleMaker) -> None:
    made = bundle(["/bin/nonesuch"])
    id = planned.python.create_started(bundle(IDLE))
    for words in (("run", "-b", made.path, "x"), ("create", "-b", made.path, id), ("exec", id, "nonesuch")):
        outs = {planned.bare(*words).fails(TO_PYTHON).out.count(" ") > 0 for _ in range(5)}
        assert outs <= {words[0] != "exec", False}, "of an exec Python hears nothing"
        assert told(planned.launcher(*words)) == told(planned.python(*words))
    assert planned.python("list", "-q").out.split() == [id]


def test_hooks_run_once_where_one_fails(tmp_path: Path, bundle: BundleMaker) -> None:
    planned, made = Planned(tmp_path, str(LAUNCHER)), bundle(IDLE)
    notes = tmp_path / "notes"
    try:
        note = {
            kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo {kind} $MARK >>{notes}"]}]
            for kind in ("prestart", "poststop")
        }
        made.update(hooks={**note, "createRuntime": [{"path": "/bin/false"}]})
        told_ = []
        for runner in (planned.python, planned.launcher, planned.launcher):
            told_.append(told(runner("create", "-b", made.path, "x", env={"MARK": "a=b"})))
            assert notes.read_text().split() == ["prestart", "a=b", "poststop", "a=b"]
            notes.unlink()
        assert told_[0] == told_[1] == told_[2] and "createRuntime" in told_[0][2]
        assert planned.planner.answers, planned.planner.why
    finally:
        planned.close()


def test_a_signal_that_comes_behind_a_failure_keeps_no_hook_from_running(tmp_path: Path, bundle: BundleMaker) -> None:
    """It comes when all is undone, and Python has not yet begun to tell of it."""
    planned, made, stopped = Planned(tmp_path, str(LAUNCHER)), bundle(IDLE), tmp_path / "stopped"
    late = f"(while [ /proc/$PPID/exe -ef {LAUNCHER} ]; do :; done; kill -TERM $PPID) >/dev/null 2>&1 & exit 3"
    hooks = {"createRuntime": late, "poststop": f": >{stopped}"}
    made.update(hooks={kind: [{"path": "/bin/bash", "args": ["bash", "-c", text]}] for kind, text in hooks.items()})
    try:
        for _ in range(3):
            planned.launcher("create", "-b", made.path, "x").fails(1, "/hooks/createRuntime/0")
            stopped.unlink()
        assert planned.planner.answers, planned.planner.why
    finally:
        planned.close()


# ---- what it does not plan


def write_config(made: Bundle, text: str) -> None:
    (made.path / "config.json").write_text(text)


CONFIGS: dict[str, Callable[[Bundle], Any]] = {
    "terminal": lambda made: made.update(process={"terminal": True}),
    "hooks behind it": lambda made: made.update(hooks={"poststop": [{"path": "/bin/true"}]}),
    "capability": lambda made: made.update(process={"capabilities": {"bounding": ["CAP_OF_TOMORROW"]}}),
    "faulty": lambda made: write_config(made, "{"),
    "deep": lambda made: write_config(made, "[" * 100000),
    "long": lambda made: made.update(annotations={"x": "y" * (1 << 18)}),
    "own namespace": lambda made: made.update(linux={"namespaces": [{"type": "uts", "path": "/proc/self/ns/uts"}]}),
}
OPTIONS = [
    ["--debug", "run"],
    ["--rootless=false", "run"],
    ["--systemd-cgroup", "run"],
    ["--cgroup-manager=disabled", "run"],
    ["run", "--preserve-fds=1"],
    ["run", "--trace"],
    ["run", "--no-pivot"],
    ["run", "--config=config.json"],
    ["run", "--nonesuch"],
    ["run", "one-too-many"],
]


@pytest.mark.parametrize("what", CONFIGS)
def test_rare_and_wrong_configs_are_python_s(planned: Planned, bundle: BundleMaker, what: str) -> None:
    made = bundle(["true"])
    CONFIGS[what](made)
    assert planned.refused(lambda: planned.bare("run", "-b", made.path, "x").rc)
    made = bundle(["true"])
    planned.served("run", "-b", made.path, "x").ok()  # it has not come to harm


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_rare_options_are_python_s(planned: Planned, bundle: BundleMaker, words: list[str]) -> None:
    made = bundle(["true"])
    assert planned.bare(*words, "-b", str(made.path), "x").rc == TO_PYTHON
    assert planned.planner.answers == []


@pytest.mark.parametrize("name", ["LISTEN_FDS", "NOTIFY_SOCKET"])
def test_what_a_service_manager_asks_is_python_s(planned: Planned, bundle: BundleMaker, name: str) -> None:
    assert planned.bare("run", "-b", bundle(["true"]).path, "x", env={name: "1"}).rc == TO_PYTHON
    assert planned.planner.answers == []


# ---- whom it does not answer

PLACES: dict[str, list[str]] = {
    "mount": ["unshare", "--mount"],
    "uts": ["unshare", "--uts"],
    "ipc": ["unshare", "--ipc"],
    "net": ["unshare", "--net"],
    "cgroup": ["unshare", "--cgroup"],
    "pid": ["unshare", "--pid", "--fork"],
    "user": ["unshare", "--user", "--map-root-user"],
    "time": ["unshare", "--time", "--fork"],
    "capability": ["setpriv", "--bounding-set", "-sys_boot"],
    "group": ["setpriv", "--regid=1", "--clear-groups"],
}


@pytest.mark.parametrize("place", PLACES)
def test_callers_in_another_place_get_no_answer(planned: Planned, bundle: BundleMaker, place: str) -> None:
    made = bundle(["true"])
    there = Runner(planned.root, [*PLACES[place], *planned.bare.argv])
    assert planned.refused(lambda: there("run", "-b", made.path, "x").rc)


def test_callers_in_another_root_get_no_answer(planned: Planned, bundle: BundleMaker, tmp_path: Path) -> None:
    """The same directory by its number, but another mount, in which other files may be."""
    made, other = bundle(["true"]), tmp_path / "root"
    other.mkdir()
    subprocess.run(["mount", "--rbind", "/", other], check=True)
    try:
        there = Runner(planned.root, ["chroot", str(other), *planned.bare.argv])
        assert "place" in planned.refused(lambda: there("run", "-b", made.path, "x").rc)
    finally:
        subprocess.run(["umount", "-R", "-l", other], check=True)


def test_another_pyrun_gets_no_answer(planned: Planned, bundle: BundleMaker) -> None:
    planned.launcher("run", "-b", bundle(["true"]).path, "x").ok()
    wait_for(lambda: planned.planner.why != "", 30, "the planner to take the call")
    assert planned.planner.answers == [] and "another pyrun" in planned.planner.why


def test_a_planner_whose_sources_are_new_gives_no_answer(planned: Planned, bundle: BundleMaker) -> None:
    planned.planner._sources._files["/etc/passwd"] = (0, 0, 0, 0)
    planned.planner._sources._watch = None  # as after any event; tests/unit/test_planner_sources.py has these
    assert not planned.planner.is_current()
    assert planned.bare("run", "-b", bundle(["true"]).path, "x").rc == TO_PYTHON


def test_who_is_not_root_gets_no_answer(planned: Planned, bundle: BundleMaker) -> None:
    for path in (planned.root, planned.root / NAME):
        path.chmod(0o777)
    ask = f"""import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(60)
s.connect({str(planned.root / NAME)!r}); s.send(b"PYASK1\\0/run/pyrun\\0run\\0x\\0")
try: print(s.recv(9))
except ConnectionResetError: print(b"")"""
    for parent in planned.root.parents:
        if len(parent.parts) > 2:
            parent.chmod(0o755)
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", ask]
    done = subprocess.run(nobody, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout in ("b''\n", "") and planned.planner.answers == [], done
    assert "another user" in planned.planner.why


@pytest.mark.parametrize("said", [b"", b"x", b"PYASK1\0", b"PYASK1\0\0", b"PYASK1\0/run/x\0\xff\0", b"PYASK1\0" * 9])
def test_what_is_no_request_gets_no_answer(planned: Planned, bundle: BundleMaker, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(str(planned.root / NAME))
        caller.settimeout(60)
        try:
            caller.send(said)
            assert caller.recv(9) == b""
        except ConnectionError:  # it has hung up already
            pass
    planned.served("run", "-b", bundle(["true"]).path, "x").ok()
