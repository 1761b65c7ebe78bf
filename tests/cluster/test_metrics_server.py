"""Kubernetes' metrics-server asks a node of pyrun, by the certificate and the rights that it has anywhere, and `kubectl
top` has what is used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.engines.metrics_server import PROGRAM, a_metrics_server
from tests.support.kube.cluster import Cluster, a_plane_and_node
from tests.support.node.agent import WAIT, sh

NODE = "n1"
BUSY = "while :; do :; done"
CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")


def test_kubectl_top_has_the_node_and_its_containers(tmp_path: Path, busybox_rootfs: Path) -> None:
    """metrics-server leaves out a pod whose memory nobody knows, so there are none where that has no controller."""
    if not PROGRAM.exists():
        pytest.skip("metrics-server is not built (make metrics-server)")
    with a_plane_and_node(tmp_path, busybox_rootfs, NODE) as (plane, agent):
        cluster = Cluster(plane, agent, "default")
        cluster.wait(lambda: cluster.get("serviceaccount", "default"))
        wanted = {"requests": {"cpu": "500m"}}  # or others on this machine leave it next to nothing
        cluster.apply(cluster.pod("both", sh("busy", BUSY, resources=wanted), sh("idle", WAIT)))
        cluster.wait_ready("both")
        with a_metrics_server(plane) as said:
            try:
                assert cluster.wait(lambda: _node(cluster))
                if "memory" in CONTROLLERS.read_text().split():
                    busy, idle = cluster.wait(lambda: _containers(cluster))
                    assert idle < 50 < 100 < busy < 4000
            except AssertionError as error:
                raise AssertionError(f"{error}\n{said.read_text()[-6000:]}") from None
            assert "Failed to scrape node" not in said.read_text()
        cluster.kubectl("delete", "pod", "both", "--timeout=100s")


def _node(cluster: Cluster) -> bool:
    done = cluster.try_kubectl("top", "node", NODE, "--no-headers")
    found = re.match(rf"{NODE} +(\d+)m +\d+% +(\d+)Mi +\d+% *$", done.stdout)
    return found is not None and int(found[1]) > 100 and int(found[2]) > 10


def _containers(cluster: Cluster) -> tuple[int, int] | None:
    """Millicores of the busy and the idle one."""
    done = cluster.try_kubectl("top", "pod", "both", "--containers", "--no-headers")
    rows = re.findall(r"^both +(\w+) +(\d+)m +\d+Mi *$", done.stdout, re.MULTILINE)
    found = {name: int(cpu) for name, cpu in rows}
    return (found["busy"], found["idle"]) if len(found) == 2 and found["busy"] > 100 else None
