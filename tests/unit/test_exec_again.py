"""Kept plans of exec: whatever a plan depends on is in the key, in a condition, or makes it a plan that is not kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.cli.parse import parse
from pyrun.facts import Facts
from pyrun.oci import names
from pyrun.oci.load import load_process
from pyrun.oci.model import Process, Seccomp, SeccompSyscall
from pyrun.plan.exec import Target, plan_exec
from pyrun.plan.lifecycle import EXEC_NOTES, FILES, KEPT_EXECS
from pyrun.plan.model.request import Request
from pyrun.runtime import cache, exec_again, exec_kept
from pyrun.runtime.exec_again import Planned
from pyrun.runtime.record import Record
from pyrun.runtime.store import Container
from tests.support.executor.plans import make_spec

ALL = sum(names.NAMESPACES.values())
PROCESS = Process(args=("true",), cwd="/", env=("PATH=/bin",))
RULE = SeccompSyscall(names=("mkdir",), action="SCMP_ACT_ERRNO")
PROFILE = Seccomp(default_action="SCMP_ACT_ALLOW", syscalls=(RULE,))


def make_target(**values: Any) -> Target:
    plain = {"pid": 41, "start": 42, "namespaces": ALL, "cgroup": "/sys/fs/cgroup/c", "cgroup_line": "0::/c"}
    return Target(**plain | values)


def plan(pid_file: str | None = None, facts: Facts | None = None, process: Process = PROCESS, **values: Any) -> Planned:
    spec = make_spec(seccomp=values.pop("seccomp", None))
    target = make_target(**{k: v for k, v in values.items() if k in Target.__slots__})
    request = Request(id="one", bundle="/b", pid_file=pid_file)
    facts = facts or Facts(arch=os.uname().machine)
    content = values.get("content")
    return Planned(spec, process, facts, target, request, plan_exec(spec, process, facts, target, request), content)


def options(*argv: str) -> Any:
    return parse(["exec", *argv]).options


@pytest.fixture
def container(tmp_path: Path) -> Container:
    (tmp_path / "record").write_bytes(Record(b_id=b"one").pack())
    return Container("one", str(tmp_path), Record(b_id=b"one"))


# ---- the key


def test_all_that_is_asked_for_is_in_the_key(container: Container) -> None:
    lines = [
        ["one", "true"],
        ["one", "true", ""],
        ["one", "", "true"],
        ["--detach", "one", "true"],
        ["--pid-file", "p", "one", "true"],
        ["--pid-file", "pp", "one", "true"],
        ["--cwd", "/x", "one", "true"],
        ["--user", "1", "one", "true"],
        ["--user", "", "one", "true"],
        ["-e", "A=1", "one", "true"],
        ["-e", "A=1", "-e", "B=2", "one", "true"],
        ["-e", "B=2", "-e", "A=1", "one", "true"],
        ["one", "A=1", "true"],
    ]
    keys = {exec_again.key_of(container, "/r", options(*line), plan()) for line in lines}
    keys.add(exec_again.key_of(container, "/s", options(*lines[0]), plan()))
    keys |= {
        exec_again.key_of(container, "/r", options("--process", "f", "one"), plan(content=content))
        for content in (b"", b"{}", b"{} ")
    }
    assert len(keys) == len(lines) + 4
    one, other = (exec_again.key_of(container, "/r", options("--process", f, "one"), plan(content=b"{}")) for f in "fg")
    assert one == other
    assert not any(b"--pid-file" in key for key in keys)


def test_all_of_the_target_is_in_the_key_or_makes_no_difference(container: Container) -> None:
    """With the record, whose checksum is in it."""
    others: dict[str, Any] = {
        "pid": 43, "start": 43, "namespaces": ALL & ~names.NAMESPACES["uts"], "setgroups": False, "cgroup_line": "0::/d"
    }  # fmt: skip
    words = options("one", "true")
    plain = exec_again.key_of(container, "/r", words, plan())
    for name, value in others.items():
        assert exec_again.key_of(container, "/r", words, plan(**{name: value})) != plain, name
    by_line, by_record = {"init_cgroup"}, {"cgroup", "systemd"}
    assert not exec_again.worth_keeping(words, plan(chroot=True))
    affinity = {"affinity"}  # only with what makes a step that is not replayed
    assert {*others, *by_line, *by_record, *affinity, "chroot"} == set(Target.__slots__)
    Path(container.directory, "record").write_bytes(Record(b_id=b"one", b_cgroup=b"/sys/fs/cgroup/d").pack())
    assert exec_again.key_of(container, "/r", words, plan()) != plain


def test_a_key_reads_the_words_as_they_were(container: Container) -> None:
    """Bytes that are no text come as the launcher has them."""
    key = exec_again.key_of(container, "/r", options("one", "\udcff\u00e9"), plan())
    assert key.endswith(b"\0\xff\xc3\xa9\0")


# ---- what is kept


class Watched(Facts):
    """Notes what is looked at."""

    def __init__(self, **values: object) -> None:
        object.__setattr__(self, "seen", set())
        super().__init__(**values)
        self.seen.clear()

    seen: set[str]

    def __getattribute__(self, name: str) -> Any:
        if name in Facts.__slots__:
            object.__getattribute__(self, "seen").add(name)
        return object.__getattribute__(self, name)


def all_processes() -> Iterator[Process]:
    yield PROCESS
    caps = {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}
    rich = {
        "args": ["true"], "cwd": "/", "env": [], "user": {"uid": 1, "gid": 1, "additionalGids": [5]}, "oomScoreAdj": 3,
        "capabilities": caps, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}], "noNewPrivileges": True,
        "apparmorProfile": "a", "selinuxLabel": "b:c:d", "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 5},
    }  # fmt: skip
    import json

    yield load_process(json.dumps(rich).encode())


def test_every_fact_that_a_plan_depends_on_is_a_condition() -> None:
    """But for where the caller is, which plans of exec do not depend on: that is not compared."""
    left_out = {"cgroup_own", "controllers"}
    seen: set[str] = set()
    for process in all_processes():
        for more in (
            {},
            {"init_cgroup": "/sys/fs/cgroup/c/init"},
            {"namespaces": ALL & ~names.NAMESPACES["user"]},
            {"seccomp": PROFILE},
        ):
            facts = Watched(arch=os.uname().machine)
            assert exec_again.worth_keeping(options("one", "true"), plan("/p", facts, process, **more))
            seen |= facts.seen
    assert {"caps", "memfd", "init_path", "max_hard"} <= seen
    assert not seen & left_out
    kept = {name for name in seen if cache.COVERED[name].startswith("no plan")}
    assert not kept


def test_conditions_of_exec_are_those_of_create_but_for_the_callers_place() -> None:
    mount = "/sys/fs/cgroup"
    if not os.path.exists(mount + "/cgroup.controllers"):
        mount = "/proc"
    whole, exec_only = (
        {(kind, path, data) for kind, path, data in cache.collect_conditions(mount, __file__, exec_only=only)}
        for only in (False, True)
    )
    assert exec_only < whole
    assert {path for _, path, _ in whole - exec_only} == {mount + "/cgroup.controllers", "/proc/self/cgroup"}


def test_every_word_of_a_request_is_keyed_or_must_be_plain() -> None:
    words = options("one", "true")
    for name in set(Request.__slots__) - set(exec_again._IN_KEY):
        made = plan()
        setattr(made.request, name, 1 if name != "preserve_fds" else 2)
        assert not exec_again.worth_keeping(words, made) or getattr(Request(), name) == 1, name
    assert exec_again.worth_keeping(words, plan())


@pytest.mark.parametrize(
    "change", [{"euid": 1000}, {"rootless": True}, {"in_userns": True}, {"cgroup_mount": "/elsewhere"}]
)
def test_only_the_plain_case_is_kept(change: dict[str, Any]) -> None:
    made = plan()
    for name, value in change.items():
        setattr(made.facts, name, value)
    assert not exec_again.worth_keeping(options("one", "true"), made)


def test_only_a_command_line_that_the_launcher_reads_is_kept() -> None:
    for line in (["--cap", "KILL"], ["--tty=false"], ["--preserve-fds", "0"], ["--process", "f", "--user", "1"]):
        assert not exec_again.worth_keeping(options(*line, "one", "true"), plan()), line
    assert not exec_again.worth_keeping(options("--process", "f", "one", "true"), plan())
    assert not exec_again.worth_keeping(options("one", "true"), plan(namespaces=ALL & ~names.NAMESPACES["mount"]))
    listener = Seccomp(
        default_action="SCMP_ACT_ALLOW",
        syscalls=(SeccompSyscall(names=("mkdir",), action="SCMP_ACT_NOTIFY"),),
        listener_path="/x",
    )
    assert not exec_again.worth_keeping(options("one", "true"), plan(seccomp=listener))


# ---- the entry


@pytest.mark.parametrize("path", ["/run/a.pid", "a.pid", "p", "/p", "xx/yy", "/é/\udcff", "./x", "true", "/"])
@pytest.mark.parametrize("other", ["/run/b.pid", "b.pid", "q", "/q", "yyyyy", "q/é/", "..//y"])
def test_a_filled_plan_is_what_is_planned(path: str, other: str) -> None:
    size = len(os.fsencode(path))
    other = os.fsdecode((os.fsencode(other) + b"z" * size)[:size]) if size > 1 else "q"
    first, second = plan(path), plan(exec_kept.other_path(path))
    entry = exec_kept.make_entry(b"key", first, second)
    if entry is None:  # the path is one that the plan has elsewhere
        assert path in ("/", "true")
        return
    assert exec_kept.fill(entry.plan, entry.holes, other) == plan(other).plan.encode()


def test_plans_that_differ_elsewhere_are_not_kept() -> None:
    assert exec_kept.make_entry(b"key", plan(), plan()) is not None
    assert exec_kept.make_entry(b"key", plan(), plan(process=PROCESS.replace(cwd="/x"))) is None
    assert exec_kept.make_entry(b"key", plan(), plan(process=PROCESS.replace(cwd="."))) is None
    assert exec_kept.make_entry(b"key", plan("/a"), plan("/a")) is None
    assert exec_kept.make_entry(b"key", plan("/ab"), plan("/a")) is None


def test_an_entry_tells_its_key() -> None:
    entry = exec_kept.make_entry(b"the key", plan(), plan())
    assert entry is not None and exec_kept.key_in(entry.pack()) == b"the key"
    assert exec_kept.key_in(b"") == exec_kept.key_in(b"x" * 99) == b""


# ---- the files


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "record").touch()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def test_the_second_time_is_told(directory: int, tmp_path: Path) -> None:
    assert not exec_again._was_noted(directory, b"a" * 5000)
    assert not exec_again._was_noted(directory, b"a" * 4999 + b"b")
    assert exec_again._was_noted(directory, b"a" * 5000)
    assert not exec_again._was_noted(directory, b"a" * 5000)
    for number in range(100):
        assert not exec_again._was_noted(directory, b"%d" % number)
    most = exec_again.MOST_NOTES * exec_again.NOTE_SIZE
    assert (tmp_path / EXEC_NOTES).stat().st_size == most
    (tmp_path / EXEC_NOTES).write_bytes(b"damaged")
    assert not exec_again._was_noted(directory, b"a")
    assert exec_again._was_noted(directory, b"a")


def test_a_file_is_put_whole_and_for_us_alone(directory: int, tmp_path: Path) -> None:
    for data in (b"one", b"two"):
        assert exec_again.put_beside(directory, "exec.0", data)
        assert (tmp_path / "exec.0").read_bytes() == data
    assert (tmp_path / "exec.0").stat().st_mode & 0o7777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["exec.0", "record"]


def test_nothing_is_left_where_the_container_is_gone(directory: int, tmp_path: Path) -> None:
    (tmp_path / "record").unlink()
    assert not exec_again.put_beside(directory, "exec.0", b"x")
    assert os.listdir(tmp_path) == []


def test_a_link_in_place_of_a_file_is_not_followed(directory: int, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "exec.0").symlink_to("other")
    assert exec_again.read_beside(directory, "exec.0") is None
    assert exec_again.put_beside(directory, "exec.0", b"x")
    assert (tmp_path / "other").read_bytes() == b"other" and not (tmp_path / "exec.0").is_symlink()


def test_the_oldest_entry_makes_room(directory: int, tmp_path: Path) -> None:
    def put(key: bytes) -> str:
        entry = exec_kept.make_entry(key, plan(), plan())
        assert entry is not None
        name = exec_kept._slot(directory, key)
        assert exec_again.put_beside(directory, name, entry.pack())
        os.utime(tmp_path / name, ns=(0, len(used) + 1))
        return name

    used: list[str] = []
    for number in range(len(KEPT_EXECS)):
        used.append(put(b"%d" % number))
    assert sorted(used) == sorted(KEPT_EXECS)
    assert put(b"2") == used[2]
    assert put(b"new") == used[0]


def test_delete_removes_the_record_before_what_execs_keep() -> None:
    kept = {EXEC_NOTES, *KEPT_EXECS}
    assert set(FILES[-len(kept) :]) == kept
    assert FILES.index("record") == len(FILES) - len(kept) - 1
