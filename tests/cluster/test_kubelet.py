"""A real kubelet runs pods on `pyrun cri`: what a pod's manifest says happens, and what the kubelet tells of it is so.

One kubelet and one daemon serve all tests here; all pods begin at once, and each test waits for its own. The tests that
kill the kubelet and the daemon come last, under pods that must not notice.
"""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cri.node import BUSYBOX
from tests.support.kube.kubelet import ADDRESS, NAME, PATIENCE_S, UNVERIFIED, URL, Kubelet, is_ready
from tests.support.registry.made import make_image, tree_tar
from tests.support.registry.stub import Stub
from tests.support.streams import client

FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
PODS: dict[str, Callable[[Kubelet], None]] = {}
NON_ROOT = {
    "runAsUser": 1000,
    "runAsGroup": 2000,
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def sh(script: str, **more: Any) -> dict[str, Any]:
    return {"command": ["sh", "-c", script], **more}


def page(port: int) -> str:
    return f"mkdir -p /tmp/www; hostname > /tmp/www/index.html; exec httpd -f -p {port} -h /tmp/www"


def manifest(name: str) -> Callable[[Callable[[Kubelet], None]], Callable[[Kubelet], None]]:
    """Of a pod that begins with the others."""

    def add(run: Callable[[Kubelet], None]) -> Callable[[Kubelet], None]:
        PODS[name] = run
        return run

    return add


@pytest.fixture(scope="module")
def k(kubelet: Kubelet) -> Kubelet:
    """With all pods begun."""
    for run in PODS.values():
        run(kubelet)
    return kubelet


@pytest.fixture(scope="module")
def registry(k: Kubelet) -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.close()


# --- a pod's life -----------------------------------------------------------------------------------------------------


@manifest("web")
def _web(k: Kubelet) -> None:
    data = {"name": "data", "mountPath": "/data"}
    often = {"periodSeconds": 1, "timeoutSeconds": 30}  # a busy machine is slow to ask, and that is no failure
    probes = {
        "startupProbe": {"exec": {"command": ["true"]}, **often},
        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, **often},
        "livenessProbe": {"tcpSocket": {"port": 8080}, **often},
    }
    limits = {"resources": {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}}
    serve = "cat /data/init; echo page > /data/index.html; exec httpd -f -p 8080 -h /data"
    first = sh("echo initialised > /data/init; echo well > /dev/termination-log", name="init", image=BUSYBOX)
    side = sh(FOREVER, name="side", image=BUSYBOX, restartPolicy="Always")
    k.run(
        "web",
        sh(serve, volumeMounts=[data], **probes, **limits),
        sh("wget -qO- http://127.0.0.1:8080/index.html; while :; do sleep 1; done", name="other"),
        initContainers=[{**first, "volumeMounts": [data]}, side],
        volumes=[{"name": "data", "emptyDir": {}}],
    )


def test_a_pod_becomes_ready_and_tells_how(k: Kubelet) -> None:
    status = k.wait_ready("web")
    assert status["phase"] == "Running"
    with urllib.request.urlopen(f"http://{status['podIP']}:8080/index.html", timeout=PATIENCE_S) as answer:
        assert answer.read() == b"page\n"
    init = k.state("web", "init")["state"]["terminated"]
    assert (init["exitCode"], init["reason"], init["message"]) == (0, "Completed", "well\n")
    one = k.state("web")
    assert one["imageID"] and one["image"] == BUSYBOX
    assert one["containerID"].startswith("pyrun://")
    assert k.log("web") == "initialised\n"


