"""A node that is pyrun alone, of a real control plane: its scheduler, controllers and kubectl do what they do anywhere.

One control plane and one node serve all tests here. Each test has a namespace of its own, and ends what it began.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shlex
import ssl
import struct
import subprocess
import termios
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.kube.certificates import read_pair
from pyrun.kube.client import path
from tests.support.cri.node import BUSYBOX
from tests.support.kube import bootstrap
from tests.support.kube.cluster import Cluster, a_plane_and_node, approve
from tests.support.kube.control_plane import ControlPlane
from tests.support.kube.kubelet import ADDRESS
from tests.support.kube.trust import show_certificates, show_trust_bundles
from tests.support.node.agent import SLEEP, AgentNode, is_ready, sh
from tests.support.registry.made import make_image, tree_tar
from tests.support.registry.stub import Stub

NODE = "n1"


def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The status of its one container."""
    (found,) = pod["status"]["containerStatuses"]
    return dict(found)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[tuple[ControlPlane, AgentNode]]:
    with a_plane_and_node(tmp_path_factory.mktemp("cluster"), busybox_rootfs, NODE) as found:
        yield found


@pytest.fixture
def cluster(running: tuple[ControlPlane, AgentNode], request: pytest.FixtureRequest) -> Iterator[Cluster]:
    plane, agent = running
    namespace = request.node.name.removeprefix("test_").replace("_", "-")[:60]
    plane.admin.create(path("v1", "namespaces"), {"metadata": {"name": namespace}})
    found = Cluster(plane, agent, namespace)
    found.wait(lambda: found.get("serviceaccount", "default"))
    yield found
    found.kubectl("delete", "deployments,pods", "--all", "--timeout=100s")
    found.wait(lambda: not found.get("pods"))
    assert not [pod for pod in agent.pods().values() if pod["metadata"]["namespace"] == namespace]


