"""The cgroup as the one that is born in it may hold it."""

from __future__ import annotations

from ..model.steps import PARENT, MountSetattr, OpenTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..model.plan import Builder
    from ..model.steps import Label

EBADF = 9
AT_EMPTY_PATH, OPEN_TREE_CLONE, MOUNT_ATTR_RDONLY = 0x1000, 1, 1


def plan_birth_mount(b: Builder, cgroup: int, without: tuple[tuple[int, Label | None], ...] = ()) -> int:
    """PARENT: the slot of a mount of the cgroup alone, read-only and attached nowhere, for CLONE_INTO_CGROUP. Who takes
    it from the child gets no further up. without: rules for where no such mount can be made."""
    birth = b.slot("cgroup-mount", inherit=True)
    copy = OpenTree(dir=cgroup, path="", flags=OPEN_TREE_CLONE | AT_EMPTY_PATH, out=birth, on=without)
    copy.why = "whoever takes it from stage 2 gets no further up"
    bare = MountSetattr(mount=birth, at_flags=AT_EMPTY_PATH, set=MOUNT_ATTR_RDONLY)
    bare.on = tuple(rule for rule in without if rule[0] == EBADF)
    b.add(PARENT, copy, bare)
    return birth
