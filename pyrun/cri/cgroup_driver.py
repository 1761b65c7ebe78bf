"""Who makes cgroups on this node: systemd where it runs the node, for one hierarchy has one writer (systemd's
CGROUP_DELEGATION), and we where it does not. Where it does and can't be asked, nobody: a second writer is for a person
to choose, never what a bus that is late at boot leads to."""

from __future__ import annotations

import time

from ..errors import PyrunError
from ..facts import Facts
from ..pod.sandbox.cgroups import CGROUPFS, SYSTEMD
from ..runtime.systemd import runs_the_node, with_manager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PURE = "/sys/fs/cgroup"  # where systemd has cgroup2 when there is nothing else (file-hierarchy(7))
ANSWER_S = 5.0  # for a bus that is being started


def is_for_systemd(facts: Facts) -> bool:
    """Whether systemd is process 1 and has a pure cgroup2, which is ours as well."""
    return facts.cgroup_mount == PURE and runs_the_node()


def choose_driver(wanted: str, facts: Facts, warn: Callable[[str], None]) -> str:
    """wanted: of the configuration, "" for the one that fits. PyrunError where systemd is to make them and can't be
    had."""
    if wanted == CGROUPFS or not (wanted or is_for_systemd(facts)):
        return CGROUPFS
    if not is_for_systemd(facts):
        raise PyrunError(
            "cgroup_driver: systemd does not run this node, or not with cgroup v2 alone",
            hint="cgroup_driver = 'cgroupfs' is for such a node; without the key it is chosen by itself",
        )
    _wait_for_systemd(warn)
    return SYSTEMD


def _wait_for_systemd(warn: Callable[[str], None]) -> None:
    """Until it answers. PyrunError."""
    last, told = time.monotonic() + ANSWER_S, False
    while True:
        try:
            with_manager(False, lambda manager: manager.cgroup(), "answer")
            return
        except PyrunError as error:
            if time.monotonic() > last:
                raise PyrunError(
                    f"cgroup_driver: systemd makes this node's cgroups and can't be asked: {error.text}",
                    hint="what says systemctl status dbus.socket dbus? cgroup_driver = 'cgroupfs' does without systemd",
                ) from None
            if not told:
                warn(f"systemd can't be asked yet, which is tried for {ANSWER_S:.0f} s: {error.text}")
            told = True
        time.sleep(0.1)
