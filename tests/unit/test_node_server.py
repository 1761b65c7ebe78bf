"""What a node says to an API server and takes from it, without one: patches, the Node, what a pod names, variables."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pyrun.kube.objects.pods import Pod
from pyrun.kube.objects.services import Service
from pyrun.kube.objects.status import PodCondition, PodIP, PodStatus
from pyrun.node.agent.agent import Agent
from pyrun.node.agent.events import Event, of_pod
from pyrun.node.server.event_sink import event_object
from pyrun.node.server.node_object import Machine, node_object, node_status, same
from pyrun.node.server.pods import ServedPods, record_of
from pyrun.node.server.refers import refers_to, tokens_of
from pyrun.node.server.service_variables import service_variables
from pyrun.node.server.statuses import Statuses, differs, patch_of
from pyrun.node.supported import unsupported
from tests.support.node.world import pod_of

INFO = {"architecture": "amd64", "kernelVersion": "6.12"}
MACHINE = Machine("n1", ("192.0.2.1",), 10250, 1500, 1 << 30, 1 << 40, 110, INFO)


def served(**changes: Any) -> Pod:
    """A pod as an API server sends it."""
    meta = {"name": "p", "namespace": "ns", "uid": "u-1", "resourceVersion": "7", "generation": 3}
    spec = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 30, "nodeName": "n1"}
    value = {
        "metadata": {**meta, **changes.pop("metadata", {})},
        "spec": {**spec, **changes.pop("spec", {})},
        **changes,
    }
    return msgspec.convert(value, Pod)


def test_a_patch_takes_away_what_is_no_more_and_leaves_what_others_said() -> None:
    ready = [PodCondition("True", "Ready")]
    status = PodStatus(phase="Running", podIPs=[PodIP(ip="10.0.0.1")], conditions=ready)
    patch = patch_of(status, 3)
    assert (
        patch["podIP"] is None
        and patch["reason"] is None
        and patch["podIPs"] == [{"$patch": "replace"}, {"ip": "10.0.0.1"}]
    )
    assert patch["observedGeneration"] == 3
    no_more = {"reason": None, "message": None}  # of when it was not ready, which a merge would leave
    assert patch["conditions"] == [{"status": "True", "type": "Ready", "observedGeneration": 3, **no_more}]
    assert not differs(patch, PodStatus(phase="Running", conditions=[*ready, PodCondition("True", "gate")]))
    assert differs(patch, PodStatus(phase="Running", conditions=[PodCondition("False", "Ready")]))
    assert differs(patch, PodStatus(phase="Failed", conditions=ready)) and differs(patch, None)


@pytest.mark.parametrize("seen_first", [True, False])
def test_what_an_agent_before_this_one_told_of_a_resize_is_taken_away(seen_first: bool) -> None:
    """Whichever comes first, the status here or what the server has."""
    sent: list[list[dict[str, Any]]] = []

    async def call(work: Any, where: str, patch: dict[str, Any], kind: str) -> None:
        sent.append([one for one in patch["status"]["conditions"] if one["type"] == "PodResizePending"])

    there = served(status={"conditions": [{"type": "PodResizePending", "status": "True"}]})
    here = PodStatus(phase="Running", conditions=[PodCondition("True", "Ready")])

    async def run() -> None:
        statuses = Statuses(SimpleNamespace(patch=None), call, lambda line: None)  # type: ignore[arg-type]
        record = record_of(there)
        for seen in (seen_first, not seen_first):
            if seen:
                statuses.seen(record, there)
            else:
                statuses.told(record, here)
            await statuses.settle(60)

    asyncio.run(run())
    assert sent[-1] == [{"$patch": "delete", "type": "PodResizePending"}]


def test_the_node_has_what_a_scheduler_asks_for() -> None:
    made = node_object(MACHINE, {"zone": "a"}, 0.0)
    assert made["metadata"]["labels"]["kubernetes.io/arch"] == "amd64" and made["metadata"]["labels"]["zone"] == "a"
    status = made["status"]
    assert status["capacity"]["cpu"] == "1500m" and status["capacity"]["memory"] == "1048576Ki"
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"


def test_the_node_has_its_largest_images() -> None:
    """A scheduler prefers nodes with them. 50, the largest first, of each five names at most; an order of its own."""
    from dataclasses import replace

    images = tuple(((f"r/{n}@sha256:1", *(f"r/{n}:{tag}" for tag in range(n))), 100 + n) for n in range(60))
    found = node_status(replace(MACHINE, images=images), {}, 0.0)
    assert [one["sizeBytes"] for one in found["images"]] == list(range(159, 109, -1))
    assert found["images"][0]["names"] == ["r/59@sha256:1", "r/59:0", "r/59:1", "r/59:2", "r/59:3"]
    assert same(found, node_status(replace(MACHINE, images=images[::-1]), {}, 60.0))
    assert not same(found, node_status(replace(MACHINE, images=images[:-1]), {}, 60.0))
    assert node_status(MACHINE, {}, 0.0)["images"] == []


def test_conditions_keep_the_time_when_they_became_so() -> None:
    from dataclasses import replace

    first = node_status(MACHINE, {}, 0.0)
    since = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in first["conditions"]}
    again = node_status(MACHINE, since, 60.0)
    assert same(first, again) and again["conditions"][0]["lastTransitionTime"] == "1970-01-01T00:00:00Z"
    full = node_status(replace(MACHINE, pressures=frozenset({"DiskPressure"}), unready="no network"), since, 60.0)
    changed = {c["type"] for c in full["conditions"] if c["lastTransitionTime"] == "1970-01-01T00:01:00Z"}
    assert changed == {"DiskPressure", "Ready"} and not same(first, full)


def test_a_record_is_the_same_for_what_changes_by_itself() -> None:
    status = {"phase": "Running", "conditions": [{"type": "gate", "status": "True", "lastTransitionTime": "T"}]}
    gates = {"readinessGates": [{"conditionType": "gate"}]}
    first, again = (
        record_of(served(spec=gates, status=status)),
        record_of(served(spec=gates, metadata={"resourceVersion": "8"})),
    )
    assert first.pod == again.pod and first.uid == "u-1" and first.api
    assert first.gates == {"gate": True} and again.gates == {}


def test_a_pod_that_was_asked_to_go_has_the_grace_of_who_asked() -> None:
    meta = {"deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 10}
    record = record_of(served(metadata=meta))
    assert (record.deleted, record.grace) == (50.0, 10)
    assert record_of(served()).deleted is None


def test_what_a_pod_names() -> None:
    pod = pod_of("""
