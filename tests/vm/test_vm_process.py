"""What a process may be only where its maker has every right: scores, limits, capabilities, profiles, knobs."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.gated import Gated, ways_to
from tests.support.container.runner import Runner
from tests.support.vm.cgroup import all_capabilities, use_host_tools

PROFILE = """
#include <tunables/global>
profile pyrun-test flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  network,
  signal,
  umount,
  deny /secret r,
}
"""


@pytest.mark.parametrize("score", [-1000, -500, 0, 800])
def test_oom_score_adj(pyrun: Runner, bundle: BundleMaker, score: int) -> None:
    made = bundle(["cat", "/proc/self/oom_score_adj"], process={"oomScoreAdj": score})
    assert pyrun.run(made).ok().out == f"{score}\n"


def test_oom_score_adj_of_exec(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(["sleep", "1000"], process={"oomScoreAdj": -400}))
    assert pyrun.exec(id, "cat", "/proc/self/oom_score_adj").ok().out == "-400\n"


def test_rlimits_are_raised(pyrun: Runner, bundle: BundleMaker) -> None:
    """Above the hard limit that pyrun itself has."""
    made = bundle(["sh", "-c", "ulimit -Hn; ulimit -Sn"])
    made.update(process={"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 65536, "soft": 4096}]})
    done = pyrun.run(made, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)))
    assert done.ok().out.split() == ["65536", "4096"]


def test_every_capability(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["grep", "Cap", "/proc/self/status"], process={"capabilities": all_capabilities()})
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    every = f"{(1 << (last + 1)) - 1:016x}"
    rows = dict(line.split() for line in pyrun.run(made).ok().out.splitlines())
    assert rows == dict.fromkeys(("CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"), every)


def test_a_container_with_every_capability_can_mount(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(["sh", "-c", "mount -t tmpfs none /mnt && grep -c ' /mnt ' /proc/mounts"])
    made.update(process={"capabilities": all_capabilities()})
    (made.rootfs / "mnt").mkdir(exist_ok=True)
    assert pyrun.run(made).ok().out == "1\n"


def test_an_exec_is_born_in_its_cgroup_by_a_mount_of_that(pyrun: Runner, bundle: BundleMaker) -> None:
    """Linux 6.1 takes a detached, read-only mount of a cgroup for CLONE_INTO_CGROUP; else the exec would be moved."""
    id = pyrun.create_started(bundle(["sleep", "1000"]))
    command = ["strace", "-f", "-e", "trace=open_tree,clone3", *pyrun.command("exec", id, "true")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    assert "OPEN_TREE_CLONE" in done.stderr
    births = [line for line in done.stderr.splitlines() if "CLONE_INTO_CGROUP" in line]
    assert len(births) == 1 and "-1 E" not in births[0], done.stderr


# --- AppArmor ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profile() -> Iterator[str]:
    """A profile, loaded, that forbids one file."""
    load = ["apparmor_parser", "--skip-cache"]
    subprocess.run([*load, "--replace"], input=PROFILE, text=True, check=True)
    yield "pyrun-test"
    subprocess.run([*load, "--remove"], input=PROFILE, text=True, check=True)


def guarded(bundle: BundleMaker, profile: str | None, *args: str) -> Bundle:
    made = bundle(args or ["sh", "-c", "cat /proc/self/attr/current; cat /secret"])
    (made.rootfs / "secret").write_text("secret\n")
    return made.update(process={"apparmorProfile": profile})


def test_apparmor_is_enforced(pyrun: Runner, bundle: BundleMaker, profile: str) -> None:
    done = pyrun.run(guarded(bundle, profile))
    assert done.out == "pyrun-test (enforce)\n"
    assert "Permission denied" in done.err
    assert pyrun.run(guarded(bundle, None)).ok().out == "unconfined\nsecret\n"


def test_apparmor_of_exec(pyrun: Runner, bundle: BundleMaker, profile: str) -> None:
    id = pyrun.create_started(guarded(bundle, profile, "sleep", "1000"))
    done = pyrun.exec(id, "cat", "/secret")
    assert done.rc == 1 and "Permission denied" in done.err
    id = pyrun.create_started(guarded(bundle, None, "sleep", "1000"))
    pyrun.exec(id, "cat", "/secret").ok()
    assert pyrun.exec(id, "cat", "/secret", options=["--apparmor", profile]).rc == 1


@pytest.mark.parametrize("position", ["joined", "user", "exec"])
def test_an_exec_with_a_profile_holds_nothing_of_the_hosts(
    pyrun: Runner, bundle: BundleMaker, profile: str, tmp_path: Path, position: str
) -> None:
    """A profile is set through the host's /proc, and a container with CAP_SYS_PTRACE may open what an exec has open."""
    marker = tmp_path / "marker"
    marker.touch()
    made = guarded(bundle, profile, "sleep", "1000")
    os.mkfifo(made.rootfs / "gate")
    directory = os.open(tmp_path, os.O_PATH)
    assert {"root", "cwd", f"fd/{directory}"} <= set(ways_to(os.getpid(), marker))
    os.close(directory)
    with Gated(pyrun, made, position) as at:
        assert ways_to(at.pid, marker) == []
        assert at.release() == 0


