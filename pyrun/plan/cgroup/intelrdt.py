"""linux.intelRdt: the container in a group of the resctrl file system (config-linux.md, IntelRdt).

A group is a directory. Without closID it is the container's own, named after its id, made here and removed by delete;
one with a closID is shared, and stays. One that is there already is not changed: its schemata have to be those that
are asked for.
"""

from __future__ import annotations

from ...errors import ConfigError
from ...facts import Facts
from ...oci.model import IntelRdt, Spec
from ..model.plan import Builder
from ..model.steps import PARENT, PID_DATA, UNDO, Mkdirat, Unlinkat, WriteFile

RDTGROUP_SUPER_MAGIC = 0x7655821
AT_REMOVEDIR = 0x200
ENOENT = 2
AT = "/linux/intelRdt"
HINT = "it takes a CPU with Intel RDT or AMD QoS, and: mount -t resctrl resctrl /sys/fs/resctrl"


def group_of(rdt: IntelRdt, container: str) -> str:
    """The group's place below the mount; "" for the default one."""
    return container if rdt.clos_id is None else rdt.clos_id.strip("/")


def wanted_lines(rdt: IntelRdt) -> list[tuple[str, str]]:
    """(line of the schemata file, pointer), in the order of the spec."""
    pairs = [(rdt.l3_cache_schema, f"{AT}/l3CacheSchema"), (rdt.mem_bw_schema, f"{AT}/memBwSchema")]
    pairs += [(line, f"{AT}/schemata/{i}") for i, line in enumerate(rdt.schemata)]
    return [(line, at) for line, at in pairs if line]


def plan_rdt_group(b: Builder, spec: Spec, facts: Facts, container: str) -> None:
    """Parent, before the init is made: the group and its schemata. ConfigError where there is no resctrl, or the group
    does not fit."""
    rdt = spec.linux.intel_rdt if spec.linux else None
    if rdt is None:
        return
    if facts.resctrl_mount is None:
        raise ConfigError([(AT, "no resctrl file system is mounted")], hint=HINT)
    check_rdt(rdt, facts, container)
    group = f"{facts.resctrl_mount}/{group_of(rdt, container)}".rstrip("/")
    if facts.resctrl_schemata is None:
        made = Mkdirat(path=group, mode=0o755, at=f"{AT}/closID", why="the class of service")
        b.add(PARENT, made)
        b.add(UNDO, Unlinkat(path=group, flags=AT_REMOVEDIR, guard=made))
        for line, at in wanted_lines(rdt):
            b.add(PARENT, WriteFile(path=f"{group}/schemata", data=line + "\n", magic=RDTGROUP_SUPER_MAGIC, at=at))
    if rdt.enable_monitoring:
        mon = f"{group}/mon_groups/{container}"
        made = Mkdirat(path=mon, mode=0o755, at=f"{AT}/enableMonitoring", why="a monitoring group of its own")
        b.add(PARENT, made)
        b.lanes[UNDO].insert(0, Unlinkat(path=mon, flags=AT_REMOVEDIR, guard=made))


def check_rdt(rdt: IntelRdt, facts: Facts, container: str) -> None:
    """Whether the group may be used as it is; facts.resctrl_schemata: what it says now, None where it is not there."""
    group, now, wanted = group_of(rdt, container), facts.resctrl_schemata, wanted_lines(rdt)
    if rdt.clos_id is None and now is not None:
        raise ConfigError([(AT, f"the resctrl group {group} exists already")], hint="name it as closID to share it")
    if rdt.clos_id is not None and not wanted and now is None:
        hint = "give schemata to have it made"
        raise ConfigError([(f"{AT}/closID", f"there is no resctrl group {group}")], hint=hint)
    if now is None:
        return
    have = schema(now)
    faults = [
        (at, f"the resctrl group {group or '/'} has other schemata")
        for line, at in wanted
        if any(have.get(key) != value for key, value in schema(line).items())
    ]
    if faults:
        raise ConfigError(faults, hint="a group that exists is shared and is not changed: use another closID")


def schema(text: str) -> dict[tuple[str, str], str]:
    """Lines like `L3:0=7f0;1=1f` as {("L3", "0"): "7f0", …}, numbers without leading zeros."""
    made = {}
    for line in text.splitlines():
        resource, _, domains = line.strip().partition(":")
        for domain in domains.split(";"):
            number, _, value = domain.strip().partition("=")
            made[resource.strip(), number.strip().lstrip("0") or "0"] = value.strip().lower().lstrip("0") or "0"
    return made


def plan_rdt_join(b: Builder, spec: Spec, mount: str | None, container: str) -> None:
    """Parent, when there is a process: into the group with it, before it has children or threads."""
    rdt = spec.linux.intel_rdt if spec.linux else None
    if rdt is None or mount is None:
        return
    group = f"{mount}/{group_of(rdt, container)}".rstrip("/")
    for path in (group, *([f"{group}/mon_groups/{container}"] if rdt.enable_monitoring else [])):
        b.add(PARENT, WriteFile(path=f"{path}/tasks", pid=PID_DATA, magic=RDTGROUP_SUPER_MAGIC, at=AT))


def plan_rdt_delete(b: Builder, spec: Spec, mount: str | None, container: str) -> None:
    """Parent: what create has made for this container alone."""
    rdt = spec.linux.intel_rdt if spec.linux else None
    if rdt is None or mount is None:
        return
    group = f"{mount}/{group_of(rdt, container)}".rstrip("/")
    gone = ((ENOENT, None),)
    if rdt.enable_monitoring:
        path = f"{group}/mon_groups/{container}"
        b.add(PARENT, Unlinkat(path=path, flags=AT_REMOVEDIR, on=gone, at=f"{AT}/enableMonitoring"))
    if rdt.clos_id is None:
        b.add(PARENT, Unlinkat(path=group, flags=AT_REMOVEDIR, on=gone, at=AT))
