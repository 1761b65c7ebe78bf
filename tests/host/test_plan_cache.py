"""Kept plans, run by the launcher: used when nothing has changed, and for nothing else."""

from __future__ import annotations

import calendar
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyrun.runtime import cache
from pyrun.runtime.record import BLOBS, Record, unpack
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import REPO, Runner, python_argv, wait_for
from tests.support.executor.stub import TO_PYTHON, bare_launcher

DEVICES = {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}


class Kept:
    """A bundle whose plan is kept in a state directory; `python` made it, `bare` has nothing but the launcher."""

    def __init__(self, tmp_path: Path, bundle: BundleMaker, args: list[str], **overrides: Any) -> None:
        self.bundle = bundle(args, **overrides)
        self.age()
        self.root = tmp_path / "kept"
        self.python = Runner(self.root, python_argv())
        self.bare = Runner(self.root, bare_launcher(tmp_path))

    def age(self) -> None:
        os.utime(self.bundle.path / "config.json", (1e9, 1e9))

    def entries(self) -> list[Path]:
        return sorted((self.root / cache.DIRECTORY).glob("????????????????"))

    def warm(self, verb: str = "create", *options: str) -> None:
        """Creates by Python until the plan is kept: not while somebody edits the sources."""

        def create() -> bool:
            words = ["--bundle", str(self.bundle.path), *options, "warm"]
            quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
            subprocess.run(self.python.command(verb, *words), timeout=60, **quiet)
            self.python("delete", "--force", "warm")
            return bool(self.entries())

        wait_for(create, 30, "the plan to be kept")

    def create(self, id: str = "cold", *options: str, **popen: Any) -> int:
        command = self.bare.command("create", "--bundle", self.bundle.path, *options, id)
        stdio: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
        }
        return subprocess.run(command, timeout=60, **(stdio | popen)).returncode


Maker = Callable[..., Kept]


@pytest.fixture
def kept(tmp_path: Path, bundle: BundleMaker) -> Any:
    made: list[Kept] = []

    def make(args: list[str], **overrides: Any) -> Kept:
        made.append(Kept(tmp_path, bundle, args, **overrides))
        return made[-1]

    yield make
    for one in made:
        one.python.delete_all()


def record_of(kept: Kept, id: str) -> Record:
    return unpack((kept.root / id / "record").read_bytes())


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    volatile: tuple[str, ...] = (
        "Vm",
        "Rss",
        "Hugetlb",
        "voluntary",
        "nonvoluntary",
        "Pid",
        "Tgid",
        "NSpid",
        "NStgid",
        "NSpgid",
        "NSsid",
        "Ngid",
    )
    volatile += ("Cpus_allowed", "Mems_allowed", "State", "FDSize", "SigQ")
    return dict(line.split(":", 1) for line in lines if not line.startswith(volatile))


def mounts_of(pid: int, id: str) -> list[list[str]]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().replace(f"/{id} ", "/ID ").splitlines()
    return [line.split()[3:] for line in lines]


def test_the_second_create_starts_no_interpreter_and_makes_the_same(kept: Maker) -> None:
    one = kept(["sleep", "1000"], linux=DEVICES, annotations={"a": "b"}, hostname="warm")
    one.warm()
    one.python.create(one.bundle, id="pyth")
    assert one.create("cold") == 0
    a, b = record_of(one, "pyth"), record_of(one, "cold")
    assert a.flags == b.flags and a.boot_id == b.boot_id and b.status == 1 and b.pid > 0
    for name in BLOBS:
        if name != "created":
            then = a.blob(name).replace(a.blob("created"), b.blob("created"))
            assert then.replace(b"/pyth", b"/cold").replace(b'"pyth"', b'"cold"') == b.blob(name) or name == "id", name
    assert a.text("id") == "pyth" and b.text("id") == "cold"
    assert status_of(a.pid) == status_of(b.pid)
    assert mounts_of(a.pid, "pyth") == mounts_of(b.pid, "cold")
    for name in ("environ", "cmdline", "uid_map", "cgroup"):
        read = [Path(f"/proc/{r.pid}/{name}").read_bytes() for r in (a, b)]
        assert read[0].replace(b"/pyth", b"/cold") == read[1], name
    assert (one.root / "cold" / "config.json").read_bytes() == (one.bundle.path / "config.json").read_bytes()


