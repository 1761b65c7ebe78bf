"""exec: another process in a container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pyrun.errors import PyrunError
from pyrun.runtime.delete import wait_for_end
from pyrun.runtime.exec import _has_ended
from pyrun.runtime.kill import send
from tests.support.container.bundle import Bundle, BundleMaker
from tests.support.container.console import FdSocket
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import Runner, python_argv, wait_for

IDLE = ["sleep", "1000"]
NOT_FOUND = "executable file not found in $PATH"


@pytest.fixture
def idle(pyrun: Runner, bundle: BundleMaker) -> str:
    return pyrun.create_started(bundle(IDLE))


def status_of(pyrun: Runner, id: str, *options: str) -> dict[str, str]:
    """The fields of /proc/self/status of an exec'd process."""
    out = pyrun.exec(id, "cat", "/proc/self/status", options=options).ok().out
    return {line.partition(":")[0]: line.partition(":")[2].strip() for line in out.splitlines()}


# --- where it is -----------------------------------------------------------------------------------------------------


def test_it_is_in_every_namespace_of_the_container(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(IDLE)
    made.add_namespace("time")
    id = pyrun.create_started(made)
    kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "time", "user"]
    out = pyrun.exec(id, "sh", "-c", f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done").ok().out
    init = [os.readlink(f"/proc/{pyrun.pid(id)}/ns/{kind}") for kind in kinds]
    assert out.split() == init


def test_it_is_in_the_user_namespace_as_its_root(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(IDLE)
    made.add_namespace("user")
    maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    made.update(linux={"uidMappings": maps, "gidMappings": maps})
    subprocess.run(["chown", "-R", "100000:100000", made.rootfs], check=True)
    made.path.chmod(0o755)
    for parent in made.path.parents:
        if parent.name.startswith("pytest"):
            parent.chmod(0o755)
    id = pyrun.create_started(made)
    out = pyrun.exec(id, "sh", "-c", "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user").ok().out.split()
    assert out[:4] == ["0", "0", "100000", "65536"]
    assert out[4] == os.readlink(f"/proc/{pyrun.pid(id)}/ns/user")
    assert pyrun.exec(id, "id", "-u", options=["--user", "7:8"]).ok().out == "7\n"


def test_it_is_in_the_containers_cgroup(pyrun: Runner, idle: str) -> None:
    process = pyrun.popen("exec", idle, *IDLE)
    own = Path(f"/proc/{pyrun.pid(idle)}/cgroup").read_text().rpartition("0::")[2].strip()
    procs = Path(f"{CGROUP_ROOT}{own}/cgroup.procs")
    seen: set[str] = set()

    def both_run() -> bool:
        names = [Path(f"/proc/{pid}/exe").readlink().name for pid in procs.read_text().split()]
        seen.update(names)
        return names == ["busybox"] * 2

    wait_for(both_run, 10, "the process in the cgroup")
    python = Path("/usr/bin/python3").resolve().name  # what clone3 made, until it executes pyrun-init
    assert seen <= {"busybox", "memfd:pyrun-init (deleted)", python}
    pyrun.delete(idle, "--force").ok()
    assert process.wait(60) == 137


def test_cgroup_option_names_one_below_the_containers(pyrun: Runner, idle: str) -> None:
    own = Path(f"{CGROUP_ROOT}{Path(f'/proc/{pyrun.pid(idle)}/cgroup').read_text().rpartition('0::')[2].strip()}")
    (own / "sub").mkdir()
    show = ["sh", "-c", "grep 0:: /proc/self/cgroup"]
    assert pyrun.exec(idle, *show, options=["--cgroup", "sub"]).ok().out == "0::/sub\n"
    assert pyrun.exec(idle, *show, options=["--cgroup", "/sub"]).ok().out == "0::/sub\n"
    assert pyrun.exec(idle, *show, options=["--cgroup", "/"]).ok().out == "0::/\n"
    pyrun.exec(idle, *show, options=["--cgroup", "nonesuch"]).fails(1, "no such file or directory")
    for bad in ("../..", "sub/../..", "cpu:sub"):
        pyrun.exec(idle, *show, options=["--cgroup", bad]).fails(1, "--cgroup")


def test_init_that_moved_to_a_child_cgroup_is_followed(pyrun: Runner, idle: str) -> None:
    """A cgroup that hands controllers to its children takes no process: EBUSY. The process goes where the init is."""
    own = Path(f"{CGROUP_ROOT}{Path(f'/proc/{pyrun.pid(idle)}/cgroup').read_text().rpartition('0::')[2].strip()}")
    (own / "init.scope").mkdir()
    (own / "init.scope/cgroup.procs").write_text(str(pyrun.pid(idle)))
    controllers = (own / "cgroup.controllers").read_text().split()
    if not controllers:
        parent = own.parent / "cgroup.subtree_control"
        available = (own.parent / "cgroup.controllers").read_text().split()
        if not available:
            pytest.skip("no controller is available to be delegated")
        parent.write_text("+" + available[0])
        controllers = available[:1]
    (own / "cgroup.subtree_control").write_text("+" + controllers[0])
    out = pyrun.exec(idle, "sh", "-c", "grep 0:: /proc/self/cgroup").ok().out
    assert out == "0::/init.scope\n"


def test_exec_in_a_created_container(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create(bundle(IDLE))
    assert pyrun.exec(id, "sh", "-c", "hostname; echo $$").ok().out.split()[0] == "pyrun"
    assert pyrun.state(id)["status"] == "created"
    pyrun("start", id).ok()


def test_shared_mount_namespace_but_a_root_of_its_own(pyrun: Runner, bundle: BundleMaker) -> None:
    made = bundle(IDLE, mounts=[], linux={"maskedPaths": [], "readonlyPaths": []})
    made.drop_namespace("mount")
    (made.rootfs / "marker").write_text("inside")
    id = pyrun.create_started(made)
    assert pyrun.exec(id, "cat", "/marker").ok().out == "inside"


# --- what it is ------------------------------------------------------------------------------------------------------


def test_exit_codes(pyrun: Runner, idle: str) -> None:
    assert pyrun.exec(idle, "sh", "-c", "exit 7").rc == 7
    assert pyrun.exec(idle, "sh", "-c", "kill -KILL $$").rc == 137
    pyrun.exec(idle, "nonesuch").fails(255, NOT_FOUND)
    pyrun.exec(idle, "/nonesuch").fails(255, "no such file or directory")
    pyrun.exec(idle, "/etc/passwd").fails(255, "permission denied")
    pyrun.exec(idle, "true", options=["--cwd", "/nonesuch"]).fails(255, "no such file or directory")
    pyrun.exec("nonesuch", "true").fails(1, "container does not exist")


def test_stopped_and_paused_containers(pyrun: Runner, idle: str) -> None:
    pyrun("pause", idle).ok()
    pyrun.exec(idle, "true").fails(1, "cannot exec in a paused container")
    waiting = pyrun.popen("exec", "--ignore-paused", idle, "true")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    pyrun("resume", idle).ok()
    assert waiting.wait(60) == 0
    pyrun("kill", idle, "KILL").ok()
    pyrun.wait_status(idle, "stopped")
    pyrun.exec(idle, "true").fails(1, "cannot exec in a stopped container", "container not running")


def test_it_has_what_the_containers_process_has(pyrun: Runner, bundle: BundleMaker) -> None:
    process = {
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 6], "umask": 0o27},
        "cwd": "/tmp",
        "env": ["PATH=/bin", "A=1"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}],
        "oomScoreAdj": 321,
        "capabilities": dict.fromkeys(("bounding", "permitted", "effective", "inheritable", "ambient"), ["CAP_KILL"]),
    }
    id = pyrun.create_started(bundle(IDLE, process=process))
    script = "pwd; echo $A; umask; ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; id -G; echo $HOME"
    assert pyrun.exec(id, "sh", "-c", script).ok().out.split() == [
        "/tmp", "1", "0027", "77", "88", "321", "1000", "5", "6", "/home/user",
    ]  # fmt: skip
    fields = status_of(pyrun, id)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[name], 16) == 1 << 5, name
    assert fields["NoNewPrivs"] == "1"


