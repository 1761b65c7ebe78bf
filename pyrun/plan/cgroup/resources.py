"""``linux.resources`` as writes to cgroup v2 files, in runc's order; ``unified`` last, because it overrides.

The spec's limits are those of cgroup v1. What v2 can express is converted as runc 1.4 and crun do it. What it can't is
an error by the spec ("If the conversion is not possible the runtime MUST generate an error"), where runc says nothing,
unless the value asks for what is so anyway. A limit whose controller is missing is an error before anything is made.
Devices are not here but in plan/cgroup/devices.py.
"""

from __future__ import annotations

from math import ceil, log2, pow

from pyrun.errors import ConfigError, PyrunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.oci.model import BlockIO, Cpu, Memory, Resources

ENOENT, EINVAL = 2, 22
CONTROLLERS = ("cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma")
MAX = "max"


class Write:
    """``value`` into ``file`` of the container's cgroup, by one write(2).

    tolerate: errnos after which the plan goes on; ``otherwise``: the (file, value) to write in that case.
    late: only once the container's init is alone in the cgroup, because what sets it up would count against the limit.
    """

    __slots__ = ("file", "value", "pointer", "tolerate", "otherwise", "late")

    def __init__(
        self,
        file: str,
        value: str,
        pointer: str,
        tolerate: tuple[int, ...] = (),
        otherwise: tuple[str, str] | None = None,
    ) -> None:
        self.file = file
        self.value = value
        self.pointer = pointer
        self.tolerate = tolerate
        self.otherwise = otherwise
        self.late = file == "pids.max"

    def __repr__(self) -> str:
        return f"{self.file} = {self.value}"


class ResourcePlan:
    """``controllers``: what must be enabled for the cgroup, each once, in the order of first need.

    check_memory: (limit, limit with swap), 0 where unset, to hold against memory.current before the first write
    (``memory.checkBeforeUpdate``; see check_memory_usage), or None.
    """

    __slots__ = ("writes", "controllers", "check_memory")

    def __init__(
        self, writes: tuple[Write, ...], controllers: tuple[str, ...], check_memory: tuple[int, int] | None = None
    ) -> None:
        self.writes = writes
        self.controllers = controllers
        self.check_memory = check_memory


class _Draft:
    """A plan in the making: writes and faults, each with its place."""

    __slots__ = ("base", "writes", "faults")

    def __init__(self, base: str) -> None:
        self.base = base
        self.writes: list[Write] = []
        self.faults: list[tuple[str, str]] = []

    def write(
        self,
        file: str,
        value: str | int,
        place: str,
        tolerate: tuple[int, ...] = (),
        otherwise: tuple[str, str] | None = None,
    ) -> None:
        self.writes.append(Write(file, str(value), self.base + place, tolerate, otherwise))

    def fault(self, place: str, text: str) -> None:
        self.faults.append((self.base + place, text))


def plan_resources(
    resources: Resources | None,
    *,
    controllers: frozenset[str],
    unified_only: bool = False,
    base: str = "/linux/resources",
    file: str = "config.json",
) -> ResourcePlan:
    """The writes for ``resources``. controllers: those that can be enabled for the cgroup.

    unified_only: leave out all but ``unified``, for a cgroup whose other limits systemd sets. base and file: where the
    object stands, for errors (``update`` reads it from elsewhere). Raises ConfigError with every fault.
    """
    draft = _Draft(base)
    if resources is not None:
        if not unified_only:
            _plan_limits(draft, resources)
            # No limit is what there is where the controller is missing.
            draft.writes = [w for w in draft.writes if w.value != MAX or w.file.partition(".")[0] in controllers]
        _plan_unified(draft, resources.unified, controllers)
    needed = _needed_controllers(draft, controllers)
    if draft.faults:
        raise ConfigError(draft.faults, file=file)
    memory = resources.memory if resources is not None and not unified_only else None
    check = (memory.limit or 0, memory.swap or 0) if memory is not None and memory.check_before_update else None
    return ResourcePlan(tuple(draft.writes), needed, check)


def check_memory_usage(check: tuple[int, int], usage: int) -> None:
    """Refuses a limit that the container's usage (memory.current, bytes) has reached: the kernel would kill at once."""
    limit, with_swap = check
    if 0 < with_swap <= usage:
        raise PyrunError(f"rejecting memory+swap limit {with_swap} <= usage {usage}")
    if 0 < limit <= usage:
        raise PyrunError(f"rejecting memory limit {limit} <= usage {usage}")


