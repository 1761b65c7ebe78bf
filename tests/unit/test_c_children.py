"""Stages 1 and 2 under ASan and UBSan, in namespaces of their own: as test_c_hosted.py, with a child."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from pyrun.executor import run_plan
from pyrun.plan.lifecycle import plan_delete, plan_start
from pyrun.plan.model import steps as s
from pyrun.plan.model.plan import Builder
from pyrun.plan.model.steps import NEXT, PARENT, PID_PREFIX, STAGE1, STAGE2, Step
from pyrun.plan.namespace.netlink import link_up
from pyrun.runtime.prepare import prepare
from pyrun.runtime.store import Store
from tests.support.container.bundle import BundleMaker
from tests.support.container.runner import REPO, wait_for
from tests.support.executor.hosted import HOSTED, Container, Ran, build, run_hosted, sh

O_PATH_DIRECTORY = 0o10000000 | 0o200000
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

PASSWD = {
    "missing": (None, "/"),
    "empty": (b"", "/"),
    "plain": (b"root:x:0:0:r:/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", "/home/u"),
    "no newline": (b"u:x:1000:1000::/home/u:/bin/sh", "/home/u"),
    "no shell": (b"u:x:1000:1000::/home/u", "/home/u"),
    "short lines": (b"\n:\n::\n:::\nu\nu:x\nu:x:1000\nu:x:1000:1:\n", "/"),
    "no home": (b"u:x:1000:1:::\nv:x:1000:1::/second:\n", "/second"),
    "number too large": (b"u:x:4294968296:1::/wrong:\nu:x:1000x:1::/wrong:\nu:x:-1000:1::/wrong:\n", "/"),
    "digits for ever": (b"u:x:" + b"9" * 3000 + b":1::/wrong:\nu:x:1000:1::/right:", "/right"),
    "binary": (bytes(range(256)) * 300 + b"\nu:x:1000:1::/right:\n", "/right"),
    "long line": (b"x" * 10_000 + b"\nu:x:1000:1::/right:\n", "/right"),
    "inside a long line": (b"x" * 4096 + b"u:x:1000:1::/wrong:\n", "/"),
    "end of a long line": (b"x" * 8192 + b"u:x:1000:1::/wrong:", "/"),
    "line of the buffer": (b"#" * 4095 + b"\nu:x:1000:1::/right:\n", "/right"),
    "line one longer": (b"#" * 4096 + b"\nu:x:1000:1::/right:\n", "/right"),
    "over the edge": (b"#" * 4090 + b"\nu:x:1000:1::/right:\n", "/right"),
    "long home": (b"u:x:1000:1::/" + b"h" * 4000 + b":\n", "/" + "h" * 4000),
    "home too long": (b"u:x:1000:1::/" + b"h" * 4090 + b":\n", "/"),
    "many lines": (b"n:x:1:1::/n:\n" * 100_000 + b"u:x:1000:1::/last:\n", "/last"),
}


def home_plan(root: Path, *before: Step) -> tuple[Container, tuple[Step, ...]]:
    """A container in a new mount namespace, chrooted, whose /bin/sh tells its HOME."""
    c = Container(CLONE_NEWNS)
    slot = c.b.slot("root", inherit=True)
    c.opened.append(s.Openat2(path=str(root), flags=O_PATH_DIRECTORY, out=slot))
    execute = s.Execve(argv=("sh", "-c", 'printf %s "$HOME"'), env=("PATH=/bin",))
    return c, (s.Chroot(root=slot), *before, s.FindExecutable(name="sh", path="/bin"), s.SetHome(uid=1000), execute)


@pytest.fixture
def small_root(tmp_path: Path, busybox_rootfs: Path) -> Path:
    """A root with a static sh and an /etc to write in."""
    root = tmp_path / "small"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    shutil.copy2(busybox_rootfs / "bin/busybox", root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    return root


@pytest.mark.parametrize("case", PASSWD)
def test_home(tmp_path: Path, small_root: Path, case: str) -> None:
    text, home = PASSWD[case]
    if text is not None:
        (small_root / "etc/passwd").write_bytes(text)
    c, steps = home_plan(small_root)
    plan = c.plan(steps[:-1], end=steps[-1:])
    assert run_hosted(plan, tmp_path).ok().out.decode() == home


@pytest.mark.parametrize("kind", ["fifo", "directory", "loop", "sparse"])
def test_home_from_what_is_no_file(tmp_path: Path, small_root: Path, kind: str) -> None:
    """Never blocks, and never reads for ever."""
    path = small_root / "etc/passwd"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "loop":
            path.symlink_to("passwd")
        case _:
            with open(path, "wb") as f:
                f.truncate(1 << 42)
    c, steps = home_plan(small_root)
    assert run_hosted(c.plan(steps[:-1], end=steps[-1:]), tmp_path, timeout=30).ok().out == b"/"


# ---- children


def test_namespaces_and_network(tmp_path: Path, small_root: Path) -> None:
    message, patch = link_up("lo")
    assert patch is None
    c, steps = home_plan(
        small_root,
        s.Sethostname(name="h" * 64),
        s.Setdomainname(name="d"),
        s.Netlink(msg=message, patch=NEXT),
        s.Setsid(),
        s.Umask(mask=0o77),
        s.Setgroups(groups=tuple(range(1000))),
        s.Setrlimit(resource=7, soft=100, hard=200),
        s.Capbset(keep=(1 << 40) - 1),
        s.Ambient(raise_=0),
    )
    c.flags |= CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID
    show = s.Execve(
        argv=("sh", "-c", "busybox hostname; echo $$; busybox ip link show lo; ulimit -n"), env=("PATH=/bin",)
    )
    out = run_hosted(c.plan(steps[:-1], end=(show,)), tmp_path).ok().out.decode()
    assert out.splitlines()[:2] == ["h" * 64, "1"] and "UP" in out and out.endswith("100\n")


@pytest.mark.parametrize("patch", [29, 32, 2**32 - 2, 2**63, 2**64 - 2, 2**64 - 4])
def test_netlink_patch_out_of_bounds(tmp_path: Path, patch: int) -> None:
    """An offset that does not leave four bytes is not written to: the message goes as it is."""
    message, _ = link_up(1)
    assert len(message) == 32
    run_hosted(Container(CLONE_NEWNET).plan((s.Netlink(msg=message, patch=patch, fd=None),)), tmp_path).ok()


@pytest.mark.parametrize("case", ["empty", "short", "length", "no ack", "no such request"])
def test_netlink_nonsense(tmp_path: Path, case: str) -> None:
    """The kernel answers nothing to what is no message, and the step would wait for ever."""
    head = {"length": 21}.get(case, 20).to_bytes(4, "little") + b"\xff\xff" + (b"\1\0" if case == "no ack" else b"\5\0")
    message = {"empty": b"", "short": head}.get(case, head + bytes(12))
    error = errno.EOPNOTSUPP if case == "no such request" else errno.EINVAL
    run_hosted(Container(CLONE_NEWNET).plan((s.Netlink(msg=message, patch=NEXT),)), tmp_path).fails(error)


@pytest.mark.parametrize("lane", [STAGE1, STAGE2])
def test_child_fails(tmp_path: Path, lane: int) -> None:
    """Its lane, step and errno come through the socket."""
    bad = s.Setdomainname(name="d" * 65)
    c = Container(CLONE_NEWUTS, stage1=(s.Unshare(flags=CLONE_NEWUTS), *([bad] if lane == STAGE1 else [])))
    plan = c.plan((s.Setsid(), *([bad] if lane == STAGE2 else [])))
    ran = run_hosted(plan, tmp_path).fails(errno.EINVAL, plan.index(bad))
    assert ran.lane == lane


@pytest.mark.parametrize("length", [10, 4096, 70_000])
def test_child_fails_with_words(tmp_path: Path, length: int) -> None:
    """A hook of stage 2: its text fills a message."""
    plan = Container(CLONE_NEWNS).plan((sh(f"head -c {length} /dev/zero | tr '\\0' x; exit 2"),))
    ran = run_hosted(plan, tmp_path).fails(errno.ECHILD)
    assert ran.text == b"x" * min(length, 4096 - 64) + b"\nexit status 2"


def test_child_is_killed(tmp_path: Path) -> None:
    """It can't say why; its status does."""
    plan = Container().plan((sh("kill -9 $PPID; sleep 1"),))
    ran = run_hosted(plan, tmp_path).fails(errno.ESRCH)
    assert ran.child_status == 9


