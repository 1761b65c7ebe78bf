"""A node that is really short of something: pods go for it, in their order, and the others run on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.container.disk import unmount
from tests.support.node.agent import SLEEP, AgentNode, an_agent, pod, sh

CRITICAL = 2_000_000_000
SOON = ("--eviction-pressure-transition-period", "1")


def status(agent: AgentNode) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(agent.run("status", "--format", "json").out)
    return found


def test_a_pod_that_fills_the_disk_goes(tmp_path: Path, busybox_rootfs: Path) -> None:
    root = tmp_path / "node" / "root"
    root.mkdir(0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,mode=0700", "tmpfs", root], check=True)
    try:
        with an_agent(root.parent, busybox_rootfs, "--eviction-hard", "nodefs.available<30%", *SOON) as agent:
            own = {"name": "own", "emptyDir": {}}
            mount = {"name": "own", "mountPath": "/own"}
            less = sh("c", f"head -c 10m /dev/zero >/own/file; {SLEEP}", volumeMounts=[mount])
            agent.write("small", pod("small", less, volumes=[own]))
            agent.wait_ready("small")
            volumes = [{"name": "data", "emptyDir": {}}]
            fills = sh(  # the node's file that is its /etc/hosts, too (CVE-2020-8557)
                "c",
                f"echo begins; echo x >/data/file; head -c 60m /dev/zero >>/etc/hosts; {SLEEP}",
                volumeMounts=[{"name": "data", "mountPath": "/data"}],
            )
            agent.write("full", pod("full", fills, volumes=volumes))
            found = agent.wait_phase("full", "Failed")["status"]
            assert found["reason"] == "Evicted"
            assert found["message"].startswith("The node was low on resource: ephemeral-storage. Threshold quantity: ")
            conditions = {c["type"]: c for c in found["conditions"]}
            assert conditions["DisruptionTarget"]["reason"] == "TerminationByKubelet"
            # What it had written is gone, and what is known of it is not.
            agent.wait(lambda _: not list((root / "node/volumes").glob("*/data")))
            agent.wait(lambda pods: "terminated" in pods["full"]["status"]["containerStatuses"][0]["state"])
            assert agent.run("logs", "full").ok().out == "begins\n"
            assert agent.wait_ready("small")["status"]["containerStatuses"][0]["restartCount"] == 0
            agent.wait(lambda _: not status(agent)["conditions"])
            reasons = [event["reason"] for event in status(agent)["events"]]
            assert {"EvictionThresholdMet", "Evicting", "NodeHasDiskPressure", "NodeHasNoDiskPressure"} <= {*reasons}
    finally:
        unmount(root)


def test_memory(tmp_path: Path, busybox_rootfs: Path) -> None:
    """On a node that never has enough: who is critical stays, the others go, and nobody new of theirs is taken."""
    with an_agent(tmp_path, busybox_rootfs) as agent:
        small = sh("c", SLEEP, resources={"requests": {"memory": "256Mi"}})
        agent.write("system", pod("system", sh("c", SLEEP), priority=CRITICAL))
        agent.write("small", pod("small", small))
        agent.write("large", pod("large", sh("c", SLEEP)))
        for name in ("system", "small", "large"):
            agent.wait_ready(name)
        agent.node.kill()
        agent.node.words += ("--eviction-hard", "memory.available<100%", *SOON)
        agent.node.start()
        for name in ("large", "small"):
            found = agent.wait_phase(name, "Failed")["status"]
            assert found["message"].startswith("The node was low on resource: memory. Threshold quantity: ")
        told = [e["message"] for e in status(agent)["events"] if e["reason"] == "Evicting"]
        assert [text.split(" priority")[0] for text in told] == [
            "For memory: 1. default/large", "For memory: 1. default/small",
        ]  # fmt: skip
        assert "Container c was using" in agent.pods()["large"]["status"]["message"]
        agent.wait_ready("system")
        agent.write("late", pod("late", sh("c", SLEEP)))
        found = agent.wait(lambda pods: pods.get("late", {}).get("status", {}).get("reason") and pods["late"])["status"]
        assert (found["phase"], found["reason"]) == ("Pending", "Evicted")
        assert found["message"] == "The node had condition: [MemoryPressure]. "
        assert "MemoryPressure" in agent.run("status").out
