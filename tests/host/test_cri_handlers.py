"""runc and crun as runtime handlers of `pyrun cri`: the same pods, supervisor and logs, and another runtime's
containers in them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import DeadlineExceeded, InvalidArgument, PyrunError
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.terminal import TerminalSession
from tests.support.cri.node import Node, a_node
from tests.support.cri.peers import HANDLERS, PEERS, configuration, program

MAPS = [{"host_id": 100_000, "container_id": 0, "length": 65_536}]
WITH_VOLUME = "registry.test/volume:1"


@pytest.fixture(scope="module")
def one_node(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[Node]:
    path = tmp_path_factory.mktemp("node")
    with a_node(path, busybox_rootfs) as node:
        node.configure(configuration(path))
        node.add_image(WITH_VOLUME, {"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"], "Volumes": {"/data/in": {}}})
        node.start()
        node.run_pod()
        node.clear()
        yield node


@pytest.fixture
def node(one_node: Node) -> Iterator[Node]:
    yield one_node
    one_node.clear()
    for name in PEERS:
        assert not any((one_node.state / "handlers").glob(f"{name}/*"))
    shutil.rmtree(one_node.logs, ignore_errors=True)


def run_pod(node: Node, handler: str, **fields: Any) -> str:
    made = node.call("RunPodSandbox", config=node.pod_config(**fields), runtime_handler=handler)
    return str(made.pod_sandbox_id)


def runtime_of(node: Node, handler: str, id: str) -> bool:
    """Whether the container is in this runtime's own list."""
    return (node.state / "handlers" / handler / id).is_dir()


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_container_to_its_end(node: Node, handler: str) -> None:
    pod = run_pod(node, handler)
    id = node.create(pod, script="echo out; echo err >&2; exit 3")
    assert node.status(id).state == v1.CONTAINER_CREATED and runtime_of(node, handler, id)
    assert node.call("PodSandboxStatus", pod_sandbox_id=pod).status.runtime_handler == handler
    node.call("StartContainer", container_id=id)
    status = node.wait_state(id, v1.CONTAINER_EXITED)
    assert (status.exit_code, status.reason) == (3, "Error")
    assert sorted(node.log()) == ["err", "out"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_exec(node: Node, handler: str) -> None:
    """Its output, its code, and its end with all that it started when the time is over."""
    id = node.run(run_pod(node, handler))
    done = node.call("ExecSync", container_id=id, cmd=["sh", "-c", "echo o; echo e >&2; hostname; exit 9"])
    assert (done.exit_code, done.stdout, done.stderr) == (9, b"o\np\n", b"e\n")
    with pytest.raises(DeadlineExceeded):
        node.call("ExecSync", container_id=id, cmd=["sh", "-c", "sleep 4321 & sleep 4321"], timeout=1)
    seen = ["sh", "-c", "ps | grep -c 'sleep 432[1]'"]
    _wait(lambda: node.call("ExecSync", container_id=id, cmd=seen).stdout == b"0\n")
    with pytest.raises(PyrunError, match=f"{handler} exec: .*no-such-program"):
        node.call("ExecSync", container_id=id, cmd=["no-such-program"])


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_terminal(node: Node, handler: str) -> None:
    id = node.run(run_pod(node, handler), script="tty; stty size; sleep 0.2; tty", tty=True)
    assert node.wait_state(id, v1.CONTAINER_EXITED).exit_code == 0
    assert [line.rstrip("\r") for line in node.log()][0] == "/dev/pts/0"


@pytest.mark.parametrize("handler", HANDLERS)
def test_stop(node: Node, handler: str) -> None:
    """By its signal where it heeds that, else by KILL."""
    pod = run_pod(node, handler)
    heeds, ignores = (
        node.run(pod, "heeds"),
        node.run(pod, "ignores", "trap '' TERM; echo ok; while :; do sleep 0.02; done"),
    )
    _wait(lambda: bool(node.log("heeds") and node.log("ignores")))
    node.call("StopContainer", container_id=heeds, timeout=50)
    node.call("StopContainer", container_id=ignores, timeout=1)
    assert node.status(heeds).exit_code == 7 and node.log("heeds")[-1] == "bye"
    assert node.status(ignores).exit_code == 137


@pytest.mark.parametrize("handler", HANDLERS)
def test_what_fails_leaves_nothing(node: Node, handler: str) -> None:
    pod = run_pod(node, handler)
    with pytest.raises(PyrunError, match=f"{handler} create: .*no-such-program"):
        node.create(pod, command=["no-such-program"])
    assert node.call("ListContainers").containers == []
    node.check()


@pytest.mark.parametrize("handler", HANDLERS)
def test_volumes_of_an_image_with_a_read_only_root(node: Node, handler: str) -> None:
    pod = run_pod(node, handler)
    script = (
        "echo kept > /data/in/file; cat /data/in/file; touch /bin/x 2>&1; grep -c ' / overlay ro' /proc/self/mounts"
    )
    linux = {"security_context": {"readonly_rootfs": True, "namespace_options": {"pid": "CONTAINER"}}}
    id = node.run(pod, script=script, linux=linux, image={"image": WITH_VOLUME})
    node.wait_state(id, v1.CONTAINER_EXITED)
    assert node.log()[0] == "kept" and "Read-only file system" in node.log()[1] and node.log()[2] == "1"
    assert f"{pod}/root" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_shared_pid_namespace(node: Node, handler: str) -> None:
    """All of the pod's containers are seen, and the end of one takes what it left running."""
    shared = {"security_context": {"namespace_options": {"pid": "POD"}}}
    pod = run_pod(node, handler, linux=shared)
    first = node.run(pod, "first", "sleep 4322 & exec sleep 4323", linux=shared)
    second = node.run(pod, "second", linux=shared)
    seen = ["sh", "-c", "ps | grep -o 'sleep 432[23]' | sort"]
    _wait(lambda: node.call("ExecSync", container_id=second, cmd=seen).stdout == b"sleep 4322\nsleep 4323\n")
    node.call("StopContainer", container_id=first, timeout=0)
    _wait(lambda: node.call("ExecSync", container_id=second, cmd=seen).stdout == b"")


@pytest.mark.parametrize("handler", HANDLERS)
def test_limits_and_usage(node: Node, handler: str) -> None:
    id = node.run(run_pod(node, handler), script="dd if=/dev/zero of=/file bs=1k count=64; echo done; exec sleep 4324")
    _wait(lambda: "done" in node.log())  # before the first look at it: the next one is half a minute later
    _wait(lambda: node.call("ContainerStats", container_id=id).stats.writable_layer.used_bytes.value >= 65536, 90)
    controllers = (CGROUP_ROOT / "cgroup.controllers").read_text().split()
    pages = {"hugepage_limits": [{"page_size": "2MB", "limit": 0}]}
    if "hugetlb" in controllers:
        with pytest.raises(InvalidArgument, match=f"linux.hugepage_limits: the runtime of handler {handler}"):
            node.call("UpdateContainerResources", container_id=id, linux=pages)
    if "cpu" in controllers:
        node.call("UpdateContainerResources", container_id=id, linux={"cpu_shares": 512})
        cgroup = json.loads(node.call("ContainerStatus", container_id=id, verbose=True).info["info"])["cgroup"]
        assert Path(cgroup, "cpu.weight").read_text() == "20\n"


@pytest.mark.usefixtures("crictl")
@pytest.mark.parametrize("handler", HANDLERS)
def test_by_crictl(node: Node, handler: str) -> None:
    """A terminal in an exec, and attach to a container's."""
    crictl = node.crictl_argv()
    made = node.crictl("runp", "--runtime", handler, node.file("pod", node.pod_config())).ok()
    id = node.run(made.out.strip(), script="read line; echo got $line", tty=True, stdin=True)
    with TerminalSession([*crictl, "exec", "-it", id, "sh", "-c", "tty; read word; echo said $word"]) as session:
        session.read_until(b"/dev/pts/", 60)
        session.press(b"word\r")
        session.read_until(b"said word", 60)
        assert session.wait(60) == 0
    with TerminalSession([*crictl, "attach", "-it", id]) as session:
        session.press(b"words\r")
        session.read_until(b"got words", 60)
        session.wait(60)
    assert node.wait_state(id, v1.CONTAINER_EXITED).exit_code == 0


@pytest.mark.parametrize("handler", HANDLERS)
def test_confined_and_privileged(node: Node, handler: str) -> None:
    """The default profile of seccomp, masked paths and dropped capabilities hold; a privileged one has all, and what it
    mounts in a bidirectional mount is seen on the node."""
    options = {"namespace_options": {"pid": "CONTAINER"}}
    default = {
        "seccomp": {"profile_type": "RuntimeDefault"},
        "masked_paths": ["/proc/uptime"],
        "run_as_user": {"value": 7},
    }
    confined = {"security_context": options | default | {"capabilities": {"drop_capabilities": ["ALL"]}}}
    pod = run_pod(node, handler, linux={"security_context": options | {"privileged": True}})
    script = "grep -E '^(CapBnd|Seccomp|Uid):' /proc/self/status; wc -c < /proc/uptime; mount -t tmpfs x /tmp; echo $?"
    node.wait_state(node.run(pod, script=script + " 2>&1", linux=confined), v1.CONTAINER_EXITED)
    words = " ".join(node.log()).split()
    assert words[:5] == ["Uid:", "7", "7", "7", "7"] and words[5:9] == ["CapBnd:", "0" * 16, "Seccomp:", "2"]
    assert words[9] == "0" and words[-1] != "0"

    shared = node.path / "shared"
    shared.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "shared", shared], check=True)
    try:
        subprocess.run(["mount", "--make-shared", shared], check=True)
        mount = {"container_path": "/v", "host_path": str(shared), "propagation": "PROPAGATION_BIDIRECTIONAL"}
        free = {"security_context": options | {"privileged": True}}
        script = "mkdir /v/in; mount -t tmpfs inner /v/in && echo here > /v/in/file; ls /dev/kmsg; exec sleep 4326"
        id = node.run(pod, "free", script, linux=free, mounts=[mount])
        _wait(lambda: "/dev/kmsg" in node.log("free"))
        assert (shared / "in/file").read_text() == "here\n"
        node.call("StopContainer", container_id=id, timeout=0)
    finally:
        subprocess.run(["umount", "-R", shared], check=True)