def test_parent_fails_while_the_child_waits(tmp_path: Path) -> None:
    """The child is killed and reaped: run-plan waits for whatever is left, and returns."""
    plan = Container(CLONE_NEWPID).plan((s.Setsid(),), parent=(sh("exit 6"),))
    assert run_hosted(plan, tmp_path).fails(errno.ECHILD).text == b"exit status 6"


def test_user_namespace(tmp_path: Path) -> None:
    """Stage 1 unshares, the parent writes the maps; and a user namespace without a process."""
    c = Container(
        CLONE_NEWNS, stage1=(s.Unshare(flags=CLONE_NEWUSER), s.Meet(point=5), s.Setresgid(gid=0), s.Setresuid(uid=0))
    )
    proc, userns = c.b.slot("proc"), c.b.slot("userns")
    maps = [
        s.WriteFile(dir=proc, path=f"{kind}_map", data="0 100000 65536\n", pid=PID_PREFIX) for kind in ("uid", "gid")
    ]
    c.opened += [
        s.Openat2(path="/proc", flags=O_PATH_DIRECTORY, out=proc),
        s.MakeUserns(proc=proc, uid_map="0 1 2\n", gid_map="0 1 2\n", out=userns),
    ]
    plan = c.plan((sh("test $(id -u) = 0"),))
    clone = next(i for i, step in enumerate(plan.lanes[PARENT]) if isinstance(step, s.Clone3))
    plan.lanes[PARENT][clone + 1 : clone + 1] = [s.Await(point=5), *maps, s.Ack()]
    plan.steps = [step for lane in plan.lanes for step in lane]
    run_hosted(plan, tmp_path).ok()
    bad = Container()
    proc = bad.b.slot("proc")
    bad.opened += [
        s.Openat2(path="/proc", flags=O_PATH_DIRECTORY, out=proc),
        s.MakeUserns(proc=proc, uid_map="nonsense", gid_map="", out=bad.b.slot("userns")),
    ]
    assert run_hosted(bad.plan(()), tmp_path).fails(errno.EINVAL).substep == 1


