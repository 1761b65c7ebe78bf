"""Kept plans of exec, run by the launcher: used when neither the command, the container nor the host has changed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.plan.lifecycle import EXEC_NOTES, KEPT_EXECS
from pyrun.runtime import cache
from tests.support.container.again import Again, cgroup_of, pid_of
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.runner import REPO, Runner, wait_for
from tests.support.executor.stub import TO_PYTHON

IDLE = ["sleep", "1000"]
WHO = ["sh", "-c", "id; pwd; env; umask; ulimit -n; ls -l /proc/self/fd | wc -l; grep 0:: /proc/self/cgroup"]
SYS_ADMIN = {"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), ["CAP_SYS_ADMIN"])}


Maker = Callable[..., Again]


@pytest.fixture
def make(tmp_path: Path, bundle: BundleMaker) -> Iterator[Maker]:
    made: list[Again] = []

    def maker(args: list[str] = IDLE, change: Callable[[Bundle], Any] | None = None, **overrides: Any) -> Again:
        one, source = Again(tmp_path, f"again{os.getpid()}"), bundle(args, **overrides)
        if change:
            change(source)
        one.python.create_started(source, id=one.id)
        made.append(one)
        return one

    yield maker
    for one in made:
        one.python.delete_all()


@pytest.fixture
def one(make: Maker) -> Again:
    return make()


def status_of(text: str) -> dict[str, str]:
    own = ("Pid", "NSpid", "Tgid", "NStgid", "NSpgid", "NSsid", "SigQ", "Vm", "Rss", "Ngid", "Hugetlb", "PPid")
    volatile = (*own, "voluntary", "nonvoluntary", "Cpus_allowed", "Mems_allowed", "FDSize", "State")
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith(volatile))


# ---- it is the same


def test_the_third_starts_no_interpreter_and_is_the_same(one: Again) -> None:
    said = [one.exec(one.python, *WHO).ok().out for _ in range(2)]
    one.warm(*WHO)
    said.append(one.exec(one.bare, *WHO).ok().out)
    assert said[0] == said[1] == said[2]
    status = ["cat", "/proc/self/status"]
    by_python = one.warm(*status).ok().out
    assert status_of(one.exec(one.bare, *status).ok().out) == status_of(by_python)


def test_it_is_in_every_namespace_and_in_the_cgroup(make: Maker) -> None:
    one = make(change=lambda made: made.add_namespace("time"))
    kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "time", "user"]
    show = ["sh", "-c", f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done; exec sleep 1000"]
    one.warm(*show, options=["--detach"], quiet=True)
    process = one.bare.popen("exec", one.id, *show, stdout=subprocess.PIPE)
    assert process.wait(10) == TO_PYTHON  # detached ones are others
    one.warm("sh", "-c", show[2].replace("; exec sleep 1000", ""))
    out = one.exec(one.bare, "sh", "-c", show[2].replace("; exec sleep 1000", "")).ok().out.split()
    assert out == [os.readlink(f"/proc/{pid_of(one)}/ns/{kind}") for kind in kinds]
    file = one.tmp_path / "pid"
    one.warm(*IDLE, options=["-d", "--pid-file", file], quiet=True)
    assert one.bare.popen("exec", "-d", "--pid-file", file, one.id, *IDLE).wait(10) == 0
    lines = [Path(f"/proc/{pid}/cgroup").read_text() for pid in (pid_of(one), int(file.read_text()))]
    assert lines[0] == lines[1]


def test_a_user_namespace_and_seccomp(make: Maker) -> None:
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}

    def change(made: Bundle) -> None:
        made.add_namespace("user")
        made.update(linux={"uidMappings": maps, "gidMappings": maps, "seccomp": profile})
        subprocess.run(["chown", "-R", "100000:100000", made.rootfs], check=True)
        for parent in (made.path, *made.path.parents):
            if parent.name.startswith("pytest") or parent == made.path:
                parent.chmod(0o755)

    one = make(change=change)
    show = ["sh", "-c", "id -u; cat /proc/self/uid_map; grep Seccomp: /proc/self/status; mkdir /tmp/x"]
    by_python = one.warm(*show)
    again = one.exec(one.bare, *show)
    assert (again.rc, again.out, again.err) == (by_python.rc, by_python.out, by_python.err)
    assert again.rc == 1 and again.out.split()[:4] == ["0", "0", "100000", "65536"]


def write_process(path: Path, *args: str, **more: Any) -> Path:
    process = {"args": args, "cwd": "/tmp", "env": ["PATH=/bin", "A=9"], "user": {"uid": 12, "gid": 13}, **more}
    path.write_text(json.dumps(process))
    return path


def test_another_file_with_the_same_process(one: Again) -> None:
    show = ("sh", "-c", "id; pwd; env; cat; exit 3")
    first = write_process(one.tmp_path / "first", *show)
    by_python = one.warm(options=["--process", first])
    (one.tmp_path / "below").mkdir()
    second = first.rename(one.tmp_path / "below" / "second of another name")
    again = one.exec(one.bare, options=["--process", second], input="in")
    assert (again.rc, again.out) == (by_python.rc, by_python.out + "in") and again.rc == 3
    write_process(first, *show, env=["PATH=/bin", "A=8"])
    assert one.exec(one.bare, options=["--process", first]).rc == TO_PYTHON
    second.write_text(second.read_text() + " ")
    assert one.exec(one.bare, options=["--process", second]).rc == TO_PYTHON
    assert "A=8" in one.exec(one.launcher, options=["--process", first]).out
    fifo = one.tmp_path / "fifo"
    os.mkfifo(fifo)
    assert one.exec(one.bare, options=["--process", fifo]).rc == TO_PYTHON
    assert one.exec(one.bare, options=["--process", one.tmp_path / "missing"]).rc == TO_PYTHON


def test_another_pid_file_of_the_same_length(one: Again) -> None:
    (one.tmp_path / "d" / "e").mkdir(parents=True)
    (one.tmp_path / "dd").mkdir()
    file = one.tmp_path / "d" / "e" / "pid-one"
    one.warm("sleep", "999", options=["-d", "--pid-file", file], quiet=True)
    for other in ("d/e/pid-two", "dd/pid-four", "d/.pid_five"):
        path = one.tmp_path / other
        assert len(str(path)) == len(str(file))
        assert one.bare.popen("exec", "-d", "--pid-file", path, one.id, "sleep", "999").wait(10) == 0
        assert Path(f"/proc/{path.read_text()}/cmdline").read_bytes() == b"sleep\x00999\x00"
    assert sorted(os.listdir(one.tmp_path / "d")) == [".pid_five", "e"]
    options = ["-d", "--pid-file", "pid"]
    assert one.exec(one.bare, "sleep", "999", options=options, cwd=one.tmp_path).rc == TO_PYTHON
    assert one.exec(one.bare, "sleep", "999", options=["-d"]).rc == TO_PYTHON


@pytest.mark.parametrize("code", [0, 7, 255])
def test_exit_status(one: Again, code: int) -> None:
    script = ["sh", "-c", f"echo out; echo err >&2; exit {code}"]
    one.warm(*script)
    again = one.exec(one.bare, *script)
    assert (again.rc, again.out, again.err) == (code, "out\n", "err\n")


def test_signals_are_handed_on(one: Again) -> None:
    script = ["sh", "-c", "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done"]

    def run(runner: Runner, number: int) -> tuple[int, bytes]:
        process = runner.popen("exec", one.id, *script, stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        out = process.stdout.read()
        return process.wait(10), out

    assert run(one.python, signal.SIGTERM) == (3, b"got\n")
    wait_for(lambda: run(one.python, signal.SIGTERM) == (3, b"got\n") and bool(one.entries()), 20, "a kept plan")
    assert run(one.bare, signal.SIGTERM) == (3, b"got\n")
    assert run(one.bare, signal.SIGUSR1) == run(one.python, signal.SIGUSR1) == (128 + signal.SIGUSR1, b"")
    one.warm("sh", "-c", "kill -KILL $$")
    assert one.exec(one.bare, "sh", "-c", "kill -KILL $$").rc == 137


def test_options_are_part_of_what_is_the_same(one: Again) -> None:
    options = ["-e", "A=2", "--env=B=3 4", "--user", "1000:1000", "--cwd=/tmp"]
    by_python = one.warm(*WHO, options=options).ok()
    assert "uid=1000" in by_python.out and "A=2" in by_python.out
    assert one.exec(one.bare, *WHO, options=options).ok().out == by_python.out
    assert one.exec(one.bare, "--", *WHO, options=options).ok().out == by_python.out
    assert one.exec(one.bare, *WHO, options=[*options[3:], "--detach=false", *options[:3]]).ok().out == by_python.out
    for other in (
        options[2:],
        [options[2], *options[:2], *options[3:]],
        ["-e", "A=2 ", *options[2:]],
        [*options, "--user="],
        [*options, "--cwd", "/"],
    ):
        assert one.exec(one.bare, *WHO, options=other).rc == TO_PYTHON, other
    assert one.exec(one.bare, *WHO, "more", options=options).rc == TO_PYTHON
    one.warm("sh", "-c", "echo $#", "", "", options=["--detach=false"])
    assert one.exec(one.bare, "sh", "-c", "echo $#", "", "").ok().out == "1\n"
    assert one.exec(one.bare, "sh", "-c", "echo $#", "").rc == TO_PYTHON


# ---- what is not kept


@pytest.mark.parametrize(
    "options",
    [["--tty"], ["--cap", "KILL"], ["--no-new-privs"], ["-g", "7"], ["--ignore-paused"], ["--cgroup", "/"]],
    ids=lambda options: options[0],
)
def test_rare_options_are_python_s(one: Again, options: list[str]) -> None:
    for _ in range(3):
        assert one.exec(one.python, "true", options=options).rc == 0
    assert not one.entries() and not (one.directory / EXEC_NOTES).exists()
    one.warm("true")
    assert one.exec(one.bare, "true", options=options).rc == TO_PYTHON


@pytest.mark.parametrize("way", ["affinity", "shared mounts", "failing"])
def test_what_can_t_be_the_same_is_not_kept(make: Maker, way: str) -> None:
    command = ["true"]
    if way == "affinity":
        one = make(process={"execCPUAffinity": {"initial": str(min(os.sched_getaffinity(0)))}})
    elif way == "shared mounts":
        linux: dict[str, Any] = {"maskedPaths": [], "readonlyPaths": []}
        one = make(change=lambda made: made.drop_namespace("mount"), mounts=[], linux=linux)
    else:
        one, command = make(), ["nonesuch"]
    for _ in range(3):
        assert one.exec(one.python, *command).rc == (255 if way == "failing" else 0)
    assert not one.entries() and one.exec(one.bare, *command).rc == TO_PYTHON


def test_an_exec_that_comes_once_leaves_a_note(one: Again) -> None:
    one.warm("true", "hot")
    age = one.entries()[0].stat().st_mtime_ns
    for number in range(20):
        one.exec(one.python, "true", str(number)).ok()
    assert [path.stat().st_mtime_ns for path in one.entries()] == [age]
    assert (one.directory / EXEC_NOTES).stat().st_size <= 128
    for number in range(8):
        one.warm("true", f"more {number}")
    assert len(one.entries()) == len(KEPT_EXECS)
    assert one.exec(one.bare, "true", "hot").rc == TO_PYTHON  # the oldest
    one.exec(one.bare, "true", "more 7").ok()
    assert {path.stat().st_mode & 0o7777 for path in one.entries()} == {0o600}


# ---- what changes


def test_paused_and_stopped(one: Again) -> None:
    one.warm("true")
    one.python("pause", one.id).ok()
    assert one.exec(one.bare, "true").rc == TO_PYTHON
    one.exec(one.launcher, "true").fails(1, "cannot exec in a paused container")
    one.python("resume", one.id).ok()
    one.exec(one.bare, "true").ok()
    one.python("kill", one.id, "KILL").ok()
    one.python.wait_status(one.id, "stopped")
    assert one.exec(one.bare, "true").rc == TO_PYTHON
    one.exec(one.launcher, "true").fails(1, "cannot exec in a stopped container")


def test_a_container_of_the_same_name_is_another(one: Again, bundle: BundleMaker) -> None:
    one.warm("true")
    saved = one.entries()[0].read_bytes()
    one.python.delete(one.id, "--force").ok()
    assert one.exec(one.bare, "true").rc == TO_PYTHON
    one.python.create_started(bundle(IDLE), id=one.id)
    assert not one.entries() and one.exec(one.bare, "true").rc == TO_PYTHON
    kept = one.directory / KEPT_EXECS[0]
    kept.write_bytes(saved)
    kept.chmod(0o600)
    assert one.exec(one.bare, "true").rc == TO_PYTHON
    one.warm("true")
    one.exec(one.bare, "true").ok()


def test_an_entry_of_another_container_is_not_used(one: Again, bundle: BundleMaker) -> None:
    one.warm("hostname")
    other = one.python.create_started(bundle(IDLE, hostname="other"), id=one.id[:-1] + "x")
    shutil.copy2(one.entries()[0], one.root / other)
    assert one.bare("exec", other, "hostname").rc == TO_PYTHON
    assert one.launcher("exec", other, "hostname").ok().out == "other\n"
    one.python.delete(other, "--force").ok()
    shutil.copytree(one.directory, one.root / "copied")
    assert one.bare("exec", "copied", "hostname").rc == TO_PYTHON
    shutil.rmtree(one.root / "copied")


def test_an_init_in_another_cgroup(one: Again) -> None:
    show = ["grep", "0::", "/proc/self/cgroup"]
    one.warm(*show)
    own = cgroup_of(one)
    (own / "init.scope").mkdir()
    (own / "init.scope/cgroup.procs").write_text(str(pid_of(one)))
    assert one.exec(one.bare, *show).rc == TO_PYTHON
    by_python = one.warm(*show).ok().out
    assert one.exec(one.bare, *show).ok().out == by_python
    (own / "cgroup.procs").write_text(str(pid_of(one)))
    assert one.exec(one.bare, *show).ok().out == by_python  # the first entry holds again
    (own / "init.scope").rmdir()


def test_an_init_that_takes_another_namespace(make: Maker) -> None:
    """The process is where the init is now."""
    go = "while [ ! -e /tmp/go ]; do sleep 0.02; done; exec unshare -u sh -c 'hostname moved; exec sleep 1000'"
    one = make(["sh", "-c", go], process=SYS_ADMIN)
    one.warm("hostname")
    assert one.exec(one.bare, "hostname").ok().out == "pyrun\n"
    one.exec(one.python, "touch", "/tmp/go").ok()
    wait_for(lambda: one.exec(one.bare, "hostname").ok().out == "moved\n", 10, "the init's new namespace")


def test_an_init_that_leaves_our_namespace(make: Maker) -> None:
    go = "while [ ! -e /tmp/go ]; do sleep 0.02; done; exec unshare -u sleep 1000"
    one = make(
        ["sh", "-c", go], lambda made: (made.config.pop("hostname"), made.drop_namespace("uts")), process=SYS_ADMIN
    )
    show = ["readlink", "/proc/self/ns/uts"]
    ours = os.readlink("/proc/self/ns/uts")
    one.warm(*show)
    assert one.exec(one.bare, *show).ok().out.strip() == ours
    one.exec(one.python, "touch", "/tmp/go").ok()
    wait_for(lambda: os.readlink(f"/proc/{pid_of(one)}/ns/uts") != ours, 10, "the init's own namespace")
    assert one.exec(one.bare, *show).rc == TO_PYTHON
    assert one.exec(one.launcher, *show).ok().out.strip() == os.readlink(f"/proc/{pid_of(one)}/ns/uts")


@pytest.mark.parametrize("kind", ["uts", "net", "ipc"])
def test_a_caller_in_a_namespace_of_the_container(one: Again, kind: str) -> None:
    """For it the namespace is no other one, and so is not joined."""
    one.warm("true")
    inside = ["nsenter", "--target", str(pid_of(one)), f"--{kind}", *one.bare.command("exec", one.id, "true")]
    assert subprocess.run(inside, stdout=subprocess.DEVNULL, check=False).returncode == TO_PYTHON


def replace_config(one: Again) -> None:
    path = one.directory / "config.json"
    new = path.with_name("config.json.new")
    new.write_text(path.read_text().replace('"pyrun"', '"nurup"'))
    new.rename(path)


def drop_a_capability(one: Again) -> int:
    command = one.bare.command("exec", one.id, "true")
    dropped = ["setpriv", "--bounding-set", "-sys_boot", *command]
    return subprocess.run(dropped, stdout=subprocess.DEVNULL, check=False).returncode


def put_a_directory(one: Again) -> None:
    one.entries()[0].rename(one.tmp_path / "entry")
    (one.directory / "exec.0").mkdir()


CHANGES: dict[str, Callable[[Again], object]] = {
    "config": replace_config,
    "no config": lambda one: (one.directory / "config.json").rename(one.tmp_path / "config"),
    "entry cut short": lambda one: os.truncate(one.entries()[0], one.entries()[0].stat().st_size - 2),
    "entry empty": lambda one: os.truncate(one.entries()[0], 0),
    "others may write": lambda one: one.entries()[0].chmod(0o620),
    "another's": lambda one: os.chown(one.entries()[0], 1, 1),
    "a directory": put_a_directory,
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_goes_to_python(one: Again, change: str) -> None:
    one.warm("true")
    one.exec(one.bare, "true").ok()
    CHANGES[change](one)
    assert one.exec(one.bare, "true").rc == TO_PYTHON
    if change == "a directory":
        (one.directory / "exec.0").rmdir()


def test_another_caller_goes_to_python(one: Again) -> None:
    one.warm("true")
    assert drop_a_capability(one) == TO_PYTHON
    assert one.exec(one.bare, "true", preexec_fn=lambda: os.nice(1)).rc == 0
    assert one.exec(one.bare, "true", group=1).rc == TO_PYTHON
    for more in (["--debug"], ["--rootless", "true"], ["--root", str(one.root) + "/../again"]):
        assert one.bare(*more, "exec", one.id, "true").rc == TO_PYTHON
    for more in (["--systemd-cgroup"], ["--rootless", "false"], ["--log", str(one.tmp_path / "log")]):
        one.bare(*more, "exec", one.id, "true").ok()


@pytest.mark.parametrize("number", range(cache.HEADER.size // 4))
def test_a_damaged_header_goes_to_python(one: Again, number: int) -> None:
    one.warm("true")
    entry = one.entries()[0]
    data = bytearray(entry.read_bytes())
    data[4 * number + 3] ^= 0x7F
    entry.write_bytes(data)
    unused = range(10, 14)  # where config.json and the record lie in a plan of create
    assert one.exec(one.bare, "true").rc == TO_PYTHON or number in unused


def test_each_condition_is_looked_at(one: Again) -> None:
    """The stored side of each is changed, one at a time: then none holds."""
    one.warm("true")
    entry = one.entries()[0]
    whole = entry.read_bytes()
    _, _, _, at, count, *_ = cache.HEADER.unpack_from(whole)
    seen = set()
    for i in range(count):
        kind, path, place, size = cache.CONDITION.unpack_from(whole, at + i * cache.CONDITION.size)
        seen.add(whole[path : whole.index(b"\0", path)].decode())
        assert size != cache.MISSING
        data = bytearray(whole)
        data[place + size - 1] ^= 1
        entry.write_bytes(data)
        assert one.exec(one.bare, "true").rc == TO_PYTHON, (kind, whole[path : path + 60])
    code = {str(REPO / "pyrun" / "plan" / "exec.py"), str(REPO / "pyrun" / "runtime" / "exec.py")}
    assert code | {str(one.directory / "config.json"), "/proc/self/limits", "/sys/fs/cgroup"} <= seen
    entry.write_bytes(whole)
    one.exec(one.bare, "true").ok()


def test_each_byte_of_the_key_is_looked_at(one: Again) -> None:
    one.warm("true")
    entry = one.entries()[0]
    whole = entry.read_bytes()
    _, at, size, *_ = cache.HEADER.unpack_from(whole)
    for place in range(at, at + size):
        data = bytearray(whole)
        data[place] ^= 1
        entry.write_bytes(data)
        assert one.exec(one.bare, "true").rc == TO_PYTHON, place - at
