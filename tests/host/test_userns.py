"""User namespaces that root makes or joins: who is who, who owns what, and what root of one may do."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.parked import parked
from tests.support.container.runner import Runner, wait_for

FIRST, SIZE = 100000, 65536
MAP = [{"containerID": 0, "hostID": FIRST, "size": SIZE}]


@pytest.fixture
def mapped(bundle: BundleMaker, tmp_path: Path) -> Any:
    """Makes bundles with a user namespace in which root is FIRST, and owns the root file system."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)

    def make(*args: str, **overrides: Any) -> Bundle:
        made = bundle(args, **overrides)
        made.update(linux={"uidMappings": MAP, "gidMappings": MAP})
        made.add_namespace("user")
        subprocess.run(["chown", "-Rh", f"{FIRST}:{FIRST}", made.rootfs], check=True)
        return made

    return make


@pytest.fixture
def other() -> Iterator[int]:
    """A process in a user namespace with the same map, and with a network namespace that belongs to it."""
    process = subprocess.Popen(["unshare", "-Un", "sleep", "1000"])
    try:
        wait_for(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"sleep\x001000\0", 30, "unshare")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text(f"0 {FIRST} {SIZE}\n")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_ids_are_mapped(pyrun: Runner, mapped: Any) -> None:
    id = pyrun.create_started(mapped("sleep", "1000", process={"user": {"uid": 7, "gid": 8, "additionalGids": [9]}}))
    rows = [line.split() for line in Path(f"/proc/{pyrun.pid(id)}/status").read_text().splitlines()]
    status = {row[0]: row[1:] for row in rows if row}
    assert status["Uid:"] == [str(FIRST + 7)] * 4
    assert status["Gid:"] == [str(FIRST + 8)] * 4
    assert status["Groups:"] == [str(FIRST + 9)]
    assert Path(f"/proc/{pyrun.pid(id)}/uid_map").read_text().split() == ["0", str(FIRST), str(SIZE)]


@pytest.mark.parametrize(
    ("own", "annotation", "wanted"), [(True, "1", "65534 65534"), (True, "0", ""), (False, "1", "4 27")]
)
def test_the_callers_groups_stay_where_an_annotation_asks(
    pyrun: Runner, bundle: BundleMaker, mapped: Any, own: bool, annotation: str, wanted: str
) -> None:
    """podman's --group-add keep-groups; in run and exec. They are nobody's in a user namespace; else they go."""
    user = {"uid": 5, "gid": 6}
    made = mapped("sleep", "1000", process={"user": user}) if own else bundle(["sleep", "1000"], process={"user": user})
    made.update(annotations={"run.oci.keep_original_groups": annotation})
    id = pyrun.create_started(made, extra_groups=[4, 27])
    command = ("sed", "-n", "s/^Groups://p", "/proc/1/status", "/proc/self/status")
    told = pyrun.exec(id, *command, extra_groups=[4, 27]).ok().out
    assert [line.strip() for line in told.splitlines()] == [wanted, wanted]


def test_several_ranges(pyrun: Runner, mapped: Any) -> None:
    ranges = [{"containerID": 0, "hostID": FIRST, "size": 10}, {"containerID": 50, "hostID": 300000, "size": 5}]
    made = mapped("cat", "/proc/self/uid_map", "/proc/self/gid_map")
    made.update(linux={"uidMappings": ranges, "gidMappings": ranges})
    assert pyrun.run(made).ok().out.split() == ["0", str(FIRST), "10", "50", "300000", "5"] * 2


def test_all_of_it_belongs_to_root_of_the_namespace(pyrun: Runner, mapped: Any) -> None:
    look = "stat -c '%u:%g %n' / /proc /dev /dev/null /dev/pts /dev/shm /tmp /proc/self/task"
    rows = [line.split() for line in pyrun.run(mapped("sh", "-c", look)).ok().out.splitlines()]
    owners = {name: owner for owner, name in rows}
    # The devices are the host's, bound: nobody here may make nodes. proc's root belongs to the host.
    assert owners.pop("/dev/null") == owners.pop("/proc") == "65534:65534"
    assert set(owners.values()) == {"0:0"}