def test_a_skipped_slot_is_not_inherited(tmp_path: Path, small_root: Path) -> None:
    """The user's process has the three standard descriptors, and stage 2 no second socket."""
    c, steps = home_plan(small_root, sh(f"ls -l /proc/$PPID/fd >{tmp_path}/fds"))
    empty = c.b.slot("empty", inherit=True)
    c.opened.append(s.Openat2(path="/nonexistent", flags=0, out=empty, on=((errno.ENOENT, None),)))
    listed = s.Spawn(path="/bin/sh", argv=("sh", "-c", f"ls -l /proc/$PPID/fd >{tmp_path}/fds"))
    plan = c.plan((listed, steps[0], *steps[2:-1]), end=steps[-1:])
    run_hosted(plan, tmp_path).ok()
    assert (tmp_path / "fds").read_text().count("socket:") == 1


def remove_cgroup(path: Path, directory: Path, kill: int) -> Ran:
    """Runs the step on what path leads to now, with that held."""
    b = Builder()
    b.add(PARENT, s.RemoveCgroup(path=str(path), cgroup=b.slot("cgroup"), kill=kill))
    return run_hosted(b.plan(), directory, "--held", str(path))


@pytest.mark.root
def test_remove_cgroup(tmp_path: Path) -> None:
    """Deeper than a table of descriptors goes, with names that begin with a dot, and with a process in it."""
    top = Path("/sys/fs/cgroup") / f"hosted-{os.getpid()}"
    deep = top
    for i in range(40):
        deep /= ".d" if i % 2 else "..d"
    deep.mkdir(parents=True)
    (top / "..d" / "wide").mkdir()
    sleeper = subprocess.Popen(["sleep", "60"])
    (deep / "cgroup.procs").write_text(str(sleeper.pid))
    assert remove_cgroup(top, tmp_path, kill=0).fails(errno.EBUSY).substep == 1
    assert sleeper.poll() is None and deep.exists()
    remove_cgroup(top, tmp_path, kill=1).ok()
    assert sleeper.wait(5) == -signal.SIGKILL and not top.exists()


