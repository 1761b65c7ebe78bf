"""Namespaces: new ones, those joined by path, and those that a container shares with the host."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import BundleMaker
from tests.support.container.parked import parked
from tests.support.container.runner import Runner, wait_for

# The type in config.json -> the name below /proc/PID/ns.
LINKS = {
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "mount": "mnt",
    "cgroup": "cgroup",
    "time": "time",
    "user": "user",
}
SIMPLE = ("network", "ipc", "uts", "cgroup", "time")


def links(pid: int | str = "self") -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{name}") for kind, name in LINKS.items()}


@pytest.fixture
def other() -> Iterator[int]:
    """A process with all namespaces but the user's of its own, and a hostname to know it by."""
    script = "hostname other-host; mount -t tmpfs none /mnt; touch /mnt/other"
    with parked("-muinpCT", "--propagation", "private", "--mount-proc", first=script) as pid:
        yield pid


def test_all_namespaces_are_new(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sleep", "1000"])
    made.add_namespace("time")
    mine, theirs = links(), links(pyrun.pid(pyrun.create_started(made)))
    assert {kind for kind in LINKS if mine[kind] != theirs[kind]} == LINKS.keys() - {"user"}


@pytest.mark.parametrize("kind", SIMPLE)
def test_join_one_by_path(pyrun: Runner, bundle: BundleMaker, other: int, kind: str) -> None:
    made = bundle(["sleep", "1000"], hostname=None)
    made.add_namespace(kind, f"/proc/{other}/ns/{LINKS[kind]}")
    theirs = links(pyrun.pid(pyrun.create_started(made)))
    assert theirs[kind] == links(other)[kind]
    assert {k for k in LINKS if theirs[k] == links()[k]} <= {"user", "time"}


def test_join_a_pid_namespace(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    made = bundle(["sh", "-c", "echo $$; ls -d /proc/[0-9]*"])
    made.add_namespace("pid", f"/proc/{other}/ns/pid")
    shown = pyrun.run(made).ok().out.split()
    assert int(shown[0]) > 1
    assert "/proc/1" in shown and f"/proc/{shown[0]}" in shown


def test_kill_in_a_joined_pid_namespace_reaches_every_process(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    """No init dies there with which the kernel would kill the others."""
    made = bundle(["sh", "-c", "sleep 2000 & sleep 2000 & wait"])
    made.add_namespace("pid", f"/proc/{other}/ns/pid")
    id = pyrun.create_started(made)
    wait_for(lambda: len(pyrun("ps", "--format", "json", id).ok().out.split(",")) == 3, 30, "its children")
    pyrun("kill", id, "KILL").ok()
    wait_for(lambda: pyrun("ps", "--format", "json", id).ok().out.strip() == "[]", 30, "all of them to die")
    assert Path(f"/proc/{other}/root").exists()


def test_join_a_mount_namespace(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    """Its mounts are what paths are seen through: a bind source of that namespace is found, as mount is joined last."""
    made = bundle(["sleep", "1000"])
    made.add_namespace("mount", f"/proc/{other}/ns/mnt").add_mount("/seen", "/mnt", "bind")
    pid = pyrun.pid(pyrun.create_started(made))
    assert links(pid)["mount"] == links(other)["mount"]
    assert os.listdir(f"/proc/{pid}/root/seen") == ["other"]


def test_join_all_at_once(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    made = bundle(["sleep", "1000"], hostname=None)
    for kind, name in LINKS.items():
        if kind not in ("user", "mount"):
            made.add_namespace(kind, f"/proc/{other}/ns/{name}")
    theirs, wanted = links(pyrun.pid(pyrun.create_started(made))), links(other)
    assert {kind for kind in LINKS if theirs[kind] == wanted[kind]} == LINKS.keys() - {"mount"}


def test_join_a_namespace_that_is_bound_to_a_file(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    file = pyrun.root.parent / "netns"
    file.touch()
    subprocess.run(["mount", "--bind", f"/proc/{other}/ns/net", file], check=True)
    try:
        made = bundle(["sleep", "1000"])
        made.add_namespace("network", str(file))
        assert links(pyrun.pid(pyrun.create_started(made)))["network"] == links(other)["network"]
    finally:
        subprocess.run(["umount", file], check=True)


@pytest.mark.parametrize("kind", sorted(LINKS))
def test_a_path_of_another_kind_is_refused(pyrun: Runner, bundle: BundleMaker, kind: str) -> None:
    made = bundle(hostname=None)
    wrong = "uts" if kind != "uts" else "ipc"
    made.add_namespace(kind, f"/proc/self/ns/{wrong}")
    index = [ns["type"] for ns in made.config["linux"]["namespaces"]].index(kind)
    pyrun.run(made).fails(1, f"/linux/namespaces/{index}/path", "another type")


@pytest.mark.parametrize(
    "path, says", [("/no/such/file", "ENOENT"), ("/etc/passwd", "no namespace"), ("/", "no namespace")]
)
def test_a_path_of_no_namespace_is_refused(pyrun: Runner, bundle: BundleMaker, path: str, says: str) -> None:
    made = bundle()
    made.add_namespace("network", path)
    pyrun.run(made).fails(1, "/linux/namespaces/", says)


def test_the_hosts_mount_namespace_is_not_joined(pyrun: Runner, bundle: BundleMaker) -> None:
    """pivot_root(2) there would take the host's root away."""
    made = bundle()
    made.add_namespace("mount", "/proc/self/ns/mnt")
    pyrun.run(made).fails(1, "/linux/namespaces/", "the host's own mount namespace")


@pytest.mark.parametrize("kind", ("network", "ipc", "uts", "cgroup", "pid"))
def test_a_namespace_that_is_not_listed_is_shared(pyrun: Runner, bundle: BundleMaker, kind: str) -> None:
    made = bundle(["sleep", "1000"], hostname=None)
    made.drop_namespace(kind)
    theirs, mine = links(pyrun.pid(pyrun.create_started(made))), links()
    assert {k for k in LINKS if theirs[k] == mine[k]} == {kind, "user", "time"}


def test_kill_in_a_shared_pid_namespace_reaches_every_process(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "sleep 2000 & sleep 2000 & wait"])
    made.drop_namespace("pid")
    id = pyrun.create_started(made)
    wait_for(lambda: len(pyrun("ps", "--format", "json", id).ok().out.split(",")) == 3, 30, "its children")
    pyrun("kill", id, "KILL").ok()
    pyrun.wait_status(id, "stopped")
    wait_for(lambda: pyrun("ps", "--format", "json", id).ok().out.strip() == "[]", 30, "all of them to die")


def test_what_a_container_in_the_hosts_pid_namespace_leaves_is_killed(pyrun: Runner, bundle: BundleMaker) -> None:
    """By who asks for it, as engines do."""
    made = bundle(["sh", "-c", "sleep 2000 & exit 0"])
    made.drop_namespace("pid")
    id = pyrun.create_started(made)
    pyrun.wait_status(id, "stopped")
    pyrun("delete", id).fails(1, "may be another's", "(sleep)")
    pyrun("kill", "--all", id, "KILL").ok()
    pyrun("delete", id).ok()


def test_a_container_without_a_mount_namespace(pyrun: Runner, bundle: BundleMaker) -> None:
    """It gets the root, by chroot(2), and no mounts: they would be the host's."""
    made = bundle(["sh", "-c", "ls /bin/busybox && ls -A /proc | wc -l"])
    made.drop_namespace("mount").update(mounts=[], linux={"maskedPaths": [], "readonlyPaths": []})
    before = Path("/proc/self/mountinfo").read_text()
    assert pyrun.run(made).ok().out == "/bin/busybox\n0\n"
    assert Path("/proc/self/mountinfo").read_text() == before


def test_no_namespaces_at_all(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "echo $$"], hostname=None)
    made.update(mounts=[], linux={"namespaces": [], "maskedPaths": [], "readonlyPaths": []})
    assert int(pyrun.run(made).ok().out) > 1


def test_loopback_is_up_in_a_new_network_namespace(pyrun: Runner, bundle: BundleMaker) -> None:
    assert "127.0.0.1" in pyrun.run(bundle(["ip", "-4", "addr", "show", "dev", "lo", "up"])).ok().out


def test_loopback_of_a_joined_network_namespace_is_left_alone(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    made = bundle(["ip", "-o", "link", "show", "lo"])
    made.add_namespace("network", f"/proc/{other}/ns/net")
    assert "<LOOPBACK>" in pyrun.run(made).ok().out


def test_hostname_and_domainname(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "hostname; cat /proc/sys/kernel/domainname"], hostname="inner", domainname="example.org")
    assert pyrun.run(made).ok().out == "inner\nexample.org\n"
    assert os.uname().nodename != "inner"


def test_a_joined_uts_namespace_takes_the_hostname(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    made = bundle(["hostname"], hostname=None)
    made.add_namespace("uts", f"/proc/{other}/ns/uts")
    assert pyrun.run(made).ok().out == "other-host\n"


def test_time_offsets(pyrun: Runner, bundle: BundleMaker) -> None:
    offsets = {"monotonic": {"secs": 172800, "nanosecs": 5}, "boottime": {"secs": 604800}}
    made = bundle(["cat", "/proc/uptime", "/proc/self/timens_offsets"], linux={"timeOffsets": offsets})
    made.add_namespace("time")
    uptime, table = pyrun.run(made).ok().out.split("\n", 1)
    assert 0 <= float(uptime.split()[0]) - time.clock_gettime(time.CLOCK_BOOTTIME) + 10 - 604800 < 20
    rows = [line.split() for line in table.splitlines()]
    assert rows == [["monotonic", "172800", "5"], ["boottime", "604800", "0"]]


def test_time_offsets_before_the_boot_are_refused(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(linux={"timeOffsets": {"boottime": {"secs": -(1 << 40)}}})
    made.add_namespace("time")
    pyrun.run(made).fails(1, "/linux/timeOffsets/boottime")


def test_time_offsets_need_a_new_time_namespace(pyrun: Runner, bundle: BundleMaker, other: int) -> None:
    offsets = {"timeOffsets": {"boottime": {"secs": 1}}}
    pyrun.run(bundle(linux=offsets)).fails(1, "/linux/timeOffsets")
    made = bundle(linux=offsets)
    made.add_namespace("time", f"/proc/{other}/ns/time")
    pyrun.run(made).fails(1, "/linux/timeOffsets")