def test_the_node_is_there_and_ready(cluster: Cluster) -> None:
    """With what a scheduler and people want to know of it, and a lease that goes on."""

    def ready() -> Any:
        found = cluster.get("node", NODE)
        return found if found and is_ready(found) and not found["spec"].get("taints") else None

    node = cluster.wait(ready)
    status = node["status"]
    assert {"type": "InternalIP", "address": ADDRESS} in status["addresses"]
    assert status["capacity"]["pods"] == "110" and status["allocatable"]["memory"].endswith("Ki")
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("pyrun://")
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == NODE
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert set(conditions) == {"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"}

    def lease() -> Any:
        return cluster.plane.admin.get(path("coordination.k8s.io/v1", "leases", "kube-node-lease", NODE))

    first = cluster.wait(lease)
    assert first["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]
    cluster.wait(lambda: lease()["spec"]["renewTime"] > first["spec"]["renewTime"])


def test_a_deployment_runs(cluster: Cluster) -> None:
    """From its creation to its end, and its pods' status is a kubelet's."""
    cluster.kubectl("create", "deployment", "web", f"--image={BUSYBOX}", "--replicas=2", "--", "sh", "-c", SLEEP)
    cluster.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=100s")
    pods = cluster.get("pods")
    assert len(pods) == 2
    for pod in pods:
        status = pod["status"]
        assert status["phase"] == "Running" and status["hostIP"] == ADDRESS and status["podIP"]
        assert status["observedGeneration"] == pod["metadata"]["generation"]
        types = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
        assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(types, "True")
        (container,) = status["containerStatuses"]
        assert container["ready"] and container["started"] and "running" in container["state"]
        assert container["containerID"].startswith("pyrun://")
    first = pods[0]["metadata"]["name"]
    cluster.kubectl("delete", "pod", first)
    assert not cluster.get("pod", first)
    cluster.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=100s")
    cluster.kubectl("delete", "deployment", "web")
    cluster.wait(lambda: not cluster.get("pods"))


def test_a_status_that_the_server_refuses_holds_up_nothing(cluster: Cluster) -> None:
    """Somebody else has written that the container has ended, which can't be taken back."""
    probe = {"exec": {"command": ["test", "-e", "/dev/shm/ready"]}, "periodSeconds": 1}
    cluster.apply(cluster.pod("lied", sh("c", SLEEP, readinessProbe=probe), restartPolicy="Never"))
    running = cluster.wait_pod("lied", lambda pod: pod["status"]["phase"] == "Running")
    ended = {"exitCode": 0, "startedAt": running["status"]["startTime"], "finishedAt": running["status"]["startTime"]}
    lie = [
        {"op": "remove", "path": "/status/containerStatuses/0/state/running"},
        {"op": "add", "path": "/status/containerStatuses/0/state/terminated", "value": ended},
    ]
    cluster.kubectl("patch", "pod", "lied", "--subresource=status", "--type=json", "-p", json.dumps(lie))
    cluster.kubectl("exec", "lied", "--", "touch", "/dev/shm/ready")
    said = cluster.agent.node.said
    cluster.wait(lambda: "/lied: its status is refused: " in said.read_text())
    cluster.kubectl("delete", "pod", "lied", "--timeout=100s")


def test_what_a_pod_refers_to(cluster: Cluster) -> None:
    """ConfigMaps and Secrets in variables and files, and its account's token, which the API server knows."""
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"a": "one"}}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"k": "hidden"}}
    env = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
        {"name": "K", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}},
        {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]
    mounts = [{"name": "conf", "mountPath": "/conf"}]
    volumes = [{"name": "conf", "configMap": {"name": "conf"}}]
    pod = cluster.pod("p", sh("c", SLEEP, env=env, volumeMounts=mounts), volumes=volumes)
    cluster.apply(pod)
    cluster.apply(config, secret)
    there = cluster.wait_ready("p")
    exec = cluster.agent.exec
    assert exec(there, "sh", "-c", "echo $A $K $UID").split() == ["one", "hidden", there["metadata"]["uid"]]
    token = exec(there, "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status = cluster.plane.admin.create(path("authentication.k8s.io/v1", "tokenreviews"), review)["status"]
    assert status["authenticated"]
    assert status["user"]["username"] == f"system:serviceaccount:{cluster.namespace}:default"
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-uid"] == [there["metadata"]["uid"]]
    root = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert exec(there, "cat", f"{root}/namespace") == cluster.namespace
    assert exec(there, "cat", f"{root}/ca.crt") == Path(cluster.plane.ca).read_text()
    cluster.apply({**config, "data": {"a": "two"}})
    cluster.wait(lambda: exec(there, "cat", "/conf/a") == "two")


def test_trust_bundles(cluster: Cluster) -> None:
    show_trust_bundles(cluster)


def test_certificates_of_pods(cluster: Cluster) -> None:
    show_certificates(cluster)


def test_events_and_variables(cluster: Cluster) -> None:
    """What happened to a pod is told by `kubectl describe`, and Services of its namespace are among its variables."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "my-web"}, "spec": {"ports": ports}}
    cluster.apply(service)
    address = cluster.get("service", "my-web")["spec"]["clusterIP"]

    def said() -> bool:
        cluster.apply(cluster.pod("p", sh("c", f"env; {SLEEP}")))
        there = cluster.wait_ready("p")
        text = cluster.agent.exec(there, "sh", "-c", "env")
        return f"MY_WEB_SERVICE_HOST={address}\n" in text and "KUBERNETES_SERVICE_PORT=443\n" in text

    if not cluster.wait(lambda: said() or cluster.kubectl("delete", "pod", "p") and None):
        raise AssertionError("no variables")
    reasons = ("Pulled", "Created", "Started")
    cluster.wait(lambda: all(reason in cluster.kubectl("describe", "pod", "p") for reason in reasons[1:]))
    events = [event for event in cluster.get("events") if event["involvedObject"]["name"] == "p"]
    assert {event["source"]["host"] for event in events if event["source"].get("component") == "kubelet"} == {NODE}


def test_what_the_node_can_not_do_is_told(cluster: Cluster) -> None:
    """A pod that has no room has failed, as with a kubelet; one with a field that is not supported waits."""
    big = cluster.pod("big", sh("c", SLEEP, resources={"requests": {"memory": "9000Gi"}}), nodeName=NODE)
    odd = cluster.pod("odd", sh("c", SLEEP, tty=True, resources={"limits": {"ephemeral-storage": "1Gi"}}))
    cluster.apply(big, odd)
    found = cluster.wait_pod("big", lambda pod: pod["status"]["phase"] == "Failed" and pod)
    assert found["status"]["reason"] == "OutOfmemory"
    found = cluster.wait_pod("odd", lambda pod: pod["status"].get("reason") == "NotSupported" and pod)
    assert found["status"]["phase"] == "Pending"
    assert "/spec/containers/0/resources/limits/ephemeral-storage" in found["status"]["message"]


def test_a_pod_is_resized(cluster: Cluster) -> None:
    """By the API server's own subresource: in place, by a restart where the policy wants one, and for a pod that there
    is no room for once another has gone."""

    def size(cpu: str, memory: str = "96Mi", name: str = "web") -> str:
        limits = {"cpu": cpu, "memory": memory}
        return json.dumps(
            {"spec": {"containers": [{"name": name, "resources": {"requests": limits, "limits": limits}}]}}
        )

    def patch(pod: str, words: str) -> None:
        cluster.kubectl("patch", "pod", pod, "--subresource=resize", "-p", words)

    def conditions(found: Any) -> dict[str, Any]:
        return {c["type"]: c for c in found["status"]["conditions"] if c["type"].startswith("PodResize")}

    def has(found: Any, cpu: str, memory: str = "96Mi") -> bool:
        c = container(found)
        limits = c.get("resources", {}).get("limits")  # nothing is said of one that is not yet made
        same = limits == c.get("allocatedResources") == {"cpu": cpu, "memory": memory}
        return same and not conditions(found) and is_ready(found)

    small = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"cpu": "20m", "memory": "96Mi"}}
    policies = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    cores = os.cpu_count() or 1
    rest = {"requests": {"cpu": f"{cores * 1000 - 300}m"}}
    cluster.apply(
        cluster.pod("web", sh("web", SLEEP, resources=small, resizePolicy=policies), nodeName=NODE),
        cluster.pod("rest", sh("c", SLEEP, resources=rest), nodeName=NODE),
    )
    cluster.wait_ready("rest")
    first = cluster.wait_pod("web", lambda pod: has(pod, "20m") if "containerStatuses" in pod["status"] else None)
    patch("web", size("40m"))
    found = cluster.wait_pod("web", lambda pod: has(pod, "40m"))
    assert container(found)["containerID"] == container(first)["containerID"]
    patch("web", size("40m", "128Mi"))
    found = cluster.wait_pod("web", lambda pod: has(pod, "40m", "128Mi"))
    assert container(found)["restartCount"] == 1
    patch("web", size("400m", "128Mi"))
    found = cluster.wait_pod("web", lambda pod: conditions(pod) and pod)
    told = conditions(found)["PodResizePending"]
    assert (told["reason"], told["status"], container(found)["allocatedResources"]["cpu"]) == (
        "Deferred",
        "True",
        "40m",
    )
    cluster.kubectl("delete", "pod", "rest")
    found = cluster.wait_pod("web", lambda pod: has(pod, "400m", "128Mi"))
    assert container(found)["restartCount"] == 1 and found["status"]["observedGeneration"] == 4
    reasons = {"ResizeStarted", "ResizeDeferred", "ResizeCompleted"}
    cluster.wait(lambda: reasons <= {event["reason"] for event in cluster.get("events")})


def test_the_api_server_is_away(cluster: Cluster) -> None:
    """Pods go on and restart; the agent may be killed meanwhile; what became of them is told when it is back."""
    end = "trap 'exit 3' TERM; while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 3"
    cluster.apply(cluster.pod("on", sh("c", SLEEP)), cluster.pod("ends", sh("c", end)))
    on, ends = cluster.wait_ready("on"), cluster.wait_ready("ends")
    plane, agent = cluster.plane, cluster.agent
    plane.kill("kube-apiserver")
    try:
        agent.exec(ends, "touch", "/tmp/end")
        agent.wait(lambda pods: container(pods["ends"])["restartCount"] == 1 and is_ready(pods["ends"]))
        agent.node.kill()
        agent.node.start()
        assert container(agent.wait_ready("on"))["containerID"] == container(on)["containerID"]
    finally:
        plane.start_api()
    cluster.wait_pod("ends", lambda pod: container(pod)["restartCount"] == 1)
    again = cluster.get("pod", "on")
    assert container(again) == container(on) and again["metadata"]["uid"] == on["metadata"]["uid"]


def test_a_rolling_update(cluster: Cluster) -> None:
    """The new pods come before the old ones go, and only new ones are left."""
    cluster.kubectl("create", "deployment", "web", f"--image={BUSYBOX}", "--replicas=2", "--", "sh", "-c", SLEEP)
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    before = {pod["metadata"]["uid"] for pod in cluster.get("pods")}
    cluster.kubectl("set", "env", "deployment/web", "NEW=1")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    cluster.wait(lambda: len(cluster.get("pods")) == 2)
    pods = cluster.get("pods")
    assert not before & {pod["metadata"]["uid"] for pod in pods} and all(is_ready(pod) for pod in pods)


def test_a_pod_of_a_file_is_shown(cluster: Cluster) -> None:
    """By a mirror, which is made again when somebody deletes it or the pod is resized, and goes with the pod."""
    c = sh("c", SLEEP, resources={"requests": {"cpu": "20m"}})
    manifest = cluster.pod("static", c)
    manifest["metadata"]["namespace"] = cluster.namespace
    path = cluster.agent.write("static", manifest)
    name = f"static-{NODE}"
    first = cluster.wait_ready(name)
    assert first["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    assert first["metadata"]["ownerReferences"][0]["name"] == NODE
    cluster.kubectl("delete", "pod", name, "--wait=false")
    uid = first["metadata"]["uid"]
    again = cluster.wait_pod(name, lambda pod: pod["metadata"]["uid"] != uid and is_ready(pod) and pod)
    assert container(again)["containerID"] == container(first)["containerID"]
    manifest["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "30m"
    cluster.agent.write("static", manifest)

    def resized(pod: Any) -> Any:
        asked = pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "30m"}
        return pod if asked and is_ready(pod) and container(pod)["resources"]["requests"] == {"cpu": "30m"} else None

    larger = cluster.wait_pod(name, resized)
    assert container(larger)["containerID"] == container(first)["containerID"]
    manifest["metadata"]["labels"] = {"new": "words"}
    cluster.agent.write("static", manifest)
    new = cluster.wait_pod(name, lambda pod: pod["metadata"].get("labels") == {"new": "words"} and is_ready(pod))
    assert container(new)["containerID"] != container(first)["containerID"]
    path.unlink()
    cluster.wait(lambda: not cluster.get("pod", name))


def test_an_image_that_not_everybody_may_have(cluster: Cluster) -> None:
    """It comes by the pod's secret, and for a pod without one it does not."""
    registry = Stub()
    try:
        registry.basic = "me", "word"
        name = registry.add("app", "1", make_image([tree_tar(cluster.agent.node.rootfs)], {"Env": ["PATH=/bin"]}))
        words = ("--docker-username=me", "--docker-password=word", f"--docker-server={registry.host}")
        cluster.kubectl("create", "secret", "docker-registry", "login", *words)
        c = sh("c", SLEEP, image=name, imagePullPolicy="Always")
        login = {"imagePullSecrets": [{"name": "login"}]}
        cluster.apply(cluster.pod("may", c, hostname="h", subdomain="s", **login), cluster.pod("not", c))
        there = cluster.wait_ready("may")
        assert f"\th.s.{cluster.namespace}.svc.cluster.local\th\n" in cluster.agent.exec(there, "cat", "/etc/hosts")

        def reason(pod: dict[str, Any]) -> Any:
            found = pod["status"].get("containerStatuses") or [{}]
            return found[0].get("state", {}).get("waiting", {}).get("reason")

        def refused(pod: dict[str, Any]) -> bool:
            return reason(pod) in ("ErrImagePull", "ImagePullBackOff")

        cluster.wait_pod("not", refused)
        here, never = ({**c, "imagePullPolicy": policy} for policy in ("IfNotPresent", "Never"))
        cluster.apply(cluster.pod("not-here", here), cluster.pod("not-ever", never))
        cluster.wait_pod("not-here", refused)
        cluster.wait_pod("not-ever", lambda pod: reason(pod) == "ErrImageNeverPull")
        asked = len(registry.log)
        cluster.apply(cluster.pod("here", here, **login), cluster.pod("ever", never, **login))
        for one in ("here", "ever"):
            cluster.wait_ready(one)
        assert all("Authorization" not in one.headers for one in registry.log[asked:]), "they had shown it before"
    finally:
        registry.close()


def test_kubectl_logs_exec_and_port_forward(cluster: Cluster) -> None:
    """Through the API server, which asks the node's own API, and that asks whether it may."""
    page = "mkdir -p /www; echo hello >/www/index.html; echo serving; exec httpd -f -p 8080 -h /www"
    cluster.apply(cluster.pod("web", sh("c", page)))
    cluster.wait_ready("web")
    cluster.wait(lambda: cluster.kubectl("logs", "web") == "serving\n")
    assert cluster.kubectl("logs", "web", "--tail=1", "--timestamps").endswith("Z serving\n")
    assert cluster.kubectl("exec", "web", "--", "cat", "/www/index.html") == "hello\n"
    assert cluster.kubectl("exec", "-i", "web", "--", "wc", "-c", stdin="four") == "4\n"
    refused = cluster.try_kubectl("exec", "web", "--", "sh", "-c", "exit 7")
    assert refused.returncode == 7, refused
    with cluster.forwarded("web", 8080) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=60) as answer:
            assert answer.read() == b"hello\n"


