"""The node agent on a real runtime: pods of files come, are kept and go, whatever happens to the agent meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node.agent import SLEEP, AgentNode, an_agent, pod, sh


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


def _restarts(found: dict[str, object]) -> int:
    statuses = found["status"]["containerStatuses"]  # type: ignore[index]
    return int(statuses[0]["restartCount"])


def test_an_agent_that_is_killed_goes_on(tmp_path: Path, busybox_rootfs: Path) -> None:
    with an_agent(tmp_path, busybox_rootfs) as agent:
        agent.write("kept", pod("kept", sh("c", SLEEP)))
        before = agent.wait_ready("kept")["status"]
        agent.node.kill()
        agent.node.start()
        after = agent.wait_ready("kept")["status"]
        assert after["containerStatuses"] == before["containerStatuses"]
        assert after["conditions"] == before["conditions"] and after["startTime"] == before["startTime"]
