"""The executor under ASan and UBSan, at real work: the same sources on a C library, and plans made here.

run_hosted() fails a test on any word of a sanitizer and on a descriptor that stays open, so a test that only looks at
an errno looks for these as well. Plans with a child are in test_c_children.py; the fuzzers are run at the end.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyrun.plan.model import steps as s
from pyrun.plan.model.plan import Builder
from pyrun.plan.model.steps import ANY, PARENT, PID_MARK, PID_PREFIX, Label, Spawn, Step
from tests.support.executor.hosted import Ran, fuzz, needs_fuzzer, parent_plan, run_hosted, sh

O_PATH_DIRECTORY = 0o10000000 | 0o200000
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# ---- hooks


def test_hook_that_says_too_much(tmp_path: Path) -> None:
    """Its first 4 KiB are kept, with room for how it ended; it is not stopped."""
    ran = run_hosted(parent_plan(sh("head -c 300000 /dev/zero | tr '\\0' x; exit 3")), tmp_path).fails(errno.ECHILD)
    assert ran.text.endswith(b"x\nexit status 3") and len(ran.text) > 4000


@pytest.mark.parametrize("length", [0, 1, 4030, 4032, 4033, 4095, 4096, 4097])
def test_hook_text_at_the_edge(tmp_path: Path, length: int) -> None:
    ran = run_hosted(parent_plan(sh(f"head -c {length} /dev/zero | tr '\\0' x; exit 255")), tmp_path).fails(
        errno.ECHILD
    )
    said = b"x" * min(length, 4096 - 64)
    assert ran.text == (said + b"\n" if said else b"") + b"exit status 255"


def test_hook_ends_well_and_is_not_quoted(tmp_path: Path) -> None:
    ran = run_hosted(parent_plan(sh("echo noise; exit 0"), sh("exit 1")), tmp_path).fails(errno.ECHILD, 1)
    assert ran.text == b"exit status 1"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE, signal.SIGABRT])
def test_hook_killed(tmp_path: Path, number: int) -> None:
    ran = run_hosted(parent_plan(sh(f"kill -{int(number)} $$; sleep 9")), tmp_path).fails(errno.ECHILD)
    assert ran.text == f"signal {int(number)}".encode()


@pytest.mark.parametrize(
    "script", ["sleep 60", "cat >/dev/null; sleep 60", "exec 1>&- 2>&-; sleep 60", "while :; do echo x; done"]
)
def test_hook_runs_out_of_time(tmp_path: Path, script: str) -> None:
    """Whether or not it has read its input: then the pipe is closed once, not twice."""
    run_hosted(parent_plan(sh(script, timeout_ms=200, stdin="{}")), tmp_path).fails(errno.ETIMEDOUT, 0)


@pytest.mark.parametrize("timeout", [1 << 33, 1 << 45, (1 << 63) - 1, (1 << 64) - 1])
def test_hook_with_ages_of_time(tmp_path: Path, timeout: int) -> None:
    run_hosted(parent_plan(sh("exit 0", timeout_ms=timeout)), tmp_path).ok()


def test_hook_gets_its_input_whole(tmp_path: Path) -> None:
    """A megabyte with the pid in it, at a reader that starts late."""
    text = "a" * 1_000_000 + f"<{PID_MARK}>" + "b" * 50_000
    script = f"sleep 0.1; cat >{tmp_path}/got"
    run_hosted(parent_plan(sh(script, stdin=text)), tmp_path, "--pid", "4711").ok()
    assert (tmp_path / "got").read_text() == text.replace(PID_MARK, "4711      ")


@pytest.mark.parametrize("script", ["exit 0", "exec <&-; sleep 0.1", "head -c 10 >/dev/null"])
def test_hook_leaves_its_input(tmp_path: Path, script: str) -> None:
    run_hosted(parent_plan(sh(script, stdin="a" * 1_000_000)), tmp_path).ok()


def test_hook_leaves_something_running(tmp_path: Path) -> None:
    """Which holds its pipes, and talks: only the hook itself is waited for."""
    marker = tmp_path / "stop"
    script = f"(while [ ! -e {marker} ]; do echo chatter; done) & exit 0"
    plan = parent_plan(sh(script, stdin="x" * 500_000, timeout_ms=20_000))
    try:
        run_hosted(plan, tmp_path, "--no-wait", timeout=25).ok()
    finally:
        marker.touch()


def test_hook_arguments(tmp_path: Path) -> None:
    """Empty ones too, last or all; the pid; the environment and no more than it."""
    argv = ("sh", "-c", f'printf "%s|" "$#" "$@" $(env | grep -v ^PWD) >{tmp_path}/got', "", PID_MARK, "", "")
    run_hosted(parent_plan(Spawn(path="/bin/sh", argv=argv, env=("A=1", "B="))), tmp_path, "--pid", "12").ok()
    got = (tmp_path / "got").read_text().split("|")
    assert got[:4] == ["3", "0000000012", "", ""]
    assert {"A=1", "B="} <= set(got[4:])


def test_hook_working_directory(tmp_path: Path) -> None:
    b = Builder()
    where = b.slot("dir")
    opened = s.Openat2(path=str(tmp_path), flags=O_PATH_DIRECTORY, out=where)
    run_hosted(parent_plan(opened, sh("pwd >here", dir=where), builder=b), tmp_path).ok()
    assert (tmp_path / "here").read_text() == f"{tmp_path}\n"


@pytest.mark.parametrize(("mode", "error"), [(None, errno.ENOENT), (0o644, errno.EACCES), (0o755, errno.ENOEXEC)])
def test_hook_that_is_no_program(tmp_path: Path, mode: int | None, error: int) -> None:
    path = tmp_path / "hook"
    if mode is not None:
        path.write_text("no magic")
        path.chmod(mode)
    ran = run_hosted(parent_plan(Spawn(path=str(path), argv=("hook",), stdin="x" * 200_000)), tmp_path)
    assert ran.fails(error).substep == 2


def test_hundred_hooks(tmp_path: Path) -> None:
    run_hosted(parent_plan(*(sh("exit 0") for _ in range(100))), tmp_path).ok()


# ---- files


def make_targets(tmp_path: Path, *paths: str, like: bool = False, **args: Any) -> Ran:
    """MakeTarget of each path below tmp_path/root."""
    b = Builder()
    root, source, out = b.slot("root"), b.slot("source"), b.slot("out")
    (tmp_path / "root").mkdir(exist_ok=True)
    (tmp_path / "source").touch()
    opened = [
        s.Openat2(path=str(tmp_path / "root"), flags=O_PATH_DIRECTORY, out=root),
        s.Openat2(path=str(tmp_path / "source"), flags=0o10000000, out=source),
    ]
    more: dict[str, Any] = {"like": source} if like else {}
    made = [s.MakeTarget(root=root, path=p, mode=0o750, out=out, **more, **args) for p in paths]
    return run_hosted(parent_plan(*opened, *made, builder=b), tmp_path)


def test_make_target(tmp_path: Path) -> None:
    long = "/".join("d" * 200 for _ in range(15))
    make_targets(tmp_path, "/a/b/c", "a//b/./c/", "x/../y", "", "/", "." * 255, long, "../../up/it").ok()
    root = tmp_path / "root"
    assert (root / "a/b/c").is_dir() and (root / "y").is_dir() and (root / "up/it").is_dir() and (root / long).is_dir()
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o750 and stat.S_IMODE((root / "a").stat().st_mode) == 0o755
    assert not (tmp_path / "up").exists()
    make_targets(tmp_path, "f/file", like=True).ok()
    assert stat.S_IMODE((root / "f/file").stat().st_mode) == 0o640 and (root / "f/file").is_file()


@pytest.mark.parametrize(
    ("target", "path", "made"),
    [
        ("/abs/made", "link", "abs/made"),
        ("rel/made", "link/below", "rel/made/below"),
        ("../../../out", "link", "out"),
        ("second", "link/x", "third/x"),
        ("t/", "link//y/", "t/y"),
        ("./" * 1500 + "z", "link/y", "z/y"),
    ],
)
def test_make_target_through_a_dangling_link(tmp_path: Path, target: str, path: str, made: str) -> None:
    """Followed below the root, whatever it says."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(target)
    (root / "second").symlink_to("/third")
    make_targets(tmp_path, path).ok()
    assert (root / made).is_dir()
    assert [name for name in sorted(os.listdir(tmp_path)) if not name.startswith("run-")] == ["root", "source"]


