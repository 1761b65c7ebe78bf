"""Containers that a user makes without root: with ranges in /etc/subuid and without, with a cgroup and without."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Result, Runner, runtime_argv, wait_for

UID, FIRST, SIZE = 4242, 700000, 65536
NAME = "pyrun-test"

# In a mount namespace of its own, where the user and the ranges are in /etc, and in the cgroup $CGROUP.
ENTER = """
set -e
[ -z "$CGROUP" ] || echo 0 > "$CGROUP/cgroup.procs"
unset CGROUP
for name in passwd group subuid subgid; do mount --bind "$0/etc/$name" "/etc/$name"; done
exec setpriv --reuid={uid} --regid={uid} --clear-groups -- "$@"
"""


class User:
    """A user without privileges, and what runs as that user. cgroup: what the user's processes are put in."""

    def __init__(self, home: Path, ranges: bool) -> None:
        self.home = home
        self.cgroup = ""
        home.mkdir()
        os.chown(home, UID, UID)
        (home / "etc").mkdir()
        for name in ("passwd", "group"):
            entry = f"{NAME}:x:{UID}:{UID}::{home}:/bin/sh\n" if name == "passwd" else f"{NAME}:x:{UID}:\n"
            (home / "etc" / name).write_text(Path("/etc", name).read_text() + entry)
        for name in ("subuid", "subgid"):
            (home / "etc" / name).write_text(f"{NAME}:{FIRST}:{SIZE}\n" if ranges else "")

    def argv(self, *words: str) -> list[str]:
        enter = ["unshare", "-m", "--propagation", "private", "sh", "-c", ENTER.format(uid=UID), str(self.home)]
        return [*enter, *words]

    def env(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home), "CGROUP": self.cgroup, "USER": NAME}
        return {**os.environ, **own}


class UserRunner(Runner):
    """The runtime as this user starts it: no --root, so $XDG_RUNTIME_DIR/pyrun."""

    def __init__(self, user: User) -> None:
        super().__init__(user.home / "pyrun", user.argv(*runtime_argv()))
        self.user = user
        self.options: tuple[str, ...] = ()

    def command(self, *argv: str | os.PathLike[str]) -> list[str]:
        return [*self.argv, *self.options, *(os.fspath(arg) for arg in argv)]

    def __call__(self, *argv: Any, **popen: Any) -> Result:
        popen["env"] = self.user.env() | (popen.get("env") or {})
        return super().__call__(*argv, **popen)

    def bundle(self, rootfs: Path, *args: str, **changes: Any) -> Bundle:
        """What `pyrun spec --rootless` writes, with these args and a root of the user's."""
        path = self.user.home / f"bundle{len(list(self.user.home.glob('bundle*')))}"
        path.mkdir()
        subprocess.run(["cp", "-a", "-T", rootfs.resolve(), path / "rootfs"], check=True)
        subprocess.run(["chown", "-Rh", f"{UID}:{UID}", path], check=True)
        self("spec", "--rootless", "--bundle", path).ok()
        made = Bundle(path, json.loads((path / "config.json").read_text()))
        made.config["process"]["terminal"] = False
        made.update(process={"args": list(args)}, root={"readonly": False})
        return made.update(**changes)

    def make(self, verb: str, made: Bundle, id: str) -> str:
        """Creates a container that outlives the command, so its output goes nowhere."""
        options = ("--detach",) if verb == "run" else ()
        stdio: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        words = self.command(verb, *options, "--bundle", made.path, id)
        assert subprocess.run(words, env=self.user.env(), check=False, timeout=60, **stdio).returncode == 0
        return id


@pytest.fixture(params=["ranges", "no ranges"])
def user(request: pytest.FixtureRequest, tmp_path: Path) -> User:
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    if shutil.which("newuidmap") is None and request.param == "ranges":
        pytest.skip("newuidmap is not installed (package uidmap)")
    return User(tmp_path / "home", ranges=request.param == "ranges")


@pytest.fixture
def rootless(user: User) -> Iterator[UserRunner]:
    runner = UserRunner(user)
    yield runner
    runner.delete_all()


@pytest.fixture
def delegated(user: User) -> Iterator[Path]:
    """A cgroup that belongs to the user, with the user's processes in a child of it, as systemd delegates one."""
    cgroup = CGROUP_ROOT / "user.slice"
    (cgroup / "session").mkdir(parents=True)
    for path in (cgroup, cgroup / "session"):
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(path / name, UID, UID)
    user.cgroup = str(cgroup / "session")
    yield cgroup
    for path in (cgroup / "session", cgroup):
        path.rmdir()


def has_ranges(user: User) -> bool:
    return bool((user.home / "etc" / "subuid").read_text())


