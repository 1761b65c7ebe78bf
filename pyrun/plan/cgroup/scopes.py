"""--systemd-cgroup: the container's cgroup is a transient unit of systemd's, and what that unit is to be.

cgroupsPath is `slice:prefix:name` then. systemd is the only writer above the unit, so the planner makes no cgroup:
a process of ours waits while systemd puts it into the unit (a Yield, answered by runtime/systemd.py), and the limits
follow. They are also properties of the unit, because systemd writes its own values again when it is reloaded. Device
rules are not: systemd would add its program to ours, and leaves ours alone.
"""

from __future__ import annotations

from ...errors import ConfigError
from ...facts import Facts
from ...oci.model import Cpu, Memory, Resources, Spec
from ..model.plan import Builder
from ..model.steps import O_DIRECTORY, PARENT, Ack, Await, Meet, Openat2, Yield
from ..namespace.namespaces import PATIENCE_MS
from ..process.process import cpu_mask
from .cgroups import claim_cgroup, plan_controllers, plan_early_limits, save_cgroup
from .resources import cpu_weight, io_weight, plan_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .gvariant import Value

    Properties = list[tuple[str, Value]]

SCOPE = 4  # the rendezvous, and the code of the Yield
INFINITY = (1 << 64) - 1
IDLE, DEFAULT_WEIGHT = 0, 100  # of CPUWeight; idle is of systemd 252
ANNOTATION = "org.systemd.property."
OURS = ("PIDs", "Slice", "Delegate")
_FILES = {
    "memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax", "cpu.weight": "CPUWeight", "io.weight": "IOWeight",
}  # fmt: skip
AT = "/linux/cgroupsPath"
HINT = "with --systemd-cgroup it is SLICE:PREFIX:NAME, such as system.slice:pyrun:web1"


class Unit:
    """name; slice: its parent; cgroup: the path below the manager's own cgroup; properties: of annotations."""

    __slots__ = ("cgroup", "name", "properties", "slice")

    def __init__(self, slice: str, name: str, properties: Properties) -> None:
        self.slice = slice
        self.name = name
        self.properties = properties
        self.cgroup = f"{expand_slice(slice)}/{name}"


def unit_of(spec: Spec, facts: Facts, container: str) -> Unit:
    """The unit that cgroupsPath names, by runc's defaults: system.slice, or user.slice without root."""
    given = spec.linux.cgroups_path if spec.linux else None
    parts = given.split(":") if given else ["", "pyrun", container]
    if len(parts) != 3 or not parts[2]:
        raise ConfigError([(AT, f"{given!r} has not three parts")], hint=HINT)
    slice, prefix, name = parts
    slice = slice or ("user.slice" if facts.rootless else "system.slice")
    unit = f"{prefix}-{name}.scope" if prefix else f"{name}.scope"
    if "/" in unit or len(unit) > 255 or name.endswith(".slice"):  # a slice holds units, and no process
        raise ConfigError([(AT, f"{unit!r} can't be the name of a unit")], hint=HINT)
    return Unit(slice, unit, annotated_properties(spec.annotations) if spec.annotations else [])


def annotated_properties(annotations: Mapping[str, str]) -> Properties:
    """org.systemd.property.NAME: VALUE, where VALUE is GVariant text, as runc and crun take it. ConfigError."""
    found: Properties = []
    faults: list[tuple[str, str]] = []
    for key, text in annotations.items():
        name = key.removeprefix(ANNOTATION)
        if name == key or not name:
            continue
        from .gvariant import parse_variant  # few have any

        try:
            found.append(_in_microseconds(*_property(name, parse_variant(text))))
        except ValueError as e:
            faults.append((annotation_at(name), str(e)))
    if faults:
        hint = "write the value as GVariant text: 'text', true, uint64 5, ['a', 'b']"
        raise ConfigError(faults, hint=hint)
    return found


def annotation_at(name: str) -> str:
    """The JSON pointer of the annotation that sets a property."""
    return f"/annotations/{ANNOTATION}{name}".replace("~", "~0")


