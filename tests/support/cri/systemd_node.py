"""A node whose cgroups are systemd's units: what snapshot() tells of cgroups are the scopes and slices that pods have,
as directories and as units."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatch

from pyrun import cri_api as v1
from tests.support.container.leaks import CGROUP_ROOT
from tests.support.cri.node import Node

UNITS = ("pyrun-*.scope", "system-pyrun_*.slice")


@dataclass
class SystemdNode(Node):
    """Pods name no parent, or one of the test's own slices, which stay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.configure('cgroup_driver = "systemd"\ncni_conf_dir = ""\n')
        self.parents: dict[str, str] = {}  # pod -> the cgroup of the slice that it named

    def snapshot(self) -> dict[str, set[str]]:
        dirs = (name for _, names, _ in os.walk(CGROUP_ROOT) for name in names)
        ours = {name for name in dirs if any(fnmatch(name, pattern) for pattern in UNITS)}
        return super().snapshot() | {"cgroups": ours, "units": units()}

    def expected(self) -> dict[str, set[str]]:
        found = super().expected()
        wanted = {f"pyrun-{id}.scope" for id in found["states"]} | {
            f"pyrun-pod-{id}.scope" for id in found["sandboxes"]
        }
        wanted |= {f"system-pyrun_{id}.slice" for id in found["sandboxes"] if id not in self.parents}
        return found | {"cgroups": wanted, "units": wanted}

    def driver(self) -> int:
        return int(self.call("RuntimeConfig").linux.cgroup_driver)

    def run_pod_in(self, slice: str, name: str = "p") -> str:
        """In a slice of the test's: its name, or the path that a kubelet gives."""
        id = self.run_pod(name, linux={"cgroup_parent": slice, **_linux()})
        self.parents[id] = slice
        return id


def _linux() -> dict[str, object]:
    return {"security_context": {"namespace_options": {"pid": int(v1.CONTAINER)}}}


def units() -> set[str]:
    """Those of pods, also such as have failed."""
    argv = ["systemctl", "list-units", "--all", "--plain", "--no-legend", *UNITS]
    said = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {line.split()[0] for line in said.splitlines()}