def test_exec_and_port_forward_by_the_kubelet(k: Kubelet) -> None:
    k.wait_ready("web")

    async def talk() -> None:
        words = "command=sh&command=-c&command=read%20a%3B%20echo%20got%20%24a%3B%20exit%203&input=1&output=1"
        async with client.command(f"{URL}/exec/default/web-{NAME}/c?{words}", stdin=True, stdout=True) as (_, streams):
            await streams["stdin"].write(b"word\n", fin=True)
            assert await streams["stdout"].read_all() == b"got word\n"
            assert await client.exit_code(streams) == 3
        async with client.spdy(f"{URL}/portForward/default/web-{NAME}", "portforward.k8s.io") as forward:
            words2 = {"port": "8080", "requestid": "1"}
            error = await forward.open(streamtype="error", **words2)
            data = await forward.open(streamtype="data", **words2)
            await data.write(b"GET /index.html HTTP/1.0\r\n\r\n")
            assert (await data.read_all()).endswith(b"page\n")
            assert await error.read_all() == b""

    asyncio.run(talk())


def test_logs_follow_what_is_written(k: Kubelet) -> None:
    k.run("speaker", sh("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.3; done"))
    k.wait_ready("speaker")
    path = f"{URL}/containerLogs/default/speaker-{NAME}/c?follow=true"
    with urllib.request.urlopen(path, timeout=PATIENCE_S, context=UNVERIFIED) as answer:
        assert [answer.readline() for _ in range(5)] == [f"line {number}\n".encode() for number in range(5)]
    k.remove("speaker")


# --- ends and restarts ------------------------------------------------------------------------------------------------


@manifest("crash")
def _crash(k: Kubelet) -> None:
    k.run("crash", sh("echo one more; printf 'because' > /dev/termination-log; exit 3"))


def test_what_fails_begins_again_with_a_back_off_and_says_why(k: Kubelet) -> None:
    one = k.wait(lambda: (s := k.state("crash")).get("restartCount", 0) >= 2 and s)
    last = one["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "because")
    k.wait(lambda: k.state("crash")["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff")
    # The kubelet looks for the container that its last status names, which a restart may have had removed.
    k.wait(lambda: k.log("crash", previous="true") == "one more\n")


@manifest("sick")
def _sick(k: Kubelet) -> None:
    probe = {"exec": {"command": ["cat", "/tmp/well"]}, "periodSeconds": 1, "failureThreshold": 1}
    k.run("sick", sh("mkdir -p /tmp; touch /tmp/well; sleep 2; rm /tmp/well; sleep 1000", livenessProbe=probe))


def test_liveness_ends_it_by_its_grace_and_it_begins_again(k: Kubelet) -> None:
    one = k.wait(lambda: (s := k.state("sick")).get("restartCount", 0) >= 1 and s)
    assert one["lastState"]["terminated"]["exitCode"] == 137


@manifest("once")
def _once(k: Kubelet) -> None:
    k.run(
        "once",
        sh("echo all is well"),
        sh("echo a word of regret >&2; exit 7", name="bad", terminationMessagePolicy="FallbackToLogsOnError"),
        restartPolicy="Never",
    )
    k.run("none", {"command": ["/no/such/program"]})
    k.run("none-once", {"command": ["/no/such/program"]}, restartPolicy="Never")


def test_messages_are_the_programs_own(k: Kubelet) -> None:
    k.wait(lambda: k.pod("once")["status"].get("phase") == "Failed")
    good, bad = (k.wait_ended("once", name) for name in ("c", "bad"))
    assert (good["exitCode"], good["reason"], good.get("message", "")) == (0, "Completed", "")
    assert (bad["exitCode"], bad["reason"], bad["message"]) == (7, "Error", "a word of regret\n")


def test_a_program_that_is_not_there_ends_the_pod(k: Kubelet) -> None:
    """The kubelet begins it again, as anything that ends; where it may not, the pod has failed, and does not wait for
    ever, as one does whose container can't be created."""
    reasons = ("RunContainerError", "CrashLoopBackOff")
    k.wait(lambda: k.state("none").get("state", {}).get("waiting", {}).get("reason") in reasons)
    k.wait(lambda: k.pod("none-once")["status"].get("phase") == "Failed")
    before = k.wait(lambda: k.state("none").get("lastState", {}).get("terminated"))
    for ended in (before, k.wait_ended("none-once")):
        assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
        assert "/no/such/program" in ended["message"]


@manifest("graceful")
def _graceful(k: Kubelet) -> None:
    script = "trap 'echo told; sleep 0.5; echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    hook = {"lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}}
    k.run("graceful", sh(script, **hook), terminationGracePeriodSeconds=60)