def _property(name: str, value: Value) -> tuple[str, Value]:
    if len(name) < 3 or not (name.isascii() and name.isalpha()):
        raise ValueError(f"{name!r} can't be the name of a property")
    if name in OURS:
        raise ValueError(f"{name} is pyrun's to set" + (": cgroupsPath says the slice" if name == "Slice" else ""))
    return name, value


def _in_microseconds(name: str, value: Value) -> tuple[str, Value]:
    """systemd's files have NAMESec, its D-Bus NAMEUSec: seconds are converted, as runc does it."""
    stem = name.removesuffix("Sec")
    if stem == name or not stem[-1].islower():
        return name, value
    kind, seconds = value
    if kind not in "ynqiuxtd" or not isinstance(seconds, (int, float)) or not 0 <= seconds < INFINITY / 1e6:
        raise ValueError(f"{name} must be a number of seconds")
    return f"{stem}USec", ("t", round(seconds * 1_000_000))


def expand_slice(slice: str) -> str:
    """system-a.slice -> /system.slice/system-a.slice (systemd.slice(5)); -.slice is the root."""
    stem = slice.removesuffix(".slice")
    if slice == "-.slice":
        return ""
    if stem == slice or not all(stem.split("-")) or "/" in slice:
        raise ConfigError([(AT, f"{slice!r} is not the name of a slice")], hint=HINT)
    parts = stem.split("-")
    return "".join(f"/{'-'.join(parts[: i + 1])}.slice" for i in range(len(parts)))


def plan_scope(b: Builder, spec: Spec, facts: Facts, path: str, cgroup: int, record: int, lane: int) -> None:
    """Before the other steps of stage 1 or 2, which waits while systemd makes the unit around it. Then the limits."""
    b.add(lane, Meet(point=SCOPE, why="until systemd has put us into the unit"))
    b.add(
        PARENT,
        Await(point=SCOPE, patience_ms=PATIENCE_MS, why="it is there to be moved"),
        claim_cgroup(record, path),
        Yield(code=SCOPE, at=AT, why="systemd makes the unit, with it inside"),
        Openat2(path=path, flags=O_DIRECTORY, out=cgroup, at=AT, why="the unit's cgroup"),
        save_cgroup(record, cgroup),
    )
    needed = plan_resources(spec.linux.resources if spec.linux else None, controllers=facts.controllers).controllers
    at = (facts.cgroup_mount or "").rstrip("/")
    for name in path[len(at) :].strip("/").split("/") if needed else ():
        plan_controllers(b, at, needed, needed, rootless=facts.rootless)
        at += "/" + name
    plan_early_limits(b, spec, facts, cgroup)
    b.add(PARENT, Ack(why="what comes now counts against the limits"))


def unit_properties(unit: Unit, what: str, pid: int) -> Properties:
    """(name, (D-Bus signature, value)) for StartTransientUnit, but for the limits; as runc sets them. what: for
    people."""
    return [
        ("Description", ("s", what)),
        ("Slice", ("s", unit.slice)),
        ("Delegate", ("b", True)),
        ("PIDs", ("au", [pid])),
        *((f"{name}Accounting", ("b", True)) for name in ("Memory", "CPU", "IO", "Tasks")),
        # Unless a limit follows: systemd would else set its DefaultTasksMax, which nobody asked for.
        ("TasksMax", ("t", INFINITY)),
        ("DefaultDependencies", ("b", False)),
        # One whose cgroup is gone is gone as well, also when it failed for want of memory: delete need not ask.
        ("CollectMode", ("s", "inactive-or-failed")),
        *unit.properties,
    ]


