"""Plans of the file system for the unit tests: a spec in a line, its plan, and ways to look at the steps."""

from __future__ import annotations

from typing import Any

import pytest

from pyrun.errors import ConfigError, PyrunError
from pyrun.facts import Facts
from pyrun.oci.model import (
    IdMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    Spec,
    User,
)
from pyrun.plan.model.plan import Builder, Plan
from pyrun.plan.model.steps import STAGE2, Step
from pyrun.plan.rootfs.rootfs import (
    RootfsPlan,
    plan_console,
    plan_rootfs_child,
    plan_rootfs_finish,
    plan_rootfs_parent,
    plan_rootfs_pivot,
)

ALL = ("pid", "network", "ipc", "uts", "mount", "cgroup")
MAPS = (IdMapping(container_id=0, host_id=100000, size=65536),)
USER: dict[str, Any] = {"uid_mappings": MAPS, "gid_mappings": MAPS}
ROOTFS = "/b/rootfs"


def make_spec(
    *mounts: Mount,
    kinds: tuple[str, ...] = ALL,
    process: dict[str, Any] | None = None,
    readonly: bool = False,
    **linux: Any,
) -> Spec:
    return Spec(
        oci_version="1.3.0",
        root=Root(path="rootfs", readonly=readonly),
        process=Process(**{"cwd": "/", "args": ("true",), "user": User(), **(process or {})}),
        mounts=mounts,
        linux=Linux(namespaces=tuple(Namespace(type=kind) for kind in kinds), **linux),
    )


def facts(**values: Any) -> Facts:
    return Facts(**{"kernel": (6, 18), **values})


def build(spec: Spec, host: Facts | None = None, console: bool = False) -> tuple[Plan, RootfsPlan]:
    host, b = host or facts(), Builder()
    rp = plan_rootfs_parent(b, spec, host, rootfs=ROOTFS, bundle="/b", cgroup="/sys/fs/cgroup/c")
    plan_rootfs_child(b, spec, host, rp)
    if console:
        plan_console(b, rp, spec)
    plan_rootfs_pivot(b, spec, host, rp)
    plan_rootfs_finish(b, spec, host, rp)
    return b.plan(), rp


def bits(step: Step, operand: str) -> int:
    value: Any = step.args[operand]
    return int(value)


def names(steps: list[Step]) -> list[str]:
    return [type(step).__name__ for step in steps]


def at(plan: Plan, pointer: str, lane: int = STAGE2) -> list[Step]:
    """The steps of a lane that this place of config.json, or one below it, asked for."""
    return [s for s in plan.lanes[lane] if s.at == pointer or (s.at or "").startswith(pointer + "/")]


def of(plan: Plan, kind: str, lane: int = STAGE2) -> list[dict[str, Any]]:
    return [s.args for s in plan.lanes[lane] if type(s).__name__ == kind]


def bind(source: str = "/src", *options: str, dest: str = "/data", **more: Any) -> Mount:
    return Mount(destination=dest, source=source, type="bind", options=options, **more)


def fails(spec: Spec, pointer: str, text: str, host: Facts | None = None) -> None:
    with pytest.raises(PyrunError) as caught:
        build(spec, host)
    where = [p for p, _ in caught.value.faults] if isinstance(caught.value, ConfigError) else [caught.value.pointer]
    assert where == [pointer]
    assert text in str(caught.value)