@pytest.mark.parametrize(
    ("target", "path", "error"),
    [
        ("link", "link/x", errno.ELOOP),
        ("link/more", "link/x", errno.ELOOP),
        ("x", "n" * 256, errno.ENAMETOOLONG),
        ("x", "a/" * 2047 + "b" * 10, errno.ENAMETOOLONG),
        ("x", "a" * 5000, errno.ENAMETOOLONG),
        ("y/" * 2040, "link/" + "z/" * 100, errno.ENAMETOOLONG),
        ("/a-file", "link/x", errno.ENOTDIR),
    ],
)
def test_make_target_refuses(tmp_path: Path, target: str, path: str, error: int) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(target)
    (tmp_path / "root/a-file").touch()
    make_targets(tmp_path, path).fails(error)


def test_make_target_for_a_mount(tmp_path: Path) -> None:
    make_targets(tmp_path, "fine", mount=1).ok()
    make_targets(tmp_path, "/", mount=1).fails(errno.EBUSY)
    make_targets(tmp_path, "fine/..", mount=1).fails(errno.EBUSY)
    magic = int(subprocess.check_output(["stat", "-fc", "%t", tmp_path]), 16)
    make_targets(tmp_path, "other", mount=1, forbid=magic).fails(errno.EXDEV)


def copy_up(tmp_path: Path, **args: Any) -> Ran:
    b = Builder()
    hidden, mount = b.slot("hidden"), b.slot("mount")
    opened = [
        s.Openat2(path=str(tmp_path / n), flags=O_PATH_DIRECTORY, out=i) for n, i in (("from", hidden), ("to", mount))
    ]
    return run_hosted(parent_plan(*opened, s.CopyUp(hidden=hidden, mount=mount, **args), builder=b), tmp_path)


