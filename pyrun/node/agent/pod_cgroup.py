"""A pod's own cgroup, and those of the qualities of service above it: the CRI leaves them to who names them.

Source: kubernetes pkg/kubelet/cm (pod_container_manager_linux.go, qos_container_manager_linux.go), cgroupfs' names.
"""

from __future__ import annotations

import os

from ...errors import PyrunError, reason
from ...plan.cgroup.resources import cpu_weight
from ..plan.observed import CgroupLimits
from ..qos import LEAST_SHARES, PERIOD_US, shares

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids", "hugetlb")
TRIES = 20
BESTEFFORT, BURSTABLE = "/kubepods/besteffort", "/kubepods/burstable"


def make_cgroup(mount: str | None, parent: str, limits: CgroupLimits) -> list[str]:
    """Makes it and those above it, with their controllers and the pod's limits. What could not be limited, as this node
    lacks the controller. PyrunError."""
    if mount is None:
        return []
    path = mount.rstrip("/") + parent
    for tries in range(TRIES):
        try:
            _make_path(mount.rstrip("/"), parent)
            break
        except FileNotFoundError as error:  # another pod's end has just taken one away that had nothing in it
            if tries == TRIES - 1:
                raise PyrunError(f"{path}: {reason(error)}") from None
        except OSError as error:
            raise PyrunError(f"{path}: {reason(error)}") from None
    _write(f"{mount.rstrip('/')}{BESTEFFORT}/cpu.weight", cpu_weight(LEAST_SHARES))
    _write(f"{path}/cpu.weight", cpu_weight(limits.shares))
    _write(f"{path}/memory.swap.max", 0)  # a kubelet's NoSwap; where the kernel has no swap there is no such file
    wanted = {
        "cpu.max": f"{limits.quota or 'max'} {PERIOD_US}",
        "memory.max": "max" if limits.memory is None else str(limits.memory),
    }
    left = [name for name, value in wanted.items() if not _limit(f"{path}/{name}", value)]
    return [name for name in left if (limits.quota if name == "cpu.max" else limits.memory is not None)]


def _limit(path: str, value: str) -> bool:
    """False where the node lacks the controller. PyrunError where it has it, and the limit can't be set."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise PyrunError(f"{path}: {value}: {reason(error)}") from None
    finally:
        os.close(fd)
    return True


def _make_path(path: str, parent: str) -> None:
    for part in parent.strip("/").split("/"):
        _give_controllers(path)
        path = f"{path}/{part}"
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            pass
    _give_controllers(path)


def weigh_burstable(mount: str | None, thousandths: int) -> None:
    """All of them together weigh what they request."""
    if mount is not None:
        _write(f"{mount.rstrip('/')}{BURSTABLE}/cpu.weight", cpu_weight(shares(thousandths)))


def _give_controllers(path: str) -> None:
    """To the children of a cgroup, those that it has; one that can't be given is missed where it is needed."""
    try:
        with open(f"{path}/cgroup.controllers") as file:
            available = file.read().split()
    except OSError:
        return
    for name in CONTROLLERS:
        if name in available:
            _write(f"{path}/cgroup.subtree_control", f"+{name}")


def _write(path: str, value: int | str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
        return True
    except OSError:
        return False


def remove_cgroup(mount: str | None, parent: str) -> None:
    """And those above it that have nothing else. PyrunError where something is still in the pod's."""
    if mount is None or not parent:
        return
    parts = parent.strip("/").split("/")
    for depth in range(len(parts), 0, -1):
        path = "/".join([mount.rstrip("/"), *parts[:depth]])
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if depth == len(parts):
                raise PyrunError(f"{path}: {reason(error)}") from None
            return  # of other pods