def test_the_node_s_api_asks_who_is_there_and_what_they_may(cluster: Cluster) -> None:
    port = cluster.get("node", NODE)["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    context = ssl.create_default_context(cafile=cluster.plane.ca)

    def code(token: str, path: str) -> int:
        request = urllib.request.Request(f"https://{ADDRESS}:{port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    account = cluster.kubectl("create", "token", "default").strip()
    assert code("admin-token", "/pods") == 200
    assert code("", "/pods") == 401 == code("nobody's", "/pods")
    assert code(account, "/pods") == 403
    cluster.kubectl("create", "clusterrole", "reads-nodes", "--verb=get", "--resource=nodes/proxy")
    account_name = f"--serviceaccount={cluster.namespace}:default"
    cluster.kubectl("create", "clusterrolebinding", "reads-nodes", "--clusterrole=reads-nodes", account_name)
    try:
        cluster.wait(lambda: code(account, "/pods") == 200)
        assert code(account, "/exec/x/y/z?command=true") == 403, "to read is not to do"
    finally:
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", "reads-nodes")


def test_certificates_are_renewed(cluster: Cluster) -> None:
    """Before they end, by the certificate that there is; the node's API shows the new one at once."""
    agent, plane = cluster.agent, cluster.plane
    root = agent.node.root
    paths = [root / "node" / "credentials" / "client.pem", root / "kubelet" / "approved.pem"]
    agent.node.kill()
    old = [bootstrap.aged(plane, path) for path in paths]
    agent.node.start()

    def shown() -> str:
        return ssl.get_server_certificate((ADDRESS, 10250), timeout=30)

    def renewed(index: int) -> bool:
        found = read_pair(str(paths[index]))
        return found is not None and found.begins > old[index].begins + 86400

    before = shown()
    cluster.wait(lambda: renewed(0))
    approve(plane)
    cluster.wait(lambda: renewed(1) and shown() != before)
    cluster.wait(lambda: json.loads(agent.run("status", "--format", "json").out)["server"]["error"] is None)
    cluster.wait(lambda: not list(root.rglob("*.next")))


def web_deployment(cluster: Cluster, held: Path) -> dict[str, Any]:
    """Two pods that serve a page with the value of V, and end when there is a file `go` in a directory of the node."""
    page = "mkdir /tmp/www; echo $V >/tmp/www/index.html; httpd -f -p 8080 -h /tmp/www & trap 'exit 0' TERM; wait"
    probe = {"httpGet": {"port": 8080, "path": "/index.html"}, "periodSeconds": 1, "timeoutSeconds": 30}
    hold = {"exec": {"command": ["sh", "-c", "while [ ! -e /hold/go ]; do sleep 0.05; done"]}}
    c = sh("c", page, env=[{"name": "V", "value": "1"}], readinessProbe=probe, lifecycle={"preStop": hold})
    c["volumeMounts"] = [{"name": "hold", "mountPath": "/hold"}]
    volumes = [{"name": "hold", "hostPath": {"path": str(held), "type": "Directory"}}]
    pod_spec = cluster.pod("web", c, terminationGracePeriodSeconds=60, volumes=volumes)["spec"]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod_spec}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def test_services_by_the_node_s_own_credentials(cluster: Cluster, tmp_path: Path) -> None:
    """What they lack is told with what gives it; then a Service's name and address lead to its pods, and a rolling
    update costs no request."""
    agent, ns = cluster.agent, cluster.namespace

    def faults() -> list[str]:
        return list(json.loads(agent.run("status", "--format", "json").out)["faults"])

    told = cluster.wait(lambda: len(found := faults()) == 2 and found)
    assert all("forbidden" in line and f'User "system:node:{NODE}" cannot list' in line for line in told)
    (hint,) = {line.partition("hint: ")[2] for line in told}
    for command in hint.split(" && "):
        cluster.kubectl(*shlex.split(command)[1:])
    cluster.wait(lambda: not faults())
    cluster.apply(web_deployment(cluster, tmp_path))
    cluster.kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    cluster.apply(cluster.pod("client", sh("c", SLEEP)))
    client = cluster.wait_ready("client")
    address = cluster.get("service", "web")["spec"]["clusterIP"]
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=100s")
    cluster.wait(lambda: address in agent.exec(client, "nslookup", f"web.{ns}.svc.cluster.local"))
    cluster.wait(
        lambda: "200 OK" in agent.exec(client, "sh", "-c", f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {address} 80")
    )
    said: list[str] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            try:
                with urllib.request.urlopen(f"http://{address}/index.html", timeout=60) as answer:
                    said.append(answer.read().decode().strip())
            except OSError as error:
                said.append(f"{type(error).__name__}: {error}")
            ended.wait(0.01)

    clients = [threading.Thread(target=ask) for _ in range(3)]
    for thread in clients:
        thread.start()
    try:
        cluster.wait(lambda: len(said) > 20)
        cluster.kubectl("set", "env", "deployment/web", "V=2")
        cluster.kubectl("rollout", "status", "deployment/web", "--timeout=100s")
        cluster.wait(lambda: set(said[-40:]) == {"2"})
        (tmp_path / "go").touch()
        cluster.wait(lambda: len(cluster.get("pods")) == 3)
        last = len(said)
        cluster.wait(lambda: len(said) > last + 40)
    finally:
        ended.set()
        (tmp_path / "go").touch()
        for thread in clients:
            thread.join(60)
    assert set(said) == {"1", "2"}, set(said)


def test_kubectl_follows_a_log_and_has_a_terminal(cluster: Cluster) -> None:
    """A log's followers have each line as it comes, and its end; a terminal is one, of the size that people's is."""
    cluster.apply(
        cluster.pod(
            "talks", sh("c", "echo one; until [ -e /tmp/go ]; do sleep 0.05; done; echo two"), restartPolicy="Never"
        )
    )
    there = cluster.wait_ready("talks")
    follow = subprocess.Popen(cluster.command("logs", "-f", "talks"), stdout=subprocess.PIPE, text=True)
    assert follow.stdout is not None
    assert follow.stdout.readline() == "one\n"
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
    shell = subprocess.Popen(
        cluster.command("exec", "-it", "talks", "--", "sh"), stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        # The size comes when the shell has begun, as with any kubelet; the echo of this line has another sign in it.
        sized = "for i in $(seq 600); do [ $(stty size | tr ' ' :) = 33:77 ] && break; sleep 0.1; done"
        os.write(ours, f"test -t 0 && test -t 1 && {sized}; stty size; exit 5\n".encode())
        seen = b""
        with contextlib.suppress(OSError):  # EIO is a terminal's end
            while part := os.read(ours, 4096):
                seen += part
        assert shell.wait(60) == 5 and b"33 77" in seen, seen
    finally:
        os.close(ours)
    subprocess.run(cluster.command("exec", "talks", "--", "touch", "/tmp/go"), check=False)  # it may end with the pod
    assert follow.communicate(timeout=60)[0] == "two\n" and follow.returncode == 0
    cluster.wait_pod(there["metadata"]["name"], lambda pod: pod["status"]["phase"] == "Succeeded")


def test_the_node_shuts_down(cluster: Cluster) -> None:
    """The server knows of its pods and of itself before it ends; when it is back, it is ready again."""
    node = cluster.agent.node
    words = node.words
    cluster.apply(cluster.pod("web", sh("c", SLEEP)))
    cluster.wait_ready("web")
    node.stop()
    node.words = (*words, "--shutdown-on-term", "--shutdown-grace-period", "60")
    node.start()
    cluster.wait_ready("web")
    assert node.stop() == 0, node.said.read_text()
    found = cluster.get("pod", "web")["status"]
    assert (found["phase"], found["reason"]) == ("Failed", "Terminated")
    assert found["message"] == "Pod was terminated in response to imminent node shutdown."
    (target,) = [c for c in found["conditions"] if c["type"] == "DisruptionTarget"]
    assert (target["status"], target["reason"]) == ("True", "TerminationByKubelet")
    (ready,) = [c for c in cluster.get("node", NODE)["status"]["conditions"] if c["type"] == "Ready"]
    assert (ready["status"], ready["message"]) == ("False", "node is shutting down")
    node.words = words
    node.start()
    cluster.wait(lambda: is_ready(cluster.get("node", NODE)))
    assert cluster.get("pod", "web")["status"]["phase"] == "Failed"


def test_a_node_is_drained_and_taken_back(cluster: Cluster) -> None:
    """By its own credentials: no pod is lost that nobody makes anew, a budget is kept, and a pod of a file stays."""
    agent = cluster.agent
    static = cluster.pod("static", sh("c", SLEEP))
    static["metadata"]["namespace"] = cluster.namespace
    manifest = agent.write("static", static)
    cluster.apply(cluster.pod("alone", sh("c", SLEEP)))
    cluster.kubectl("create", "deployment", "web", f"--image={BUSYBOX}", "--", "sh", "-c", SLEEP)
    cluster.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=100s")
    for name in ("alone", f"static-{NODE}"):
        cluster.wait_ready(name)
    cluster.kubectl("create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=1")
    cluster.wait(lambda: "observedGeneration" in cluster.get("poddisruptionbudget", "web")["status"])
    before = {pod["metadata"]["name"] for pod in cluster.get("pods")}
    try:
        agent.run("drain").fails(1, f"nothing was evicted: {cluster.namespace}/alone: no controller", "uncordon")
        assert cluster.get("node", NODE)["spec"]["unschedulable"] is True
        assert {pod["metadata"]["name"] for pod in cluster.get("pods")} == before
        kept = agent.run("drain", "--force", "--timeout", "5")
        kept.fails(1, "not gone in 5 s: ", f"{cluster.namespace}/web-")
        assert "disruption budget" in kept.out and f"static-{NODE} stays: of a file" in kept.out
        cluster.kubectl("delete", "poddisruptionbudget", "web")
        done = agent.run("drain", "--force").ok()
        assert f"{NODE} is drained" in done.out and f"{cluster.namespace}/web-" in done.out
        assert [pod["spec"].get("nodeName") for pod in cluster.get("pods")].count(NODE) == 1
        cluster.wait_ready(f"static-{NODE}")
    finally:
        agent.run("uncordon").ok()
        manifest.unlink()
    cluster.kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=100s")
