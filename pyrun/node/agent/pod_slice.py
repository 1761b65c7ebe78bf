"""A pod's slice, where systemd makes the cgroups: with its limits before anything is in it, and its end."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...plan.cgroup.resources import cpu_weight
from ...plan.cgroup.scopes import expand_slice
from ...runtime.dbus import BusError
from ...runtime.systemd import EXISTS, Manager, stop_units, with_manager
from ..plan.observed import CgroupLimits

if TYPE_CHECKING:
    from ...plan.cgroup.scopes import Properties

INFINITY = (1 << 64) - 1
QUOTA_TO_SECOND = 10  # a quota is for 100 ms


def limit_properties(limits: CgroupLimits) -> Properties:
    """PURE. In systemd's units: systemd.resource-control(5)."""
    return [
        ("CPUWeight", ("t", cpu_weight(limits.shares))),
        ("CPUQuotaPerSecUSec", ("t", limits.quota * QUOTA_TO_SECOND or INFINITY)),
        ("MemoryMax", ("t", INFINITY if limits.memory is None else limits.memory)),
        ("MemorySwapMax", ("t", 0)),  # a kubelet's NoSwap
    ]


def make_slice(name: str, pod: str, limits: CgroupLimits) -> None:
    """Makes it, or gives one that is there these limits. pod: for people. PyrunError."""
    wanted = limit_properties(limits)
    new: Properties = [
        ("Description", ("s", f"pod {pod}")),
        ("DefaultDependencies", ("b", False)),
        *((f"{kind}Accounting", ("b", True)) for kind in ("Memory", "CPU", "IO", "Tasks")),
        *wanted,
    ]

    def make(manager: Manager) -> None:
        try:
            manager.start(name, new)
        except BusError as error:
            if error.name != EXISTS:
                raise
            manager.call("SetUnitProperties", "sba(sv)", (name, True, wanted))

    with_manager(False, make, f"make {name}")


def has_slice(mount: str | None, name: str) -> bool:
    """Whether its cgroup is there, whoever made it."""
    return mount is not None and os.path.isdir(mount.rstrip("/") + expand_slice(name))


def remove_slice(name: str) -> None:
    """No error for one that is not there. PyrunError."""
    stop_units([name])