def test_what_it_made_lives_and_dies_as_any(kept: Maker) -> None:
    one = kept(["sleep", "1000"])
    one.warm()
    before = time.time_ns()
    assert one.create("cold") == 0
    created = one.python.state("cold")["created"]
    whole = time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S")
    assert before - 2 * 10**9 <= calendar.timegm(whole) * 10**9 + int(created[20:29]) <= time.time_ns()
    for runner in (one.python, one.bare):
        assert runner.state("cold")["status"] == "created"
    one.bare("start", "cold").ok()
    assert one.python.exec("cold", "echo", "in").ok().out == "in\n"
    one.bare("kill", "cold", "KILL").ok()
    one.bare.wait_status("cold", "stopped")
    one.bare("delete", "cold").ok()


def test_the_pid_file_is_written(kept: Maker, tmp_path: Path) -> None:
    one = kept(["sleep", "1000"])
    file = str(tmp_path / "pid")
    one.warm("create", "--pid-file", file)
    assert one.create("cold", "--pid-file", file) == 0
    assert int(Path(file).read_text()) == record_of(one, "cold").pid
    assert one.create("cool") == TO_PYTHON
    assert one.create("cool", "--pid-file", file + "2") == TO_PYTHON


def test_the_working_directory_is_the_bundle(kept: Maker) -> None:
    one = kept(["sleep", "1000"])
    one.warm()
    command = one.bare.command("create", "cold")
    assert (
        subprocess.run(command, cwd=one.bundle.path, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).returncode
        == 0
    )
    assert record_of(one, "cold").text("bundle") == str(one.bundle.path)


def lower_a_limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))