def test_spec_maps_what_the_user_has(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "cat", "/proc/self/uid_map", "/proc/self/gid_map")
    rows = ["0", str(UID), "1", *(["1", str(FIRST), str(SIZE)] if has_ranges(rootless.user) else [])]
    assert rootless.run(made).ok().out.split() == [*rows, *rows]


def test_the_whole_lifecycle(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "sleep", "1000")
    id = rootless.make("create", made, "web")
    assert rootless.ids() == [id]
    assert rootless.state(id)["status"] == "created"
    rootless("start", id).ok()
    state = rootless.state(id)
    assert (state["status"], state["owner"]) == ("running", NAME)
    assert rootless.exec(id, "id", "-u").ok().out == "0\n"
    assert json.loads(rootless("ps", "--format", "json", id).ok().out) == [state["pid"]]
    assert NAME in rootless("list").ok().out
    rootless("kill", id, "KILL").ok()
    rootless.wait_status(id, "stopped")
    rootless("delete", id).ok()
    assert rootless.ids() == []


def test_root_in_the_container_is_the_user_outside(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "sh", "-c", "id -u; touch /made")
    assert rootless.run(made).ok().out == "0\n"
    assert (made.rootfs / "made").stat().st_uid == UID


def test_devices_terminal_and_system_directories(rootless: UserRunner, busybox_rootfs: Path) -> None:
    look = "echo x > /dev/null; head -c 2 /dev/zero | wc -c; ls /dev/pts/ptmx /sys/kernel/mm; touch /dev/shm/x; mount"
    out = rootless.run(rootless.bundle(busybox_rootfs, "sh", "-c", look)).ok().out
    assert out.startswith("2\n") and "/dev/pts/ptmx" in out
    mounts = {line.split()[2]: line for line in out.splitlines() if " type " in line}
    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/dev/null"} <= mounts.keys()
    assert "(ro," in mounts["/sys"]


def test_other_ids_where_there_are_ranges(rootless: UserRunner, busybox_rootfs: Path) -> None:
    user = {"uid": 12, "gid": 34, "additionalGids": [56]}
    made = rootless.bundle(busybox_rootfs, "id", process={"user": user})
    if has_ranges(rootless.user):
        out = rootless.run(made).ok().out
        assert out.startswith("uid=12") and "gid=34" in out and "56" in out
    else:
        rootless.run(made).fails(1, "/process/user/")


def test_supplementary_groups_are_refused_without_ranges(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "id", "-G", process={"user": {"uid": 0, "gid": 0, "additionalGids": [0]}})
    if has_ranges(rootless.user):
        assert rootless.run(made).ok().out == "0\n"
    else:
        rootless.run(made).fails(1, "/process/user/additionalGids", "setgroups")


@pytest.mark.parametrize("kind", ["none", "new", "joined"])
def test_in_a_user_namespace_that_allows_no_supplementary_groups(
    rootless: UserRunner, busybox_rootfs: Path, kind: str
) -> None:
    """As podman starts it for a user without ranges: with its own id alone mapped, setgroups(2) is EPERM for ever."""
    made = rootless.bundle(busybox_rootfs, "sh", "-c", "cat /proc/self/setgroups; id -u")
    made.drop_namespace("user").update(linux={"uidMappings": None, "gidMappings": None})
    if kind == "new":
        own = [{"containerID": 0, "hostID": 0, "size": 1}]
        made.add_namespace("user").update(linux={"uidMappings": own, "gidMappings": own})
    elif kind == "joined":
        made.add_namespace("user", "/proc/self/ns/user")
    inside = UserRunner(rootless.user)
    inside.argv = rootless.user.argv("unshare", "-Urm", *runtime_argv())
    assert inside.run(made).ok().out == "deny\n0\n"
    made.update(process={"user": {"uid": 0, "gid": 0, "additionalGids": [0]}})
    inside.run(made).fails(1, "/process/user/additionalGids", "setgroups")


def test_a_user_namespace_of_the_users_is_joined_with_what_it_owns(rootless: UserRunner, busybox_rootfs: Path) -> None:
    """It gives the right to the network namespace; the host's, of another owner, stays closed."""
    made = rootless.bundle(busybox_rootfs, "sh", "-c", "cd /proc/self/ns; readlink user; readlink net")
    made.update(linux={"uidMappings": None, "gidMappings": None})
    holder = subprocess.Popen(rootless.user.argv("unshare", "-rn", "sleep", "1000"), env=rootless.user.env())
    try:
        wait_for(lambda: Path(f"/proc/{holder.pid}/cmdline").read_bytes().startswith(b"sleep"), 30, "unshare")
        for kind, name in (("user", "user"), ("network", "net")):
            made.drop_namespace(kind).add_namespace(kind, f"/proc/{holder.pid}/ns/{name}")
        theirs = [os.readlink(f"/proc/{holder.pid}/ns/{name}") for name in ("user", "net")]
        assert rootless.run(made).ok().out.split() == theirs
        made.drop_namespace("network").add_namespace("network", "/proc/self/ns/net")
        rootless.run(made).fails(1, "/linux/namespaces/", "EPERM", "has no rights")
    finally:
        holder.kill()
        holder.wait()