def test_options_change_it(pyrun: Runner, bundle: BundleMaker) -> None:
    id = pyrun.create_started(bundle(IDLE, process={"env": ["PATH=/bin", "A=1", "HOME=/h"]}))
    options = ["--cwd", "/tmp", "-e", "A=2", "-e", "B=3 4", "--user", "1000:2000", "-g", "7", "--additional-gids", "8"]
    script = "pwd; echo $A; echo $B; id -u; id -G; echo $HOME; env | grep -c ^A="
    out = pyrun.exec(id, "sh", "-c", script, options=options).ok().out.splitlines()
    assert out == ["/tmp", "2", "3 4", "1000", "2000 7 8", "/h", "1"]
    assert status_of(pyrun, id, "--no-new-privs=false")["NoNewPrivs"] == "0"
    assert status_of(pyrun, id, "--no-new-privs")["NoNewPrivs"] == "1"


def test_options_of_the_command_are_the_commands(pyrun: Runner, idle: str) -> None:
    assert pyrun.exec(idle, "echo", "-e", "a", "--user", "b", "--").ok().out == "a --user b --\n"


def test_home_is_that_of_the_user(pyrun: Runner, idle: str) -> None:
    show = ["sh", "-c", "echo $HOME"]
    assert pyrun.exec(idle, *show).ok().out == "/root\n"
    assert pyrun.exec(idle, *show, options=["--user", "1000"]).ok().out == "/home/user\n"
    assert pyrun.exec(idle, *show, options=["--user", "4242"]).ok().out == "/\n"
    assert pyrun.exec(idle, *show, options=["-e", "HOME="]).ok().out == "/root\n"
    assert pyrun.exec(idle, *show, options=["-e", "HOME=/x"]).ok().out == "/x\n"


