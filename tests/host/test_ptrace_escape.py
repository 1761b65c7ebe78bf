"""What a container with CAP_SYS_PTRACE, and no user namespace, gets from processes that come into its PID namespace.

It may open their descriptors, their root and their working directory, whatever dumpable says. So none of these may
lead to the host, from the first moment on. PYRUN_ESCAPE_ROUNDS: how many commands it may watch.
"""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from pyrun.executor import StepFailed, drop_image, run_plan
from pyrun.plan.model.plan import Builder
from pyrun.plan.model.steps import PARENT, Await, AwaitPid, Clone3
from tests.support.container.bundle import CAPABILITIES, Bundle, BundleMaker
from tests.support.container.gated import Gated, attack, ways_to
from tests.support.container.runner import REPO, Runner, wait_for

ROUNDS = int(os.environ.get("PYRUN_ESCAPE_ROUNDS", "300"))


@pytest.fixture(scope="session")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("walker") / "walker"
    source = REPO / "tests/support/container/walker.c"
    subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True)
    return program


@pytest.fixture
def watching(bundle: BundleMaker, walker: Path, tmp_path: Path) -> Bundle:
    """A container whose init looks for a file of the host's that the container has not got."""
    marker = tmp_path / "marker"
    marker.touch()
    made = bundle(["/bin/walker", str(marker)])
    (made.rootfs / "bin/walker").write_bytes(walker.read_bytes())
    (made.rootfs / "bin/walker").chmod(0o755)
    every = [*CAPABILITIES, "CAP_SYS_PTRACE"]
    made.update(process={"capabilities": dict.fromkeys(("bounding", "effective", "permitted"), every)})
    return made


def ways_out(made: Bundle) -> list[str]:
    try:
        return sorted((made.rootfs / "escaped").read_text().split())
    except FileNotFoundError:
        return []


def test_the_attack_works_on_a_process_that_holds_a_directory_of_the_hosts(pyrun: Runner, watching: Bundle) -> None:
    init = pyrun.pid(pyrun.create_started(watching))
    directory = os.open("/usr", os.O_RDONLY)
    command = ["nsenter", "-t", str(init), "--pid", "--", "sleep", "60"]
    held = subprocess.Popen(command, stdin=directory)
    os.close(directory)
    try:
        wait_for(lambda: {"fd/0", "root", "cwd"} <= set(ways_out(watching)), 20, "the walker to find it")
    finally:
        held.kill()
        held.wait()


def test_exec_hands_nothing_of_the_hosts_into_the_container(pyrun: Runner, watching: Bundle) -> None:
    id = pyrun.create_started(watching)
    for _ in range(ROUNDS):
        pyrun.exec(id, "true").ok()
    assert ways_out(watching) == []