def test_what_is_said_of_them(node: Node) -> None:
    """By each runtime's own word; what it does not say is refused by name."""
    status = node.call("Status", verbose=True)
    features = {one.name: one.features for one in status.runtime_handlers}
    installed = [name for name in PEERS if shutil.which(name)]
    assert sorted(features) == sorted(["", "pyrun", *installed])
    assert features["pyrun"].user_namespaces
    for name in installed:
        said = subprocess.run([name, "features"], capture_output=True, text=True, check=False)
        assert features[name].user_namespaces == ("mountExtensions" in said.stdout)
        assert features[name].recursive_read_only_mounts == ('"rro"' in said.stdout)
        pod = run_pod(node, name)
        mount = {"container_path": "/v", "host_path": "/usr", "uidMappings": MAPS, "gidMappings": MAPS}
        if "mountExtensions" not in said.stdout:
            with pytest.raises(InvalidArgument, match=r"mounts.0.uidMappings: the runtime of handler"):
                node.create(pod, mounts=[mount])
        read_only = {"container_path": "/v", "host_path": "/usr", "readonly": True, "recursive_read_only": True}
        if features[name].recursive_read_only_mounts:
            node.create(pod, mounts=[read_only])
        else:
            with pytest.raises(InvalidArgument, match="mounts.0.recursive_read_only: the runtime of handler"):
                node.create(pod, mounts=[read_only])
        node.clear()