def test_deletion_calls_the_hook_then_the_stop_signal_and_waits(k: Kubelet) -> None:
    k.wait_ready("graceful")
    (path,) = (k.path / "logs").glob("default_graceful-*/c/0.log")
    id = k.state("graceful")["containerID"].partition("//")[2]
    running = {"id": id, "state": {"state": "CONTAINER_RUNNING"}}
    with path.open() as log:
        begun = time.monotonic()
        k.remove("graceful")
        k.wait(lambda: not k.node.call("ListContainers", filter=running).containers)
        assert 0.5 < time.monotonic() - begun < 48  # of its grace, which does not end it
        assert [line.split(" ", 3)[3] for line in log.read().splitlines()] == ["up", "hook", "told", "bye"]


# --- what a pod has ---------------------------------------------------------------------------------------------------


@manifest("shared")
def _shared(k: Kubelet) -> None:
    k.run(
        "shared",
        sh("sleep 98765"),
        sh("while :; do ps -o args; sleep 0.5; done", name="see"),
        shareProcessNamespace=True,
    )


def test_processes_are_shared(k: Kubelet) -> None:
    k.wait_ready("shared")
    k.wait(lambda: "sleep 98765" in k.log("shared", "see"))


@manifest("node")
def _node(k: Kubelet) -> None:
    k.run("node", sh(f"hostname; {page(18081)}"), hostNetwork=True)


def test_the_nodes_network(k: Kubelet) -> None:
    k.wait_ready("node")
    k.wait(lambda: _get("http://127.0.0.1:18081/") is not None)


@manifest("port")
def _port(k: Kubelet) -> None:
    k.run("port", sh(page(80), ports=[{"containerPort": 80, "hostPort": 18080}]))


def test_a_port_of_the_node(k: Kubelet) -> None:
    k.wait_ready("port")
    assert k.wait(lambda: _get(f"http://{ADDRESS}:18080/")) == f"port-{NAME}\n".encode()


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            data: bytes = answer.read()
            return data
    except OSError:
        return None


