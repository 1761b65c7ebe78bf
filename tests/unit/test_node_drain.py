"""Which pods a drain takes."""

from __future__ import annotations

from typing import Any

from pyrun.node.server.drain import MIRROR, Pod, named, plan_drain


def pod(name: str, owner: str = "", *, phase: str = "Running", mirror: bool = False, data: bool = False) -> Pod:
    meta: dict[str, Any] = {"namespace": "n", "name": name}
    if owner:
        meta["ownerReferences"] = [{"kind": owner, "name": "o", "controller": True}, {"kind": "DaemonSet"}]
    if mirror:
        meta["annotations"] = {MIRROR: "x"}
    volumes = [{"name": "d", "emptyDir": {}}] if data else []
    return {"metadata": meta, "spec": {"volumes": volumes}, "status": {"phase": phase}}


PODS = (
    pod("set", "ReplicaSet"),
    pod("data", "ReplicaSet", data=True),
    pod("daemon", "DaemonSet"),
    pod("mirror", "Node", mirror=True),
    pod("alone"),
    pod("over", phase="Succeeded", data=True),
    pod("failed", "DaemonSet", phase="Failed"),
)


def test_what_would_be_lost_is_refused_and_what_would_come_again_stays() -> None:
    found = plan_drain(PODS, force=False, delete_data=False)
    assert [named(one) for one in found.evict] == ["n/set", "n/over", "n/failed"]
    assert [named(one) for one, _ in found.left] == ["n/daemon", "n/mirror"]
    assert [(named(one), why.rpartition("(")[2]) for one, why in found.refused] == [
        ("n/data", "--delete-emptydir-data)"),
        ("n/alone", "--force)"),
    ]


def test_by_its_options() -> None:
    found = plan_drain(PODS, force=True, delete_data=True)
    assert [named(one) for one in found.evict] == ["n/set", "n/data", "n/alone", "n/over", "n/failed"]
    assert not found.refused and len(found.left) == 2