@pytest.mark.parametrize("pid", ["CONTAINER", "POD"])
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_user_namespace(node: Node, handler: str, pid: str) -> None:
    """Its root is nobody of the node's, and writes to all of its image; the node keeps its files and mounts."""
    users = {"mode": "POD", "uids": MAPS, "gids": MAPS}
    linux = {"security_context": {"namespace_options": {"pid": pid, "userns_options": users}}}
    pod = run_pod(node, handler, linux=linux)
    shared = node.path / "shared-with-users"
    shared.mkdir(exist_ok=True)
    shared.chmod(0o777)
    mount = {"container_path": "/v", "host_path": str(shared)}
    before = Path("/proc/self/mountinfo").read_text()
    script = "cat /proc/self/uid_map; id -u; touch /bin/x /v/x; hostname; cat /etc/hostname; exec sleep 4327"
    id = node.run(pod, script=script, linux=linux, mounts=[mount], image={"image": WITH_VOLUME})
    _wait(lambda: len(node.log()) == 4)
    assert node.log()[0].split() == ["0", "100000", "65536"] and node.log()[1:] == ["0", "p", "p"]
    assert (shared / "x").stat().st_uid == 100_000
    assert Path("/proc/self/mountinfo").read_text() == before and list(Path("/run/pyrun-root").iterdir()) == []
    done = node.call("ExecSync", container_id=id, cmd=["sh", "-c", "echo a > /data/in/b; ls /bin/x; id -u"])
    assert (done.exit_code, done.stdout) == (0, b"/bin/x\n0\n"), done.stderr
    image = {"container_path": "/i", "image": {"image": WITH_VOLUME}, "readonly": True}
    with pytest.raises(InvalidArgument, match=r"mounts.0.image: the runtime of handler .* in a user namespace"):
        node.create(pod, "image", linux=linux, mounts=[image])


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_nodes_null_stays(node: Node, handler: str) -> None:
    """crun gives an exec's standard streams to its user; with /dev/null that user could take it from the whole node."""
    user = {"security_context": {"namespace_options": {"pid": "CONTAINER"}, "run_as_user": {"value": 7}}}
    id = node.run(run_pod(node, handler), linux=user)
    script = "id -u; chmod 600 /proc/self/fd/0; echo x > /proc/self/fd/0 && cat"
    done = node.call("ExecSync", container_id=id, cmd=["sh", "-c", script])
    assert (done.exit_code, done.stdout) == (0, b"7\n"), done.stderr
    found = os.stat("/dev/null")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (0, 0, 0o666)


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_supervisor_is_killed(node: Node, handler: str) -> None:
    """Nobody hears of its containers any more: they are ended, and the runtime has none of them."""
    pod = run_pod(node, handler)
    running, created = node.run(pod), node.create(pod, "created")
    members = CGROUP_ROOT / f"pyrun/{pod}/pod/cgroup.procs"
    _wait(lambda: len(members.read_text().split()) == 1)  # what the runtime's command began there is on its way out
    os.kill(int(members.read_text()), signal.SIGKILL)
    for id in (running, created):
        assert node.wait_state(id, v1.CONTAINER_EXITED).reason == "Unknown"
    _wait(lambda: not any(runtime_of(node, handler, id) for id in (running, created)))
    node.check()