def test_copy_up(tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    (source / "dir/deeper").mkdir(parents=True)
    target.mkdir()
    for i in range(300):
        (source / f"{i:03}{'n' * (i % 250)}").write_bytes(b"x" * i * 40)
    (source / "dir/deeper/suid").write_bytes(b"\0" * 100_001)
    (source / "dir/deeper/suid").chmod(0o4711)
    (source / ".hidden").touch()
    (source / "..odd").mkdir(mode=0o300)
    (source / "long").symlink_to("l" * 4000)
    (source / "up").symlink_to("../../etc")
    os.mkfifo(source / "fifo")
    source.chmod(0o1750)
    copy_up(tmp_path).ok()
    assert (target / "fifo").is_fifo()
    for folder in (source, target):  # diff(1) would say that they differ
        (folder / "fifo").unlink()
    done = subprocess.run(["diff", "-r", "--no-dereference", source, target], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    for name in ("dir/deeper/suid", "..odd", "."):
        assert (source / name).stat().st_mode == (target / name).stat().st_mode, name


def test_copy_up_failures(tmp_path: Path) -> None:
    deep = tmp_path / "from"
    (deep / "/".join("d" * 70)).mkdir(parents=True)
    (tmp_path / "to").mkdir()
    copy_up(tmp_path).fails(errno.ELOOP)
    shutil.rmtree(tmp_path / "to")
    (tmp_path / "to/d").mkdir(parents=True)
    copy_up(tmp_path, keep_root=1).fails(errno.EEXIST)


def test_file_steps(tmp_path: Path) -> None:
    b = Builder()
    d, f = b.slot("d"), b.slot("f")
    (tmp_path / "old").write_text("....")
    data = bytes(range(256)) * 1000
    plan = parent_plan(
        s.Openat2(path=str(tmp_path), flags=O_PATH_DIRECTORY, out=d),
        s.Mkdirat(dir=d, path="dir", mode=0o700),
        s.Symlinkat(target="t" * 300, dir=d, name="link"),
        s.CreateFile(dir=d, name="new", mode=0o600, data=data, out=f),
        s.CreateFile(dir=d, name="new2", mode=0o600, data=b"", out=f),
        s.Mkfifoat(dir=d, name="fifo", mode=0o600, out=f),
        s.WriteFile(dir=d, path="old", data="ab", flags=0, resolve=0x10),
        s.Close(fd=f),
        s.Close(fd=f),
        s.CheckType(fd=d, type=stat.S_IFDIR),
        s.Unlinkat(dir=d, path="new2", flags=0),
        s.WriteFile(dir=d, path="missing", data="x", on=((errno.ENOENT, None),)),
        builder=b,
    )
    run_hosted(plan, tmp_path).ok()
    assert (tmp_path / "new").read_bytes() == data and (tmp_path / "old").read_text() == "ab.."
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode) and not (tmp_path / "new2").exists()


@pytest.mark.parametrize(
    ("length", "error"), [(10, errno.ENOENT), (4000, errno.ENOENT), (4090, errno.ENAMETOOLONG), (9000, 36)]
)
@pytest.mark.parametrize("cls", [s.Openat2, s.WriteFile])
def test_path_behind_a_pid(tmp_path: Path, cls: type[Step], length: int, error: int) -> None:
    b = Builder()
    args: dict[str, Any] = {"out": b.slot("out"), "flags": 0} if cls is s.Openat2 else {"data": "x"}
    step = cls(path="n" * length, pid=PID_PREFIX, **args)
    run_hosted(parent_plan(step, builder=b), tmp_path, "--pid", "2147483647").fails(error)


@ROOT
def test_mknodat(tmp_path: Path) -> None:
    def node(name: str, **args: Any) -> Ran:
        b = Builder()
        d = b.slot("d")
        opened = s.Openat2(path=str(tmp_path), flags=O_PATH_DIRECTORY, out=d)
        return run_hosted(parent_plan(opened, s.Mknodat(dir=d, name=name, **args), builder=b), tmp_path)

    node("null", mode=stat.S_IFCHR | 0o666, dev=1 << 32 | 3, owner=7 << 32 | 5).ok()
    node("null", mode=stat.S_IFCHR | 0o600, dev=1 << 32 | 3).ok()
    found = (tmp_path / "null").stat()
    assert (found.st_rdev, found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (os.makedev(1, 3), 5, 7, 0o666)
    node("null", mode=stat.S_IFCHR | 0o666, dev=1 << 32 | 5).fails(errno.EEXIST)
    node("big", mode=stat.S_IFBLK | 0o600, dev=4095 << 32 | 1048575).ok()
    assert (tmp_path / "big").stat().st_rdev == os.makedev(4095, 1048575)
    (tmp_path / "link").symlink_to("null")
    node("link", mode=stat.S_IFCHR | 0o666, dev=1 << 32 | 3).fails(errno.EEXIST)


def test_rules_lead_on(tmp_path: Path) -> None:
    there = Label("there")
    missing = s.Openat2(path="/nonexistent", flags=0, out=0, on=((errno.EACCES, None), (errno.ENOENT, there)))
    b = Builder()
    b.slot("out")
    b.add(PARENT, missing, sh("echo skipped; exit 9"), there, s.Goto(on=((ANY, None),)), sh("exit 4"))
    assert run_hosted(b.plan(), tmp_path).fails(errno.ECHILD, 3).text == b"exit status 4"


def test_undo(tmp_path: Path) -> None:
    """All are tried; what was not made is not removed; the first failure is told, but for ENOENT."""
    made, there = (
        s.Mkdirat(path=f"{tmp_path}/made", mode=0o700),
        s.Mkdirat(path=f"{tmp_path}/there", mode=0o700, on=((17, None),)),
    )
    (tmp_path / "there").mkdir()
    (tmp_path / "full/x").mkdir(parents=True)
    undo = (
        s.Unlinkat(path=f"{tmp_path}/nothing", flags=0),
        s.Unlinkat(path=f"{tmp_path}/full", flags=0x200),
        s.Unlinkat(path=f"{tmp_path}/made", flags=0x200, guard=made),
        s.Unlinkat(path=f"{tmp_path}/there", flags=0x200, guard=there),
        sh("exit 7", env=("A=1", "B=2")),
    )
    ran = run_hosted(parent_plan(made, there, sh("exit 1"), undo=undo), tmp_path).fails(errno.ECHILD, 2)
    assert (ran.undo_errno, ran.undo_step) == (errno.ENOTEMPTY, 4)
    assert not (tmp_path / "made").exists() and (tmp_path / "there").exists()


def test_yield(tmp_path: Path) -> None:
    plan = parent_plan(s.Yield(code=1), sh("exit 0"), s.Yield(code=2), sh("exit 0"))
    assert run_hosted(plan, tmp_path).ok().yields == 2
    undone = parent_plan(s.Yield(code=1), sh("exit 5"), undo=(s.Unlinkat(path=f"{tmp_path}/x", flags=0),))
    (tmp_path / "x").touch()
    assert run_hosted(undone, tmp_path, "--undo").yields == 1
    assert not (tmp_path / "x").exists()


def test_trace(tmp_path: Path) -> None:
    assert run_hosted(parent_plan(sh("exit 1")).encode(trace=True), tmp_path).fails(errno.ECHILD).took == 1
    assert run_hosted(parent_plan(sh("exit 1")), tmp_path).fails(errno.ECHILD).took == 0


def test_pid_file(tmp_path: Path) -> None:
    (tmp_path / ".pid.new").write_text("what a killed one left")
    step = s.PidFile(tmp=f"{tmp_path}/.pid.new", path=f"{tmp_path}/pid")
    run_hosted(parent_plan(step), tmp_path, "--pid", "77").ok()
    assert (tmp_path / "pid").read_text() == "77" and not (tmp_path / ".pid.new").exists()
    run_hosted(parent_plan(s.PidFile(tmp=f"{tmp_path}/no/x", path=f"{tmp_path}/y")), tmp_path).fails(errno.ENOENT)


# ---- what to run


@pytest.mark.parametrize(
    ("name", "path", "error"),
    [
        ("sh", "/nonexistent::/bin", 0),
        ("sh", "/bin:", 0),
        ("sh", "", errno.ENOENT),
        ("sh", ":" * 5000, errno.ENOENT),
        ("/bin/sh", "", 0),
        ("/etc/passwd", "", errno.EACCES),
        ("/etc", "", errno.EISDIR),
        ("etc", "/", errno.ENOENT),
        ("x" * 4096, "/bin", errno.ENOENT),
        ("/" + "x" * 5000, "", errno.ENAMETOOLONG),
        ("passwd", "/etc:/usr/nowhere", errno.EACCES),
        ("sh", "/" + "d" * 4090 + ":/bin", 0),
        ("", "/bin", errno.ENOENT),
    ],
)
def test_find_executable(tmp_path: Path, name: str, path: str, error: int) -> None:
    if name == "passwd":
        (tmp_path / "passwd").touch()
        path = f"{tmp_path}:{path}"
    ran = run_hosted(parent_plan(s.FindExecutable(name=name, path=path)), tmp_path)
    assert ran.errno == error, ran


# ---- the fuzzers


@needs_fuzzer
@pytest.mark.parametrize(("which", "programs"), [("--fuzz", 2), ("--fuzz-pod", 1)])
def test_fuzz(which: str, programs: int) -> None:
    """A longer run is cffi_build/build.py --fuzz --seconds N."""
    fuzz(which, programs=programs)
