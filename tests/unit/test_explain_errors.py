"""The messages of failed steps: the grammar, runc's words where engines look for them, and hints that fit."""

from __future__ import annotations

import errno
import json
import os
import re
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun import facts_refused
from pyrun.cli.commands.spec import default_config
from pyrun.errors import FailedPrecondition, PyrunError
from pyrun.oci.load import load_bytes
from pyrun.oci.model import Spec
from pyrun.plan.model import steps as s
from pyrun.plan.model.plan import Builder, Plan
from pyrun.plan.words import hints
from pyrun.plan.words.step_errors import explain_failure, explain_start_failure, step_error
from pyrun.plan.words.symbols import ERRNO_TEXTS, errno_name, errno_text

ROOT, USER = 0, 1000
REAL_EUID = hints.euid


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "euid", lambda: ROOT)


def plan_of(*steps: s.Step, lane: int = s.STAGE2) -> Plan:
    b = Builder()
    for name in ("root", "source", "target"):
        b.slot(name)
    b.add(s.PARENT, s.Setsid())
    b.add(lane, *steps)
    b.add(s.UNDO, s.Unlinkat(path="/run/pyrun/web1", flags=0x200))
    return b.plan()


def error_of(step: s.Step, number: int, text: str = "", substep: int = 0, **more: Any) -> PyrunError:
    return step_error(plan_of(step), s.STAGE2, 1, substep, number, text, **more)


def test_the_example_of_the_grammar() -> None:
    source = s.OpenTree(path="/srv", flags=1, out=1, at="/mounts/3/source")
    target = s.MakeTarget(root=0, path="/data", like=1, mode=0o755, out=2, at="/mounts/3/destination")
    move = s.MoveMount(mount=1, onto=2, flags=0x44, at="/mounts/3")
    plan = plan_of(source, target, move)
    assert step_error(plan, s.STAGE2, 1, 0, errno.ENOENT).lines() == [
        "step 2/4 open_tree path=/srv flags=OPEN_TREE_CLONE: ENOENT no such file or directory",
        "  from config.json /mounts/3/source",
        "  hint: the bind source /srv does not exist on the host",
    ]
    first, place, _ = step_error(plan, s.STAGE2, 3, 0, errno.EINVAL).lines()
    assert first == "step 4/4 move_mount src=/srv dst=/data: EINVAL invalid argument"
    assert place == "  from config.json /mounts/3"


