"""Images that nobody needs go, on a real store and node; and are told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.cri.node import BUSYBOX
from tests.support.node.agent import SLEEP, AgentNode, an_agent, pod, sh

UNUSED, USED, WANTED = (f"registry.test/{name}:1" for name in ("unused", "used", "wanted"))
AT_ONCE = ("--minimum-image-ttl", "0", "--maximum-image-ttl", "1")


def garbage(agent: AgentNode, *words: str) -> dict[str, dict[str, Any]]:
    found = json.loads(agent.run("gc", "--format", "json", *words).ok().out)
    return {one["name"]: one for one in found["images"]}


def test_images_that_nobody_needs_go(tmp_path: Path, busybox_rootfs: Path) -> None:
    with an_agent(tmp_path, busybox_rootfs) as agent:
        agent.write("used", pod("used", sh("c", SLEEP, image=USED)))
        never = {"name": "c", "image": WANTED, "imagePullPolicy": "Never"}
        agent.write("wanted", pod("wanted", never, initContainers=[sh("first", SLEEP)]))
        agent.node.kill()
        for number, name in enumerate((UNUSED, USED, WANTED)):
            agent.node.add_image(name, {"Cmd": ["sh"], "Env": [f"N={number}", "PATH=/bin"]})
        agent.node.start()
        used = agent.wait_ready("used")
        agent.wait(lambda pods: "running" in str(pods["wanted"]["status"].get("initContainerStatuses")))
        assert {name: one["goes"] for name, one in garbage(agent, "--dry-run").items()} == dict.fromkeys(
            (UNUSED, USED, WANTED, BUSYBOX), False
        )
        agent.node.kill()
        agent.node.words += AT_ONCE
        agent.node.start()
        agent.wait(lambda _: garbage(agent) and UNUSED not in garbage(agent, "--dry-run"))
        found = garbage(agent)
        id = used["status"]["containerStatuses"][0]["containerID"].removeprefix("pyrun://")
        assert found[USED]["why"] == f"container {id[:13]} has it"
        assert found[WANTED]["why"] == "pod default/wanted wants it" and not found[WANTED]["goes"]
        assert "wants it" in agent.run("gc", "--dry-run").ok().out
        said = agent.run("status").out
        assert f"ImageRemoved {UNUSED}: not used for" in said, said
        (agent.manifests / "used.yaml").unlink()
        agent.wait(lambda pods: "used" not in pods)
        agent.wait(lambda _: garbage(agent) and USED not in garbage(agent, "--dry-run"))
