"""What the dashboard is told of a pod by the agent: how far its plan is, and its YAML without secrets."""

from __future__ import annotations

from typing import Any

from pyrun.node.agent.masked import MASK, masked
from pyrun.node.agent.progress import marked
from pyrun.node.explain import Line

LINES = [
    Line("admission", "fits", ""),
    Line("images", "a", "/spec/containers/0/image"),
    Line("volumes", "v", "/spec/volumes/0/emptyDir"),
    Line("start", "sandbox", "/spec"),
    Line("start", "app", "/spec/containers/0"),
    Line("probes", "app readiness", "/spec/containers/0/readinessProbe"),
    Line("stop", "all", "/spec/terminationGracePeriodSeconds"),
]


def marks(status: dict[str, Any], *events: tuple[str, str]) -> list[str]:
    pod = {"metadata": {}, "spec": {"containers": [{"name": "app"}]}, "status": status}
    told = [{"reason": reason, "message": message} for reason, message in events]
    return [f"{line['mark']} {line['why']}".strip() for line in marked(LINES, pod, told, str)]


def test_plans_done_failed_and_to_come() -> None:
    assert marks({}) == ["done", *["to come"] * 6]
    assert marks({"reason": "OutOfcpu", "message": "no room"})[0] == "failed OutOfcpu: no room"
    waiting = {"name": "app", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "404"}}}
    found = marks({"containerStatuses": [waiting]}, ("FailedCreatePodSandBox", "no address"))
    assert found[1] == "failed ImagePullBackOff: 404" and found[3] == "failed no address" and found[4] == "to come"
    running = {"name": "app", "containerID": "x", "state": {"running": {"startedAt": "T"}}, "started": True}
    found = marks({"containerStatuses": [running]}, ("Unhealthy", "Readiness probe failed: 503"))
    assert found[:5] == ["done", "done", "done", "done", "done runs since T"]
    assert found[5:] == ["failed Readiness probe failed: 503", "to come"]
    ended = {"exitCode": 3, "reason": "Error"}
    crashed = {"waiting": {"reason": "CrashLoopBackOff"}}
    again = {"name": "app", "containerID": "x", "state": crashed, "lastState": {"terminated": ended}}
    assert marks({"containerStatuses": [again]})[4] == "failed CrashLoopBackOff; before it: exit 3, Error"


def test_secrets_are_masked() -> None:
    secret = {"kind": "Secret", "data": {"a": "eA=="}, "stringData": {"b": "x"}, "metadata": {"name": "s"}}
    assert masked(secret) == {**secret, "data": {"a": MASK}, "stringData": {"b": MASK}}
    env: list[dict[str, Any]] = [
        {"name": "DB_PASSWORD", "value": "x"},
        {"name": "COLOR", "value": "red"},
        {"name": "KEY", "valueFrom": {}},
    ]
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "all of it"}
    spec = {"initContainers": [{"env": env}], "containers": [{}]}
    found: dict[str, Any] = masked({"kind": "Pod", "metadata": {"annotations": applied}, "spec": spec})
    assert [one.get("value") for one in found["spec"]["initContainers"][0]["env"]] == [MASK, "red", None]
    assert found["metadata"]["annotations"] == dict.fromkeys(applied, MASK) and env[0]["value"] == "x"


def test_users_and_passwords_of_urls_are_masked() -> None:
    for value, shown in (
        ("postgres://user:pw@db:5432/shop", f"postgres://{MASK}@db:5432/shop"),
        ("--from=amqp://u:p@ss@mq,http://token@h/a@b", f"--from=amqp://{MASK}@mq,http://{MASK}@h/a@b"),
        ("mail me@example.test at http://h/?to=a@b", "mail me@example.test at http://h/?to=a@b"),
    ):
        one = {"env": [{"name": "BACKEND", "value": value}], "command": ["run", value], "args": [value]}
        [found] = masked({"kind": "Pod", "spec": {"containers": [one]}})["spec"]["containers"]
        assert found == {"env": [{"name": "BACKEND", "value": shown}], "command": ["run", shown], "args": [shown]}