def _needed_controllers(draft: _Draft, available: frozenset[str]) -> tuple[str, ...]:
    """The controllers of the planned writes; a missing one is a fault at the first write that needs it."""
    needed: dict[str, str] = {}
    for write in draft.writes:
        needed.setdefault(write.file.partition(".")[0], write.pointer)
    needed.pop("cgroup", None)
    names = ", ".join(sorted(available)) or "none"
    for name, pointer in needed.items():
        if name not in available:
            text = f"the {name} controller is not available in this cgroup (available: {names})"
            draft.faults.append((pointer, text))
    return tuple(needed)


def _plan_limits(draft: _Draft, resources: Resources) -> None:
    if resources.pids is not None:
        limit = resources.pids.limit
        # 0 is a limit since spec 1.3; runc writes it as 1, which is the least that systemd takes and works the same.
        draft.write("pids.max", MAX if limit < 0 else max(limit, 1), "/pids/limit")
    if resources.memory is not None:
        _plan_memory(draft, resources.memory)
    if resources.block_io is not None:
        _plan_block_io(draft, resources.block_io)
    if resources.cpu is not None:
        _plan_cpu(draft, resources.cpu)
    _plan_hugepages(draft, resources)
    _plan_rdma(draft, resources)
    network = resources.network
    if network is not None and (network.class_id or network.priorities):
        place = "/network/classID" if network.class_id else "/network/priorities"
        draft.fault(place, "cgroup v2 has neither net_cls nor net_prio")


def _plan_memory(draft: _Draft, memory: Memory) -> None:
    limit, swap = memory.limit or 0, memory.swap or 0
    for name, value in (("limit", limit), ("swap", swap), ("reservation", memory.reservation or 0)):
        if value < -1:
            draft.fault(f"/memory/{name}", f"must be a number of bytes, or -1 for unlimited, not {value}")
    _refuse(draft, "/memory/kernel", (memory.kernel or 0) > 0, "cgroup v2 has no separate limit of kernel memory")
    _refuse(draft, "/memory/kernelTCP", (memory.kernel_tcp or 0) > 0, "cgroup v2 has no separate limit of TCP memory")
    _refuse(draft, "/memory/swappiness", memory.swappiness is not None, "cgroup v2 has no swappiness")
    _refuse(draft, "/memory/disableOOMKiller", memory.disable_oom_killer, "cgroup v2 can't disable the OOM killer")
    swap_max = _swap_max(draft, limit, swap)
    if swap_max is not None:
        # Without swap in the kernel there is no file, and nothing to switch off or set free.
        place = "/memory/swap" if swap else "/memory/limit"
        draft.write("memory.swap.max", swap_max, place, (ENOENT,) if swap_max in ("0", MAX) else ())
    if limit:
        draft.write("memory.max", _bytes(limit), "/memory/limit")
    if memory.reservation:
        draft.write("memory.low", _bytes(memory.reservation), "/memory/reservation")


def _refuse(draft: _Draft, place: str, asked: bool, why: str) -> None:
    if asked:
        draft.fault(place, why)


def _bytes(value: int) -> str:
    return MAX if value == -1 else str(value)


def _swap_max(draft: _Draft, limit: int, swap: int) -> str | None:
    """memory.swap.max, which is swap alone, from the spec's memory+swap; 0 is unset, -1 unlimited."""
    if swap == 0:
        return MAX if limit == -1 else None  # unlimited memory has always meant unlimited swap too
    if swap == -1 or limit == -1:
        return _bytes(swap)
    if limit == 0:
        draft.fault("/memory/swap", "a limit of memory+swap needs a limit of memory")
    elif 0 < swap < limit:
        draft.fault("/memory/swap", f"the limit of memory+swap ({swap}) is below the limit of memory ({limit})")
    return str(swap - limit)