def test_exec_with_a_terminal_neither(pyrun: Runner, watching: Bundle) -> None:
    id = pyrun.create_started(watching)
    for _ in range(max(20, ROUNDS // 20)):
        pyrun.exec(id, "true", options=["--tty"]).ok()
    assert ways_out(watching) == []


def test_exec_into_a_chroot_neither(pyrun: Runner, watching: Bundle) -> None:
    """Without a mount namespace of its own its root is all that keeps it in."""
    watching.update(linux={"maskedPaths": None, "readonlyPaths": None}, mounts=[]).drop_namespace("mount")
    id = pyrun.create(watching)
    procfs = ["nsenter", "-t", str(pyrun.pid(id)), "--pid", "--", "mount", "-t", "proc", "proc"]
    procfs.append(str(watching.rootfs / "proc"))
    subprocess.run(procfs, check=True)  # it is gone when the walker begins
    try:
        pyrun("start", id).ok()
        for _ in range(max(20, ROUNDS // 20)):
            pyrun.exec(id, "true").ok()
        assert ways_out(watching) == []
    finally:
        subprocess.run(["umount", "-l", watching.rootfs / "proc"], check=True)


@pytest.fixture(params=["joined", "user", "exec"])
def position(request: pytest.FixtureRequest) -> str:
    """Where an exec waits while it is attacked."""
    return str(request.param)


def test_an_exec_can_be_traced_and_has_nothing_of_the_hosts(
    pyrun: Runner, watching: Bundle, tmp_path: Path, position: str
) -> None:
    """On any runtime: SECURITY.md says what that means."""
    watching.update(process={"args": ["sleep", "1000"]})
    os.mkfifo(watching.rootfs / "gate")
    with Gated(pyrun, watching, position) as at:
        assert "ptrace" in attack(at, [*CAPABILITIES, "CAP_SYS_PTRACE"])
        assert ways_to(at.pid, tmp_path / "marker") == []
        assert at.release() == 0


def test_in_a_user_namespace_it_is_of_no_use_against_an_exec(
    pyrun: Runner, watching: Bundle, tmp_path: Path, position: str
) -> None:
    """Nothing of the exec's can be opened or traced; all of what belongs to the container can."""
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    watching.update(process={"args": ["sleep", "1000"]}, linux={"uidMappings": ids, "gidMappings": ids})
    watching.add_namespace("user")
    os.mkfifo(watching.rootfs / "gate")
    subprocess.run(["chown", "-Rh", "100000:100000", watching.rootfs], check=True)
    with Gated(pyrun, watching, position) as at:
        assert attack(at, [*CAPABILITIES, "CAP_SYS_PTRACE"], "user") == []
        worked = attack(at, [*CAPABILITIES, "CAP_SYS_PTRACE"], "user", init=True)
        assert {"ptrace", "open fd", "open exe", "open cwd", "open root", "open mem", "pidfd_getfd 0"} <= set(worked)
        assert at.release() == 0


@pytest.fixture
def joining(pyrun: Runner, watching: Bundle, bundle: BundleMaker) -> Bundle:
    """One that is made in the PID namespace of a container that watches it."""
    init = pyrun.pid(pyrun.create_started(watching))
    made = bundle(["/bin/true"])
    made.drop_namespace("pid").add_namespace("pid", f"/proc/{init}/ns/pid")
    (made.path / "data").mkdir()
    return made.add_mount("/data", str(made.path / "data"), "rbind", "ro")


def test_create_in_its_pid_namespace_neither(pyrun: Runner, watching: Bundle, joining: Bundle) -> None:
    for _ in range(max(50, ROUNDS // 5)):
        pyrun.run(joining).ok()
    assert ways_out(watching) == []


def test_a_shared_root_and_the_host_s_cgroups_neither(pyrun: Runner, watching: Bundle, joining: Bundle) -> None:
    joining.add_mount("/sys/fs/cgroup", "cgroup", "ro", type="cgroup").drop_namespace("cgroup")
    joining.update(linux={"rootfsPropagation": "shared", "sysctl": {"net.ipv4.ip_forward": "1"}})
    for _ in range(max(20, ROUNDS // 20)):
        pyrun.run(joining).ok()
    assert ways_out(watching) == []


def test_nor_do_devices_that_are_bound_from_the_host(pyrun: Runner, watching: Bundle, joining: Bundle) -> None:
    """As mknod(2) is refused to the runtime."""
    pyrun.argv[:0] = ["setpriv", "--bounding-set", "-mknod"]
    joining.update(linux={"devices": [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]})
    look = "ls -l /dev; grep -c ' /dev/' /proc/self/mountinfo; cut -d ' ' -f 4- /proc/self/mountinfo | sed 's/ - / /'"
    joining.update(process={"args": ["sh", "-c", f"echo x > /dev/null; head -c 3 /dev/zero | wc -c; {look}"]})
    for _ in range(max(20, ROUNDS // 20)):
        pyrun.run(joining).ok()
    assert ways_out(watching) == []
    seen = []
    for _ in range(2):
        text = pyrun.run(joining, id="same").ok().out
        seen.append(sorted(" ".join(w for w in line.split() if ":" not in w) for line in text.splitlines()))
        joining.drop_namespace("pid").add_namespace("pid")
    assert seen[0] == seen[1] and any("/kmsg" in line for line in seen[0])


@pytest.mark.parametrize("propagation", ["rprivate", "rslave", "shared"])
def test_what_it_gets_is_what_others_get(pyrun: Runner, joining: Bundle, propagation: str) -> None:
    """The same mounts, devices and files, apart from the process that it sees as its first."""
    look = "cut -d ' ' -f 4- /proc/self/mountinfo | sed 's/ - / /'; ls -lR /dev /data; cat /proc/self/cgroup"
    joining.update(process={"args": ["sh", "-c", look]}, linux={"rootfsPropagation": propagation})
    seen = []
    for _ in range(2):
        text = pyrun.run(joining, id="same").ok().out
        seen.append(sorted(" ".join(w for w in line.split() if ":" not in w) for line in text.splitlines()))
        joining.drop_namespace("pid").add_namespace("pid")
    assert seen[0] == seen[1]


def test_a_source_that_the_init_alone_could_find_is_refused(pyrun: Runner, joining: Bundle) -> None:
    joining.add_mount("/mnt", str(joining.rootfs / "tmp"), "bind")
    pyrun.run(joining).fails(1, "/mounts/", "the container's own root", "PID namespace")


LIAR = """
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	int told[] = { 2, 0, 0, 0, 0, VICTIM, 0 }; /* MSG_PID */
	if (fork() == 0)
		return write(atoi(argv[argc - 1]), told, sizeof told) < 0;
	pause();
}
"""


def test_who_has_the_socket_can_t_name_another_child_of_ours(tmp_path: Path) -> None:
    """In a program with many containers that is the init of another, which would be killed in the place of what failed.
    Stage 1 alone is believed."""
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        liar = tmp_path / "liar"
        command = ["cc", "-O2", "-static", f"-DVICTIM={victim.pid}", "-x", "c", "-o", str(liar), "-"]
        subprocess.run(command, input=LIAR, text=True, check=True)
        b = Builder()
        b.add(PARENT, Clone3(image=str(liar), load=0, flags=0), AwaitPid(), Await(point=1, patience_ms=100))
        drop_image()
        with pytest.raises(StepFailed) as caught:
            run_plan(b.plan())
        assert isinstance(b.plan().steps[caught.value.step], AwaitPid) and caught.value.errno == errno.EPROTO
        assert victim.poll() is None
    finally:
        drop_image()
        victim.kill()
        victim.wait(60)
