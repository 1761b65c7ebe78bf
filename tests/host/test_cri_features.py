"""What Status says that this runtime can do, it does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import InvalidArgument
from tests.support.container.runner import wait_for
from tests.support.cri.node import Node, a_node

MAPS = [{"host_id": 100_000, "container_id": 0, "length": 65_536}]


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path, busybox_rootfs) as found:
        found.start()
        yield found


def test_features_are_said(node: Node) -> None:
    status = node.call("Status")
    assert status.features.mount_options and status.features.supplemental_groups_policy
    assert status.features.user_namespaces_host_network
    assert {one.name for one in status.runtime_handlers} == {"", "pyrun"}
    for handler in status.runtime_handlers:
        assert handler.features.user_namespaces and handler.features.recursive_read_only_mounts


def test_mount_options(node: Node, tmp_path: Path) -> None:
    """noexec holds in the container, and not only in what is told of it; one that is no flag of a mount is refused."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "program").write_text("#!/bin/sh\necho ran\n")
    (volume / "program").chmod(0o755)
    pod = node.run_pod()
    for name, options in (("free", []), ("bound", ["noexec", "nosuid", "nodev"])):
        mounts = [{"container_path": "/v", "host_path": str(volume), "mount_options": options}]
        id = node.run(pod, name, "/v/program; grep ' /v ' /proc/self/mounts", mounts=mounts)
        node.wait_state(id, v1.CONTAINER_EXITED, 30)
    assert node.log("free")[0] == "ran"
    bound = node.log("bound")
    assert "Permission denied" in bound[0] and all(f in bound[-1].split()[3] for f in ("noexec", "nosuid", "nodev"))
    with pytest.raises(InvalidArgument, match="mounts.0.mount_options.0"):
        mounts = [{"container_path": "/v", "host_path": str(volume), "mount_options": ["size=1"]}]
        node.create(pod, "wrong", mounts=mounts)


def test_user_namespace_on_the_nodes_network(node: Node) -> None:
    """Its root is nobody of the node's, its network is the node's own."""
    users = {"mode": "POD", "uids": MAPS, "gids": MAPS}
    linux = {
        "security_context": {"namespace_options": {"pid": "CONTAINER", "network": "NODE", "userns_options": users}}
    }
    pod = node.run_pod(linux=linux)
    config = node.container_config("c", "cat /proc/self/uid_map; readlink /proc/self/ns/net; ls /sys", linux=linux)
    made = node.call("CreateContainer", pod_sandbox_id=pod, config=config, sandbox_config=node.pod_config(linux=linux))
    node.call("StartContainer", container_id=made.container_id)
    assert node.wait_state(made.container_id, v1.CONTAINER_EXITED, 30).exit_code == 0
    uid_map, net, *rest = node.log()
    assert uid_map.split() == ["0", "100000", "65536"] and "class" in rest
    assert net == os.readlink(f"/proc/{node.pid}/ns/net")
    assert node.call("PodSandboxStatus", pod_sandbox_id=pod).status.network.ip == ""


def test_a_handler_that_is_not_there(node: Node) -> None:
    with pytest.raises(InvalidArgument, match="runtime_handler: there is no 'kata'"):
        node.call("RunPodSandbox", config=node.pod_config(), runtime_handler="kata")
    node.check()


def test_the_addresses_of_a_pod_that_has_stopped_are_anothers(node: Node) -> None:
    """It gives them back when it stops, not when it is removed, and its status does not say them any more; also that of
    another daemon."""

    def status() -> Any:
        return node.call("PodSandboxStatus", pod_sandbox_id=pod).status

    pod = node.run_pod()
    lease = node.root / "network/leases" / pod
    assert status().network.ip and lease.exists()
    node.call("StopPodSandbox", pod_sandbox_id=pod)
    assert status().state == v1.SANDBOX_NOTREADY and not status().network.ip
    wait_for(lambda: not lease.exists(), 60, "the lease to be given back")
    node.kill()
    node.start()
    assert status().state == v1.SANDBOX_NOTREADY and not status().network.ip and not lease.exists()


def test_a_kubelets_pod_cidr(node: Node) -> None:
    """Pods to come have their addresses in it, also those of the next daemon; who has one keeps it."""
    before = node.run_pod("before")

    def ip(pod: str) -> Any:
        return ip_address(node.call("PodSandboxStatus", pod_sandbox_id=pod).status.network.ip)

    def give(cidr: str) -> None:
        node.call("UpdateRuntimeConfig", runtime_config={"network_config": {"pod_cidr": cidr}})

    first = ip(before)
    for wrong in ("banana", "10.99.0.0/33", "10.99.0.0/24,fd00::/200"):
        with pytest.raises(InvalidArgument, match=re.escape(wrong.rpartition(",")[2])):
            give(wrong)
    give("")  # of a kubelet that has not been given one yet
    assert ip(node.run_pod("same")) in ip_network("10.86.0.0/16")
    give("10.99.0.0/24,fd99::/64")
    pod = node.run_pod("after")
    more = node.call("PodSandboxStatus", pod_sandbox_id=pod).status.network.additional_ips
    assert ip(pod) in ip_network("10.99.0.0/24") and ip_address(more[0].ip) in ip_network("fd99::/64")
    assert ip(before) == first
    node.kill()
    node.start()
    assert ip(node.run_pod("later")) in ip_network("10.99.0.0/24") and ip(before) == first
    node.check()
