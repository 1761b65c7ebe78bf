"""The whole surface of pods and containers by crictl, and what a kubelet relies on beneath it, on a node of the test's
own.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from pyrun import cri_api as v1
from pyrun.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, PyrunError
from pyrun.errors import Unavailable as NoAnswer
from pyrun.rpc.client import call_all
from tests.support.cri.node import BUSYBOX, OWN_PIDS, RPCS, Node, a_node
from tests.support.cri.node import node as node
from tests.support.cri.node import one_node as one_node

NONE = "0" * 64
SHARED = {"security_context": {"namespace_options": {"pid": "POD"}}}


def wait_for_log(node: Node, line: str, name: str = "c", patience_s: float = 10.0) -> None:
    last = time.monotonic() + patience_s
    while line not in node.log(name):
        assert time.monotonic() < last, node.log(name)
        time.sleep(0.01)


# --- by crictl --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("crictl")
def test_tour(node: Node) -> None:
    labels = {"app": "web", "io.kubernetes.pod.name": "p"}
    pod_file = node.file("pod", node.pod_config(labels=labels, annotations={"note": "a"}))
    ctr_file = node.file("ctr", node.container_config(labels={"tier": "front"}, envs=[{"key": "A", "value": "b"}]))
    pod = node.crictl("runp", pod_file).ok().out.strip()
    assert node.crictl("pods", "-q", "--state", "ready", "--label", "app=web").ok().out.strip() == pod
    assert not node.crictl("pods", "-q", "--state", "notready").ok().out
    told = json.loads(node.crictl("inspectp", pod).ok().out)["status"]
    assert (told["id"], told["state"], told["metadata"]["uid"]) == (pod, "SANDBOX_READY", "uid-p")
    assert told["network"]["ip"].startswith("10.86.") and told["labels"] == labels

    ctr = node.crictl("create", pod, ctr_file, pod_file).ok().out.strip()
    assert node.crictl("ps", "-q", "-a", "--state", "Created").ok().out.strip() == ctr
    assert not node.crictl("ps", "-q").ok().out
    node.crictl("start", ctr).ok()
    for filters in (
        ("--name", "c"),
        ("--label", "tier=front"),
        ("--pod", pod),
        ("--id", ctr[:13]),
        ("--image", BUSYBOX),
    ):
        assert node.crictl("ps", "-q", *filters).ok().out.strip() == ctr, filters
    for filters in (("--name", "x"), ("--label", "tier=back"), ("--pod", NONE), ("--id", NONE), ("--state", "Exited")):
        assert not node.crictl("ps", "-q", "-a", *filters).ok().out, filters
    wait_for_log(node, "started")
    assert node.crictl("logs", ctr).ok().out == "started\n"
    node.crictl("exec", "-s", ctr, "sh", "-c", "echo $A; echo err >&2; exit 3").fails(1, "exited with 3: err")
    assert node.crictl("exec", "-s", ctr[:13], "hostname").ok().out.strip() == "p"
    assert node.crictl("exec", ctr, "sh", "-c", "echo streamed $A").ok().out.strip() == "streamed b"
    node.crictl("exec", ctr, "sh", "-c", "exit 4").fails(1, "exit code 4")

    told = json.loads(node.crictl("inspect", ctr).ok().out)
    status, info = told["status"], told["info"]
    assert (status["state"], status["image"]["image"]) == ("CONTAINER_RUNNING", BUSYBOX)
    assert status["logPath"] == str(node.logs / "p" / "c.log") and Path(f"/proc/{info['pid']}").exists()
    node.crictl("stop", "-t", "5", ctr).ok()
    assert node.crictl("ps", "-q", "-a", "--state", "Exited").ok().out.strip() == ctr
    status = json.loads(node.crictl("inspect", ctr).ok().out)["status"]
    assert (status["state"], status["exitCode"], status["reason"]) == ("CONTAINER_EXITED", 7, "Error")
    assert node.crictl("logs", ctr).ok().out == "started\nbye\n"
    node.check()
    node.crictl("rm", ctr).ok()
    assert not node.crictl("ps", "-q", "-a").ok().out
    node.crictl("stopp", pod).ok()
    node.crictl("stopp", pod).ok()
    assert node.crictl("pods", "-q", "--state", "notready").ok().out.strip() == pod
    node.check()
    node.crictl("rmp", pod).ok()
    assert not node.crictl("pods", "-q").ok().out
    node.crictl("inspect", ctr).fails(1, "NotFound")
    node.crictl("inspectp", pod).fails(1, "NotFound")


@pytest.mark.usefixtures("crictl")
def test_force_removes_what_runs(node: Node) -> None:
    pod = node.run_pod()
    ctr = node.run(pod)
    node.crictl("rm", "-f", ctr).ok()
    node.run(pod, "other")
    node.crictl("rmp", "-f", pod).ok()
    node.check()
    assert not node.call("ListContainers").containers


# --- pods -------------------------------------------------------------------------------------------------------------


def test_three_containers_share_the_loopback(node: Node) -> None:
    pod = node.run_pod()
    node.run(pod, "server", "mkdir /www; echo served >/www/page; echo ready; httpd -f -p 127.0.0.1:8080 -h /www")
    wait_for_log(node, "ready", "server")
    ask = "until wget -q -O - http://localhost:8080/page; do sleep 0.05; done; hostname"
    for name in ("one", "two"):
        id = node.run(pod, name, ask)
        assert node.wait_state(id, v1.CONTAINER_EXITED).exit_code == 0
        assert node.log(name) == ["served", "p"]


def test_shared_pid_namespace(node: Node) -> None:
    pod = node.run_pod(linux=SHARED)
    node.run(pod, "one", "echo here; exec sleep 1234", linux=SHARED)
    wait_for_log(node, "here", "one")
    id = node.run(pod, "two", "echo $$; ps | grep -c '[s]leep 1234'", linux=SHARED)
    assert node.wait_state(id, v1.CONTAINER_EXITED).exit_code == 0
    mine, seen = node.log("two")
    assert seen == "1" and int(mine) > 1
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    node.check()


def test_the_same_pod_again_joins(node: Node) -> None:
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(node.run_pod())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (pod,) = set(found)
    assert len(found) == 5 and [item.id for item in node.call("ListPodSandbox").items] == [pod]
    with pytest.raises(AlreadyExists):
        node.run_pod(labels={"other": "label"})
    found.clear()
    threads = [threading.Thread(target=lambda: found.append(node.create(pod))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (ctr,) = set(found)
    assert len(found) == 5 and node.create(pod) == ctr
    with pytest.raises(AlreadyExists):
        node.create(pod, script="true")
    node.check()


def test_a_client_that_gives_up_finds_its_pod(node: Node) -> None:
    rpc = RPCS["RunPodSandbox"]
    request = json_format.ParseDict({"config": node.pod_config()}, rpc.request())
    with pytest.raises((NoAnswer, DeadlineExceeded)):
        call_all(str(node.socket), [(rpc, request)], 0.004)
    pod = node.run_pod()
    assert [item.id for item in node.call("ListPodSandbox").items] == [pod]
    node.check()


def test_nothing_is_made_in_a_pod_that_has_stopped(node: Node) -> None:
    pod = node.run_pod()
    ctr = node.create(pod)
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    assert node.wait_state(ctr, v1.CONTAINER_EXITED).exit_code == 137
    for rpc, words in (("StartContainer", {"container_id": ctr}), ("ExecSync", {"container_id": ctr, "cmd": ["true"]})):
        with pytest.raises(FailedPrecondition):
            node.call(rpc, **words)
    with pytest.raises(FailedPrecondition):
        node.create(pod, "other")


def test_a_pod_that_can_not_be_made_leaves_nothing(node: Node) -> None:
    with pytest.raises(PyrunError):
        node.run_pod(linux={"sysctls": {"net.no.such": "1"}})
    with pytest.raises(PyrunError):
        node.run_pod(annotations={"kubernetes.io/ingress-bandwidth": "1M"})
    assert not node.call("ListPodSandbox").items
    node.check()


# --- containers -------------------------------------------------------------------------------------------------------

ENDS = {
    "exit 0": (0, "Completed"),
    "exit 3": (3, "Error"),
    "kill -9 $$": (0, "Completed"),  # process 1 of a PID namespace can't kill itself
    "sh -c 'kill -9 $$'; exit $?": (137, "Error"),
}


@pytest.mark.parametrize("script", ENDS)
def test_ends(node: Node, script: str) -> None:
    id = node.run(node.run_pod(), script=script)
    status = node.wait_state(id, v1.CONTAINER_EXITED)
    assert (status.exit_code, status.reason) == ENDS[script]
    assert status.created_at < status.started_at <= status.finished_at
    node.check()


# As with containerd it is the start that fails, so that a pod which is not begun again ends and does not wait for ever.
CANNOT_RUN: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"command": ["/no/such"]}, 'exec: "/no/such": stat /no/such: no such file or directory'),
    "not-on-path": ({"command": ["nosuch"]}, 'exec: "nosuch": executable file not found in \\$PATH'),
    "no-program": ({"command": ["/program"]}, 'exec: "/program": '),
    "not-executable": ({"command": ["/text"]}, 'exec: "/text": permission denied'),
    "a-directory": ({"command": ["/bin"]}, 'exec: "/bin": permission denied: is a directory'),
    "directory-is-a-file": ({"working_dir": "/text"}, 'chdir to cwd \\("/text"\\)'),
}


def test_a_program_that_can_not_be_run(node: Node, tmp_path: Path) -> None:
    pod = node.run_pod()
    program, text = tmp_path / "program", tmp_path / "text"
    program.write_bytes(b"\x7fELF and no more")
    program.chmod(0o755)
    text.write_text("no program")
    text.chmod(0o644)
    mounts = [{"container_path": f"/{p.name}", "host_path": str(p)} for p in (program, text)]
    for name, (config, words) in CANNOT_RUN.items():
        id = node.create(pod, name, mounts=mounts, **config)
        assert node.status(id).state == v1.CONTAINER_CREATED
        with pytest.raises(PyrunError, match=words):
            node.call("StartContainer", container_id=id)
        status = node.wait_state(id, v1.CONTAINER_EXITED)
        assert (status.exit_code, status.reason) == (128, "StartError")
        assert re.search(words, status.message), status.message
        with pytest.raises(FailedPrecondition):
            node.call("StartContainer", container_id=id)
    node.check()


def test_oom(node: Node) -> None:
    script = "dd if=/dev/zero of=/dev/null bs=200M count=1; exit 9"
    id = node.run(node.run_pod(), script=script, linux={**OWN_PIDS, "resources": {"memory_limit_in_bytes": 32 << 20}})
    status = node.wait_state(id, v1.CONTAINER_EXITED)
    if "memory" in Path("/sys/fs/cgroup/cgroup.controllers").read_text().split():
        assert (status.exit_code, status.reason) == (137, "OOMKilled")
    else:
        assert (status.reason, status.message) == ("Error", "")
        info = json.loads(node.call("ContainerStatus", container_id=id, verbose=True).info["info"])
        assert any("memory" in text for text in info["warnings"])  # the limit was left out, and that is said


def test_a_second_stop_shortens_the_first(node: Node) -> None:
    id = node.run(node.run_pod(), script="trap 'echo term' TERM; echo started; while :; do sleep 0.02; done")
    wait_for_log(node, "started")
    begun = time.monotonic()
    first = threading.Thread(target=lambda: node.call("StopContainer", container_id=id, timeout=30))
    first.start()
    wait_for_log(node, "term")
    node.call("StopContainer", container_id=id, timeout=1)
    first.join()
    assert 0.9 < time.monotonic() - begun < 10
    assert node.log() == ["started", "term"]
    assert node.status(id).exit_code == 137


def test_what_has_not_started_is_stopped_at_once(node: Node) -> None:
    id = node.create(node.run_pod())
    begun = time.monotonic()
    node.call("StopContainer", container_id=id, timeout=30)
    assert time.monotonic() - begun < 5
    assert node.status(id).state == v1.CONTAINER_EXITED


def test_starting_twice(node: Node) -> None:
    id = node.run(node.run_pod(), script="echo started; exit 0")
    node.wait_state(id, v1.CONTAINER_EXITED)
    with pytest.raises(FailedPrecondition):
        node.call("StartContainer", container_id=id)
    assert node.log() == ["started"]


def test_an_exec_that_takes_too_long(node: Node) -> None:
    id = node.run(node.run_pod())
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        node.call("ExecSync", container_id=id, cmd=["sh", "-c", "sleep 4321 & sleep 4321"], timeout=1)
    assert time.monotonic() - begun < 5
    left = node.call("ExecSync", container_id=id, cmd=["sh", "-c", "ps | grep -c '[s]leep 4321'"])
    assert left.stdout == b"0\n"
    with pytest.raises(PyrunError, match="/no/such"):
        node.call("ExecSync", container_id=id, cmd=["/no/such"])


def test_a_log_that_is_rotated(node: Node) -> None:
    id = node.run(node.run_pod(), script="i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done")
    log = node.logs / "p" / "c.log"
    wait_for_log(node, "3")
    log.rename(node.logs / "p" / "c.log.1")
    node.call("ReopenContainerLog", container_id=id)
    first = node.log("c.log.1".removesuffix(".log"))
    wait_for = time.monotonic() + 60
    while not node.log():
        assert time.monotonic() < wait_for
        time.sleep(0.01)
    node.call("StopContainer", container_id=id, timeout=0)
    old = [line.split(" ", 3)[3] for line in (node.logs / "p" / "c.log.1").read_text().splitlines()]
    assert not first and [*old, *node.log()] == [str(i + 1) for i in range(len(old) + len(node.log()))]
    with pytest.raises(FailedPrecondition):
        node.call("ReopenContainerLog", container_id=id)


def test_unknown_ids(node: Node) -> None:
    for rpc in ("StopPodSandbox", "RemovePodSandbox"):
        node.call(rpc, pod_sandbox_id=NONE)
    for rpc in ("StopContainer", "RemoveContainer"):
        node.call(rpc, container_id=NONE)
    for rpc in ("StartContainer", "ContainerStatus", "ReopenContainerLog", "ExecSync", "UpdateContainerResources"):
        with pytest.raises(NotFound):
            node.call(rpc, container_id=NONE)
    with pytest.raises(NotFound):
        node.call("PodSandboxStatus", pod_sandbox_id=NONE)
    with pytest.raises(NotFound):
        node.create(NONE)


def test_an_image_that_is_not_there(node: Node) -> None:
    pod = node.run_pod()
    with pytest.raises(NotFound):
        node.create(pod, image={"image": "registry.test/none:1"})
    with pytest.raises(InvalidArgument):
        node.create(pod, image={"image": ""})
    node.check()


def test_what_tools_look_for_in_the_verbose_info(node: Node) -> None:
    """The pod's network to enter, the container's process and its config.json; after its end what is still known."""
    pod = node.run_pod()
    id = node.run(pod, envs=[{"key": "A", "value": "eA=="}])

    def info(rpc: str, **words: str) -> Any:
        return json.loads(node.call(rpc, verbose=True, **words).info["info"])

    told = info("PodSandboxStatus", pod_sandbox_id=pod)
    paths = {one["type"]: one["path"] for one in told["runtimeSpec"]["linux"]["namespaces"]}
    assert set(paths) == {"network", "ipc", "uts"} and told["config"]["metadata"]["uid"] == "uid-p"
    told = info("ContainerStatus", container_id=id)
    assert os.stat(f"/proc/{told['pid']}/ns/net").st_ino == os.stat(paths["network"]).st_ino
    assert told["sandboxID"] == pod and "A=x" in told["runtimeSpec"]["process"]["env"] and not told["privileged"]
    assert told["config"]["image"] == {"image": BUSYBOX} and told["config"]["command"][:2] == ["sh", "-c"]
    node.call("StopContainer", container_id=id)
    told = info("ContainerStatus", container_id=id)
    assert told["pid"] == 0 and "runtimeSpec" not in told and told["config"]["log_path"] == "c.log"
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    assert "runtimeSpec" not in info("PodSandboxStatus", pod_sandbox_id=pod)


def test_a_privileged_container_needs_a_privileged_pod(node: Node) -> None:
    pod = node.run_pod()
    free = {"security_context": {"namespace_options": {"pid": "CONTAINER"}, "privileged": True}}
    with pytest.raises(InvalidArgument, match="linux.security_context.privileged: pod .* is not"):
        node.create(pod, linux=free)
    node.check()


@pytest.mark.usefixtures("crictl")
def test_an_answer_is_no_larger_than_a_client_takes(node: Node) -> None:
    """Of a command that writes more, the beginnings of both streams."""
    id = node.run(node.run_pod())
    script = "head -c 20000000 /dev/zero | tr '\\0' a; head -c 20000000 /dev/zero | tr '\\0' b >&2"
    done = node.crictl("exec", "-s", id, "sh", "-c", script).ok()
    found = done.out.count("a"), done.out.count("b")  # crictl puts both on its output
    assert min(found) >= 8_000_000, found


def test_a_device_of_cdi(tmp_path: Path, busybox_rootfs: Path) -> None:
    """By a vendor's spec in a directory of the node's: the device, a variable, a mount, a group and a hook."""
    # One that no container has without asking, and that may be opened without a right.
    real = next((path for path in ("/dev/fuse", "/dev/net/tun", "/dev/loop-control") if os.path.exists(path)), "")
    if not real:
        pytest.skip("this node has none of the devices that would do")
    directory, library, told = tmp_path / "cdi", tmp_path / "library", tmp_path / "told"
    directory.mkdir()
    library.write_text("the vendor's")
    edits = {
        "env": ["VENDOR=one"],
        "deviceNodes": [{"path": "/dev/vendor0", "hostPath": real, "permissions": "r"}],
        "mounts": [{"hostPath": str(library), "containerPath": "/lib/vendor", "options": ["ro", "bind"]}],
        "additionalGids": [4444],
        "hooks": [{"hookName": "createRuntime", "path": "/bin/sh", "args": ["sh", "-c", f"cat > {told}"]}],
    }
    spec = {"cdiVersion": "1.0.0", "kind": "vendor.test/device", "devices": [{"name": "0", "containerEdits": edits}]}
    (directory / "vendor.json").write_text(json.dumps(spec))
    config = tmp_path / "config.toml"
    config.write_text(f'cni_conf_dir = ""\ncdi_dirs = ["{directory}"]\n')
    with a_node(tmp_path / "node", busybox_rootfs) as node:
        node.config = str(config)
        node.start()
        script = "true </dev/vendor0 && echo $VENDOR; cat /lib/vendor; echo; id -G; true >/dev/vendor0"
        pod = node.run_pod()
        id = node.run(pod, script=script, CDI_devices=[{"name": "vendor.test/device=0"}])
        assert node.wait_state(id, v1.CONTAINER_EXITED).exit_code == 1
        lines = [line.strip() for line in node.log()]
        assert lines[:2] == ["one", "the vendor's"] and "4444" in lines[2].split()
        assert "not permitted" in lines[3]  # it may be read, and no more
        assert json.loads(told.read_text())["status"] in ("creating", "created")
        with pytest.raises(InvalidArgument, match=r"CDI_devices.0: vendor.test/device=1 is in no spec"):
            node.create(pod, "other", CDI_devices=[{"name": "vendor.test/device=1"}])
