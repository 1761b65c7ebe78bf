"""run: create, start, wait and delete in one; signals, exit codes, descriptors."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.console import FdSocket
from tests.support.container.open_files import open_files
from tests.support.container.runner import REPO, Runner, wait_for

FORWARDED = [
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTRAP, signal.SIGABRT, signal.SIGUSR1, signal.SIGUSR2,
    signal.SIGPIPE, signal.SIGALRM, signal.SIGTERM, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGURG, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGVTALRM, signal.SIGPROF, signal.SIGWINCH, signal.SIGIO,
    signal.SIGPWR, signal.SIGSYS,
]  # fmt: skip


def start(pyrun: Runner, made: Bundle, *options: str, **popen: object) -> subprocess.Popen[bytes]:
    popen = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE} | popen
    return pyrun.popen("run", "-b", made.path, *options, pyrun.new_id(), **popen)


def read_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


# --- exit codes, and what stays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 7, 126, 255])
def test_exit_code_is_the_programs(pyrun: Runner, bundle: BundleMaker, code: int) -> None:
    done = pyrun.run(bundle(["sh", "-c", f"echo out; echo err >&2; exit {code}"]))
    assert (done.rc, done.out, done.err) == (code, "out\n", "err\n"), done.describe()
    assert pyrun.ids() == []


def test_exit_code_of_a_program_that_is_killed(pyrun: Runner, bundle: BundleMaker) -> None:
    process = start(pyrun, bundle(["sh", "-c", "echo ready; exec sleep 1000"]))
    read_line(process)
    os.kill(pyrun.pid(pyrun.ids()[0]), signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert pyrun.ids() == []


def test_standard_input_is_the_callers(pyrun: Runner, bundle: BundleMaker) -> None:
    assert pyrun.run(bundle(["cat"]), input="one\ntwo").ok().out == "one\ntwo"


def test_keep_leaves_a_stopped_container(pyrun: Runner, bundle: BundleMaker) -> None:
    assert pyrun.run(bundle(["sh", "-c", "exit 3"]), "--keep", id="kept").rc == 3
    assert pyrun.state("kept")["status"] == "stopped"
    pyrun.delete("kept").ok()
    pyrun.run(bundle(["true"]), id="kept").ok()


def test_detach_leaves_a_running_one(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sleep", "1000"])
    begin = time.monotonic()
    with open(os.devnull) as null:
        command = pyrun.command("run", "--detach", "--pid-file", made.path / "pid", "-b", made.path, "one")
        subprocess.run(command, stdin=null, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    assert time.monotonic() - begin < 10
    assert pyrun.state("one")["status"] == "running"
    assert (made.path / "pid").read_text() == str(pyrun.pid("one"))


def test_same_id_twice(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "echo ready; exec sleep 1000"])
    process = pyrun.popen("run", "-b", made.path, "one", stdout=subprocess.PIPE)
    read_line(process)
    pyrun.run(bundle(["true"]), id="one").fails(1, "container with given ID already exists: one")
    assert pyrun.state("one")["status"] == "running"
    pyrun.delete("one", "--force").ok()
    assert process.wait(60) == 137


def test_deleted_and_made_anew_by_others_meanwhile(pyrun: Runner, bundle: BundleMaker) -> None:
    """What has our id when our program ends is not ours to delete."""
    process = pyrun.popen("run", "-b", bundle(["sleep", "1000"]).path, "one", stderr=subprocess.PIPE)
    wait_for(lambda: bool(pyrun.ids()) and pyrun.state("one")["status"] == "running", 10, "the first container")
    process.send_signal(signal.SIGSTOP)
    pyrun.delete("one", "--force").ok()
    pyrun.create(bundle(["sleep", "1000"]), id="one")
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 137
    assert process.stderr is not None and process.stderr.read() == b""
    assert pyrun.state("one")["status"] == "created"


@pytest.mark.parametrize(
    "args, text",
    [
        (["nonesuch"], "executable file not found in $PATH"),
        (["/nonesuch"], "no such file or directory"),
        (["/etc/passwd"], "permission denied"),
    ],
)
def test_program_that_can_not_be_run(pyrun: Runner, bundle: BundleMaker, args: list[str], text: str) -> None:
    pyrun.run(bundle(args)).fails(1, text)
    assert pyrun.ids() == []


def test_exec_format_error_is_told_and_undone(pyrun: Runner, bundle: BundleMaker) -> None:
    """Only execve(2) itself sees this one, after everything else has succeeded."""
    made = bundle(["/bin/broken"])
    (made.rootfs / "bin/broken").write_bytes(b"\x7fELFnot really")
    (made.rootfs / "bin/broken").chmod(0o755)
    pyrun.run(made).fails(1, "exec format error")
    assert pyrun.ids() == []


# --- signals and children --------------------------------------------------------------------------------------------


def test_every_signal_is_forwarded(pyrun: Runner, bundle: BundleMaker) -> None:
    traps = " ".join(f"trap 'echo got {s.value}' {s.value};" for s in FORWARDED)
    process = start(pyrun, bundle(["sh", "-c", f"{traps} echo ready; while :; do sleep 0.01; done"]))
    assert read_line(process) == "ready"
    for number in FORWARDED:
        process.send_signal(number)
        assert read_line(process) == f"got {number.value}"
    pyrun.delete(pyrun.ids()[0], "--force").ok()
    assert process.wait(60) == 137


def test_real_time_signals_are_forwarded(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "echo ready; exec sleep 1000"])
    made.drop_namespace("pid")  # the init of a namespace is spared signals that it has no handler for
    process = start(pyrun, made)
    read_line(process)
    process.send_signal(signal.SIGRTMAX)
    assert process.wait(60) == 128 + signal.SIGRTMAX


def test_signal_that_comes_before_the_program_is_not_lost(pyrun: Runner, bundle: BundleMaker) -> None:
    """But for those that end what is being made (test_interrupt.py)."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "kill -USR1 $PPID"]}
    made = bundle(["sleep", "1000"], hooks={"createRuntime": [hook]})
    made.drop_namespace("pid")
    assert start(pyrun, made).wait(60) == 128 + signal.SIGUSR1
    assert pyrun.ids() == []


