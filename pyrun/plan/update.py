"""The plan of `update`: new limits into the cgroup of a container that runs, all of them or none.

The undo lane writes back what the files said before. It is planned for every file that is written, in reverse: writing
a value that is there already changes nothing.
"""

from __future__ import annotations

from .cgroup.cgroups import CGROUP2_SUPER_MAGIC, plan_controllers, plan_writes
from .cgroup.intelrdt import RDTGROUP_SUPER_MAGIC
from .cgroup.resources import Write
from .model.plan import Builder, Plan
from .model.steps import ANY, PARENT, UNDO, WriteFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a line of a file says of a key that has none: a device, or a resource of the rdma and misc controllers.
_NO_LIMIT = {
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "io.weight": "default",
    "io.bfq.weight": "default",
    "rdma.max": "hca_handle=max hca_object=max",
}
_KEYED_BY_NAME = ("rdma.max", "misc.max")


def plan_update(
    writes: Sequence[Write],
    controllers: tuple[str, ...],
    *,
    mount: str,
    cgroup: str,
    now: Mapping[str, str],
    schemata: Sequence[tuple[str, str, str]] = (),
    rootless: bool = False,
) -> Plan:
    """Its first slot is the cgroup, which whoever runs it holds. mount: of cgroup2; cgroup: absolute, below it.
    now: what those of `files_of(writes)` that exist say.

    schemata: (file, line, line before) of resctrl."""
    b = Builder()
    slot = b.slot("cgroup")
    for file, line, old in schemata:
        b.add(PARENT, WriteFile(path=file, data=line + "\n", magic=RDTGROUP_SUPER_MAGIC, at="/linux/intelRdt"))
        b.add(UNDO, WriteFile(path=file, data=old + "\n", magic=RDTGROUP_SUPER_MAGIC, why="as it was"))
    if writes:
        at = mount
        for name in cgroup[len(mount) :].strip("/").split("/"):
            plan_controllers(b, at, controllers, controllers, rootless=rootless)
            at += "/" + name
        _plan_limits(b, slot, writes, now)
    return b.plan()


def _plan_limits(b: Builder, slot: int, writes: Sequence[Write], now: Mapping[str, str]) -> None:
    plan_writes(b, slot, writes)
    for file, value in reversed([pair for write in writes for pair in before(write, now)]):
        # A value that can't be written back must not keep the others from it.
        back = WriteFile(dir=slot, path=file, data=value, magic=CGROUP2_SUPER_MAGIC, on=((ANY, None),), why="as it was")
        b.add(UNDO, back)


def files_of(writes: Sequence[Write]) -> set[str]:
    """The files that a plan of these writes may write to, or change by what it writes."""
    return {file for write in writes for file, _ in _changed(write)}


def before(write: Write, now: Mapping[str, str]) -> list[tuple[str, str]]:
    """(file, value) that puts back what this write changes; to be written in reverse."""
    return [(file, _old_value(file, value, now[file])) for file, value in _changed(write) if file in now]


def _changed(write: Write) -> list[tuple[str, str]]:
    pairs = [(write.file, write.value), *([write.otherwise] if write.otherwise else [])]
    if write.file == "cpu.idle":  # who takes part again has the default weight, so the old one goes back behind it
        pairs.insert(0, ("cpu.weight", ""))
    return pairs


def _old_value(file: str, value: str, text: str) -> str:
    """What a file of one value says; of a file with a line for each key, that of the one which `value` names."""
    key, space, _ = value.partition(" ")
    lines = text.strip().split("\n")
    if not space or not (":" in key or file in _KEYED_BY_NAME):
        default = [line for line in lines if line.startswith("default ")]
        return (default or lines)[0] or "\n"
    mine = [line for line in lines if line.split(" ")[0] == key]
    return mine[0] if mine else f"{key} {_NO_LIMIT.get(file, 'max')}"