# --- with a daemon of its own each; last, as its end takes away the cgroup that the others share ---------------------


@pytest.fixture
def own_node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path, busybox_rootfs) as found:
        found.configure(configuration(tmp_path))
        yield found


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_daemon_is_killed(own_node: Node, handler: str) -> None:
    """Containers run on, no line is lost, and the next daemon knows their states and takes them away, though its
    configuration has no such runtime any more. One that can't be run is left out, and said."""
    node = own_node
    node.fork()
    pod = run_pod(node, handler)
    count = "i=0; while :; do i=$((i + 1)); echo $i; sleep 0.01; done"
    runs, waits = node.run(pod, "runs", count), node.create(pod, "waits")
    ends = node.run(pod, "ends", "read line < /gate; exit 5", mounts=[_gate(node)])
    _wait(lambda: node.log("runs") != [])
    node.kill()
    (node.path / "gate").write_text("go\n")
    node.configure('cgroup_driver = "cgroupfs"\n[runtimes.gone]\npath = "/usr/bin/no-such-runtime"\n')
    node.fork()
    assert node.wait_state(ends, v1.CONTAINER_EXITED).exit_code == 5
    assert node.status(runs).state == v1.CONTAINER_RUNNING and node.status(waits).state == v1.CONTAINER_CREATED
    assert node.call("ExecSync", container_id=runs, cmd=["echo", "here"]).stdout == b"here\n"
    node.call("StartContainer", container_id=waits)
    node.call("StopContainer", container_id=runs, timeout=0)
    lines = node.log("runs")
    assert lines == [str(n) for n in range(1, len(lines) + 1)]
    assert "no runtime handler gone: /usr/bin/no-such-runtime" in node.call("Status").status.conditions[0].message
    for name in ("gone", handler):
        with pytest.raises(InvalidArgument, match=f"runtime_handler: there is no '{name}'"):
            node.call("RunPodSandbox", config=node.pod_config("q"), runtime_handler=name)


SLOW = {
    "before": 'case "$*" in *" create "*) echo > {began}; sleep 4325;; esac; exec {real} "$@"',
    "after": 'case "$*" in *" create "*) {real} "$@" || exit; echo > {began}; sleep 4325;; *) exec {real} "$@";; esac',
}


@pytest.mark.parametrize("when", SLOW)
@pytest.mark.parametrize("handler", HANDLERS)
def test_the_daemon_is_killed_while_the_runtime_works(own_node: Node, handler: str, when: str) -> None:
    """Before the runtime has made the container, and after: what was not promised is gone."""
    node = own_node
    slow, began = node.path / "slow", node.path / "began"
    node.configure(f'cgroup_driver = "cgroupfs"\n[runtimes.slow]\npath = "{slow}"\n')
    slow.write_text("#!/bin/sh\n" + SLOW[when].format(began=began, real=program(handler, node.path)) + "\n")
    slow.chmod(0o755)
    node.fork()
    pod = run_pod(node, "slow")
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(node.create, pod)
        _wait(began.exists)
        node.kill()
        with pytest.raises(PyrunError):
            made.result(60)
    node.fork()
    assert node.call("ListContainers").containers == []
    node.check()
    assert list((node.state / "handlers").glob("slow/*")) == []


def _gate(node: Node) -> dict[str, str]:
    path = node.path / "gate"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return {"container_path": "/gate", "host_path": str(path)}


def _wait(done: Callable[[], bool], patience_s: float = 60) -> None:
    last = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < last
        time.sleep(0.01)
