"""Containers on layers that are EROFS images: with and without a user namespace, over a killed daemon, to the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun import cri_api as v1
from pyrun.errors import FailedPrecondition, NotFound
from tests.support.container.disk import mounts_below
from tests.support.cri.node import BUSYBOX, Node, a_node
from tests.support.layers import needs_images

pytestmark = needs_images

MAPS = [{"host_id": 100_000, "container_id": 0, "length": 65_536}]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"pid": "CONTAINER"},
    "userns": {"pid": "CONTAINER", "userns_options": {"mode": "POD", "uids": MAPS, "gids": MAPS}},
}


@pytest.fixture
def node(tmp_path: Path, busybox_rootfs: Path) -> Iterator[Node]:
    with a_node(tmp_path, busybox_rootfs, layers="erofs") as found:
        found.config = str(tmp_path / "pyrun.toml")
        Path(found.config).write_text('layers = "erofs"\n')
        yield found


def layer_mounts(node: Node) -> list[str]:
    return mounts_below(node.root / "image")


@pytest.mark.parametrize("how", OPTIONS)
def test_life(node: Node, how: str) -> None:
    """The root's owners are the container's own, what is written is the container's, another image's mount works; a
    daemon that is killed loses nothing, and the image goes only after the last container."""
    linux = {"security_context": {"namespace_options": OPTIONS[how]}}
    mounts = [{"container_path": "/image", "readonly": True, "image": {"image": BUSYBOX}}]
    script = "stat -c %u /bin/busybox /image/bin/busybox; echo x > /bin/new && stat -c %u /bin/new"
    node.start()
    pod = node.run_pod(linux=linux)

    def request(name: str, command: str) -> dict[str, Any]:
        config = node.container_config(name, command, linux=linux, mounts=mounts)
        return {"pod_sandbox_id": pod, "config": config, "sandbox_config": node.pod_config(linux=linux)}

    def run(name: str, command: str) -> str:
        id = str(node.call("CreateContainer", **request(name, command)).container_id)
        node.call("StartContainer", container_id=id)
        return id

    first = run("c", f"{script}; while :; do sleep 1; done")
    node.wait_state(first, v1.CONTAINER_RUNNING)
    short = run("d", f"{script}; cat /etc/passwd > /dev/null && echo read")
    assert node.wait_state(short, v1.CONTAINER_EXITED, 30).exit_code == 0
    assert node.log("d") == ["0", "0", "0", "read"]
    assert len(layer_mounts(node)) == 1
    node.kill()
    node.start()
    assert node.status(first).state == v1.CONTAINER_RUNNING and len(layer_mounts(node)) == 1
    again = run("e", script)
    assert node.wait_state(again, v1.CONTAINER_EXITED, 30).exit_code == 0
    with pytest.raises(FailedPrecondition, match="in use"):
        node.call("RemoveImage", image={"image": BUSYBOX})
    node.call("RemovePodSandbox", pod_sandbox_id=pod)
    node.call("RemoveImage", image={"image": BUSYBOX})
    assert layer_mounts(node) == [] and os.listdir(node.root / "image/layers") == []
    with pytest.raises(NotFound):
        node.call("CreateContainer", **request("f", script))
    node.check()