def test_directory_that_only_the_user_may_enter(pyrun: Runner, bundle: BundleMaker) -> None:
    """Root without CAP_DAC_OVERRIDE can't; the user tries again."""
    made = bundle(IDLE, process={"capabilities": None})
    (made.rootfs / "private").mkdir(0o700)
    os.chown(made.rootfs / "private", 1000, 1000)
    id = pyrun.create_started(made)
    assert pyrun.exec(id, "pwd", options=["--user", "1000:1000", "--cwd", "/private"]).ok().out == "/private\n"
    pyrun.exec(id, "pwd", options=["--user", "1001:1001", "--cwd", "/private/x"]).fails(255)


def test_process_from_a_file(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    own = {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}], "oomScoreAdj": 321}
    id = pyrun.create_started(bundle(IDLE, process=own))
    script = "id -u; pwd; echo $A; ulimit -n; cat /proc/self/oom_score_adj; cut -d ' ' -f 19 /proc/self/stat"
    process = {
        "args": ["sh", "-c", script], "cwd": "/tmp", "env": ["PATH=/bin", "A=9"], "user": {"uid": 12, "gid": 13},
        "scheduler": {"policy": "SCHED_OTHER", "nice": 5}, "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
    }  # fmt: skip
    file = tmp_path / "process.json"
    file.write_text(json.dumps(process))
    out = pyrun("exec", "--process", file, id).ok().out
    assert out.split() == ["12", "/tmp", "9", "77", "321", "5"]
    file.write_text("{")
    pyrun("exec", "--process", file, id).fails(1, "process.json")
    file.write_text(json.dumps(process | {"args": ["nonesuch"]}))
    pyrun("exec", "--process", file, id).fails(255, NOT_FOUND)
    pyrun("exec", "--process", tmp_path / "missing", id).fails(1, "no such file or directory")


def test_cpu_affinity_is_for_exec_alone(pyrun: Runner, bundle: BundleMaker, tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    affinity = {"initial": str(cpus[0]), "final": str(cpus[1])}
    id = pyrun.create_started(bundle(IDLE, process={"execCPUAffinity": affinity}))
    assert os.sched_getaffinity(pyrun.pid(id)) == set(cpus)
    assert status_of(pyrun, id)["Cpus_allowed_list"] == str(cpus[1])
    first = pyrun.create_started(bundle(IDLE, process={"execCPUAffinity": {"initial": str(cpus[0])}}))
    assert status_of(pyrun, first)["Cpus_allowed_list"] == str(cpus[0])


def test_seccomp_of_the_container_holds(pyrun: Runner, bundle: BundleMaker) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}],
    }
    for nnp in (True, False):
        id = pyrun.create_started(bundle(IDLE, linux={"seccomp": profile}, process={"noNewPrivileges": nnp}))
        assert "quota exceeded" in pyrun.exec(id, "mkdir", "/tmp/x").fails(1).err
        assert status_of(pyrun, id)["Seccomp"] == "2"


def test_detach_and_pid_file(pyrun: Runner, idle: str, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    null = subprocess.DEVNULL
    command = pyrun.command("exec", "--detach", "--pid-file", file, idle, "sleep", "999")
    subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)
    pid = int(file.read_text())
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x00999\x00"
    os.kill(pid, signal.SIGKILL)
    pyrun("exec", "--pid-file", tmp_path / "none/pid", idle, "true").fails(1, "no such file or directory")
    wait_for(lambda: len(pyrun("ps", "--format", "json", idle).ok().out.split(",")) == 1, 30, "nothing left behind")