def test_ids_that_the_user_has_not_got_are_refused(rootless: UserRunner, busybox_rootfs: Path) -> None:
    stolen = [{"containerID": 0, "hostID": UID, "size": 1}, {"containerID": 1, "hostID": 0, "size": 1}]
    made = rootless.bundle(busybox_rootfs, "true", linux={"uidMappings": stolen})
    rootless.run(made).fails(1, "/linux/uidMappings", "newuidmap")
    made.update(linux={"uidMappings": stolen[1:]})
    rootless.run(made).fails(1, "/linux/uidMappings", "newuidmap")


def test_without_a_cgroup_what_needs_one_is_refused(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "sleep", "1000")
    rootless.make("run", made, "free")
    for words in (("pause", "free"), ("events", "--stats", "free")):
        rootless(*words).fails(1, "no cgroup of its own")
    rootless("update", "-r", "-", "free", input='{"unified": {"cgroup.max.depth": "1"}}').fails(1, "no cgroup")
    made.update(linux={"resources": {"unified": {"cgroup.max.depth": "3"}}})
    rootless.run(made).fails(1, "EACCES")


def test_a_delegated_cgroup_is_used(rootless: UserRunner, busybox_rootfs: Path, delegated: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "sleep", "1000")
    made.update(linux={"resources": {"unified": {"cgroup.max.depth": "3"}}})
    rootless.make("run", made, "limited")
    assert (delegated / "limited" / "cgroup.max.depth").read_text() == "3\n"
    assert (delegated / "limited" / "cgroup.procs").read_text().split() == [str(rootless.pid("limited"))]
    rootless("pause", "limited").ok()
    assert rootless.state("limited")["status"] == "paused"
    rootless("resume", "limited").ok()
    rootless("update", "-r", "-", "limited", input='{"unified": {"cgroup.max.depth": "1"}}').ok()
    assert (delegated / "limited" / "cgroup.max.depth").read_text() == "1\n"
    rootless("delete", "--force", "limited").ok()
    assert not (delegated / "limited").exists()


def test_hooks_run_as_the_user(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "true")
    note = {"path": "/bin/sh", "args": ["sh", "-c", f"id -u >> {rootless.user.home}/ids"]}
    made.config["hooks"] = {kind: [note] for kind in ("createRuntime", "poststart", "poststop")}
    rootless.run(made.save()).ok()
    assert (rootless.user.home / "ids").read_text().split() == [str(UID)] * 3


def test_a_new_network_namespace_has_only_the_loopback(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "ip", "-o", "addr")
    made.add_namespace("network")
    out = rootless.run(made).ok().out
    assert "127.0.0.1" in out and all(": lo " in line or " lo" in line for line in out.splitlines())


@pytest.mark.parametrize("said", ("true", "auto"))
def test_rootless_flag(rootless: UserRunner, busybox_rootfs: Path, said: str) -> None:
    rootless.options = ("--rootless", said)
    assert rootless.run(rootless.bundle(busybox_rootfs, "id", "-u")).ok().out == "0\n"


def test_without_a_user_namespace_the_hint_names_it(rootless: UserRunner, busybox_rootfs: Path) -> None:
    made = rootless.bundle(busybox_rootfs, "true")
    made.drop_namespace("user").update(linux={"uidMappings": None, "gidMappings": None})
    rootless.run(made).fails(1, "user namespace")


def test_the_users_own_root_is_private(rootless: UserRunner, busybox_rootfs: Path) -> None:
    rootless.run(rootless.bundle(busybox_rootfs, "true")).ok()
    stat = (rootless.user.home / "pyrun").stat()
    assert (stat.st_mode & 0o777, stat.st_uid) == (0o700, UID)


def test_another_users_containers_are_out_of_reach(rootless: UserRunner) -> None:
    rootless.options = ("--root", "/run/pyrun-of-root")
    Path("/run/pyrun-of-root").mkdir(mode=0o700)
    try:
        rootless("list").fails(1, "/run/pyrun-of-root")
        rootless("state", "x").fails(1)
    finally:
        Path("/run/pyrun-of-root").rmdir()
        rootless.options = ()
