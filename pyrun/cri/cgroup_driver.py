"""Who makes cgroups on this node: systemd where it runs the node, for one hierarchy has one writer (systemd's
CGROUP_DELEGATION), and we where it does not."""

from __future__ import annotations

from ..errors import PyrunError
from ..facts import Facts
from ..pod.sandbox.cgroups import CGROUPFS, SYSTEMD
from ..runtime.systemd import Manager, runs_the_node

PURE = "/sys/fs/cgroup"  # where systemd has cgroup2 when there is nothing else (file-hierarchy(7))


def is_for_systemd(facts: Facts) -> bool:
    """Whether systemd is process 1 and has a pure cgroup2, which is ours as well."""
    return facts.cgroup_mount == PURE and runs_the_node()


def choose_driver(wanted: str, facts: Facts) -> tuple[str, str]:
    """The driver, and what a person should know of the choice. wanted: of the configuration, "" for the one that fits.
    PyrunError where systemd is wanted and can't be had."""
    if wanted == CGROUPFS or not (wanted or is_for_systemd(facts)):
        return CGROUPFS, ""
    if not is_for_systemd(facts):
        raise PyrunError(
            "cgroup_driver: systemd does not run this node, or not with cgroup v2 alone",
            hint="cgroup_driver = 'cgroupfs' is for such a node; without the key it is chosen by itself",
        )
    try:
        Manager(user=False).close()
    except PyrunError as error:
        if wanted:
            raise
        return CGROUPFS, f"the cgroup driver is cgroupfs, for systemd can't be asked: {error.text}"
    return SYSTEMD, ""