def test_pidfd_socket(pyrun: Runner, idle: str, tmp_path: Path) -> None:
    with FdSocket() as receiver:
        process = pyrun.popen("exec", "--pidfd-socket", receiver.path, idle, *IDLE)
        fd = receiver.receive()
        wait_for(lambda: b"sleep" in Path(f"/proc/{pid_of(fd)}/cmdline").read_bytes(), 30, "the command")
        signal.pidfd_send_signal(fd, signal.SIGKILL)
        assert process.wait(60) == 137


def pid_of(pidfd: int) -> int:
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def test_signals_are_forwarded(pyrun: Runner, idle: str) -> None:
    script = "trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.05; done"
    process = pyrun.popen("exec", idle, "sh", "-c", script, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == b"got\n"
    assert process.wait(60) == 4


def test_signals_that_the_caller_blocks_or_ignores_are_forwarded(pyrun: Runner, idle: str) -> None:
    """As with runc; by the launcher and by Python, which a caller can't tell apart."""
    script = "trap 'echo got; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    for set_up in (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}),
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    ):
        for command in (python_argv(), pyrun.argv):
            runner = Runner(pyrun.root, command)
            process = runner.popen("exec", idle, "sh", "-c", script, stdout=subprocess.PIPE, preexec_fn=set_up)
            assert process.stdout is not None and process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == b"got\n"
            assert process.wait(60) == 4


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, text",
    [
        (["--env", "NOEQUALS"], "is not NAME=VALUE"),
        (["--env", "=value"], "is not NAME=VALUE"),
        (["--cap", "CAP_NONESUCH"], "is not a capability"),
        (["--cwd", "relative"], "is not an absolute path"),
        (["--additional-gids", "-1"], "is not a gid"),
        (["--additional-gids", "4294967295"], "is not a gid"),
        (["--preserve-fds", "2"], "descriptor 3 is not open"),
        (["--preserve-fds", "-1"], "--preserve-fds"),
    ],
)
def test_bad_options(pyrun: Runner, idle: str, options: list[str], text: str) -> None:
    pyrun.exec(idle, "true", options=options).fails(1, text)


def test_no_command_and_no_file(pyrun: Runner, idle: str) -> None:
    pyrun.exec(idle).fails(1, "COMMAND is missing")


def test_standard_streams_are_the_callers(pyrun: Runner, idle: str) -> None:
    done = pyrun.exec(idle, "sh", "-c", "cat; echo err >&2", input="given")
    assert (done.rc, done.out, done.err) == (0, "given", "err\n")


def test_many_at_once(pyrun: Runner, bundle: BundleMaker) -> None:
    made: Bundle = bundle(IDLE)
    id = pyrun.create_started(made)
    running = [pyrun.popen("exec", id, "sh", "-c", f"exit {i}") for i in range(12)]
    assert [process.wait(60) for process in running] == list(range(12))


def test_seccomp_listener_is_sent_with_both_pids(pyrun: Runner, bundle: BundleMaker) -> None:
    """config-linux.md: pid is the new process, state.pid the container's init."""
    with FdSocket() as agent:
        profile = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": agent.path,
            "listenerMetadata": "some words",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
        }
        null = subprocess.DEVNULL
        made = bundle(IDLE, linux={"seccomp": profile})
        with subprocess.Popen(pyrun.command("create", "-b", made.path, "one"), stdin=null, stdout=null) as create:
            os.close(agent.receive())
            assert create.wait(60) == 0
        pyrun("start", "one").ok()
        process = pyrun.popen("exec", "one", *IDLE)
        agent.receive()
        told = json.loads(agent.name)
        assert (told["fds"], told["metadata"], told["state"]["pid"]) == (["seccompFd"], "some words", pyrun.pid("one"))
        assert Path(f"/proc/{told['pid']}/fd").exists() and told["pid"] != pyrun.pid("one")
        assert os.readlink(f"/proc/self/fd/{agent.fd}") == "anon_inode:seccomp notify"
        pyrun.delete("one", "--force").ok()
        assert process.wait(60) == 137


def test_a_number_that_is_a_threads_by_now_is_no_init() -> None:
    """pidfd_open(2) says EINVAL of it, or ENOENT."""
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        number = thread.native_id
        record = SimpleNamespace(pid=number, start=1)
        gone: Any = SimpleNamespace(record=record, pid=number, start=1, alive=lambda: False)
        assert _has_ended(gone) and wait_for_end(gone)
        with pytest.raises(PyrunError, match="container not running"):
            send(gone, 15)
    finally:
        over.set()
        thread.join()