def test_an_unknown_profile_is_named(pyrun: Runner, bundle: BundleMaker) -> None:
    done = pyrun.run(guarded(bundle, "no-such-profile"))
    done.fails(1, "no-such-profile", "/process/apparmorProfile")
    assert pyrun.ids() == []


# --- the network and the kernel's knobs -------------------------------------------------------------------------------


def test_sctp(pyrun: Runner, bundle: BundleMaker) -> None:
    """An association with itself, over the container's own loopback."""
    subprocess.run(["modprobe", "sctp"], check=True)
    script = """
import socket
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
listener.bind(("127.0.0.1", 5000)); listener.listen(1)
client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
client.connect(("127.0.0.1", 5000)); server, _ = listener.accept()
client.sendall(b"over sctp"); print(server.recv(100).decode())
"""
    made = use_host_tools(bundle(["/usr/bin/python3", "-I", "-S", "-c", script]))
    assert pyrun.run(made).ok().out == "over sctp\n"


def test_sysctls(pyrun: Runner, bundle: BundleMaker) -> None:
    """Those of a namespace are set in the container and not outside."""
    values = {
        "net.ipv4.ip_forward": "1",
        "net.ipv4.ip_unprivileged_port_start": "81",
        "net.ipv4.ping_group_range": "0\t1000",
        "kernel.msgmax": "65000",
        "kernel.shm_rmid_forced": "1",
        "fs.mqueue.msg_max": "20",
    }
    files = [Path("/proc/sys", *name.split(".")) for name in values]
    before = [file.read_text() for file in files]
    made = bundle(["cat", *map(str, files)], linux={"sysctl": values})
    assert pyrun.run(made).ok().out.splitlines() == list(values.values())
    assert [file.read_text() for file in files] == before


def test_a_sysctl_of_the_host_is_refused(pyrun: Runner, bundle: BundleMaker) -> None:
    before = Path("/proc/sys/kernel/panic_on_oops").read_text()
    pyrun.run(bundle(["true"], linux={"sysctl": {"kernel.panic_on_oops": "0"}})).fails(1, "kernel.panic_on_oops")
    assert Path("/proc/sys/kernel/panic_on_oops").read_text() == before


@pytest.fixture
def dummy() -> Iterator[str]:
    """A network device with an address, and gone afterwards wherever it went."""
    name = "pyrun-d0"
    subprocess.run(["ip", "link", "add", name, "type", "dummy"], check=True)
    subprocess.run(["ip", "address", "add", "192.0.2.7/24", "dev", name], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)


def test_net_devices(pyrun: Runner, bundle: BundleMaker, dummy: str) -> None:
    made = bundle(["ip", "-o", "address", "show", "dev", "eth0"], linux={"netDevices": {dummy: {"name": "eth0"}}})
    made.update(ociVersion="1.3.0")
    assert "192.0.2.7/24" in pyrun.run(made).ok().out
    assert dummy not in subprocess.run(["ip", "link"], stdout=subprocess.PIPE, text=True, check=True).stdout


def test_idmapped_mounts_on_ext4(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    """Files of the host's user 0 are those of the container's user 7, both ways."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "old").write_text("")
    mapping = [{"containerID": 0, "hostID": 7000, "size": 10}]
    made = bundle(["sh", "-c", "stat -c %u /shared/old; touch /shared/new; stat -c %u /shared/new"])
    made.add_mount("/shared", str(shared), "bind", "rw", uidMappings=mapping, gidMappings=mapping)
    (shared / "old").chmod(0o666)
    shared.chmod(0o777)
    done = pyrun.run(made)
    assert done.out.splitlines()[0] == "7000", done.describe()
