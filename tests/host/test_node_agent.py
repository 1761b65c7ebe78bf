"""The node agent on a real runtime: pods of files come, are kept and go, whatever happens to the agent meanwhile."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.container.leaks import CGROUP_ROOT
from tests.support.container.runner import runtime_argv
from tests.support.kube.authority import Authority
from tests.support.node.agent import SLEEP, WAIT, AgentNode, an_agent, is_ready, pod, sh
from tests.support.node.manifest_server import ManifestServer, a_manifest_server


@pytest.fixture(scope="module")
def one_agent(tmp_path_factory: pytest.TempPathFactory, busybox_rootfs: Path) -> Iterator[AgentNode]:
    with an_agent(tmp_path_factory.mktemp("agent"), busybox_rootfs) as agent:
        yield agent


@pytest.fixture
def agent(one_agent: AgentNode) -> Iterator[AgentNode]:
    yield one_agent
    one_agent.clear()


def test_a_pod_of_a_file(agent: AgentNode) -> None:
    path = agent.write("web", pod("web", sh("c", SLEEP)))
    found = agent.wait_ready("web")
    status = found["status"]
    assert status["phase"] == "Running" and status["podIP"].startswith("10.86.")
    assert [c["restartCount"] for c in status["containerStatuses"]] == [0]
    assert found["metadata"]["annotations"]["pyrun.dev/manifest"] == str(path)
    path.unlink()
    agent.wait(lambda pods: not pods)


def test_a_container_that_crashes_runs_again(agent: AgentNode) -> None:
    script = f"echo said >/dev/termination-log; [ -e /dev/shm/second ] || {{ touch /dev/shm/second; exit 3; }}; {SLEEP}"
    agent.write("crash", pod("crash", sh("c", script)))
    found = agent.wait(lambda pods: "crash" in pods and _restarts(pods["crash"]) == 1 and pods["crash"])
    last = found["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert (last["exitCode"], last["reason"], last["message"]) == (3, "Error", "said\n")
    agent.wait_ready("crash")


def test_all_containers_restart_with_one_that_asks_for_it(agent: AgentNode) -> None:
    """In the same sandbox, whose /dev/shm stays; the one that runs is killed."""
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
    asks = sh("asks", f"[ -e /dev/shm/second ] || {{ touch /dev/shm/second; exit 42; }}; {SLEEP}")
    asks |= {"restartPolicy": "Never", "restartPolicyRules": [rule]}
    init = [sh("setup", "true")]
    made = pod("anew", asks, sh("runs", SLEEP), initContainers=init, restartPolicy="Never")
    agent.write("anew", made)

    def again(pods: dict[str, Any]) -> Any:
        found = pods.get("anew")
        return found if found and is_ready(found) and _restarts(found) else None

    status = agent.wait(again)["status"]
    every = {c["name"]: c for c in [*status["initContainerStatuses"], *status["containerStatuses"]]}
    assert {name: c["restartCount"] for name, c in every.items()} == {"setup": 1, "asks": 1, "runs": 1}
    assert every["asks"]["lastState"]["terminated"]["exitCode"] == 42
    assert every["runs"]["lastState"]["terminated"]["reason"] == "RestartingAllContainers"
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert (conditions["AllContainersRestarting"], conditions["Initialized"]) == ("False", "True")


def sized(memory: str, policy: str) -> dict[str, Any]:
    """A pod of two containers that have as much as they may: one takes its memory only from its start."""
    limits = {"limits": {"cpu": "300m", "memory": memory}}
    policies = [{"resourceName": "memory", "restartPolicy": policy}]
    keeps = sh("keeps", SLEEP, resources=limits)
    return pod("sized", keeps, sh("anew", SLEEP, resources=limits, resizePolicy=policies))


def _cgroup_files(agent: AgentNode, found: dict[str, Any]) -> dict[str, str]:
    """memory.max of the pod and its containers, where this machine can limit memory at all."""
    top = CGROUP_ROOT / f"kubepods/pod{found['metadata']['uid']}"
    places = {"pod": top}
    for c in found["status"]["containerStatuses"]:
        places[c["name"]] = top / c["containerID"].removeprefix("pyrun://")
    files = {name: place / "memory.max" for name, place in places.items()}
    return {name: file.read_text().strip() for name, file in files.items() if file.exists()}


def resized(before: dict[str, Any], memory: str) -> Callable[[dict[str, Any]], Any]:
    """The same pod, once all of it is ready and has that memory."""

    def look(pods: dict[str, Any]) -> Any:
        found = pods.get("sized")
        if not found or not is_ready(found):
            return None
        assert found["metadata"]["uid"] == before["metadata"]["uid"]
        same = all(c["resources"]["limits"]["memory"] == memory for c in found["status"]["containerStatuses"])
        settled = not any(c["type"].startswith("PodResize") for c in found["status"]["conditions"])
        return found if same and settled else None

    return look


def test_a_changed_file_resizes_its_pod_in_place(agent: AgentNode) -> None:
    """It is the same pod with the same container; the one that wants a restart for it has one. What never fits is told,
    and the pod goes on."""
    agent.write("sized", sized("96Mi", "RestartContainer"))
    first = agent.wait_ready("sized")
    agent.write("sized", sized("160Mi", "RestartContainer"))
    larger = agent.wait(resized(first, "160Mi"))
    assert [(c["name"], c["restartCount"]) for c in larger["status"]["containerStatuses"]] == [
        ("keeps", 0),
        ("anew", 1),
    ]
    told = agent.run("describe", "sized").ok().out
    assert "ResizeStarted" in told and "ResizeCompleted" in told
    wanted = {"pod": str(320 << 20), "keeps": str(160 << 20), "anew": str(160 << 20)}
    assert _cgroup_files(agent, larger) in (wanted, {})  # {}: no controller of memory here; guests have it
    agent.write("sized", sized("9000Gi", "RestartContainer"))
    pending = agent.wait(lambda pods: _condition(pods["sized"], "PodResizePending"))
    statuses = agent.pods()["sized"]["status"]["containerStatuses"]
    assert pending["reason"] == "Infeasible" and "9000Gi" not in str(statuses)
    agent.write("sized", sized("160Mi", "RestartContainer"))
    last = agent.wait(resized(first, "160Mi"))
    assert [c["restartCount"] for c in last["status"]["containerStatuses"]] == [0, 1]


def test_resources_of_a_pod_as_a_whole(agent: AgentNode) -> None:
    """They are its cgroup's, and those of a container that has none of its own."""
    own = {"requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}
    most = {"cpu": "300m", "memory": "128Mi"}
    whole = {"limits": most, "requests": most}
    agent.write("whole", pod("whole", sh("own", WAIT, resources=own), sh("none", WAIT), resources=whole))
    found = agent.wait_ready("whole")
    assert found["status"]["qosClass"] == "Guaranteed"
    files = _cgroup_files(agent, found)
    assert files in ({}, {"pod": str(128 << 20), "own": str(64 << 20), "none": str(128 << 20)})


def test_a_changed_file_of_a_pod_that_waits_or_is_over(agent: AgentNode) -> None:
    """One that has no room has it with less; one that is over is another pod."""

    def asks(name: str, script: str, memory: str, **spec: Any) -> dict[str, Any]:
        return pod(name, sh("c", script, resources={"requests": {"memory": memory}}), **spec)

    agent.write("waits", asks("waits", SLEEP, "9000Gi"))
    agent.write("over", asks("over", "exit 0", "16Mi", restartPolicy="Never"))
    agent.wait(lambda pods: pods.get("waits", {}).get("status", {}).get("reason") == "OutOfmemory")
    over = agent.wait_phase("over", "Succeeded")
    agent.write("waits", asks("waits", SLEEP, "16Mi"))
    agent.write("over", asks("over", "exit 0", "17Mi", restartPolicy="Never"))
    agent.wait_ready("waits")
    agent.wait(lambda pods: "over" in pods and pods["over"]["metadata"]["uid"] != over["metadata"]["uid"])
    agent.wait_phase("over", "Succeeded")


def test_what_a_resize_can_not_take_back_is_a_pod_of_the_first_words(agent: AgentNode) -> None:
    """A limit comes while it runs, and goes with the pod alone."""

    def asks(**resources: Any) -> dict[str, Any]:
        return pod("back", sh("c", SLEEP, resources={"requests": {"memory": "16Mi"}, **resources}))

    def of(pods: dict[str, Any]) -> dict[str, Any]:
        found: list[dict[str, Any]] = pods.get("back", {}).get("status", {}).get("containerStatuses") or [{}]
        return found[0]

    agent.write("back", asks())
    first = agent.wait_ready("back")["status"]["containerStatuses"][0]
    agent.write("back", asks(limits={"memory": "96Mi"}))
    limited = agent.wait(lambda pods: "limits" in of(pods).get("resources", {}) and of(pods))
    assert limited["containerID"] == first["containerID"]
    agent.write("back", asks())
    agent.wait(lambda pods: of(pods).get("ready") and of(pods)["containerID"] != first["containerID"])
    assert "limits" not in of(agent.pods())["resources"]


def _condition(found: dict[str, Any], type: str) -> dict[str, Any] | None:
    return next((c for c in found["status"]["conditions"] if c["type"] == type), None)


def _restarts(found: dict[str, Any]) -> int:
    return int(found["status"]["containerStatuses"][0]["restartCount"])


CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"color": "red", "size": "2"}}
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"word": "open sesame"}}