@pytest.mark.root
def test_remove_cgroup_leaves_what_it_does_not_hold(tmp_path: Path) -> None:
    """Not the one whose name another has by now, nor anything where none is held."""
    top = Path("/sys/fs/cgroup") / f"hosted-{os.getpid()}"
    other = top.with_name(top.name + "-other")
    top.mkdir()
    other.mkdir()
    try:
        b = Builder()
        b.add(PARENT, s.RemoveCgroup(path=str(top), cgroup=b.slot("cgroup"), kill=1))
        run_hosted(b.plan(), tmp_path, "--held", str(other)).ok()
        run_hosted(b.plan(), tmp_path).ok()
        assert top.is_dir() and other.is_dir()
    finally:
        top.rmdir()
        other.rmdir()


@pytest.mark.root
@pytest.mark.parametrize("park", [True, False], ids=["create", "run"])
def test_a_whole_container(tmp_path: Path, bundle: BundleMaker, park: bool) -> None:
    """The plans of create, or run, with hooks, seccomp, a bind mount and all namespaces; of start, and of delete."""
    (tmp_path / "src").mkdir()
    b = bundle(["sh", "-c", "echo hello from $$"], hooks={"createContainer": [{"path": "/bin/true"}]})
    b.add_mount("/data/deep", str(tmp_path / "src"), "rbind", "ro")
    b.add_namespace("time")
    filter = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_ERRNO"}]}
    b.update(linux={"seccomp": filter, "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]})
    build("--asan")
    store = Store(str(tmp_path / "state"))
    os.mkdir(store.root)
    prepared = prepare(store, "asan", str(b.path), park=park)
    for step in prepared.plan.steps:
        if "image" in step.args:
            step.args["image"] = str(HOSTED / "pyrun-init")
    ran = run_hosted(prepared.plan, tmp_path, *(["--no-wait"] if park else [])).ok()
    if park:
        held = ("--held", prepared.request.state_dir)
        run_hosted(plan_start(prepared.spec, prepared.request), tmp_path, "--pid", str(ran.pid), *held).ok()
    else:
        assert ran.out == b"hello from 1\n"
    wait_for(lambda: store.open("asan").status() == "stopped", 10, "its end")
    both = ("--held", prepared.request.state_dir, "--held", prepared.request.cgroup or "")
    run_hosted(plan_delete(prepared.spec, prepared.request), tmp_path, *both).ok()
    assert store.ids() == [] and not os.path.exists(prepared.request.cgroup or "")


def test_stage_2_that_is_quick(tmp_path: Path) -> None:
    """It may meet at once: still the parent hears of its pid first.."""
    for _ in range(200):
        b = Builder()
        image = str(REPO / "pyrun" / "bin" / "pyrun-init")
        b.add(PARENT, s.Clone3(image=image, load=0, flags=0), s.AwaitPid(), s.Await(point=1), s.Ack())
        b.add(STAGE1, s.Clone3Init(flags=CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWPID))
        b.add(STAGE2, s.Meet(point=1))
        outcome = run_plan(b.plan())
        os.waitpid(outcome.pid, 0)
        outcome.close()
