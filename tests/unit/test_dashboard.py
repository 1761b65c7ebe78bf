"""What the dashboard makes of what a runtime says: state, problems, clean text, and what has changed."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.cli.main import main
from pyrun.dashboard.agent import Agent
from pyrun.dashboard.clean import LONGEST, clean, clean_bytes
from pyrun.dashboard.diagnose import MIB, MINUTE, SECOND, diagnose
from pyrun.dashboard.guard import (
    ADMIN,
    COOKIE,
    LIFE_S,
    MOST_SESSIONS,
    MOST_WRONG,
    Guard,
    Who,
    digest,
    host_names,
    host_of,
)
from pyrun.dashboard.guard import parse_cookie as cookie_of
from pyrun.dashboard.observe import Disk, Observed
from pyrun.dashboard.state import delta, plan_state
from pyrun.errors import ResourceExhausted
from pyrun.metrics.node import collect_node
from pyrun.node.agent.masked import LAST_APPLIED

NOW = 1_000_000 * SECOND
NODE = {"error": "", "conditions": [], "available": 1000 * MIB, "total": 2000 * MIB, "disk": None}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äöü 日本", "plain äöü 日本"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b\x1b]8;;\x1b\\", "ab"),
        ("\x1bP+q544e\x1b\\x\x1b_apc\x1b\\", "x"),
        ("\x1b]never ended", "never ended"),
        ("\x9b31mred\x9d0;t\x07", "red"),
        ("a\x00b\x07c\x7f", "a\u2400b\u2407c\u2421"),
        ("a\rb\tc", "a\u240db\tc"),
        ("\u202egnp.exe\u2066\u200b", "\ufffdgnp.exe\ufffd\ufffd"),
        ("\x1b", ""),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
    ],
)
def test_clean(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_long_and_broken_text() -> None:
    assert clean("x" * (LONGEST + 1)) == "x" * LONGEST + "…"
    assert clean_bytes(b"\xff\xfe\xc3\xa4") == "\ufffd\ufffdä"
    assert len(clean_bytes(b"y" * 10_000_000)) == LONGEST + 1


def pod(*containers: dict[str, Any], **fields: Any) -> dict[str, Any]:
    own = {"id": "p", "namespace": "shop", "name": "cart", "uid": "u", "attempt": 0, "ready": True, "created": 1}
    return own | {"containers": list(containers)} | fields


def container(**fields: Any) -> dict[str, Any]:
    own = {"id": "c", "name": "app", "attempt": 0, "state": "running", "created": 1, "started": NOW - MINUTE}
    own |= {"finished": 0, "exit": None, "reason": "", "message": "", "last": "", "memory": None, "limit": None}
    return own | {"earlier": []} | fields


def exited(code: int, **fields: Any) -> dict[str, Any]:
    own = {"state": "exited", "exit": code, "started": NOW - 10 * SECOND, "finished": NOW - 8 * SECOND}
    return container(**own | {"reason": "Error" if code else "Completed"} | fields)


def told(*pods: dict[str, Any], node: dict[str, Any] = NODE) -> list[tuple[str, str, str]]:
    return [(one["level"], one["what"], one["why"]) for one in diagnose(node, list(pods), NOW)]


def test_what_is_well_is_not_told() -> None:
    assert told(pod(container(), exited(0, name="init"))) == []
    assert told(pod(ready=False)) == [] and told(pod(exited(0), ready=False)) == []
    assert told(pod(created=NOW - SECOND)) == []
    assert told(pod(container(state="created", created=NOW - SECOND))) == []
    assert told(pod(container(attempt=3, earlier=[exited(1, finished=NOW - 60 * MINUTE)]))) == []


def test_why_a_container_ended() -> None:
    assert told(pod(exited(1, last="no database", attempt=7))) == [
        ("broken", "exit 1 after 2.0 s; 7 restarts", "its last line: no database")
    ]
    assert told(pod(exited(137, reason="OOMKilled", message="limit 64Mi")))[0][1:] == (
        "out of memory (137)",
        "limit 64Mi",
    )
    assert told(pod(exited(128, reason="StartError", message="no such file")))[0][1] == "StartError (128)"
    assert "command" in diagnose(NODE, [pod(exited(127))], NOW)[0]["hint"]


def test_other_troubles_of_pods() -> None:
    [(level, what, why)] = told(pod(container(attempt=2, earlier=[exited(2, last="x")])))
    assert (level, what) == ("warning", "restarted, 2 so far") and why == (
        "before it: exit 2 after 2.0 s. its last line: x"
    )
    assert told(pod(container(memory=95 * MIB, limit=100 * MIB)))[0][1] == "close to its memory limit"
    assert told(pod(container(), ready=False))[0][1] == "the pod's sandbox is gone"
    assert told(pod())[0][:2] == ("warning", "no container")
    assert told(pod(container(state="unknown")))[0][:2] == ("broken", "state unknown")
    assert told(pod(container(state="created")))[0][:2] == ("warning", "not started")


@pytest.mark.parametrize(("since", "level"), [(NOW - SECOND, "warning"), (NOW - 3 * MINUTE, "broken")])
def test_a_pod_whose_probe_fails(since: int, level: str) -> None:
    """The event is as Kubernetes words it: it does not name the container."""
    event: dict[str, Any] = {"uid": "u", "type": "Warning", "reason": "Unhealthy"}
    event |= {"message": "Readiness probe failed: HTTP 503", "first": since, "last": NOW}
    one = {"ready": False, "running": True, "waiting": "", "message": ""}
    kube = {"ends": False, "containers": {"app": one}, "reason": "", "phase": "Running", "manifest": "cart.yaml"}
    [found] = diagnose(NODE, [pod(container(), kube=kube)], NOW, [event])
    assert (found["level"], found["what"], found["why"]) == (level, "not ready", "Readiness probe failed: HTTP 503")
    assert diagnose(NODE, [pod(container(), kube=kube)], NOW, [event | {"message": "Liveness probe failed: x"}]) == []


def test_only_a_pods_newest_sandbox_counts() -> None:
    old = pod(exited(1), id="old", ready=False)
    assert told(old, pod(container(), attempt=1)) == [] and len(told(old)) == 1


def test_troubles_of_the_node_come_first_and_what_is_broken_before_warnings() -> None:
    condition = {"type": "NetworkReady", "status": False, "reason": "NoNetwork", "message": "no CNI config"}
    node = NODE | {"conditions": [condition], "available": MIB, "disk": {"path": "/d", "total": 100, "free": 10}}
    found = told(pod(container(attempt=1, earlier=[exited(1)])), pod(exited(1), uid="v"), node=node)
    assert [level for level, _, _ in found] == ["broken", "broken", "broken", "warning", "warning"]
    assert ("broken", "NetworkReady is false", "NoNetwork: no CNI config") in found[:2]
    assert found[3][1] == "the disk of the images is 90 % full"
    assert told(pod(exited(1)), node=NODE | {"error": "cri.sock: no such file"})[0][1] == "the runtime does not answer"


def test_state_of_messages() -> None:
    metadata = v1.PodSandboxMetadata(name="web\x1b[31m", namespace="shop", uid="u")
    sandbox = v1.PodSandbox(id="p", metadata=metadata, state=v1.SANDBOX_READY, labels={"a": "\x07"})
    made = [
        v1.Container(
            id=f"c{number}",
            pod_sandbox_id="p",
            metadata=v1.ContainerMetadata(name="app", attempt=number),
            state=v1.CONTAINER_RUNNING if number else v1.CONTAINER_EXITED,
            created_at=number,
            image_ref="sha256:1",
        )
        for number in (1, 0)
    ]
    statuses = {"c0": v1.ContainerStatus(id="c0", exit_code=2), "c1": v1.ContainerStatus(id="c1", started_at=9)}
    usage = v1.LinuxPodSandboxStats(
        containers=[
            v1.ContainerStats(
                attributes=v1.ContainerAttributes(id="c1"),
                cpu=v1.CpuUsage(usage_nano_cores=v1.UInt64Value(value=5)),
                memory=v1.MemoryUsage(
                    working_set_bytes=v1.UInt64Value(value=7), available_bytes=v1.UInt64Value(value=3)
                ),
            )
        ]
    )
    seen = Observed(
        NOW,
        collect_node(),
        total=10,
        cpus=2,
        pods=(sandbox,),
        containers=tuple(made),
        statuses=statuses,
        stats=(v1.PodSandboxStats(attributes=v1.PodSandboxAttributes(id="p"), linux=usage),),
        images=(v1.Image(id="sha256:1", repo_tags=["a:1"], size=5), v1.Image(id="sha256:2")),
        disk=Disk("/", 100, 50),
    )
    state = plan_state("n", seen)
    found = state["pod/p"]
    assert found["name"] == "web" and found["labels"] == {"a": "\u2407"} and found["cpu"] is None
    [one] = found["containers"]
    assert (one["id"], one["state"], one["started"], one["cpu"], one["memory"], one["limit"]) == (
        ("c1", "running", 9, 5, 7, 10)
    )
    assert [(each["id"], each["exit"]) for each in one["earlier"]] == [("c0", 2)]
    assert state["image/sha256:1"]["used"] == ["shop/web"] and state["image/sha256:2"]["used"] == []


def test_kubectls_copy_of_a_manifest_is_not_shown() -> None:
    """It has what views of Pods are without: neither of a pod that runs, nor of one to come."""
    notes = {LAST_APPLIED: "the secret", "note": "shown"}
    metadata = {"namespace": "shop", "name": "next", "uid": "v", "creationTimestamp": "2026-01-01T00:00:00Z"}
    sandbox = v1.PodSandbox(id="p", metadata=v1.PodSandboxMetadata(name="web", uid="u"), annotations=notes)
    agent = Agent({}, [{"metadata": metadata | {"annotations": notes}}])
    state = plan_state("n", Observed(NOW, collect_node(), total=10, cpus=2, pods=(sandbox,), agent=agent))
    assert state["pod/p"]["annotations"] == state["pod/uid-v"]["annotations"] == {"note": "shown"}
    assert "the secret" not in str(state)


def test_delta() -> None:
    assert delta({}, {"a": {"x": 1}}) == ({"a": {"x": 1}}, [])
    assert delta({"a": {"x": 1}, "b": {}}, {"a": {"x": 1}, "c": {}}) == ({"c": {}}, ["b"])


def test_hosts() -> None:
    names = host_names("127.0.0.1", ["Node-1"])
    for header in ("localhost:9339", "127.0.0.1", "[::1]:9", "node-1:1", "NODE-1"):
        assert host_of(header) in names, header
    for header in (
        "",
        "evil.test",
        "127.0.0.1.evil.test",
        "localhost:x",
        "[::1",
        "[::1]x",
        "localhost@evil",
        "10.0.0.1",
    ):
        assert host_of(header) not in names, header
    assert host_names("10.0.0.1", []) == {"10.0.0.1"}


def test_sessions() -> None:
    now = 0.0
    guard = Guard(lambda: {digest("t" * 43): Who("root", ADMIN)}, lambda: now)
    first = guard.login("t" * 43)
    second = guard.login("t" * 43)
    assert first and second and guard.admits(*first)
    assert not guard.admits(first[0], second[1]), "a key of another session"
    assert not guard.admits(first[0], "") and not guard.admits("", first[1])
    guard.logout(first[0])
    assert not guard.admits(*first) and guard.admits(*second)
    for _ in range(MOST_SESSIONS):
        assert guard.login("t" * 43)
    assert not guard.admits(*second), "the oldest has made place"
    last = guard.login("t" * 43)
    now = LIFE_S
    assert last and not guard.admits(*last)
    assert cookie_of(f"a=b; {COOKIE}=x=y; c") == "x=y" and cookie_of("a") == ""


def test_guessing_is_slowed_down_and_locks_nobody_out() -> None:
    guard = Guard(lambda: {digest("t" * 43): Who("root", ADMIN)}, lambda: 0.0)
    for _ in range(MOST_WRONG):
        assert guard.login("wrong") is None
    with pytest.raises(ResourceExhausted):
        guard.login("wrong")
    with pytest.raises(ResourceExhausted):
        guard.admits_bearer("Bearer wrong")
    assert guard.login("t" * 43) and guard.admits_bearer("Bearer " + "t" * 43)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--address", "0.0.0.0:1"], "without TLS it is served on loopback alone"),
        (["--address", "nowhere"], "no address with a port"),
        (["--tls-cert", "/nothing"], "one without the other"),
    ],
)
def test_refused(argv: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["dashboard", *argv]) == 1
    assert said in capfd.readouterr().err