serviceAccountName: s
containers:
- name: c
  image: i
  envFrom: [{configMapRef: {name: a}}, {secretRef: {name: b}}]
  env:
  - {name: X, valueFrom: {secretKeyRef: {name: s, key: k}}}
  - {name: Y, valueFrom: {configMapKeyRef: {name: m, key: k}}}
volumes:
- {name: v, secret: {secretName: vs}}
- name: w
  projected:
    sources:
    - configMap: {name: root}
    - serviceAccountToken: {path: t, audience: vault, expirationSeconds: 600}
""")
    names = {("ConfigMap", n) for n in ("a", "m", "root")} | {("Secret", n) for n in ("b", "s", "vs")}
    assert refers_to(pod) == {(kind, "default", name) for kind, name in names}
    assert tokens_of(pod) == {("vault", 600)}


@pytest.mark.parametrize("links", [True, False])
def test_variables_of_services(links: bool) -> None:
    def service(name: str, namespace: str, ip: str, *ports: dict[str, Any]) -> tuple[tuple[str, str], Service]:
        value = {"metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": ip, "ports": list(ports)}}
        return (namespace, name), msgspec.convert(value, Service)

    services = dict(
        [
            service("kubernetes", "default", "10.96.0.1", {"port": 443, "name": "https"}),
            service("my-web", "ns", "fd00::1", {"port": 53, "protocol": "UDP"}),
            service("headless", "ns", "None", {"port": 1}),
            service("other", "elsewhere", "10.96.0.9", {"port": 1}),
        ]
    )
    found = service_variables(services, "ns", links=links)
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1" and found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["KUBERNETES_PORT"] == found["KUBERNETES_PORT_443_TCP"] == "tcp://10.96.0.1:443"
    assert found.get("MY_WEB_PORT_53_UDP") == ("udp://[fd00::1]:53" if links else None)
    assert not any(name.startswith(("OTHER", "HEADLESS")) for name in found)


def test_an_event_is_no_longer_than_the_server_takes() -> None:
    event = event_object(of_pod(record_of(served())), Event("Warning", "Failed", "x" * 5000, 0.0, 1.0, 2), "n1", "p.1")
    assert len(event["message"]) == 1024 and event["count"] == 2 and event["involvedObject"]["uid"] == "u-1"


def test_what_the_server_does_is_no_fault_of_a_pod_from_there() -> None:
    spec = {"serviceAccountName": "x", "nodeSelector": {"a": "b"}, "schedulerName": "mine"}
    assert not list(unsupported(served(spec=spec), "n1", served=True))
    pointers = {fault.pointer for fault in unsupported(served(spec=spec), "n1")}
    assert pointers == {f"/spec/{name}" for name in spec}


def test_a_pod_that_has_ended_here_and_comes_back_is_taken_out_and_not_begun_anew() -> None:
    """The API server tells of the end that was written to it when nothing of the pod is left here."""
    told: list[str] = []
    pods = object.__new__(ServedPods)
    pods._agent = SimpleNamespace(actors={}, serve=lambda record: told.append("served"))  # type: ignore[assignment]
    pods._refers = SimpleNamespace(acquire=lambda record: told.append("referred"))  # type: ignore[assignment]
    pods._statuses = SimpleNamespace(  # type: ignore[assignment]
        seen=lambda record, there: told.append("seen"), gone=lambda record: told.append("gone")
    )
    there = served(status={"phase": "Failed"})
    pods._changed(there)
    assert told == []  # nobody has asked it to go
    assert there.metadata is not None
    there.metadata.deletionTimestamp = "2026-01-01T00:00:00Z"
    pods._changed(there)
    assert told == ["seen", "gone"]


def test_of_two_pods_of_a_name_that_of_the_file_runs_and_the_other_is_told() -> None:
    """It is taken out when it is asked to go, and runs when the file's has gone."""
    agent, told, did = Agent.__new__(Agent), [], []
    static: Any = SimpleNamespace(
        name="ns/p", record=SimpleNamespace(uid="f", api=False, file="/etc/p.yaml", key=("ns", "p"))
    )
    agent.name, agent.actors, agent.next, agent.barred = "n1", {("ns", "p"): static}, {}, {}
    agent.host = SimpleNamespace(event=lambda of, event, *, api: told.append((of.uid, event.message, api)))  # type: ignore
    agent.ended = lambda record: did.append(("ended", record.uid if record.api else record.file))
    agent._begin = lambda record: did.append(("begun", record.uid))  # type: ignore
    agent._room, agent._warn = (lambda: None), (lambda text: None)  # type: ignore
    agent.deployments = SimpleNamespace(stir=lambda: None)  # type: ignore
    words = "it does not run on n1: /etc/p.yaml there has a pod of this name"
    agent.serve(record_of(served()))
    agent.serve(record_of(served()))
    assert (told, did) == ([("u-1", words, True)], [])
    agent.serve(record_of(served(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})))
    assert did == [("ended", "u-1")] and not agent.barred, "who asked for its end has it"
    for uid in ("u-2", "u-3", "u-4"):
        agent.serve(record_of(served(metadata={"uid": uid})))
        if uid == "u-3":
            agent.unserve(uid)
    agent._gone(static.record)
    assert did[1:] == [("ended", "u-2"), ("ended", "u-3"), ("ended", "/etc/p.yaml"), ("begun", "u-4")]
    assert [uid for uid, *_ in told] == ["u-1", "u-2", "u-3", "u-4"]