def limit_properties(resources: Resources | None) -> Properties:
    """The limits that systemd knows, in its own units (systemd.resource-control(5))."""
    if resources is None:
        return []
    found: list[tuple[str, int | None]] = []
    if resources.memory is not None:
        found += _memory(resources.memory)
    if resources.cpu is not None:
        found += _cpu(resources.cpu)
    if resources.pids is not None:
        found.append(("TasksMax", INFINITY if resources.pids.limit < 0 else max(resources.pids.limit, 1)))
    if resources.block_io is not None and resources.block_io.weight:
        found.append(("IOWeight", io_weight(resources.block_io.weight)))
    known = {name: value for name, value in found if value is not None} | _unified(resources.unified)
    made: Properties = [(name, ("t", value)) for name, value in known.items()]
    return made + _cpuset(resources.cpu, resources.unified)


def no_limit(name: str) -> Value:
    """The value of a property that limits nothing."""
    if name.startswith("Allowed"):
        return "ay", b""
    return "t", 0 if name in ("MemoryLow", "MemoryMin") else INFINITY


def _unified(unified: dict[str, str]) -> dict[str, int]:
    """Of the files that `unified` names those that systemd would else write over. memory.oom.group is not among them:
    systemd writes it too, from an OOMPolicy that a scope can't have before version 253."""
    named = {name: unified[file].strip() for file, name in _FILES.items() if file in unified}
    found = {name: _amount(text) for name, text in named.items() if text == "max" or text.rstrip("KMGkmg").isdigit()}
    if unified.get("cpu.idle", "").strip() == "1":
        found["CPUWeight"] = IDLE
    quota, _, period = unified.get("cpu.max", "").strip().partition(" ")
    if (quota == "max" or quota.isdigit()) and (not period or period.isdigit()):
        given = _quota(0 if quota == "max" else int(quota), int(period or 0))
        found |= {name: value for name, value in given if value is not None}
    return found


def _amount(text: str) -> int:
    """As the kernel reads it: a number, one with a unit, or max."""
    unit = {"k": 10, "m": 20, "g": 30}.get(text[-1].lower(), 0)
    return INFINITY if text == "max" else int(text.rstrip("KMGkmg")) << unit


def _cpuset(cpu: Cpu | None, unified: dict[str, str]) -> Properties:
    """CPUs and memory nodes as bytes, the lowest first."""
    found: Properties = []
    for prop, name in (("AllowedCPUs", "cpus"), ("AllowedMemoryNodes", "mems")):
        text, place = unified.get(f"cpuset.{name}", "").strip(), f"/linux/resources/unified/cpuset.{name}"
        if not text:
            text, place = getattr(cpu, name, None) or "", f"/linux/resources/cpu/{name}"
        if text:
            found.append((prop, ("ay", cpu_mask(text, place).rstrip(b"\0"))))
    return found


def _memory(memory: Memory) -> list[tuple[str, int | None]]:
    limit, swap = memory.limit, memory.swap
    swap_max = None
    if swap and swap > 0 and limit and limit > 0:
        swap_max = swap - limit
    elif swap == -1 or (limit == -1 and not swap):
        swap_max = INFINITY
    low = _or_infinity(memory.reservation)
    return [("MemoryMax", _or_infinity(limit)), ("MemoryLow", low), ("MemorySwapMax", swap_max)]


def _or_infinity(value: int | None) -> int | None:
    return None if not value else INFINITY if value < 0 else value


def _cpu(cpu: Cpu) -> list[tuple[str, int | None]]:
    weight = cpu_weight(cpu.shares) if cpu.shares else None
    if cpu.idle is not None and (cpu.idle or not weight):
        weight = IDLE if cpu.idle else DEFAULT_WEIGHT
    quota = _quota(cpu.quota or 0, cpu.period or 0) if cpu.quota or cpu.period else []
    return [("CPUWeight", weight), *quota]


def _quota(quota: int, period: int) -> list[tuple[str, int | None]]:
    """Microseconds; no quota: 0 or less, no period: 0."""
    per_second = INFINITY
    if quota > 0:
        # systemd counts in percent of a CPU: up to the next 10 ms, or what is below could not be had.
        per_second = -(-quota * 1_000_000 // (period or 100_000) // 10_000) * 10_000
    return [("CPUQuotaPeriodUSec", period or None), ("CPUQuotaPerSecUSec", per_second)]