def _plan_cpu(draft: _Draft, cpu: Cpu) -> None:
    _refuse(draft, "/cpu/realtimeRuntime", bool(cpu.realtime_runtime), "cgroup v2 has no limit of realtime tasks")
    _refuse(draft, "/cpu/realtimePeriod", bool(cpu.realtime_period), "cgroup v2 has no limit of realtime tasks")
    if cpu.idle is not None:
        # Before the weight: the kernel refuses a weight while the cgroup is idle.
        draft.write("cpu.idle", cpu.idle, "/cpu/idle", () if cpu.idle else (ENOENT,))
    if cpu.shares and not cpu.idle:
        draft.write("cpu.weight", cpu_weight(cpu.shares), "/cpu/shares")
    limited = bool(cpu.quota or cpu.period)
    if cpu.burst is not None:
        if cpu.quota and 0 < cpu.quota < cpu.burst:
            draft.fault("/cpu/burst", f"must not be above quota ({cpu.quota}), but is {cpu.burst}")
        # The kernel wants burst <= quota at each write, and either may be the one that shrinks: so before and after.
        draft.write("cpu.max.burst", cpu.burst, "/cpu/burst", (EINVAL,) if limited else ())
    if limited:
        quota = cpu.quota if cpu.quota and cpu.quota > 0 else MAX
        draft.write("cpu.max", f"{quota} {cpu.period or 100000}", "/cpu/quota" if cpu.quota else "/cpu/period")
        if cpu.burst is not None:
            draft.write("cpu.max.burst", cpu.burst, "/cpu/burst")
    if cpu.cpus:
        draft.write("cpuset.cpus", cpu.cpus, "/cpu/cpus")
    if cpu.mems:
        draft.write("cpuset.mems", cpu.mems, "/cpu/mems")


def cpu_weight(shares: int) -> int:
    """cpu.weight (1 to 10000, default 100) from shares (2 to 262144, default 1024); 0 for 0, which is unset.

    The formula of runc 1.3.2 and crun 1.23, a parabola in the logarithms through minimum, default and maximum. The
    linear one before it made 39 of the default.
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    length = log2(shares)
    return ceil(pow(10.0, (length * length + 125 * length) / 612.0 - 7.0 / 34.0))


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) from the weight of blkio and BFQ (10 to 1000), linearly."""
    return 1 + (weight - 10) * 9999 // 990


def _plan_block_io(draft: _Draft, io: BlockIO) -> None:
    _refuse(draft, "/blockIO/leafWeight", bool(io.leaf_weight), "cgroup v2 has no leaf weight")
    if io.weight:
        _plan_weight(draft, "", io.weight, "/blockIO/weight")
    for index, given in enumerate(io.weight_device):
        place = f"/blockIO/weightDevice/{index}"
        _refuse(draft, f"{place}/leafWeight", bool(given.leaf_weight), "cgroup v2 has no leaf weight")
        if given.weight:
            _plan_weight(draft, f"{given.major}:{given.minor} ", given.weight, f"{place}/weight")
    for name, key, devices in (
        ("throttleReadBpsDevice", "rbps", io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "wbps", io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "riops", io.throttle_read_iops_device),
        ("throttleWriteIOPSDevice", "wiops", io.throttle_write_iops_device),
    ):
        for index, device in enumerate(devices):
            # On v1 a rate of 0 takes the limit away; io.max refuses the number.
            rate = f"{device.major}:{device.minor} {key}={device.rate or MAX}"
            draft.write("io.max", rate, f"/blockIO/{name}/{index}")


def _plan_weight(draft: _Draft, device: str, weight: int, place: str) -> None:
    """BFQ's file where that scheduler is there, else io.weight, which has another scale."""
    if not 10 <= weight <= 1000:
        draft.fault(place, f"must be from 10 to 1000, not {weight}")
    draft.write("io.bfq.weight", f"{device}{weight}", place, (ENOENT,), ("io.weight", f"{device}{io_weight(weight)}"))


def _plan_hugepages(draft: _Draft, resources: Resources) -> None:
    for index, given in enumerate(resources.hugepage_limits):
        place = f"/hugepageLimits/{index}"
        size = given.page_size
        if not (size[-2:] in ("KB", "MB", "GB") and size[:-2].isascii() and size[:-2].isdigit()):
            draft.fault(f"{place}/pageSize", f"must be a size like 2MB, not {size!r}")
            continue
        draft.write(f"hugetlb.{size}.max", given.limit, f"{place}/limit")
        # The limit holds without this one, which only tells earlier.
        draft.write(f"hugetlb.{size}.rsvd.max", given.limit, f"{place}/limit", (ENOENT,))


def _plan_rdma(draft: _Draft, resources: Resources) -> None:
    for device, given in resources.rdma.items():
        place = f"/rdma/{_escape(device)}"
        if not device or len(device.split()) != 1:
            draft.fault(place, f"{device!r} is not the name of a device")
        handles = "" if given.hca_handles is None else f" hca_handle={given.hca_handles}"
        objects = "" if given.hca_objects is None else f" hca_object={given.hca_objects}"
        if not handles and not objects:
            draft.fault(place, "needs hcaHandles, hcaObjects or both")
        draft.write("rdma.max", f"{device}{handles}{objects}", place)