def whole_pod() -> dict[str, Any]:
    """One that takes variables and files from everywhere, and has init containers and a sidecar."""
    show = (
        "echo $COLOR $PRE_size $WORD $NAME $IP $CPU $MADE $WHOLE; cat /conf/color /labels; cat /etc/hosts >/data/hosts;"
        ' echo "$0" "$1"; cat /data/order; '
    )
    ref = {"configMapKeyRef": {"name": "conf", "key": "color"}}
    secret = {"secretKeyRef": {"name": "key", "key": "word"}}
    env = [
        {"name": "COLOR", "valueFrom": ref},
        {"name": "WORD", "valueFrom": secret},
        {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "gone", "key": "x", "optional": True}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "MADE", "valueFrom": {"fileKeyRef": {"volumeName": "data", "path": "env", "key": "MADE"}}},
        {"name": "WHOLE", "value": "$(NAME)-$(COLOR)-$$(NAME)-$(NOBODY)"},
    ]
    data = {"name": "data", "mountPath": "/data"}
    main = {
        "name": "main",
        "image": "registry.test/busybox:1",
        "command": ["sh", "-c", show + SLEEP, "$(NAME)"],
        "args": ["$(COLOR)"],
        "env": env,
        "envFrom": [{"configMapRef": {"name": "conf"}, "prefix": "PRE_"}],
        "resources": {"requests": {"cpu": "20m"}},
        "volumeMounts": [data, {"name": "conf", "mountPath": "/conf"},
                         {"name": "down", "mountPath": "/labels", "subPath": "labels"}],
    }  # fmt: skip
    volumes = [
        {"name": "data", "emptyDir": {}},
        {"name": "conf", "configMap": {"name": "conf"}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    inits = [
        sh("one", "echo one >>/data/order; echo \"MADE='by one'\" >/data/env", volumeMounts=[data]),
        sh("side", f"echo side >>/data/order; {SLEEP}", volumeMounts=[data], restartPolicy="Always",
           startupProbe={"exec": {"command": ["test", "-e", "/data/order"]}, "periodSeconds": 1}),
        sh("two", "echo two >>/data/order", volumeMounts=[data]),
    ]  # fmt: skip
    wanted = pod(
        "whole",
        main,
        initContainers=inits,
        volumes=volumes,
        hostAliases=[{"ip": "10.9.9.9", "hostnames": ["elsewhere"]}],
    )
    wanted["metadata"]["labels"] = {"app": "web"}
    return wanted


def test_variables_files_and_order(agent: AgentNode) -> None:
    """Init containers in order, a sidecar among them, and what containers are told by variables and files."""
    agent.write("whole", whole_pod())
    found = agent.wait(lambda pods: "whole" in pods and pods["whole"])
    assert found["status"]["phase"] == "Pending"
    agent.wait(lambda pods: "FailedMount" in agent.run("describe", "whole").out)  # its ConfigMap is not there yet
    agent.write("conf", CONFIG, SECRET)
    found = agent.wait_ready("whole")
    agent.wait(lambda _: "two" in agent.run("logs", "whole").out.splitlines())  # the last that it says
    lines = agent.run("logs", "whole").ok().out.splitlines()
    ip = found["status"]["podIP"]
    assert lines[0] == f"red 2 open sesame whole {ip} 20 by one whole-red-$(NAME)-$(NOBODY)"
    assert lines[1:] == ['redapp="web"whole red', "one", "side", "two"]
    hosts = (agent.node.root / "node/volumes" / found["metadata"]["uid"] / "data/hosts").read_text()
    assert f"{ip}\twhole\n" in hosts and "10.9.9.9\telsewhere\n" in hosts
    agent.write("conf", {**CONFIG, "data": {"color": "blue"}}, SECRET)
    agent.wait(lambda pods: agent.exec(pods["whole"], "cat", "/conf/color") == "blue")
    assert agent.run("get", "configmaps").ok().out.split() == ["NAME", "DATA", "conf", "1"]
    assert "sesame" not in agent.run("get", "secrets").ok().out


def test_a_whole_host_name_and_groups_of_the_pod_alone(agent: AgentNode) -> None:
    one = pod("one", sh("c", f"hostname; grep one /etc/hosts; echo said; {WAIT}"), hostname="one", subdomain="sub",
              setHostnameAsFQDN=True)  # fmt: skip
    strict = {"supplementalGroups": [4000], "supplementalGroupsPolicy": "Strict", "runAsUser": 0, "runAsGroup": 0}
    two = pod(
        "two", sh("c", f"hostname; id -G; echo said; {WAIT}"), hostnameOverride="two.example", securityContext=strict
    )
    agent.write("names", one, two)
    agent.wait_ready("one")
    found = agent.wait_ready("two")
    user = found["status"]["containerStatuses"][0]["user"]["linux"]
    assert user == {"uid": 0, "gid": 0, "supplementalGroups": [0, 4000]}
    agent.wait(lambda _: all("said" in agent.run("logs", name).out for name in ("one", "two")))
    whole = "one.sub.default.svc.cluster.local"
    hosts = [f"{one['ip']}\t{whole}\tone" for one in agent.pods()["one"]["status"]["podIPs"]]
    assert agent.run("logs", "one").ok().out.splitlines() == [whole, *hosts, "said"]
    assert agent.run("logs", "two").ok().out.splitlines() == ["two.example", "0 4000", "said"]


def test_pods_with_users_of_their_own(agent: AgentNode) -> None:
    """Each has other ids of the node; files are whose they say inside, and outside nobody's but root's."""
    mounts = [{"name": "data", "mountPath": "/data"}, {"name": "conf", "mountPath": "/conf"}]
    script = (
        "cat /proc/self/uid_map /proc/self/gid_map; touch /data/file; stat -c %u:%g /data/file /conf/color /etc/hosts;"
        f" echo done >/dev/termination-log; cat /conf/color; wc -c </proc/keys >/dev/null && echo; echo ready; {WAIT}"
    )
    volumes = [{"name": "data", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "conf"}}]
    unmasked = {"securityContext": {"procMount": "Unmasked"}}
    two = [pod(name, sh("c", script, volumeMounts=mounts, **unmasked), hostUsers=False, volumes=volumes)
           for name in ("one", "two")]  # fmt: skip
    agent.write("users", CONFIG, *two)
    found = [agent.wait_ready(name) for name in ("one", "two")]
    assert agent.wait(lambda _: all("ready" in agent.run("logs", name).out for name in ("one", "two")))
    firsts = []
    for name, one in zip(("one", "two"), found, strict=True):
        lines = agent.run("logs", name).ok().out.splitlines()
        inside, first, size = (int(word) for word in lines[0].split())
        assert (inside, size) == (0, 65536) and lines[1] == lines[0] and first >= 65536 and first % 65536 == 0
        assert lines[2:] == ["0:0", "0:0", "0:0", "red", "ready"]
        firsts.append(first)
        data = agent.node.root / "node/volumes" / one["metadata"]["uid"] / "data/file"
        assert data.stat().st_uid == 0
    assert firsts[0] != firsts[1]


def test_an_image_as_a_volume(agent: AgentNode) -> None:
    """All of it and a path in it, read-only, whoever the pod's users are; one that is not here is waited for."""
    mounts = [{"name": "v", "mountPath": "/all"}, {"name": "v", "mountPath": "/sub", "subPath": "bin"}]
    script = "ls /all/bin/busybox /sub/busybox; touch /all/x 2>&1; stat -c %u /all/bin; touch /sub/x 2>&1; echo said;"
    script += WAIT
    volume = {"name": "v", "image": {"reference": "registry.test/busybox:1", "pullPolicy": "Never"}}
    never = {"name": "v", "image": {"reference": "registry.test/none:1", "pullPolicy": "Never"}}
    odd = [{"name": "v", "mountPath": "/v", "subPath": "no/such"}]
    agent.write(
        "images",
        pod("one", sh("c", script, volumeMounts=mounts), volumes=[volume]),
        pod("own", sh("c", script, volumeMounts=mounts), volumes=[volume], hostUsers=False),
        pod("none", sh("c", script, volumeMounts=mounts), volumes=[never]),
        pod("odd", sh("c", script, volumeMounts=odd), volumes=[volume]),
    )
    agent.wait(lambda _: all("said" in agent.run("logs", name).out for name in ("one", "own")))
    for name in ("one", "own"):
        lines = agent.run("logs", name).ok().out.splitlines()
        assert lines[:2] == ["/all/bin/busybox", "/sub/busybox"] and "Read-only file system" in lines[2]
        assert lines[3] == "0" and "Read-only file system" in lines[4]
    found = agent.wait(lambda pods: _waiting(pods["none"]) and pods["none"])
    assert _waiting(found)["reason"] == "ErrImageNeverPull" and "none:1" in _waiting(found)["message"]
    found = agent.wait(lambda pods: "no/such" in str(_waiting(pods["odd"])) and pods["odd"])
    assert _waiting(found)["reason"] == "CreateContainerError"


def test_probes_and_hooks(agent: AgentNode) -> None:
    """A liveness probe that fails ends its container, which runs again; readiness comes and goes; hooks run."""
    flag = {"name": "flags", "mountPath": "/flags"}
    hooks = {
        "postStart": {"exec": {"command": ["touch", "/flags/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >>/flags/pre; rm -f /flags/ill"]}},
    }
    often = {"periodSeconds": 1, "failureThreshold": 1}
    web = sh(
        "web",
        f"httpd -p 8080 -h /flags; {SLEEP}",
        volumeMounts=[flag],
        lifecycle=hooks,
        ports=[{"name": "http", "containerPort": 8080}],
        readinessProbe={"httpGet": {"port": "http", "path": "/ready"}, **often},
        livenessProbe={"exec": {"command": ["test", "!", "-e", "/flags/ill"]}, **often, "timeoutSeconds": 30},
    )
    agent.write("probed", pod("probed", web, volumes=[{"name": "flags", "emptyDir": {}}]))
    found = agent.wait(lambda pods: "post" in agent.exec(pods.get("probed"), "ls", "/flags") and pods["probed"])
    assert not found["status"]["containerStatuses"][0]["ready"]
    agent.exec(found, "touch", "/flags/ready")
    found = agent.wait_ready("probed")
    assert found["status"]["containerStatuses"][0]["restartCount"] == 0
    agent.exec(found, "touch", "/flags/ill")
    again = agent.wait(lambda pods: _restarts(pods["probed"]) == 1 and pods["probed"])
    flags = agent.node.root / "node/volumes" / again["metadata"]["uid"] / "flags"
    assert (flags / "pre").read_text() == "pre\n" and not (flags / "ill").exists()
    agent.wait_ready("probed")
    said = agent.run("describe", "probed").ok().out
    assert "Liveness probe failed" in said and "its liveness probe failed" in said


def test_a_pod_that_writes_more_than_it_may_is_evicted(agent: AgentNode) -> None:
    full = sh(
        "full",
        f"dd if=/dev/zero of=/data/file bs=1M count=2; {SLEEP}",
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )
    volumes = [{"name": "data", "emptyDir": {"sizeLimit": "1Mi"}}]
    agent.write("full", pod("full", full, volumes=volumes, terminationGracePeriodSeconds=1))
    found = agent.wait(lambda pods: pods.get("full", {}).get("status", {}).get("phase") == "Failed" and pods["full"])
    assert found["status"]["reason"] == "Evicted"
    assert found["status"]["message"] == 'Usage of EmptyDir volume "data" exceeds the limit "1Mi".'
    agent.wait(lambda pods: "terminated" in pods["full"]["status"]["containerStatuses"][0]["state"])


def test_ends_of_pods(agent: AgentNode) -> None:
    script = "sleep 0.5; echo said >/dev/termination-log; exit"  # when its start is long over
    ends = [pod(name, sh("c", f"{script} {code}"), restartPolicy="Never") for name, code in (("good", 0), ("bad", 4))]
    agent.write("ends", *ends)
    for name, phase, code, reason in (("good", "Succeeded", 0, "Completed"), ("bad", "Failed", 4, "Error")):
        ended = agent.wait_phase(name, phase)["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (code, reason, "said\n")
    mount = {"name": "data", "mountPath": "/data", "subPath": "a"}
    agent.write("sub", pod("sub", sh("c", "true", volumeMounts=[mount]), restartPolicy="Never",
                           volumes=[{"name": "data", "emptyDir": {}}]))  # fmt: skip
    uid = agent.wait_phase("sub", "Succeeded")["metadata"]["uid"]
    agent.wait(lambda _: not list((agent.node.state / "volumes" / uid).glob("sub.*")))
    nothing = pod("nothing", {"name": "c", "image": "registry.test/none:1", "imagePullPolicy": "Never"})
    agent.write("nothing", nothing)
    waiting = agent.wait(lambda pods: _waiting(pods.get("nothing")))
    assert waiting["reason"] == "ErrImageNeverPull"
    told = agent.run("logs", "nothing").fails(
        1, "container c of pod default/nothing has no log yet: it waits: ErrImage"
    )
    assert "hint" not in told.err
    agent.write("nameless", pod("nameless", {"name": "c", "image": "No Name", "imagePullPolicy": "IfNotPresent"}))
    assert agent.wait(lambda pods: _waiting(pods.get("nameless")))["reason"] == "InvalidImageName"
    hook = {"postStart": {"exec": {"command": ["false"]}}}
    agent.write("hook", pod("hook", sh("c", SLEEP, lifecycle=hook), restartPolicy="Never"))
    agent.wait_phase("hook", "Succeeded")
    assert "FailedPostStartHook" in agent.run("describe", "hook").ok().out
    root = pod("root", sh("c", SLEEP), securityContext={"runAsNonRoot": True})
    agent.write("root", root)
    waiting = agent.wait(lambda pods: (_waiting(pods.get("root")) or {}).get("message") and _waiting(pods["root"]))
    assert waiting["reason"] == "CreateContainerConfigError" and "runs as root" in waiting["message"]
    out = {"name": "data", "mountPath": "/data", "subPathExpr": "$(OUT)"}
    path = sh("c", "true", volumeMounts=[out], env=[{"name": "OUT", "value": "/tmp"}])
    agent.write("path", pod("path", path, volumes=[{"name": "data", "emptyDir": {}}]))
    waiting = agent.wait(lambda pods: (_waiting(pods.get("path")) or {}).get("message") and _waiting(pods["path"]))
    assert waiting["reason"] == "CreateContainerConfigError" and "must be relative" in waiting["message"]


def _waiting(found: Any) -> Any:
    return found and found["status"]["containerStatuses"][0]["state"].get("waiting")


def test_manifests_that_change(agent: AgentNode) -> None:
    """A broken edit changes nothing; other words are another pod, begun when the one before it has gone."""
    path = agent.write("web", pod("web", sh("c", SLEEP)))
    before = agent.wait_ready("web")
    made = agent.node.path / "broken"
    made.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containerz: []\n")
    made.rename(path)
    agent.wait(lambda pods: f"{path}:5:3: /spec/containerz" in agent.run("status").out)
    assert agent.pods()["web"]["metadata"]["uid"] == before["metadata"]["uid"]
    for number in range(5):
        agent.write("web", pod("web", sh("c", f": {number}; {SLEEP}")))
    after = agent.wait(lambda pods: "web" in pods and ": 4" in str(pods["web"]["spec"]) and pods["web"])
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    for number in range(100):  # as `rm` and `cp` do it, in a moment (kubernetes#107733, #109596, #116880)
        path.unlink()
        agent.write("web", pod("web", sh("c", f": {number % 2}; {SLEEP}")))
    after = agent.wait(lambda pods: "web" in pods and ": 1;" in str(pods["web"]["spec"]) and pods["web"])
    agent.wait_ready("web")
    assert len(agent.node.call("ListPodSandbox").items) == 1
    assert agent.run("status").ok().out.splitlines()[1].strip() == f"1 pods of {agent.manifests}"


def test_what_does_not_fit_waits(agent: AgentNode) -> None:
    def hog(name: str) -> dict[str, Any]:
        return pod(name, sh("c", SLEEP, resources={"requests": {"memory": agent.most_memory}}))

    first = agent.write("first", hog("first"))
    agent.wait_ready("first")
    agent.write("second", hog("second"))
    found = agent.wait(lambda pods: "second" in pods and pods["second"]["status"].get("reason") and pods["second"])
    assert (found["status"]["reason"], found["status"]["phase"]) == ("OutOfmemory", "Pending")
    first.unlink()
    agent.wait_ready("second")


def test_apply_and_delete(agent: AgentNode, tmp_path: Path) -> None:
    file = tmp_path / "web.json"
    file.write_text(json.dumps(pod("web", sh("c", SLEEP))))
    assert agent.run("apply", "-f", str(file)).ok().out == "pod/web created\n"
    assert agent.run("apply", "-f", "-", stdin=file.read_text()).ok().out == "pod/web unchanged\n"
    agent.wait_ready("web")
    rows = [line.split() for line in agent.run("get", "-o", "wide").ok().out.splitlines()]
    assert rows[0][:4] == ["NAME", "READY", "STATUS", "RESTARTS"] and rows[1][:4] == ["web", "1/1", "Running", "0"]
    assert yaml.safe_load(agent.run("get", "pod", "web", "-o", "yaml").ok().out)["status"]["phase"] == "Running"
    agent.run("get", "pod", "none").fails(1, "there is no pod default/none")
    bad = tmp_path / "bad.yaml"
    bad.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, imagee: x}]}\n")
    agent.run("apply", "-f", str(bad)).fails(1, "imagee")
    agent.run("apply", "-f", "-", stdin=f"{file.read_text()}\n---\n{file.read_text()}").fails(1, "is given twice")
    agent.run("apply", "-f", "-", stdin="# nothing\n").fails(1, "no object")
    base = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "x" * (1 << 19)}}
    large = [json.dumps({**base, "metadata": {"name": f"large{n}"}}) for n in range(4)]
    agent.run("apply", "-f", "-", stdin="\n---\n".join(large)).fails(1, "MiB at the most")
    agent.run("delete", "pod", "web").ok()
    assert not agent.pods() and not list(agent.manifests.iterdir())
    agent.run("delete", "pod", "web").fails(1, "there is no Pod default/web")