@pytest.mark.parametrize(
    ("step", "number", "text"),
    [
        (s.FindExecutable(name="app", path="/bin"), errno.ENOENT, 'exec: "app": executable file not found in $PATH'),
        (s.FindExecutable(name="/app", path=""), errno.ENOENT, 'exec: "/app": stat /app: no such file or directory'),
        (s.FindExecutable(name="./app", path=""), errno.ENOENT, 'exec: "./app": stat ./app: no such file or directory'),
        (s.FindExecutable(name="app", path="/bin"), errno.EACCES, 'exec: "app": permission denied'),
        (s.FindExecutable(name="/etc", path=""), errno.EISDIR, 'exec: "/etc": permission denied: is a directory'),
        (s.Execve(argv=("/app", "-x"), env=()), errno.ENOENT, 'exec: "/app": no such file or directory'),
        (s.Execve(argv=("/app",), env=()), errno.EACCES, 'exec: "/app": permission denied'),
        (s.Execve(argv=("/app",), env=()), errno.ENOEXEC, 'exec: "/app": exec format error'),
        (
            s.Chdir(path="/no/such"),
            errno.ENOENT,
            'chdir to cwd ("/no/such") set in config.json failed: no such file or directory',
        ),
        (s.Chdir(path="/root"), errno.EACCES, 'chdir to cwd ("/root") set in config.json failed: permission denied'),
    ],
    ids=str,
)
def test_what_engines_look_for(step: s.Step, number: int, text: str) -> None:
    step.at = "/process/args/0"
    error = error_of(step, number)
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(step).__name__).lower()
    assert error.text == f"step 2/2 {name}: {text}"
    assert error.pointer == "/process/args/0"


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (s.FindExecutable(name="app", path=""), 255),
        (s.Execve(argv=("app",), env=()), 255),
        (s.Chdir(path="/x"), 1),
        (s.Setresuid(uid=5), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_program_that_cannot_be_run_has_the_other_status(step: s.Step, code: int) -> None:
    assert error_of(step, errno.ENOENT, run_code=255).code == code
    assert error_of(step, errno.ENOENT).code == 1


def test_an_id_that_is_taken() -> None:
    made = s.Mkdirat(path="/run/pyrun/web1", mode=0o700)
    assert error_of(made, errno.EEXIST).text == "container with given ID already exists: web1"
    other = s.Mkdirat(path="/sys/fs/cgroup/x", mode=0o755, at="/linux/cgroupsPath")
    assert "mkdirat" in error_of(other, errno.EEXIST).text


# --- hooks and helpers ------------------------------------------------------------------------------------------------

HOOK = {"path": "/bin/hook", "argv": ("hook",), "at": "/hooks/createRuntime/0", "timeout_ms": 5000}


@pytest.mark.parametrize(
    ("number", "text", "wanted"),
    [
        (errno.ECHILD, "exit status 3", "exit status 3"),
        (errno.ECHILD, "oh\nno\nexit status 3", "exit status 3: oh; no"),
        (errno.ECHILD, "signal 9", "signal 9"),
        (errno.ETIMEDOUT, "", "timed out after 5 s"),
        (errno.ETIMEDOUT, "half", "timed out after 5 s: half"),
        (errno.ENOENT, "", "ENOENT no such file or directory"),
        (errno.ECHILD, "\x1b[31mred\x1b[0m\nexit status 1", "exit status 1: \ufffd[31mred\ufffd[0m"),
    ],
)
def test_hooks(number: int, text: str, wanted: str) -> None:
    error = error_of(s.Spawn(**HOOK), number, text)  # type: ignore[arg-type]
    assert error.text == f"step 2/2 spawn: createRuntime hook /bin/hook: {wanted}"
    assert error.pointer == "/hooks/createRuntime/0"


def test_a_long_story_is_cut_at_its_beginning() -> None:
    error = error_of(s.Spawn(**HOOK), errno.ECHILD, "x" * 4000 + "the end\nexit status 1")  # type: ignore[arg-type]
    assert len(error.text) < 1200
    assert error.text.endswith("the end")


def test_a_helper_is_no_hook() -> None:
    step = s.Spawn(path="/usr/bin/newuidmap", argv=("newuidmap", "1"), at="/linux/uidMappings")
    error = error_of(step, errno.ECHILD, "newuidmap: uid range not allowed\nexit status 1")
    assert error.text == "step 2/2 spawn: helper /usr/bin/newuidmap: exit status 1: newuidmap: uid range not allowed"


def test_the_file_systems_own_words() -> None:
    step = s.Fsconfig(fs=0, cmd=1, key="foo", value="1", at="/mounts/1/options/0")
    error = error_of(step, errno.EINVAL, "e tmpfs: Unknown parameter 'foo'\nw and more\n")
    assert error.text.endswith(": EINVAL invalid argument: tmpfs: Unknown parameter 'foo'; and more")


# --- failures as the executor tells them ------------------------------------------------------------------------------


def failure(plan: Plan, **values: Any) -> Any:
    told = {
        "lane": s.PARENT,
        "step": 0,
        "substep": 0,
        "errno": 0,
        "text": "",
        "child_status": 0,
        "undo_errno": 0,
        "undo_step": 0,
    }
    return SimpleNamespace(plan=plan, **(told | values))


def test_an_undo_that_fails_is_told_too() -> None:
    plan = plan_of(s.Setresuid(uid=5, at="/process/user/uid"))
    error = explain_failure(failure(plan, step=1, errno=errno.EINVAL, undo_errno=errno.EBUSY, undo_step=2), "web1")
    assert error.hint is not None
    assert "could not be undone: undo step 1/1 unlinkat path=/run/pyrun/web1" in error.hint
    assert "EBUSY device or resource busy" in error.hint
    assert "delete --force web1" in error.hint
    assert "uidMappings" in error.hint


@pytest.mark.parametrize(
    ("status", "how", "hint"),
    [
        (9, "was killed by SIGKILL", "memory"),
        (31, "was killed by SIGSYS", "seccomp"),
        (5 << 8, "exited with status 5", ""),
    ],
)
def test_a_child_that_died_without_a_word(status: int, how: str, hint: str) -> None:
    plan = plan_of(s.Await(point=3), lane=s.PARENT)
    error = explain_failure(failure(plan, step=1, errno=errno.ESRCH, child_status=status))
    assert error.text == f"step 2/2 await: the container's first process {how}"
    error = explain_failure(
        failure(plan, step=1, errno=errno.ESRCH, child_status=status), child="the command's process"
    )
    assert error.text == f"step 2/2 await: the command's process {how}"
    assert hint in (error.hint or "")


def spec_with(hooks: int) -> Spec:
    config = default_config()
    config["process"]["args"] = ["/bin/app", "-x"]
    config["hooks"] = {"startContainer": [{"path": f"/bin/hook{i}"} for i in range(hooks)]}
    return load_bytes(json.dumps(config).encode())


def test_start_whose_exec_fails() -> None:
    plan = plan_of(s.WaitExec(status=0), lane=s.PARENT)
    told = failure(plan, lane=s.STAGE2, step=80, errno=errno.ENOENT)
    error = explain_start_failure(told, SimpleNamespace(id="web1"), spec_with(0))
    assert error.text.endswith('exec: "/bin/app": no such file or directory')
    assert error.pointer == "/process/args"
    assert "interpreter" in (error.hint or "")


@pytest.mark.parametrize(
    ("substep", "words", "pointer"),
    [
        (0, 'exec: "/bin/app": no such file or directory', "/process/args"),
        (1, 'chdir to cwd ("/") set in config.json failed: no such file or directory', "/process/cwd"),
        (2, 'exec: "/bin/app": stat /bin/app: no such file or directory', "/process/args/0"),
    ],
)
def test_what_a_late_step_met_is_told_at_start(substep: int, words: str, pointer: str) -> None:
    plan = plan_of(s.WaitExec(status=0), lane=s.PARENT)
    told = failure(plan, lane=s.STAGE2, step=80, substep=substep, errno=errno.ENOENT)
    error = explain_start_failure(told, SimpleNamespace(id="web1"), spec_with(0))
    assert (error.text, error.pointer) == (words, pointer) and error.hint


@pytest.mark.parametrize(
    ("step", "number"), [(s.Openat2(path="go", flags=0o4001), errno.ENXIO), (s.Release(), errno.EPIPE)]
)
def test_start_of_what_has_just_ended(step: s.Step, number: int) -> None:
    told = failure(plan_of(step, lane=s.PARENT), step=1, errno=number)
    error = explain_start_failure(told, SimpleNamespace(id="web1"), spec_with(0))
    assert isinstance(error, FailedPrecondition) and "has stopped" in str(error)


def test_start_whose_own_step_fails() -> None:
    plan = plan_of(s.Openat2(path="/run/pyrun/web1/go", flags=0, out=0), lane=s.PARENT)
    error = explain_start_failure(failure(plan, step=1, errno=errno.ENOENT), SimpleNamespace(id="web1"), spec_with(0))
    assert error.text.startswith("step 2/2 openat2 path=/run/pyrun/web1/go")


# --- hints ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "number", "substep", "words"),
    [
        (
            s.Openat2(path="/proc/9/ns/net", flags=0, out=0, at="/linux/namespaces/1/path"),
            errno.ENOENT,
            0,
            "has the process ended",
        ),
        (s.Openat2(path="/b/rootfs", flags=0, out=0, at="/root/path"), errno.ENOENT, 0, "below the bundle"),
        (
            s.WriteFile(path="/sys/fs/cgroup/cgroup.subtree_control", data="+cpu", at="/linux/resources"),
            errno.ENOENT,
            0,
            "cgroup.controllers",
        ),
        (
            s.WriteFile(path="/sys/fs/cgroup/cgroup.subtree_control", data="+cpu", at="/linux/resources"),
            errno.EBUSY,
            0,
            "no internal processes",
        ),
        (s.WriteFile(dir=0, path="memory.max", data="1", at="/linux/resources/memory/limit"), errno.EBUSY, 0, "in use"),
        (
            s.WriteFile(dir=0, path="memory.max", data="1", at="/linux/resources/memory/limit"),
            errno.ENOENT,
            0,
            "controller memory",
        ),
        (s.WriteFile(dir=0, path="uid_map", data="0 0 9", at="/linux/uidMappings"), errno.EPERM, 0, "newuidmap"),
        (
            s.WriteFile(dir=0, path="self/oom_score_adj", data="-9", at="/process/oomScoreAdj"),
            errno.EACCES,
            0,
            "CAP_SYS_RESOURCE",
        ),
        (s.WriteFile(dir=0, path="sys/net/x", data="1", at="/linux/sysctl/net.x"), errno.ENOENT, 0, "no such sysctl"),
        (
            s.WriteFile(dir=0, path="self/attr/apparmor/exec", data="x", at="/process/apparmorProfile"),
            errno.ENOENT,
            0,
            "aa-status",
        ),
        (s.Clone3(image="/x/pyrun-init", load=1, out=0), errno.ENOENT, 0, "reinstall pyrun"),
        (s.Clone3(image="/x/pyrun-init", load=1, out=0), errno.EACCES, 4, "memfd_noexec"),
        (s.Clone3(image="/x/pyrun-init", load=1, out=0), errno.EAGAIN, 3, "pids limit"),
        (s.Clone3Init(flags=0), errno.ENOSPC, 0, "/proc/sys/user"),
        (s.Clone3Init(flags=0, cgroup=0), errno.EBUSY, 0, "hands controllers to its children"),
        (s.Clone3Init(flags=0, cgroup=0), errno.EACCES, 0, "this cgroup belongs to another"),
        (s.Setrlimit(resource=7, soft=1, hard=2), errno.EPERM, 0, "CAP_SYS_RESOURCE"),
        (s.Setresgid(gid=5), errno.EINVAL, 0, "gidMappings"),
        (s.Fsopen(fstype="zfs", out=0), errno.ENODEV, 0, "no file system zfs"),
        (s.Execve(argv=("x",), env=()), errno.EACCES, 0, "noexec"),
        (s.FindExecutable(name="x", path=""), errno.ENOENT, 0, "PATH"),
        (s.FindExecutable(name="/x", path=""), errno.ENOENT, 0, "no such file in the image"),
        (s.Chdir(path="/w"), errno.ENOENT, 0, "make /w in the image"),
        (s.CheckEmpty(cgroup=0, at="/linux/cgroupsPath"), errno.ENOTEMPTY, 0, "another container"),
        (s.Connect(path="/run/x.sock", out=0), errno.ECONNREFUSED, 0, "nobody listens"),
        (s.Mkdirat(path="/x", mode=0), errno.ENOSPC, 0, "disk of --root is full"),
        (s.Mkdirat(path="/x", mode=0), errno.EROFS, 0, "with --root"),
        (s.Mkdirat(path="/x", mode=0, at="/linux/cgroupsPath"), errno.ENOSPC, 0, "exhausted"),
        (s.Openat2(path="/x", flags=0, out=0), errno.EMFILE, 0, "ulimit -n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, s.Step) else None,
)
def test_hints(step: s.Step, number: int, substep: int, words: str) -> None:
    assert words in (error_of(step, number, substep=substep).hint or "")


def test_who_is_not_root_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "euid", lambda: USER)
    hint = error_of(s.Setsid(), errno.EPERM).hint or ""
    assert "not root (uid 1000)" in hint
    assert "--rootless" in hint
    made = s.Mkdirat(path="/sys/fs/cgroup/x", mode=0o755, at="/linux/cgroupsPath")
    assert "Delegate=yes" in (error_of(made, errno.EACCES).hint or "")


EVERY = (1 << 41) - 1
STATUS = "Name:\tpyrun\nUid:\t0\t0\t0\t0\nCapEff:\t{:016x}\nSeccomp:\t{}\n"
NEWUSER = s.Unshare(flags=0x10000000)
PROFILE = s.Seccomp(prog=b"", flags=0)
RUN = s.Execve(argv=("/app",), env=())


@pytest.mark.parametrize(
    ("steps", "number", "host", "words", "not_words"),
    [
        ((s.Setsid(),), errno.EPERM, {"caps": EVERY & ~(1 << 24)}, "a capability that pyrun has not got", "filter"),
        ((s.Setsid(),), errno.EPERM, {}, "a security module refuses it", "capability"),
        ((s.Setsid(),), errno.EPERM, {"filter": 2}, "a seccomp filter under which pyrun itself runs", "capability"),
        ((s.Setsid(),), errno.ENOSYS, {"filter": 2}, "a seccomp filter under which pyrun itself runs", "kernel"),
        ((s.Setsid(),), errno.ENOSYS, {"release": "5.10.0-8"}, "this kernel is 5.10.0-8; pyrun needs Linux 5.14", ""),
        ((s.Setsid(),), errno.ENOSYS, {"release": "6.1.0"}, "built without the system call", "needs"),
        ((s.Clone3Init(flags=0),), errno.EPERM, {"caps": 0}, "only root may make these namespaces", ""),
        ((s.Clone3Init(flags=0),), errno.EPERM, {}, "security module", "only root"),
        ((s.Clone3Init(flags=0), NEWUSER), errno.EPERM, {"caps": 0}, "capability", "only root"),
        ((NEWUSER,), errno.EPERM, {"chroot": True}, "runs in a chroot", "switched off"),
        ((NEWUSER,), errno.EPERM, {"sysctl": "kernel/unprivileged_userns_clone=0"}, "runs in a chroot", "switched off"),
        ((NEWUSER,), errno.EPERM, {"caps": 0, "uid": 7}, "a security module forbids it", "chroot"),
        (
            (NEWUSER,),
            errno.EPERM,
            {"sysctl": "kernel/unprivileged_userns_clone=0", "uid": 1000},
            "switched off for users here: the sysctl kernel.unprivileged_userns_clone is 0",
            "apparmor",
        ),
        ((NEWUSER,), errno.EPERM, {"filter": 2}, "seccomp filter", "switched off"),
        ((RUN, PROFILE), errno.ENOSYS, {}, "the seccomp profile refuses execve", "kernel"),
        ((RUN, PROFILE), errno.EPERM, {}, "the seccomp profile refuses execve, or it lies", ""),
        ((RUN,), errno.EPERM, {}, "nosuid", "seccomp"),
        ((s.Setgroups(groups=tuple(range(65537))),), errno.EINVAL, {}, "at most 65536 groups", "gidMappings"),
        ((s.Setgroups(groups=(1,)),), errno.EINVAL, {}, "gidMappings", "65536"),
        ((s.Mkdirat(path="/run/pyrun/c", mode=0),), errno.EACCES, {"uid": 7}, "/run/pyrun: set XDG_RUNTIME", "sudo"),
        ((s.Setsid(), NEWUSER), errno.EACCES, {"uid": 7}, "you are not root (uid 7): use sudo", "user namespace"),
        ((s.Setsid(),), errno.EACCES, {"uid": 7}, "or a container with a user namespace", ""),
    ],
)
def test_a_hint_reads_what_it_says(
    steps: tuple[s.Step, ...],
    number: int,
    host: dict[str, Any],
    words: str,
    not_words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, _, value = host.get("sysctl", "").partition("=")
    files = {
        "/proc/self/status": STATUS.format(host.get("caps", EVERY), host.get("filter", 0)),
        "/proc/sys/" + name: value,
    }
    uname = SimpleNamespace(release=host.get("release", os.uname().release))
    monkeypatch.setattr(hints, "euid", lambda: host.get("uid", ROOT))
    monkeypatch.setattr(facts_refused, "euid", lambda: host.get("uid", ROOT))
    monkeypatch.setattr(facts_refused, "read_text", lambda path: files.get(path, ""))
    monkeypatch.setattr(facts_refused, "is_chrooted", lambda: host.get("chroot", False))
    monkeypatch.setattr("pyrun.facts_refused.posix.uname", lambda: uname)
    hint = step_error(plan_of(*steps), s.STAGE2, 1, 0, number).hint or ""
    assert words in hint
    assert not not_words or not_words not in hint


def test_we_are_in_no_chroot_here() -> None:
    assert not facts_refused.is_chrooted()


def test_euid_is_ours() -> None:
    assert REAL_EUID() == os.geteuid()


def test_every_hint_can_be_filled() -> None:
    """Names in braces are operands of their step, hints are half-lines, and errnos are those of the kernel."""
    for (cls, number), hint in hints.HINTS.items():
        assert set(re.findall(r"\{(\w+)\}", hint)) <= set(cls.FIELDS) | {"path"}, hint
        assert "\n" not in hint
        assert not hint.endswith("."), hint
        assert number in ERRNO_TEXTS
    for name, value in vars(hints).items():
        if name.startswith("E") and name.isupper() and isinstance(value, int):
            assert getattr(errno, name) == value


CLASSES = [cls for cls in vars(s).values() if isinstance(cls, type) and issubclass(cls, s.Step) and cls is not s.Step]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_step_fails_in_words(cls: type[s.Step]) -> None:
    """Whatever a step is and whatever its errno, there is one line that names both."""
    filled: dict[str, Any] = {
        name: "word" if place >= s.S0 else 0 for name, place in cls.FIELDS.items() if name != "guard"
    }
    filled |= {
        "argv": ("word",),
        "env": (),
        "groups": (),
        "prog": b"",
        "insns": b"",
        "msg": b"",
        "mask": b"" if cls is s.SchedSetaffinity else 0,
    }
    filled |= {"attr": b"", "nodes": b"", "path": "word", "stdin": ""}
    for number in ERRNO_TEXTS:
        error = error_of(cls(**filled, at="/x"), number)
        assert "\n" not in error.text
        assert error.text.startswith("step 2/2 ")
        assert (
            errno_text(number) in error.text
            or errno_name(number) in error.text
            or "exec" in error.text
            or cls is s.Spawn
        )
