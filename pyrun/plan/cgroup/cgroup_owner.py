"""Who owns the container's cgroup: the user of its program, where it may make cgroups below (config-linux.md, Cgroup
ownership).

That is so where the container has a cgroup namespace of its own and finds its cgroup mounted read-write, and where
the user is not the host's root, who may write there anyway: an init such as systemd's in a user namespace. Only the
files that the kernel means to be delegated change hands (cgroups(7)); with others a container could raise its limits.
"""

from __future__ import annotations

from ...facts import Facts
from ...oci.model import Spec
from ..model.id_maps import host_id
from ..model.plan import Builder
from ..model.steps import PARENT, Fchownat
from ..namespace.namespaces import namespaces

CAP_CHOWN = 0
ENOENT = 2
AT = "/linux/namespaces"


def owner_of(spec: Spec, facts: Facts) -> int | None:
    """The uid, as the host has it; None where the cgroup stays as it was made."""
    if spec.process is None or spec.linux is None or not facts.has_cap(CAP_CHOWN) or facts.in_userns:
        return None
    uid = spec.process.user.uid
    if "user" in namespaces(spec):
        mapped = host_id(spec.linux.uid_mappings, uid)
        if mapped is None:  # the namespace was made by another, who knows
            return None
        uid = mapped
    return uid or None


def plan_owner(b: Builder, spec: Spec, facts: Facts, cgroup: int) -> None:
    """Parent: gives the cgroup away, if it is to be."""
    uid = owner_of(spec, facts)
    if uid is None:
        return
    b.add(PARENT, Fchownat(dir=cgroup, name="", uid=uid, at=AT, why="it is writable in the container"))
    b.add(PARENT, *(Fchownat(dir=cgroup, name=n, uid=uid, at=AT, on=((ENOENT, None),)) for n in facts.cgroup_delegate))
