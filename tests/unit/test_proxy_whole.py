"""What the proxy's daemon takes at once is whole: a Service comes with the slices that are made of its pods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyrun.kube.addresses import parse_address
from pyrun.kube.feed.store import Told
from pyrun.proxy.daemon import Daemon, Given
from pyrun.proxy.model import Node, Options

META = {"namespace": "default"}
SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", **META},
    "spec": {
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7"],
        "selector": {"app": "web"},
        "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP"}],
    },
}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "one", "uid": "u", "labels": {"app": "web"}, **META},
    "spec": {"nodeName": "n1", "containers": []},
    "status": {
        "phase": "Running",
        "podIP": "10.86.0.2",
        "podIPs": [{"ip": "10.86.0.2"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


def test_no_moment_without_endpoints(tmp_path: Path) -> None:
    node = Node(name="n1", addresses=(parse_address("10.77.0.1"),))
    daemon = Daemon(Given(node=node, options=Options(), state=str(tmp_path)), lambda line: None)
    try:
        daemon.store.put("files", Told(SERVICE, "files"))
        daemon.store.put("pods", Told(POD, "pods"))
        daemon._take()
        (found,) = daemon.follower.planner.rules().sets
        assert [(one.address, one.port) for one in found.endpoints] == [(parse_address("10.86.0.2"), 8080)]
    finally:
        daemon.store.close()