def test_devices_of_the_config_are_what_it_says(pyrun: Runner, mapped: Any) -> None:
    """The host has no such paths, another device at one of them, and other owners and modes: as crun does it."""
    zero = {"type": "c", "major": 1, "minor": 5}
    devices = [
        {"path": "/dev/of/its/own", **zero, "fileMode": 0o640, "uid": 7, "gid": 8},
        {"path": "/srv/disk", "type": "b", "major": 259, "minor": 3},
        {"path": "/dev/full", **zero, "fileMode": 0o400},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 7},
    ]
    look = (
        "stat -c '%n %t:%T %u:%g %a' /dev/of/its/own /srv/disk /dev/full /dev/pipe; head -c 3 /dev/of/its/own | wc -c"
    )
    last = "head -c 2 /dev/full | wc -c; grep ' /dev/full ' /proc/self/mountinfo | grep -c noexec"
    made = mapped("sh", "-c", f"{look}; {last}; true", process={"user": {"uid": 0, "gid": 8}})
    made.update(linux={"devices": devices, "resources": {"devices": []}})
    assert pyrun.run(made).ok().out.splitlines() == [
        "/dev/of/its/own 1:5 7:8 640",
        "/srv/disk 103:3 0:0 666",
        "/dev/full 1:5 0:0 400",
        "/dev/pipe 0:0 7:0 600",
        "3",
        "2",
        "0",  # some are mapped to be executed, as SGX's enclaves are
    ]


def test_files_made_belong_to_the_mapped_ids(pyrun: Runner, mapped: Any) -> None:
    made = mapped("sh", "-c", "touch /made && chown 5:6 /made")
    made.update(process={"capabilities": {s: ["CAP_CHOWN"] for s in ("bounding", "effective", "permitted")}})
    pyrun.run(made).ok()
    stat = (made.rootfs / "made").stat()
    assert (stat.st_uid, stat.st_gid) == (FIRST + 5, FIRST + 6)


def test_capabilities_are_of_the_namespace_only(pyrun: Runner, mapped: Any) -> None:
    everything = {s: ["CAP_SYS_ADMIN", "CAP_SYS_TIME"] for s in ("bounding", "effective", "permitted")}
    made = mapped("sh", "-c", "mkdir -p /m && mount -t tmpfs none /m && date -s 2000-01-01")
    made.update(process={"capabilities": everything, "noNewPrivileges": False})
    done = pyrun.run(made)
    assert done.rc == 0 and done.err.count("\n") == 1 and "can't set date" in done.err, done.describe()


def test_a_root_that_its_user_may_not_reach(pyrun: Runner, mapped: Any, tmp_path: Path) -> None:
    """The parent opens what root of the namespace may not walk to: a bundle below a directory of mode 0700."""
    made = mapped("cat", "/file/inside")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "inside").write_text("seen")
    made.add_mount("/file", str(tmp_path / "source"), "bind", "ro")
    tmp_path.chmod(0o700)
    assert pyrun.run(made).ok().out == "seen"


def test_without_a_network_namespace_sysfs_is_bound(pyrun: Runner, mapped: Any) -> None:
    made = mapped("ls", "/sys/kernel")
    made.drop_namespace("network")
    for mount in made.config["mounts"]:
        if mount["destination"] == "/sys":
            mount.update(type="none", source="/sys", options=["rbind", "nosuid", "noexec", "nodev", "ro"])
    assert pyrun.run(made.save()).ok().out


def test_masked_and_readonly_paths_hold(pyrun: Runner, mapped: Any) -> None:
    made = mapped("sh", "-c", "cat /proc/kcore | wc -c; echo 1 > /proc/sys/vm/overcommit_memory || echo refused")
    made.update(process={"capabilities": {s: ["CAP_SYS_ADMIN"] for s in ("bounding", "effective", "permitted")}})
    assert pyrun.run(made).ok().out == "0\nrefused\n"