def drop_a_capability() -> None:
    assert ctypes.CDLL(None).prctl(24, 22, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_SYS_BOOT: root's exec loses it


def enter_a_cgroup() -> None:
    os.mkdir("/sys/fs/cgroup/other")
    Path("/sys/fs/cgroup/other/cgroup.procs").write_text("0")


def edit_config(k: Kept) -> None:
    k.bundle.update(hostname="nurup")
    k.age()


def cut_entry(k: Kept, keep: int) -> None:
    os.truncate(k.entries()[0], keep)


OPTIONS: dict[str, Callable[[Kept], int]] = {
    "id of another length": lambda k: k.create("colder"),
    "keyring": lambda k: k.create("cold", "--no-new-keyring"),
    "unknown option": lambda k: k.create("cold", "--preserve-fds", "0"),
    "a limit": lambda k: k.create(preexec_fn=lower_a_limit),
    "a capability": lambda k: k.create(preexec_fn=drop_a_capability),
    "gid": lambda k: k.create(group=1),
    "sockets": lambda k: k.create(env={"LISTEN_FDS": "1"}),
    "notify": lambda k: k.create(env={"NOTIFY_SOCKET": "/x"}),
}
CHANGES: dict[str, Callable[[Kept], None]] = {
    "config": edit_config,
    "no config": lambda k: (k.bundle.path / "config.json").unlink(),
    "entry cut short": lambda k: cut_entry(k, k.entries()[0].stat().st_size - 2),
    "entry empty": lambda k: cut_entry(k, 0),
    "others may write": lambda k: (k.root / cache.DIRECTORY).chmod(0o770),
    "another's": lambda k: os.chown(k.root / cache.DIRECTORY, 1, 1),
}


@pytest.mark.parametrize("way", OPTIONS)
def test_another_way_to_begin_goes_to_python(kept: Maker, way: str) -> None:
    one = kept(["sleep", "1000"])
    one.warm()
    assert OPTIONS[way](one) == TO_PYTHON
    assert not (one.root / "cold").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_goes_to_python(kept: Maker, change: str) -> None:
    one = kept(["sleep", "1000"], hostname="pyrun")
    one.warm()
    CHANGES[change](one)
    assert one.create() == TO_PYTHON
    assert not (one.root / "cold").exists()


def test_a_change_of_cgroup_goes_to_python(kept: Maker) -> None:
    one = kept(["sleep", "1000"])
    one.warm()
    assert one.create(preexec_fn=enter_a_cgroup) == TO_PYTHON
    os.rmdir("/sys/fs/cgroup/other")


def test_another_mount_on_the_cgroups_goes_to_python(kept: Maker) -> None:
    one = kept(["sleep", "1000"])
    one.warm()
    inner = " ".join(one.bare.command("create", "--bundle", one.bundle.path, "cold"))
    script = f"mount --bind /sys/fs/cgroup /sys/fs/cgroup && exec {inner}"
    assert subprocess.run(["unshare", "-m", "sh", "-c", script], stdout=subprocess.DEVNULL).returncode == TO_PYTHON


@pytest.mark.parametrize("number", range(cache.HEADER.size // 4))
def test_a_damaged_header_goes_to_python(kept: Maker, number: int) -> None:
    one = kept(["sleep", "1000"])
    one.warm()
    entry = one.entries()[0]
    data = bytearray(entry.read_bytes())
    data[4 * number + 3] ^= 0x7F
    entry.write_bytes(data)
    assert one.create() == TO_PYTHON


def test_each_condition_is_looked_at(kept: Maker) -> None:
    """The stored side of each is changed, one at a time: then none holds."""
    one = kept(["sleep", "1000"])
    one.warm()
    entry = one.entries()[0]
    whole = entry.read_bytes()
    _, _, _, at, count, *_ = cache.HEADER.unpack_from(whole)
    assert count > 40
    seen = set()
    for i in range(count):
        kind, path, place, size = cache.CONDITION.unpack_from(whole, at + i * cache.CONDITION.size)
        seen.add(whole[path : whole.index(b"\0", path)].decode())
        data = bytearray(whole)
        if size == cache.MISSING:
            cache.CONDITION.pack_into(data, at + i * cache.CONDITION.size, kind, path, place, 0)
            continue
        data[place + size - 1] ^= 1
        entry.write_bytes(data)
        assert one.create() == TO_PYTHON, (kind, whole[path : path + 60])
    assert {str(REPO / "pyrun" / "plan" / "create.py"), "/proc/self/cgroup", "/sys/fs/cgroup"} <= seen
    entry.write_bytes(whole)
    assert one.create() == 0


def test_a_failed_create_is_python_s_to_tell(kept: Maker, pyrun: Runner) -> None:
    """The launcher ran the plan and it failed: Python tells of that failure as if it had run it."""
    one = kept(["/bin/mine"])
    program = one.bundle.rootfs / "bin" / "mine"
    shutil.copy2(one.bundle.rootfs / "bin" / "busybox", program)
    one.warm()
    program.unlink()
    bundle = str(one.bundle.path)
    failed = one.bare("create", "--bundle", bundle, "cold")
    assert failed.rc == TO_PYTHON and failed.out.split()[3] == "2", failed.describe()
    launcher = Runner(one.root, [str(REPO / "pyrun" / "bin" / "pyrun")])
    ways = [runner("create", "--bundle", bundle, "cold") for runner in (launcher, one.python)]
    ways[0].fails(1, "no such file or directory")
    assert (ways[0].rc, ways[0].out, ways[0].err) == (ways[1].rc, ways[1].out, ways[1].err)
    assert one.python.ids() == []


def test_of_two_creates_of_one_id_one_wins(kept: Maker) -> None:
    one = kept(["sleep", "1000"])
    one.warm()
    command = one.bare.command("create", "--bundle", one.bundle.path, "cold")
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    both = [subprocess.Popen(command, **quiet) for _ in range(2)]
    assert sorted(p.wait() for p in both) == [0, TO_PYTHON]
    assert one.python.state("cold")["status"] == "created"


def test_hooks_run_with_the_right_pid(kept: Maker, tmp_path: Path) -> None:
    out = tmp_path / "said"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >>{out}; echo >>{out}"]}
    one = kept(["sleep", "1000"], hooks={"createRuntime": [hook]})
    one.warm()
    out.unlink()
    assert one.create("cold") == 0
    state = json.loads(out.read_text())
    assert (state["id"], state["pid"]) == ("cold", record_of(one, "cold").pid)


# ---- run


@pytest.mark.parametrize("code", [0, 7, 255])
def test_run_ends_as_its_program(kept: Maker, code: int) -> None:
    one = kept(["sh", "-c", f"echo out; echo err >&2; cat; exit {code}"])
    one.warm("run")
    result = one.bare("run", "--bundle", one.bundle.path, "cold", input="in")
    assert (result.rc, result.out, result.err) == (code, "out\nin", "err\n"), result.describe()
    assert one.python.ids() == []


def test_run_hands_signals_on_and_leaves_nothing(kept: Maker) -> None:
    one = kept(["sh", "-c", "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.01; done"])
    start = one.python.popen("run", "--bundle", one.bundle.path, "warm", stdout=subprocess.PIPE)
    assert start.stdout and start.stdout.readline() == b"ready\n"
    start.send_signal(signal.SIGTERM)
    assert start.wait(10) == 3
    wait_for(lambda: bool(one.entries()), 5, "the plan to be kept")
    process = one.bare.popen("run", "--bundle", one.bundle.path, "cold", stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    blocked = next(
        line for line in Path(f"/proc/{record_of(one, 'cold').pid}/status").read_text().splitlines() if "SigBlk" in line
    )
    assert int(blocked.split()[1], 16) == 0
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == b"got\n"
    assert process.wait(10) == 3
    process = one.bare.popen("run", "--bundle", one.bundle.path, "cold", stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    one.bare("kill", "cold", "KILL").ok()
    assert process.wait(10) == 128 + 9
    assert one.python.ids() == []


def test_run_with_keep_and_detach(kept: Maker) -> None:
    one = kept(["sleep", "1000"])
    one.warm("run", "--detach")
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    assert subprocess.run(one.bare.command("run", "-d", "-b", one.bundle.path, "cold"), **quiet).returncode == 0
    assert one.python.state("cold")["status"] == "running"


def test_run_keeps_what_it_is_told_to_keep(kept: Maker) -> None:
    one = kept(["true"])
    one.warm("run")
    one.bare("run", "--keep", "-b", one.bundle.path, "cold").ok()
    assert one.python.state("cold")["status"] == "stopped"


def test_run_survives_a_caller_who_ignores_its_children(kept: Maker) -> None:
    one = kept(["sh", "-c", "exit 5"])
    one.warm("run")
    command = " ".join(one.bare.command("run", "-b", one.bundle.path, "cold"))
    script = ["env", "--ignore-signal=CHLD", "sh", "-c", f"exec {command}"]
    assert subprocess.run(script, stdin=subprocess.DEVNULL).returncode == 5


def test_a_run_that_fails_is_python_s_to_tell(kept: Maker) -> None:
    one = kept(["/bin/mine", "true"])
    program: Path = one.bundle.rootfs / "bin" / "mine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    one.warm("run")
    program.unlink()
    launcher = Runner(one.root, [str(REPO / "pyrun" / "bin" / "pyrun")])
    ways = [runner("run", "-b", one.bundle.path, "cold") for runner in (launcher, one.python)]
    assert (ways[0].rc, ways[0].out, ways[0].err) == (ways[1].rc, ways[1].out, ways[1].err)
    assert ways[0].rc != 0 and one.python.ids() == []


@pytest.mark.parametrize("kind", ["poststart", "poststop"])
def test_run_with_hooks_behind_it_is_python_s(kept: Maker, tmp_path: Path, kind: str) -> None:
    one = kept(["true"], hooks={kind: [{"path": "/bin/true"}]})
    one.warm("run")
    assert one.bare("run", "-b", one.bundle.path, "cold").rc == TO_PYTHON


def test_a_bundle_just_written_keeps_no_plan(kept: Maker) -> None:
    one = kept(["sleep", "1000"])
    one.bundle.save()
    one.python.create(one.bundle, id="warm")
    assert one.entries() == []
