"""Services of manifests: `pyrun node run` with the proxy and the DNS beside the agent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.container.runner import runtime_argv
from tests.support.node.agent import SLEEP, AgentNode, an_agent, pod, sh
from tests.support.node.service import service

pytestmark = pytest.mark.root

ADDRESS, DNS = "10.77.0.1", "10.96.0.10"
NAME = "web.default.svc.cluster.local"
PAGE = "mkdir -p /tmp/www; hostname >/tmp/www/index.html; touch /tmp/ready; httpd -p 8080 -h /tmp/www"
PAGE += "; trap 'exit 0' TERM; while true; do sleep 0.1; done"
# By nslookup, as the static busybox can't resolve names elsewhere: glibc's static resolver wants shared libraries.
ASK = f"""a=$(nslookup {NAME} | sed -n 's/^Address.*: *\\(10[.]96[.][0-9.]*\\).*/\\1/p')
printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 10 $a 80"""


@pytest.fixture
def agent(tmp_path: Path, busybox_rootfs: Path) -> Iterator[AgentNode]:
    words = ("--service-cidr", "10.96.0.0/16", "--node-ip", ADDRESS)
    with an_agent(tmp_path, busybox_rootfs, *words) as made:
        subprocess.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
        yield made


def backend(name: str) -> dict[str, Any]:
    """Ready within a second of when it says so, and not unready because a busy machine is slow to ask it."""
    often = {"periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 30}
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, **often}
    made = pod(name, sh("c", PAGE, readinessProbe=probe))
    made["metadata"]["labels"] = {"app": "web"}
    return made


def test_a_service_by_its_name(agent: AgentNode) -> None:
    """It has no address of its own; a pod that is not ready gets nothing; killed, the agent is not missed."""
    agent.write("web", service("web"), backend("one"), backend("two"))
    agent.write("client", pod("client", sh("c", SLEEP)))
    for name in ("one", "two", "client"):
        agent.wait_ready(name)

    client = agent.pods()["client"]

    def get() -> str:
        said = agent.exec(client, "sh", "-c", ASK)
        return said.strip().splitlines()[-1] if " 200 OK" in said else said

    agent.wait(lambda pods: {get(), get()} == {"one", "two"})
    agent.exec(agent.pods()["one"], "rm", "/tmp/ready")
    agent.wait(lambda pods: {get() for _ in range(4)} == {"two"})
    agent.exec(agent.pods()["one"], "touch", "/tmp/ready")
    agent.wait(lambda pods: {get(), get()} == {"one", "two"})
    before = agent.exec(client, "nslookup", NAME)
    agent.node.kill()
    agent.node.start()
    for _ in range(5):  # as it starts, and once it has
        assert get() in ("one", "two"), "turns may begin anew"
        assert agent.exec(client, "nslookup", NAME) == before, "it keeps its address"
    agent.wait(lambda pods: json.loads(agent.run("status", "--format", "json").out)["faults"] == [])
    agent.wait(lambda pods: {get(), get()} == {"one", "two"})


@pytest.mark.parametrize("mode", ["userspace", "nftables"])
def test_no_request_fails_when_a_backend_goes(tmp_path: Path, busybox_rootfs: Path, mode: str) -> None:
    """A client's requests by the Service's name go to two pods in turn. One is killed: user space tries the other one,
    and the kernel can't, so that there nobody kills. One is taken away: no request fails in either mode, as it serves
    on until nobody is sent there any more."""
    waits = {"preStop": {"exec": {"command": ["sh", "-c", "until test -e /tmp/unasked; do sleep 0.1; done"]}}}
    leaving = backend("one")
    leaving["spec"]["containers"][0]["lifecycle"] = waits
    leaving["spec"]["terminationGracePeriodSeconds"] = 60
    words = ("--service-cidr", "10.96.0.0/16", "--node-ip", ADDRESS, "--proxy-mode", mode)
    with an_agent(tmp_path, busybox_rootfs, *words) as agent:
        subprocess.run(["ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
        agent.write("web", service("web"), backend("two"))
        one = agent.write("one", leaving)
        agent.write("client", pod("client", sh("c", SLEEP)))
        for name in ("one", "two", "client"):
            agent.wait_ready(name)
        client, first = agent.pods()["client"], agent.pods()["one"]

        def get() -> str:
            said = agent.exec(client, "sh", "-c", ASK)
            return said.strip().splitlines()[-1] if " 200 OK" in said else f"failed: {said}"

        agent.wait(lambda pods: {get(), get()} == {"one", "two"})
        found = [get() for _ in range(6)]
        assert found in (["one", "two"] * 3, ["two", "one"] * 3)
        if mode == "userspace":
            id = first["status"]["containerStatuses"][0]["containerID"].removeprefix("pyrun://")
            agent.node.call("StopContainer", container_id=id, timeout=0)
            found = [get() for _ in range(6)]
            assert set(found) <= {"one", "two"}, found
            agent.wait(lambda pods: {get(), get()} == {"one", "two"})  # it is started anew
            first = agent.pods()["one"]
        one.unlink()
        found = []
        while found[-6:] != ["two"] * 6 and len(found) < 1000:
            found.append(get())
        assert set(found) <= {"one", "two"}, found
        agent.exec(first, "touch", "/tmp/unasked")
        agent.wait(lambda pods: "one" not in pods)
        assert {get() for _ in range(4)} == {"two"}


def test_what_can_not_start_is_said_and_no_pod_waits_for_it(agent: AgentNode, tmp_path: Path) -> None:
    agent.node.stop()
    state = agent.node.state / "proxy"
    subprocess.run(["rm", "-rf", state], check=True)
    state.write_text("a file\n")
    agent.node.start()
    agent.write("alone", pod("alone", sh("c", SLEEP)))
    agent.wait_ready("alone")

    def said() -> Any:
        return [line for line in json.loads(agent.run("status", "--format", "json").out)["faults"] if "proxy" in line]

    agent.wait(lambda pods: said())
    state.unlink()
    agent.wait(lambda pods: not said())
    status = [*runtime_argv(), "proxy", "status", "--state", str(state)]
    subprocess.run(status, check=True, timeout=60, capture_output=True)
