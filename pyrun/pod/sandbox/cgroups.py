"""Where a pod's cgroups are, pure. With the driver cgroupfs we make them ourselves; with the driver systemd each is the
scope of a unit that systemd makes, in the slice that cgroup_parent names. A name of the one kind given to the other
would put the pod where its kubelet neither limits nor finds it, so that is refused."""

from __future__ import annotations

from ...errors import ConfigError, InvalidArgument
from ...facts import Facts
from ...plan.cgroup.scopes import expand_slice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CGROUPFS, SYSTEMD = "cgroupfs", "systemd"
SLICE_MAX = 255 - len(".slice")
UNIT_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\")
PREFIX = "pyrun"  # of the units' names: pyrun-CONTAINER.scope, pyrun-pod-POD.scope
FIELD = "linux.cgroup_parent"


class PodCgroups:
    """own: the supervisor's, an absolute path; None: this node has no cgroup2. removed: paths that the end removes,
    each below no other that comes before it. slice: in which systemd makes the pod's scopes, "" where we make cgroups.
    scope: the supervisor's; units: those that the end stops."""

    __slots__ = ("own", "removed", "scope", "slice", "units")

    def __init__(
        self, own: str | None, removed: list[str], slice: str = "", scope: str = "", units: tuple[str, ...] = ()
    ) -> None:
        self.own, self.removed, self.slice, self.scope, self.units = own, removed, slice, scope, units

    def record(self) -> dict[str, Any]:
        """What sandbox.json has of it."""
        units = {"slice": self.slice, "scope": self.scope, "units": self.units} if self.slice else {}
        return {"cgroup": self.own, "cgroups": self.removed, **units}


def plan_cgroups(pod: str, given: str, driver: str, facts: Facts) -> PodCgroups:
    """A parent that was named to us is not ours to remove. InvalidArgument where it is none, or another driver's."""
    if driver == SYSTEMD:
        return _of_systemd(pod, given, facts)
    parent = cgroup_parent(pod, given)
    if facts.cgroup_mount is None:
        return PodCgroups(None, [])
    base = facts.cgroup_mount.rstrip("/") + parent
    if given:
        return PodCgroups(f"{base}/{pod}", [f"{base}/{pod}"])
    return PodCgroups(f"{base}/pod", [f"{base}/pod", base])


def _of_systemd(pod: str, given: str, facts: Facts) -> PodCgroups:
    """Who names no parent gets a slice of the pod's own, in system.slice, which always is."""
    slice, scope = slice_of(pod, given), f"{PREFIX}-pod-{pod}.scope"
    if facts.cgroup_mount is None:
        raise InvalidArgument("the cgroup driver is systemd, and no cgroup2 hierarchy is mounted")
    base = facts.cgroup_mount.rstrip("/") + expand_slice(slice)
    removed = [f"{base}/{scope}"] if given else [f"{base}/{scope}", base]
    return PodCgroups(f"{base}/{scope}", removed, slice, scope, (scope,) if given else (scope, slice))


def cgroup_parent(pod: str, given: str) -> str:
    """The path below the cgroup2 mount in which the pod's cgroups are, with the driver cgroupfs. InvalidArgument."""
    if not given:
        return f"/pyrun/{pod}"
    parts = given.strip("/").split("/")
    if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
        raise InvalidArgument(f"{FIELD}: {given!r} is no path of a cgroup")
    if is_slice(given):
        raise InvalidArgument(
            f"{FIELD}: {given} is a systemd unit, and the cgroup driver is cgroupfs",
            hint="set the kubelet's cgroupDriver to cgroupfs, or let it ask (KubeletCgroupDriverFromCRI); "
            "or set cgroup_driver = 'systemd' in the configuration of pyrun cri",
        )
    return "/" + "/".join(parts)


def slice_of(pod: str, given: str) -> str:
    """The slice in which the pod's scopes are, with the driver systemd. InvalidArgument."""
    if not given:
        return f"system-{PREFIX}_{pod}.slice"
    if not is_slice(given):
        raise InvalidArgument(
            f"{FIELD}: {given!r} is not the name of a slice, and the cgroup driver is systemd",
            hint="a slice is named as kubepods-burstable.slice is: set the kubelet's cgroupDriver to systemd, or let "
            "it ask (KubeletCgroupDriverFromCRI); or set cgroup_driver = 'cgroupfs' in the configuration of pyrun cri",
        )
    return given.rpartition("/")[2]


def is_slice(given: str) -> bool:
    """Whether it is the name of a slice, or all of the path that this stands for, as a kubelet gives it."""
    name = given.rpartition("/")[2]
    if not name.endswith(".slice") or not UNIT_CHARACTERS.issuperset(name) or len(name) > SLICE_MAX:
        return False
    try:
        path = expand_slice(name)
    except ConfigError:
        return False
    return given == name or given == path