def test_a_configuration_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pyrun.toml"
    path.write_text("[node]\nmax_pods = 5\n")
    path.chmod(0o622)
    command = [*runtime_argv(), "node", "run", "--config", str(path), "--root", str(tmp_path / "root")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and f"{path}: others than root may write it" in done.stderr


def test_an_agent_that_is_killed_goes_on(tmp_path: Path, busybox_rootfs: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate = authority.client("server", "/CN=server", use="serverAuth", names="IP:127.0.0.1")
    with contextlib.ExitStack() as stack:
        servers: list[ManifestServer] = []

        def serve(agent: AgentNode) -> None:
            agent.node.configure('cgroup_driver = "cgroupfs"\n[node]\nhttp_check_frequency = 1\n')
            servers.append(server := stack.enter_context(a_manifest_server(certificate)))
            server.say(yaml.safe_dump(pod("remote", sh("c", SLEEP))))
            words = ("--manifest-url", server.url, "--manifest-url-ca-file", authority.ca)
            agent.node.words += words

        agent = stack.enter_context(an_agent(tmp_path, busybox_rootfs, prepare=serve))
        (server,) = servers
        much = "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done"
        agent.write("kept", pod("kept", sh("c", f"{much}; echo all; {SLEEP}"), hostUsers=False))
        agent.write("sized", sized("96Mi", "NotRequired"))
        before = agent.wait_ready("kept")["status"]
        first = agent.wait_ready("sized")
        agent.write("sized", sized("160Mi", "NotRequired"))
        agent.wait(resized(first, "160Mi"))
        agent.wait(lambda pods: agent.run("logs", "kept").out.endswith("all\n"))
        remote = agent.wait_ready("remote")["status"]["containerStatuses"]
        agent.run("delete", "pod", "remote").fails(1, f"comes of {server.url.partition('?')[0]}?…")
        agent.node.kill()
        agent.write("sized", sized("96Mi", "NotRequired"))
        server.say("", status=503)
        agent.node.start()
        agent.wait(lambda pods: "answered 503" in agent.run("status").out)
        assert f"http_check_frequency = 1, by {agent.node.config}:3\n" in agent.run("status").out
        assert agent.wait_ready("remote")["status"]["containerStatuses"] == remote
        server.say('{"apiVersion": "v1", "kind": "List", "items": []}')
        after = agent.wait_ready("kept")["status"]
        assert after["containerStatuses"] == before["containerStatuses"]
        assert after["conditions"] == before["conditions"] and after["startTime"] == before["startTime"]
        agent.wait(lambda pods: "remote" not in pods)
        found = agent.wait(resized(first, "96Mi"))  # what the file says since, in the containers that were there
        assert [c["restartCount"] for c in found["status"]["containerStatuses"]] == [0, 0]
        (logs,) = agent.node.logs.glob("*_kept_*/c")
        agent.wait(lambda pods: len(list(logs.iterdir())) == 2)  # the log had grown, so it was set aside
        assert agent.run("logs", "kept").ok().out.splitlines() == [*map(str, range(2000)), "all"]
        agent.node.kill()
        for path in agent.node.root.glob("node/pods.db*"):  # what runs is known without it, and what it has
            path.unlink()
        agent.node.start()
        adopted = agent.wait_ready("sized")
        agent.write("sized", sized("160Mi", "NotRequired"))
        agent.wait(lambda pods: "ResizeCompleted" in agent.run("describe", "sized").out)
        last = agent.wait(resized(adopted, "160Mi"))["status"]["containerStatuses"]
        found = found["status"]["containerStatuses"]
        assert [c["containerID"] for c in last] == [c["containerID"] for c in found]
        agent.write("users", pod("users", sh("c", SLEEP), hostUsers=False))  # has others than `kept` has still
        maps = {agent.exec(agent.wait_ready(name), "cat", "/proc/self/uid_map") for name in ("kept", "users")}
        assert len(maps) == 2 and "" not in maps


def test_a_drained_node_runs_nothing_until_it_is_taken_back(tmp_path: Path, busybox_rootfs: Path) -> None:
    """What the system needs ends last; a kill changes nothing of it."""
    with an_agent(tmp_path, busybox_rootfs) as agent:
        ends = tmp_path / "ends"
        ends.touch()
        volumes = [{"name": "v", "hostPath": {"path": str(ends), "type": "File"}}]
        for name, priority in (("needed", 2_000_000_000), ("first", 0), ("second", 0)):
            script = f"trap 'echo {name} >>/ends; exit 0' TERM; while :; do sleep 0.05; done"
            c = sh("c", script, volumeMounts=[{"name": "v", "mountPath": "/ends"}])
            agent.write(name, pod(name, c, volumes=volumes, priority=priority))
        template = {"metadata": {"labels": {"app": "web"}}, "spec": pod("web", sh("c", SLEEP))["spec"]}
        spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
        agent.write("web", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})
        for name in ("needed", "first", "second"):
            agent.wait_ready(name)
        agent.wait(lambda pods: len(pods) == 4)
        assert "is drained" in agent.run("drain").ok().out
        words = ends.read_text().split()
        assert sorted(words) == ["first", "needed", "second"] and words[-1] == "needed"
        agent.node.kill()
        agent.write("late", pod("late", sh("c", SLEEP)))
        agent.node.start()
        assert "drained" in agent.run("status").ok().out
        assert not agent.pods()
        agent.run("uncordon").ok()
        for name in ("needed", "late"):
            agent.wait_ready(name)
        agent.wait(lambda pods: len(pods) == 5)