def test_joined_user_namespace(pyrun: Runner, bundle: BundleMaker, mapped: Any, other: int) -> None:
    made = mapped("sleep", "1000")
    made.update(linux={"uidMappings": None, "gidMappings": None})
    made.add_namespace("user", f"/proc/{other}/ns/user")
    made.add_namespace("network", f"/proc/{other}/ns/net")
    pid = pyrun.pid(pyrun.create_started(made))
    for name in ("user", "net"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/{other}/ns/{name}")
    assert Path(f"/proc/{pid}/root").stat().st_uid == FIRST
    assert f"\nUid:\t{FIRST}\t" in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def hosts() -> Iterator[int]:
    """A process with namespaces of its own that belong to the host's user namespace."""
    with parked("-uinpCT") as pid:
        yield pid


LINKS = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid", "cgroup": "cgroup", "time": "time"}


@pytest.mark.parametrize("kinds", [*((kind,) for kind in LINKS), tuple(LINKS)], ids="-".join)
@pytest.mark.parametrize("own", ["new", "joined"])
def test_a_namespace_by_path_that_the_user_namespace_does_not_own(
    pyrun: Runner, mapped: Any, other: int, hosts: int, kinds: tuple[str, ...], own: str
) -> None:
    """config-linux.md, Namespaces, has it as its example: a user namespace, and a network namespace by path."""
    made = mapped("sleep", "1000", hostname=None)
    # It may mount no file system of a namespace that is not its own.
    mounts = [m for m in made.config["mounts"] if m["type"] not in ("proc", "sysfs", "mqueue", "cgroup")]
    made.update(mounts=mounts, linux={"maskedPaths": [], "readonlyPaths": []})
    if own == "joined":
        made.drop_namespace("user").add_namespace("user", f"/proc/{other}/ns/user")
        made.update(linux={"uidMappings": None, "gidMappings": None})
    for kind in kinds:
        made.drop_namespace(kind).add_namespace(kind, f"/proc/{hosts}/ns/{LINKS[kind]}")
    pid = pyrun.pid(pyrun.create_started(made))
    for kind in kinds:
        assert os.readlink(f"/proc/{pid}/ns/{LINKS[kind]}") == os.readlink(f"/proc/{hosts}/ns/{LINKS[kind]}")
    assert f"\nUid:\t{FIRST}\t" in Path(f"/proc/{pid}/status").read_text()
    shared = os.readlink(f"/proc/{pid}/ns/user") == os.readlink(f"/proc/{other}/ns/user")
    assert shared == (own == "joined")


def test_namespaces_of_both_owners(pyrun: Runner, mapped: Any, other: int, hosts: int) -> None:
    """One is the joined user namespace's own, one the host's."""
    made = mapped("sleep", "1000", hostname=None).drop_namespace("user")
    made.update(linux={"uidMappings": None, "gidMappings": None})
    for kind, of in (("user", other), ("network", other), ("uts", hosts)):
        made.drop_namespace(kind).add_namespace(kind, f"/proc/{of}/ns/{LINKS.get(kind, kind)}")
    pid = pyrun.pid(pyrun.create_started(made))
    for kind, of in (("user", other), ("net", other), ("uts", hosts)):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{of}/ns/{kind}")


def test_our_own_user_namespace_by_path_is_no_change(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["id", "-u"])
    made.add_namespace("user", "/proc/self/ns/user")
    assert pyrun.run(made).ok().out == "0\n"


@pytest.mark.parametrize("missing", ("uidMappings", "gidMappings"))
def test_a_new_user_namespace_needs_mappings(pyrun: Runner, mapped: Any, missing: str) -> None:
    made = mapped("true")
    made.update(linux={missing: None})
    pyrun.run(made).fails(1, "/linux/namespaces/6", missing)


def test_a_user_without_a_mapping_is_refused(pyrun: Runner, mapped: Any) -> None:
    pyrun.run(mapped("true", process={"user": {"uid": SIZE, "gid": 0}})).fails(1, "/process/user/uid", "EINVAL")
    pyrun.run(mapped("true", process={"user": {"uid": 0, "gid": SIZE}})).fails(1, "/process/user/gid", "EINVAL")


def test_overlapping_mappings_are_refused(pyrun: Runner, mapped: Any) -> None:
    made = mapped("true")
    made.update(linux={"uidMappings": [*MAP, {"containerID": 1, "hostID": 500000, "size": 1}]})
    pyrun.run(made).fails(1, "/linux/uidMappings")


def test_a_map_without_root(pyrun: Runner, mapped: Any) -> None:
    """No id 0 in the namespace: stage 1 stays who it is and goes on."""
    only = [{"containerID": 1000, "hostID": FIRST, "size": 1}]
    made = mapped("id", "-u", process={"user": {"uid": 1000, "gid": 1000}})
    made.update(linux={"uidMappings": only, "gidMappings": only})
    assert pyrun.run(made).ok().out == "1000\n"


def test_terminal_and_devices(pyrun: Runner, mapped: Any) -> None:
    made = mapped("sh", "-c", "head -c 3 /dev/zero | wc -c && ls /dev/tty /dev/ptmx /dev/pts/ptmx")
    assert sorted(pyrun.run(made).ok().out.split()) == ["/dev/ptmx", "/dev/pts/ptmx", "/dev/tty", "3"]


def test_start_kill_and_delete(pyrun: Runner, mapped: Any) -> None:
    id = pyrun.create_started(mapped("sleep", "1000"))
    assert pyrun.exec(id, "id", "-u").ok().out == "0\n"
    pyrun("pause", id).ok()
    pyrun("resume", id).ok()
    pyrun("kill", id, "KILL").ok()
    pyrun.wait_status(id, "stopped")
    pyrun("delete", id).ok()
    assert not [path for path in CGROUP_ROOT.iterdir() if path.name == id]


def test_hooks_run_as_the_hosts_root(pyrun: Runner, mapped: Any, tmp_path: Path) -> None:
    made = mapped("true")
    note = {"path": "/bin/sh", "args": ["sh", "-c", f"id -u >> {tmp_path}/ids"]}
    made.config["hooks"] = {kind: [note] for kind in ("prestart", "createRuntime", "poststart", "poststop")}
    pyrun.run(made.save()).ok()
    assert (tmp_path / "ids").read_text().split() == ["0"] * 4


@pytest.mark.parametrize("options", [["nosuid"], ["nosuid", "ro"]])
def test_a_writable_cgroup_belongs_to_the_user_of_the_program(pyrun: Runner, mapped: Any, options: list[str]) -> None:
    """Else no init could make cgroups of its own (config-linux.md, Cgroup ownership); a read-only one stays root's."""
    made = mapped(
        "sh", "-c", "cd /sys/fs/cgroup; mkdir -p sub/deep && echo 0 > sub/cgroup.procs; stat -c %u . cgroup.*"
    )
    for mount in made.config["mounts"]:
        if mount["destination"] == "/sys/fs/cgroup":
            mount["options"] = options
    done = pyrun.run(made.save())
    owners = done.out.split()
    if "ro" in options:
        assert "Read-only" in done.err
        assert set(owners) == {"65534"}
    else:
        assert done.err == ""
        assert owners[0] == "0"
        assert sorted(set(owners)) == ["0", "65534"]  # what decides on limits stays the host's
        assert owners.count("0") == 4  # the directory, procs, threads, subtree_control


@pytest.fixture
def same_ids() -> Iterator[int]:
    """A process in a user namespace whose map is that of the initial one, with namespaces of its own."""
    process = subprocess.Popen(["unshare", "-Umi", "sleep", "1000"])
    try:
        wait_for(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"sleep\x001000\0", 30, "unshare")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text("0 0 4294967295")
        yield process.pid
    finally:
        process.kill()
        process.wait()


def test_a_user_namespace_with_every_id_is_not_the_initial_one(
    pyrun: Runner, bundle: BundleMaker, same_ids: int, tmp_path: Path
) -> None:
    """systemd's PrivateUsers=full: nobody may make a device or a device program there, though uid_map is the host's."""
    made = bundle(["sh", "-c", "head -c 3 /dev/zero | wc -c"])
    inside = ["nsenter", "-t", str(same_ids), "-U", "-m", "-i"]
    assert subprocess.check_output([*inside, "cat", "/proc/self/uid_map"], text=True).split() == [
        "0",
        "0",
        "4294967295",
    ]
    argv = [*inside, *pyrun.argv, "--root", str(tmp_path / "state"), "--cgroup-manager", "disabled"]
    done = subprocess.run([*argv, "run", "--bundle", str(made.path), "all"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