def orphan_test(pyrun: Runner, bundle: BundleMaker, *options: str) -> bool:
    """Runs a program that leaves an orphan, which ends; whether pyrun is its parent, and then has reaped it."""
    made = bundle(["sh", "-c", "(sh -c 'echo $$; sleep 2' &); exec sleep 1000"])
    made.drop_namespace("pid")
    process = start(pyrun, made, *options)
    orphan = Path("/proc", read_line(process), "stat")
    parents: list[int] = []

    def is_orphaned() -> bool:
        parents.append(int(orphan.read_text().rpartition(")")[2].split()[1]))
        return Path(f"/proc/{parents[-1]}/comm").read_text() != "sh\n"  # as its first parent, which ends at once

    wait_for(is_orphaned, 10, "the orphan to be one")
    is_ours = parents[-1] == process.pid
    if is_ours:
        wait_for(lambda: not orphan.exists(), 10, "the orphan to be reaped")
    pyrun.delete(pyrun.ids()[0], "--force").ok()
    assert process.wait(60) == 137
    return is_ours


def test_orphans_are_adopted_and_reaped(pyrun: Runner, bundle: BundleMaker) -> None:
    assert orphan_test(pyrun, bundle) is True


def test_no_subreaper_leaves_orphans_to_others(pyrun: Runner, bundle: BundleMaker) -> None:
    assert orphan_test(pyrun, bundle, "--no-subreaper") is False