def _plan_unified(draft: _Draft, unified: dict[str, str], available: frozenset[str]) -> None:
    """Any file of an available controller, known to us or not, and of cgroup itself; each line is a write."""
    for name, value in unified.items():
        place = f"/unified/{_escape(name)}"
        controller, dot, parameter = name.partition(".")
        if "/" in name or not controller or not dot or not parameter:
            draft.fault(place, f"must be the name of a cgroup file, CONTROLLER.PARAMETER, not {name!r}")
        elif controller not in CONTROLLERS and controller not in available and controller != "cgroup":
            draft.fault(place, f"there is no controller {controller!r}")
        else:
            for line in [line for line in value.split("\n") if line] or [""]:
                draft.write(name, line, place)


def _escape(name: str) -> str:
    """A member's name in a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


# --- update -----------------------------------------------------------------------------------------------------------


# Members that depend on each other: the kernel holds one against the others, or they share a file.
_BANDWIDTH = ("quota", "period", "burst")
# Members whose 0 says "not given".
_UNSET_AT_0 = {
    "memory": ("limit", "swap", "reservation"),
    "cpu": ("shares", "quota", "period"),
    "blockIO": ("weight",),
}


def merge_resources(current: dict[str, Any], change: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what ``update`` applies, what is in force then), as JSON objects, from LinuxResources in force and the change.

    Both are such as the loader accepts; what is applied is for the loader and plan_resources, what is in force is kept
    for the next update. The cgroup is afterwards as a create with what is in force makes it. So members that depend on
    each other are applied together: all of memory, weights and throttles; quota, period and burst; shares where idle
    ends. Devices and network can't be updated.
    """
    sections = {
        "memory": _merge_memory(_section(current, "memory"), _section(change, "memory")),
        "cpu": _merge_cpu(_section(current, "cpu"), _section(change, "cpu")),
        "blockIO": _merge_block_io(_section(current, "blockIO"), _section(change, "blockIO")),
        "pids": _section(change, "pids"),
        "rdma": _section(change, "rdma"),
        "unified": _section(change, "unified"),
    }
    applied: dict[str, Any] = {name: section for name, section in sections.items() if section}
    in_force = current | {name: _section(current, name) | section for name, section in applied.items()}
    if "rdma" in applied:
        in_force["rdma"] |= {name: _member(current, "rdma", name) | given for name, given in applied["rdma"].items()}
    if change.get("hugepageLimits"):
        applied["hugepageLimits"] = change["hugepageLimits"]
        limits = (current.get("hugepageLimits") or []) + change["hugepageLimits"]
        in_force["hugepageLimits"] = list({given["pageSize"]: given for given in limits}.values())
    return applied, in_force


def _section(resources: dict[str, Any], name: str) -> dict[str, Any]:
    """Of a section what is given."""
    unset = _UNSET_AT_0.get(name, ())
    section = resources.get(name) or {}
    return {member: value for member, value in section.items() if value is not None and (value or member not in unset)}


def _member(resources: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    return (resources.get(section) or {}).get(name) or {}


def _merge_memory(current: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Unlimited memory means unlimited swap, but where the same change gives swap a limit: one of before was a limit of
    memory and swap together."""
    if change.get("limit") == -1 and "swap" in current:
        change = {"swap": -1} | change
    return current | change if change else {}


def _merge_cpu(current: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """An idle cgroup has no weight, and gets the default one when it is idle no more."""
    cpu = dict(change)
    if current.get("idle") and "shares" in change:
        cpu.setdefault("idle", current["idle"])
    if "idle" in change and not change["idle"] and "shares" in current:
        cpu.setdefault("shares", current["shares"])
    if any(member in change for member in _BANDWIDTH):
        cpu = {member: current[member] for member in _BANDWIDTH if member in current} | cpu
    return cpu


def _merge_block_io(current: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A device that both name keeps its place and takes the new values."""
    if not change:
        return {}
    merged = current | change
    for name in current.keys() & change.keys():
        if isinstance(current[name], list):
            devices: dict[tuple[int, int], dict[str, int]] = {}
            for device in current[name] + change[name]:
                key = device["major"], device["minor"]
                given = {member: value for member, value in device.items() if value or member != "weight"}
                devices[key] = devices.get(key, {}) | given
            merged[name] = list(devices.values())
    return merged