@manifest("safe")
def _safe(k: Kubelet) -> None:
    script = (
        "id -u; id -g; id -G; grep -E '^(Seccomp|NoNewPrivs|CapEff|CapBnd):' /proc/self/status;"
        "touch /file 2>&1; touch /mnt/file && stat -c %g /mnt/file; touch /part/file && echo part;"
        f"{FOREVER}"
    )
    mounts = [
        {"name": "memory", "mountPath": "/mnt"},
        {"name": "memory", "mountPath": "/part", "subPath": "below/it"},
        {"name": "about", "mountPath": "/about"},
    ]
    about = {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}
    volumes = [{"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "about", "downwardAPI": about}]
    k.run(
        "safe",
        sh(script, securityContext=NON_ROOT, volumeMounts=mounts),
        volumes=volumes,
        securityContext={
            "fsGroup": 3000,
            "supplementalGroups": [4000],
            "supplementalGroupsPolicy": "Strict",
            "runAsNonRoot": True,
        },
    )


def test_a_pod_of_the_restricted_kind(k: Kubelet) -> None:
    k.wait_ready("safe")
    k.wait(lambda: "part\n" in k.log("safe") or k.state("safe").get("restartCount"))
    lines = k.log("safe").splitlines()
    assert lines[:2] == ["1000", "2000"]
    assert sorted(lines[2].split()) == ["2000", "3000", "4000"]
    facts = dict(line.split(":\t") for line in lines[3:7])
    assert facts == {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert "Read-only file system" in lines[7]
    assert lines[8:] == ["3000", "part"]
    assert k.state("safe")["user"]["linux"] == {"uid": 1000, "gid": 2000, "supplementalGroups": [2000, 3000, 4000]}


@manifest("users")
def _users(k: Kubelet) -> None:
    mount = [{"name": "data", "mountPath": "/data"}]
    script = f"cat /proc/self/uid_map; touch /data/file; stat -c %u /data/file; {FOREVER}"
    k.run("users", sh(script, volumeMounts=mount), hostUsers=False, volumes=[{"name": "data", "emptyDir": {}}])


def test_a_pod_with_users_of_its_own(k: Kubelet) -> None:
    k.wait_ready("users")
    first, owner = k.wait(lambda: len(lines := k.log("users").splitlines()) >= 2 and lines)
    inside, outside, size = (int(word) for word in first.split())
    assert inside == 0 and outside >= 65536 and size == 65536
    assert owner == "0"


@manifest("image")
def _image(k: Kubelet) -> None:
    mount = [{"name": "image", "mountPath": "/image"}]
    volumes = [{"name": "image", "image": {"reference": BUSYBOX, "pullPolicy": "IfNotPresent"}}]
    k.run("image", sh(f"ls /image/bin/busybox; touch /image/file 2>&1; {FOREVER}", volumeMounts=mount), volumes=volumes)


def test_a_volume_out_of_an_image(k: Kubelet) -> None:
    k.wait_ready("image")
    lines = k.wait(lambda: len(lines := k.log("image").splitlines()) >= 2 and lines)
    assert lines[0] == "/image/bin/busybox" and "Read-only file system" in lines[1]


def test_images_come_from_a_registry(k: Kubelet, registry: Stub) -> None:
    made = make_image([tree_tar(k.node.rootfs)], {"Cmd": ["sh", "-c", FOREVER], "Env": ["PATH=/bin"]})
    name = registry.add("app", "1", made)
    k.run("pulled", {"image": name, "imagePullPolicy": "Always"})
    k.run("missing", {"image": f"{registry.host}/none:1", "imagePullPolicy": "Always"})
    k.wait_ready("pulled")
    assert (k.state("pulled")["image"], k.state("pulled")["imageID"]) == (name, f"{registry.host}/app@{made.top}")
    waiting = k.wait(lambda: k.state("missing").get("state", {}).get("waiting", {}))
    k.wait(lambda: k.state("missing")["state"]["waiting"]["reason"] in ("ErrImagePull", "ImagePullBackOff"))
    assert waiting
    k.remove("missing")


# --- kills ------------------------------------------------------------------------------------------------------------


def _counted(k: Kubelet) -> dict[str, tuple[str, int]]:
    """Of each container that runs in a pod that is ready and stays so: its id and how often it began again."""
    ready = [pod for name, pod in k.pods().items() if is_ready(pod) and name not in ("sick", "crash")]
    all = [one for pod in ready for one in pod["status"]["containerStatuses"]]
    return {one["containerID"]: (one["name"], one["restartCount"]) for one in all}


def test_a_kubelet_that_is_killed_finds_its_pods_again(k: Kubelet) -> None:
    before = _counted(k)
    assert len(before) >= 8
    k.kill()
    k.start()
    k.wait(lambda: before.items() <= _counted(k).items())


def test_a_daemon_that_is_killed_goes_on_with_all_pods(k: Kubelet) -> None:
    before = _counted(k)
    k.node.kill()
    k.node.start()
    k.wait(lambda: json.loads(k.ask("/pods"))["items"])
    time.sleep(3)  # the kubelet looks at all its pods each second, and probes them
    k.wait(lambda: before.items() <= _counted(k).items())  # none of which comes again once it has gone
    k.run("after", sh(FOREVER))
    k.wait_ready("after")