def test_children_of_the_container_die_with_it(pyrun: Runner, bundle: BundleMaker) -> None:
    """Without a PID namespace nothing but the cgroup knows them; the leak check finds one that stays."""
    made = bundle(["sh", "-c", "setsid sleep 1000 & echo $!"])
    made.drop_namespace("pid")
    process = start(pyrun, made)
    pid = read_line(process)
    assert process.wait(60) == 0
    stat = Path("/proc", pid, "stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


# --- hooks -----------------------------------------------------------------------------------------------------------


def recording_hook(path: Path, word: str, code: int = 0) -> dict[str, object]:
    return {"path": "/bin/sh", "args": ["sh", "-c", f"cat >/dev/null; echo {word} >>{path}; exit {code}"]}


def test_hooks_of_a_whole_life(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    log = tmp_path / "log"
    kinds = ("prestart", "createRuntime", "poststart", "poststop")
    made = bundle(["sleep", "0.3"], hooks={kind: [recording_hook(log, kind)] for kind in kinds})
    pyrun.run(made).ok()
    assert log.read_text().split() == list(kinds)


def test_poststart_that_fails_stops_the_container(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """runtime.md, step 9: an error, and on with the destruction and the poststop hooks."""
    log = tmp_path / "log"
    hooks = {
        "poststart": [recording_hook(log, "first", 9), recording_hook(log, "second")],
        "poststop": [recording_hook(log, "stop", 1), recording_hook(log, "last")],
    }
    done = pyrun.run(bundle(["sleep", "1000"], hooks=hooks)).fails(1, "poststart hook", "exit status 9")
    assert log.read_text().split() == ["first", "stop", "last"]
    assert "warning" in done.err and "poststop" in done.err
    assert pyrun.ids() == []


# --- descriptors -----------------------------------------------------------------------------------------------------


def with_fds(count: int, argv: list[str], *, first: int = 3, setup: str = "") -> subprocess.CompletedProcess[str]:
    """Runs argv with descriptors first, first+1, … open and inheritable, each on a file of its own name."""
    opens = " ".join(f"exec {first + i}<>/tmp/fd-{os.getpid()}-{i};" for i in range(count))
    script = f'{setup} {opens} exec "$@"'
    try:
        return subprocess.run(
            ["bash", "-c", script, "bash", *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
        )
    finally:
        for i in range(count):
            Path(f"/tmp/fd-{os.getpid()}-{i}").unlink(missing_ok=True)


LIST_FDS = ["sh", "-c", "for f in /proc/self/fd/*; do readlink $f >/dev/null && echo ${f##*/}; done; env"]


def fds_in(output: str) -> list[int]:
    return [int(word) for word in output.split() if word.isdigit()]


def test_nothing_but_the_standard_streams_is_open(pyrun: Runner, bundle: BundleMaker) -> None:
    done = with_fds(5, pyrun.command("run", "-b", bundle(LIST_FDS).path, pyrun.new_id()))
    assert done.returncode == 0, done.stderr
    assert fds_in(done.stdout) == [0, 1, 2]


def test_log_is_not_among_what_is_handed_on(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """Our own descriptors get the lowest free numbers, which are those of --preserve-fds."""
    command = [*pyrun.argv, "--root", pyrun.root, "--log", tmp_path / "log", "run", "--preserve-fds", "1"]
    command += ["-b", bundle(LIST_FDS).path, pyrun.new_id()]
    done = subprocess.run([str(w) for w in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1 and "descriptor 3 is not open" in done.stderr
    assert pyrun.ids() == []


def test_preserved_descriptors_are_open(pyrun: Runner, bundle: BundleMaker) -> None:
    done = with_fds(4, pyrun.command("run", "--preserve-fds", "3", "-b", bundle(LIST_FDS).path, pyrun.new_id()))
    assert done.returncode == 0, done.stderr
    assert fds_in(done.stdout) == [0, 1, 2, 3, 4, 5]


def test_missing_descriptor_is_an_error_before_anything_is_made(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["true"])
    for verb in ("create", "run"):
        done = with_fds(1, pyrun.command(verb, "--preserve-fds", "2", "-b", made.path, pyrun.new_id()))
        assert done.returncode == 1 and "descriptor 4 is not open" in done.stderr
    assert not pyrun.root.exists() or pyrun.ids() == []


def test_listen_fds_come_first_and_are_told(pyrun: Runner, bundle: BundleMaker) -> None:
    command = pyrun.command("run", "--preserve-fds", "1", "-b", bundle(LIST_FDS).path, pyrun.new_id())
    done = with_fds(3, command, setup="export LISTEN_FDS=2 LISTEN_PID=$$;")
    assert done.returncode == 0, done.stderr
    assert fds_in(done.stdout) == [0, 1, 2, 3, 4, 5]
    assert "LISTEN_FDS=2" in done.stdout.split() and "LISTEN_PID=1" in done.stdout.split()


def test_listen_fds_of_another_process_are_not_ours(pyrun: Runner, bundle: BundleMaker) -> None:
    command = pyrun.command("run", "-b", bundle(LIST_FDS).path, pyrun.new_id())
    done = with_fds(2, command, setup="export LISTEN_FDS=2 LISTEN_PID=1;")
    assert done.returncode == 0, done.stderr
    assert fds_in(done.stdout) == [0, 1, 2]
    assert "LISTEN_FDS" not in done.stdout


def test_listen_fds_of_a_created_container(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    made = bundle(["sh", "-c", f"({LIST_FDS[2]}) >/out"])
    command = pyrun.command("create", "-b", made.path, "one")
    done = with_fds(2, command, setup="exec >/dev/null 2>&1; export LISTEN_FDS=2 LISTEN_PID=$$;")
    assert done.returncode == 0, done.stderr
    pyrun("start", "one").ok()
    pyrun.wait_status("one", "stopped")
    assert fds_in((made.rootfs / "out").read_text()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("verb", ["create", "run"])
def test_pidfd_socket(pyrun: Runner, bundle: BundleMaker, verb: str) -> None:
    made = bundle(["sleep", "1000"])
    options = ["--detach"] if verb == "run" else []
    with FdSocket() as receiver:
        command = pyrun.command(verb, *options, "--pidfd-socket", receiver.path, "-b", made.path, "one")
        null = subprocess.DEVNULL
        subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)
        fd = receiver.receive()
        assert f"Pid:\t{pyrun.pid('one')}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        pyrun.wait_status("one", "stopped")


def test_socket_that_nobody_listens_on(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))
        pyrun.run(bundle(["true"]), "--pidfd-socket", tmp_path / "dead").fails(1, "connection refused")
    assert pyrun.ids() == []


# --- trace, and the diet ---------------------------------------------------------------------------------------------


def test_trace_shows_steps_and_times_on_stderr(pyrun: Runner, bundle: BundleMaker) -> None:
    done = pyrun.run(bundle(["echo", "out"]), "--trace").ok()
    assert done.out == "out\n"
    assert "clone3" in done.err and "wait_exec" in done.err
    failed = pyrun.run(bundle(["nonesuch"]), "--trace").fails(1, "executable file not found in $PATH")
    assert "find_executable" in failed.err and "failed" in failed.err


def test_foreground_imports_no_more_than_it_needs() -> None:
    """Imports cost more than a container; the terminal's are only for who has one."""
    imports = "before = set(sys.modules); import pyrun.cli.commands.run, pyrun.cli.commands.exec"
    script = f"import sys; {imports}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(REPO)!r}); {script}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    heavy = {"signal", "enum", "re", "json", "typing", "os", "socket", "termios", "_socket", "subprocess", "selectors"}
    heavy |= {"pyrun.cli.waiting", "pyrun.runtime.delete", "pyrun.runtime.kill"}  # the launcher waits and deletes
    assert not heavy & set(done.stdout.split()), heavy & set(done.stdout.split())


@pytest.fixture
def waiting(pyrun: Runner, bundle: BundleMaker, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """`run` or `exec` in the foreground of a program that says ready and exits with 9 at TERM; `hooks`: of a container
    that has poststop hooks."""
    script = ["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"]
    if request.param == "exec":
        id = pyrun.create_started(bundle(["sleep", "1000"]))
        process = subprocess.Popen(pyrun.command("exec", id, *script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    else:
        hooks = {"poststop": [{"path": "/bin/true"}]} if request.param == "hooks" else {}
        process = start(pyrun, bundle(script, hooks=hooks))
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield process
    process.terminate()
    assert process.wait(60) == 9


@pytest.mark.parametrize("waiting", ["run", "exec"], indirect=True)
def test_the_launcher_waits_and_holds_nothing_else(waiting: subprocess.Popen[bytes]) -> None:
    """But its streams and the pidfd; the interpreter is gone."""
    wait_for(lambda: held(waiting) in (["anon_inode:[pidfd]"], ["pidfd"]), 30, "no more than that to be open")
    assert os.readlink(f"/proc/{waiting.pid}/exe") == str(REPO / "pyrun/bin/pyrun")


@pytest.mark.parametrize("waiting", ["hooks"], indirect=True)
def test_python_waits_where_it_is_needed_afterwards(waiting: subprocess.Popen[bytes]) -> None:
    """It has the pipe by which it hears of signals as well."""
    settled = (["anon_inode:[pidfd]", "pipe", "pipe"], ["pidfd", "pipe", "pipe"])  # since 6.9 it is a file of pidfs
    wait_for(lambda: held(waiting) in settled, 30, "no more than that to be open")
    assert "python" in os.readlink(f"/proc/{waiting.pid}/exe")


def held(process: subprocess.Popen[bytes]) -> list[str]:
    return sorted(re.sub(r":\[\d+\]$", "", link) for fd, link in open_files(process.pid).items() if fd > 2)


def test_a_caller_that_ignores_its_children_gets_the_exit_code(pyrun: Runner, bundle: BundleMaker) -> None:
    id, made = pyrun.create_started(bundle(["sleep", "1000"])), bundle(["sh", "-c", "exit 7"])
    script = "import os, sys; from signal import *; signal(SIGCHLD, SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    ignoring = [sys.executable, "-c", script]
    for words in (["exec", id, "sh", "-c", "exit 7"], ["run", "-b", str(made.path), pyrun.new_id()]):
        done = subprocess.run([*ignoring, *pyrun.command(*words)], timeout=60, check=False)
        assert done.returncode == 7, words


def test_without_the_launcher_python_waits(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    package = shutil.copytree(REPO / "pyrun", tmp_path / "pyrun", ignore=shutil.ignore_patterns("__pycache__", "bin"))
    (package / "bin").mkdir()
    for name in ("pyrun-init", "site-packages"):
        (package / "bin" / name).symlink_to((REPO / "pyrun/bin" / name).resolve())
    pyrun.argv[:] = ["/usr/bin/python3", "-I", "-S", str(package / "__main__.py")]
    assert pyrun.run(bundle(["sh", "-c", "exit 7"])).rc == 7
    assert pyrun.ids() == []
