"""The session keyring: a container has its own, or there is none."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.protections import (
    JOIN_SESSION_KEYRING,
    KEYCTL,
    SESSION,
    SETPERM,
    full_key_quota,
    keys,
)
from tests.support.container.runner import Runner, wait_for
from tests.support.vm.cgroup import use_host_tools

FIRST = 100000
MAPS = [{"containerID": 0, "hostID": FIRST, "size": 65536}]
FULL = ("EDQUOT", "/proc/sys/kernel/keys/maxkeys", "--no-new-keyring")
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2


@pytest.fixture(autouse=True)
def session() -> int:
    """The caller has a session keyring: who has none may make one beyond any quota, and shares none."""
    return keys(KEYCTL, JOIN_SESSION_KEYRING, 0)


def mapped(made: Bundle) -> Bundle:
    for parent in (made.path, *made.path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    subprocess.run(["chown", "-Rh", f"{FIRST}:{FIRST}", made.rootfs], check=True)
    made.add_namespace("user")
    return made.update(linux={"uidMappings": MAPS, "gidMappings": MAPS})


def telling(bundle: BundleMaker, tmp_path: Path) -> Bundle:
    """A container that tells its session keyring in tmp_path/out/report."""
    (out := tmp_path / "out").mkdir()
    return use_host_tools(bundle(SESSION)).add_mount("/out", str(out), "rbind", "rw")


def told(tmp_path: Path) -> int:
    report = tmp_path / "out" / "report"
    wait_for(report.exists, 10, "the program")
    return int(report.read_text())


def test_a_full_key_quota_fails_create_run_and_exec(pyrun: Runner, bundle: BundleMaker) -> None:
    """Of the user who root of the container is on the host: it used to get the caller's keyring then."""
    made = mapped(bundle(["sleep", "1000"]))
    id = pyrun.create_started(made)
    with full_key_quota(FIRST):
        pyrun("create", "--bundle", made.path, "full").fails(1, *FULL)
        pyrun.run(made).fails(1, *FULL)
        pyrun.exec(id, "true").fails(1, *FULL)
        assert pyrun.ids() == [id]
        shared = pyrun.create_started(made, "--no-new-keyring")
        pyrun.exec(shared, "true").ok()
    pyrun.exec(id, "true").ok()


def test_a_full_key_quota_in_a_user_namespace(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """pyrun itself in one, as nested containers and rootless engines have it: the quota is that of the user outside."""
    made = mapped(bundle(["true"]))
    made.drop_namespace("user").drop_namespace("cgroup")
    mounts = [m for m in made.config["mounts"] if m["type"] not in ("cgroup", "sysfs", "mqueue")]
    made.update(mounts=mounts, linux={"uidMappings": None, "gidMappings": None, "maskedPaths": [], "readonlyPaths": []})
    (root := tmp_path / "state").mkdir()
    os.chown(root, FIRST, FIRST)
    holder = subprocess.Popen(["unshare", "-U", "sleep", "1000"])
    wait_for(lambda: Path(f"/proc/{holder.pid}/cmdline").read_bytes().startswith(b"sleep"), 30, "unshare")
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{holder.pid}/{name}").write_text(f"0 {FIRST} 65536\n")
    outer = ["nsenter", "-U", "-t", str(holder.pid), "--setuid", "0", "--setgid", "0", "unshare", "-mpf"]
    outer.append("--mount-proc")
    inner = [*pyrun.argv, "--root", str(root), "run", "--bundle", str(made.path), "nested"]
    try:
        with full_key_quota(FIRST):
            found = subprocess.run([*outer, *inner], capture_output=True, text=True, check=False)
        assert found.returncode == 1
        assert all(word in found.stderr for word in FULL), found.stderr
        subprocess.run([*outer, *inner], check=True)
    finally:
        holder.kill()
        holder.wait()


def test_a_keyring_that_somebody_made_by_the_containers_name_is_not_joined(
    pyrun: Runner, bundle: BundleMaker, tmp_path: Path
) -> None:
    """keyctl(2) joins a keyring of the name that it is given, whoever made it, if he lets all search it."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setresuid(1000, 1000, 1000)
        squat = keys(KEYCTL, JOIN_SESSION_KEYRING, b"_ses.squat")
        keys(KEYCTL, SETPERM, squat, 0x3F3F3F3F)
        os.write(tell, b"%d\n" % squat)
        signal.pause()
    try:
        squat = int(os.read(ready, 20))
        made = telling(bundle, tmp_path)
        pyrun("start", pyrun.create(made, id="squat")).ok()
        assert told(tmp_path) not in (squat, -1)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(tell)


def refusing_keyctl(number: int) -> Callable[[], None]:
    """For preexec_fn: a seccomp filter around pyrun that answers keyctl(2) with an errno."""

    def refuse() -> None:
        class Program(ctypes.Structure):
            _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

        rows = ((0x20, 0, 0, 0), (0x15, 0, 1, KEYCTL), (0x06, 0, 0, 0x50000 | number), (0x06, 0, 0, 0x7FFF0000))
        code = b"".join(
            op.to_bytes(2, "little") + bytes((true, false)) + k.to_bytes(4, "little") for op, true, false, k in rows
        )
        buffer = ctypes.create_string_buffer(code)
        program = Program(len(rows), ctypes.addressof(buffer))
        libc = ctypes.CDLL(None)
        assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        assert libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(program)) == 0

    return refuse


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES])
def test_a_filter_around_pyrun_that_refuses_keyctl(pyrun: Runner, bundle: BundleMaker, number: int) -> None:
    """Docker's profile does, with EPERM. runc and crun fail as well."""
    made = bundle(["true"])
    refuse = refusing_keyctl(number)
    pyrun.run(made, preexec_fn=refuse).fails(1, errno.errorcode[number], "keyctl(2)", "--no-new-keyring")
    assert pyrun.ids() == []
    pyrun.run(made, "--no-new-keyring", preexec_fn=refuse).ok()


def test_a_filter_around_pyrun_that_has_no_keyctl(pyrun: Runner, bundle: BundleMaker) -> None:
    """LXC's, with ENOSYS: nobody in it can read a key, nor can the container; runc and crun go on as well."""
    pyrun.run(bundle(["true"]), preexec_fn=refusing_keyctl(errno.ENOSYS)).ok()
