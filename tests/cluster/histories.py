"""`make histories`: the same pods on a real kubelet and on the node agent, and what an API server is told of them.

    tests/view python -m tests.cluster.histories [--keep DIR]

Both run over our runtime, one after the other, as a node of an API server. Of each pod, each field of its status is a
sequence: its phase, each condition with its reason, each container's state with reason, exit code and restarts. Those
that differ are printed; docs/node.md says why. Exit code 1: one differs that KNOWN does not name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyrun.kube.client import path
from tests.conftest import make_rootfs
from tests.support.container.disk import unmount
from tests.support.cri.node import BUSYBOX, Node, a_node
from tests.support.kube import build
from tests.support.kube.control_plane import ControlPlane, a_control_plane
from tests.support.kube.kubelet import ADDRESS, NAME, Kubelet, own_address, own_directory
from tests.support.node.agent import SLEEP, AgentNode, is_ready, sh

PODS = path("v1", "pods", "default")
Pod = dict[str, Any]
SETTLE_S = 22.0  # after the last pod is there
UP_S = 120.0
PROBE = {"periodSeconds": 1, "failureThreshold": 1}
AGAIN = "sleep 3; [ -e /v/second ] || { touch /v/second; exit 1; }"
VOLUME = {"volumes": [{"name": "v", "emptyDir": {}}]}
MOUNT = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
ALL = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}


def scenario(*containers: Pod, **spec: Any) -> Pod:
    """The spec of a pod."""
    inits = [{"image": BUSYBOX, **c} for c in spec.pop("initContainers", ())]
    made = [{"image": BUSYBOX, **c} for c in containers]
    return {
        "containers": made,
        "terminationGracePeriodSeconds": 5,
        **({"initContainers": inits} if inits else {}),
        **spec,
    }


def ran(command: str) -> Pod:
    return {"exec": {"command": ["sh", "-c", command]}}


AT_ONCE = ("again", "init-again")
CREATING = ("waiting ContainerCreating", "waiting PodInitializing")
PREPARED = "PodReadyToStartContainers"
# What differs on purpose.
REAL = "the end of each container is told as it was, and a restart is counted when it comes"
KNOWN = {
    ("all", "container c"): REAL,
    ("all", "container d"): REAL,
    ("all", "container i"): REAL,
    ("all", "container i ready"): "it is not ready any more from when it is to run again, and not only when it runs",
}
NEVER = {"restartPolicy": "Never"}
SCENARIOS: dict[str, Pod] = {
    "ready": scenario(sh("c", SLEEP, readinessProbe={**ran("true"), **PROBE})),
    "unready": scenario(sh("c", SLEEP, readinessProbe={**ran("false"), **PROBE})),
    "done": scenario(sh("c", "sleep 3"), **NEVER),
    "fails": scenario(sh("c", "sleep 3; exit 3"), **NEVER),
    "signal": scenario(sh("c", "sleep 3; kill -9 $$"), **NEVER),
    "mixed": scenario(sh("a", "sleep 3"), sh("b", "sleep 6; exit 1"), **NEVER),
    "again": scenario(sh("c", AGAIN, **MOUNT), restartPolicy="OnFailure", **VOLUME),
    "crash": scenario(sh("c", "sleep 2; exit 2")),
    "init": scenario(sh("c", SLEEP), initContainers=[sh("i", "sleep 3"), sh("j", "sleep 3")]),
    "init-fails": scenario(sh("c", SLEEP), initContainers=[sh("i", "sleep 3; exit 1")], **NEVER),
    "init-again": scenario(sh("c", SLEEP), initContainers=[sh("i", AGAIN, **MOUNT)], **VOLUME),
    "sidecar": scenario(sh("c", "sleep 4"), initContainers=[sh("s", SLEEP, restartPolicy="Always")], **NEVER),
    "startup": scenario(
        sh("c", f"sleep 4; touch /up; {SLEEP}", startupProbe={**ran("[ -e /up ]"), **PROBE, "failureThreshold": 30})
    ),
    "liveness": scenario(sh("c", SLEEP, livenessProbe={**ran("false"), **PROBE, "initialDelaySeconds": 3}), **NEVER),
    "post-start": scenario(sh("c", SLEEP, lifecycle={"postStart": ran("sleep 2; exit 1")}), **NEVER),
    "deadline": scenario(sh("c", SLEEP), activeDeadlineSeconds=4),
    "no-image": scenario({"name": "c", "image": "registry.example/none:1", "imagePullPolicy": "Never"}),
    "no-config": scenario(
        sh("c", SLEEP, env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}])
    ),
    "no-program": scenario({"name": "c", "command": ["/none"]}, **NEVER),
    "gate": scenario(sh("c", SLEEP), readinessGates=[{"conditionType": "example.com/gate"}]),
    "all": scenario(
        sh("c", f"{AGAIN.replace('1', '42')}; {SLEEP}", restartPolicy="Never", restartPolicyRules=[ALL], **MOUNT),
        sh("d", SLEEP), initContainers=[sh("i", "sleep 2")], **NEVER, **VOLUME
    ),
    "deleted": scenario(sh("c", SLEEP, lifecycle={"preStop": ran("sleep 2")})),
    "killed": scenario(sh("c", "trap '' TERM; while :; do sleep 1; done"), terminationGracePeriodSeconds=3),
}  # fmt: skip
DELETED = ("deleted", "killed")  # while they run; of the others what comes of their end is not looked at


def fields(pod: Pod) -> Iterator[tuple[str, str]]:
    """(field, value) of a status, without times, ids and addresses."""
    status = pod["status"]
    reason = f" ({status['reason']})" if status.get("reason") else ""
    yield "phase", status.get("phase", "") + reason
    for one in status.get("conditions", ()):
        yield f"condition {one['type']}", one["status"] + (f" {one['reason']}" if one.get("reason") else "")
    for kind in ("initContainerStatuses", "containerStatuses"):
        for c in status.get(kind, ()):
            at = f"container {c['name']}"
            yield at, f"{told(c.get('state'))}, restarts {c['restartCount']}, last {told(c.get('lastState'))}"
            yield f"{at} ready", f"{c['ready']}, started {c.get('started')}"


def told(state: Pod | None) -> str:
    for kind, found in (state or {}).items():
        code = f" {found['exitCode']}" if "exitCode" in found else ""
        return f"{kind}{code} {found.get('reason', '')}".rstrip()
    return "nothing"


class Histories:
    """What a watch of all pods says, until it is ended."""

    def __init__(self, plane: ControlPlane, log: Path) -> None:
        self._log = log
        words = ("get", "pods", "-n", "default", "--watch", "--output-watch-events", "-o", "json")
        with log.open("wb") as out:
            self._process = subprocess.Popen(plane.command(*words), stdout=out, stdin=subprocess.DEVNULL)

    def end(self) -> dict[str, dict[str, list[str]]]:
        """By pod and field: the values, one after the other."""
        self._process.terminate()
        self._process.wait(60)
        found: dict[str, dict[str, list[str]]] = {}
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if pod["metadata"].get("deletionTimestamp") and name not in DELETED:
                continue
            own = found.setdefault(name, {})
            for field, value in fields(pod):
                values = own.setdefault(field, [])
                if not values or values[-1] != value:
                    values.append(value)
        return found

    def pods(self) -> Iterator[Pod]:
        text, at, decoder = self._log.read_text(), 0, json.JSONDecoder()
        while at < len(text):
            try:
                event, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:  # the last one is not whole
                return
            yield event["object"]
            while at < len(text) and text[at].isspace():
                at += 1


def run(plane: ControlPlane, node: str, log: Path) -> dict[str, dict[str, list[str]]]:
    """All scenarios on a node that is there."""
    wait(lambda: is_ready(plane.admin.get(path("v1", "nodes", name=node))))
    watch = Histories(plane, log)
    for name, spec in SCENARIOS.items():
        plane.admin.create(PODS, {"metadata": {"name": name}, "spec": {**spec, "nodeName": node}})
    for name in DELETED:
        wait(lambda name=name: is_ready(plane.admin.get(path("v1", "pods", "default", name))))  # type: ignore[misc]
    time.sleep(SETTLE_S)
    plane.kubectl("delete", "pods", *DELETED, "--timeout=60s")
    plane.kubectl("delete", "pods", "--all", "--timeout=100s")
    return watch.end()


def wait(true: Callable[[], Any]) -> None:
    last = time.monotonic() + UP_S
    while True:
        with contextlib.suppress(Exception):
            if true():
                return
        assert time.monotonic() < last, "it does not come"
        time.sleep(0.2)


@contextlib.contextmanager
def a_place(directory: Path) -> Iterator[tuple[Node, ControlPlane]]:
    """A node without a daemon, and an API server that it can ask."""
    (directory / "plane").mkdir(parents=True)
    with a_node(directory / "node", make_rootfs("busybox")) as node:
        own_address()
        with a_control_plane(directory / "plane") as plane:
            yield node, plane
        subprocess.run(["ip", "link", "del", "node0"], check=True)


def on_kubelet(directory: Path) -> dict[str, dict[str, list[str]]]:
    program = build.built("kubelet")
    assert program is not None, "`make histories` builds it"
    with own_directory(), a_place(directory) as (node, plane):
        node.start()
        kubelet = Kubelet(node, program, ("--kubeconfig", plane.node_config(NAME)))
        try:
            kubelet.start()
            return run(plane, NAME, directory / "watch.json")
        finally:
            kubelet.end()


def on_agent(directory: Path) -> dict[str, dict[str, list[str]]]:
    try:
        with a_place(directory) as (node, plane):
            AgentNode(node)
            node.words += ("--node-ip", ADDRESS, "--kubeconfig", plane.node_config("n1"), "--max-restart-period", "2")
            node.start()
            return run(plane, "n1", directory / "watch.json")
    finally:
        unmount(directory / "node" / "state" / "volumes")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only", choices=("kubelet", "agent"))
    args = parser.parse_args()
    directory = args.keep or Path(tempfile.mkdtemp(prefix="histories-"))
    found = {}
    for name, of in (("kubelet", on_kubelet), ("agent", on_agent)):
        if args.only in (None, name):
            found[name] = of(directory / name)
            (directory / f"{name}.out").write_text(json.dumps(found[name], indent=1))
        else:
            found[name] = json.loads((directory / f"{name}.out").read_text())
    differ = 0
    for pod in SCENARIOS:
        theirs, ours = found["kubelet"].get(pod, {}), found["agent"].get(pod, {})
        for field in sorted(theirs.keys() | ours.keys()):
            a, b = (lasting(field, of.get(field, [])) for of in (theirs, ours))
            if agree(pod, a, b):
                continue
            known = KNOWN.get((pod, field), "")
            differ += not known
            print(f"{pod}: {field}{': ' + known if known else ''}")
            print(f"  kubelet: {' > '.join(a)}\n  agent:   {' > '.join(b)}")
    print(f"{differ} sequences differ in a way that is not known")
    return 1 if differ else 0


def lasting(field: str, values: list[str]) -> list[str]:
    """Without what one of them tells of and the other may not, as it lasts for no time: a kubelet looks each second."""
    if field.endswith(PREPARED):
        values = values[1:] if values[:1] == ["False PodSandboxNotReady"] else values
    out: list[str] = []
    for i, value in enumerate(values):
        after = values[i + 1] if i + 1 < len(values) else ""
        made = value.startswith(CREATING) and ", restarts 0" not in value
        ended = value.startswith("terminated") and after.startswith("waiting CrashLoopBackOff")
        if not made and not ended and out[-1:] != [value]:
            out.append(value)
    return out


def agree(pod: str, theirs: list[str], ours: list[str]) -> bool:
    """Ours has nothing that theirs has not, in the same order, and ends as theirs; who crashes has no end. A kubelet
    that is busy may not see that a container has ended which runs again at once."""
    if pod == "crash":
        both = min(len(theirs), len(ours), 6)
        theirs, ours = theirs[:both], ours[:both]
    if theirs[-1:] != ours[-1:]:
        return False
    return _within(ours, theirs) or (pod in AT_ONCE and _within(theirs, ours))


def _within(some: list[str], all_: list[str]) -> bool:
    left = iter(all_)
    return all(value in left for value in some)


if __name__ == "__main__":
    sys.exit(main())
