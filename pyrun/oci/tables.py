"""The shape of config.json: for each object of the OCI runtime spec 1.3 the members, how each is read, and its
default.

Rows stand in the order of the class's attributes in model.py (a test compares them). What the official JSON schema
can say is here; what relates two members is in checks.py.
"""

from __future__ import annotations

from pyrun import SPEC_VERSION
from pyrun.oci import model, names
from pyrun.oci.readers import (
    EMPTY,
    MEMBERS,
    REQUIRED,
    absolute,
    array,
    boolean,
    expected,
    field,
    filled,
    integer,
    item,
    mapping,
    one_of,
    record,
    shown,
    string,
    strings,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.oci.readers import Faults, Path

INT32 = integer(-(2**31), 2**31 - 1)
INT64 = integer(-(2**63), 2**63 - 1)
UINT16 = integer(0, 2**16 - 1)
UINT32 = integer(0, 2**32 - 1)
UINT64 = integer(0, 2**64 - 1)
# 2**32 - 1 is (uid_t)-1: "no change" to setresuid and chown, and no id at all in a map.
ID = integer(0, 2**32 - 2)
LIMIT = integer(-1, 2**63 - 1)
NUMBER = integer(0, 2**63 - 1)


# --- readers of one string's grammar ---------------------------------------------------------------------------------


def version(value: Any, path: Path, faults: Faults) -> str | None:
    """SemVer 2.0.0, or 1.0 as many write it. Each release of the major version 1 is taken: a newer one has members that
    are not known here, and those are ignored (config.md, Extensibility). It is read as the newest that is known, so
    that no state claims to comply with more than that.
    """
    if type(value) is not str:
        expected("a string", value, path, faults)
        return None
    core_and_pre_release, plus, build = value.partition("+")
    core, dash, pre_release = core_and_pre_release.partition("-")
    parts = core.split(".")
    if len(parts) == 2 and not (dash or plus):
        parts.append("0")
    numbers = len(parts) == 3 and all(_is_number(part) for part in parts)
    names_of_pre_release = pre_release.split(".") * bool(dash)
    tails = names_of_pre_release + build.split(".") * bool(plus)
    known = numbers and value.isascii() and all(tail.replace("-", "0").isalnum() for tail in tails)
    if not known or not all(_is_number(tail) for tail in names_of_pre_release if tail.isdigit()):
        faults.append((path, f"{shown(value)} is not a version such as {SPEC_VERSION}"))
        return None
    if parts[0] != "1":
        told = "is not supported: this runtime takes versions 1.x of the OCI runtime spec"
        faults.append((path, f"{shown(value)} {told}"))
        return None
    minor = parts[1]
    if len(minor) > 1 or minor > SPEC_VERSION.split(".")[1]:
        return SPEC_VERSION
    return ".".join(parts) if core == value else value


def _is_number(part: str) -> bool:
    """Of a version: without leading zeros."""
    return part.isdigit() and (part == "0" or part[0] != "0")


def destination(value: Any, path: Path, faults: Faults) -> str | None:
    """Where a mount goes; the spec (config.md, Mounts) has a relative one mean one relative to /."""
    got = filled(value, path, faults)
    return got if got is None or got[0] == "/" else "/" + got


def page_size(value: Any, path: Path, faults: Faults) -> str | None:
    got = filled(value, path, faults)
    if got is None or (got[-2:] in ("KB", "MB", "GB") and got.isascii() and got[:-2].isdigit() and got[0] != "0"):
        return got
    faults.append((path, f"must be a number and KB, MB or GB, such as 2MB, not {shown(got)}"))
    return None


def number_list(value: Any, path: Path, faults: Faults) -> str | None:
    """A list of CPUs or memory nodes, such as 0-3,7. The kernel has at most 8192 CPUs; a range must not become a memory
    bomb.
    """
    got = string(value, path, faults)
    if got is None:
        return None
    for part in got.split(","):
        low, dash, high = part.strip(" ").partition("-")
        ends = (low, high) if dash else (low, low)
        if not all(end.isascii() and end.isdigit() and len(end) <= 5 for end in ends) or int(ends[0]) > int(ends[1]):
            faults.append((path, f"must be a list of numbers and ranges such as 0-3,7, not {shown(got)}"))
            return None
    return got


def line(value: Any, path: Path, faults: Faults) -> str | None:
    got = item(value, path, faults)
    if got is not None and "\n" in got:
        faults.append((path, "must not contain a newline"))
        return None
    return got


def bandwidth(value: Any, path: Path, faults: Faults) -> str | None:
    got = line(value, path, faults)
    if got is not None and not got.startswith("MB:"):
        faults.append((path, f"must start with MB:, not {shown(got)}"))
        return None
    return got


def capabilities(value: Any, path: Path, faults: Faults) -> model.Capabilities | None:
    """The five sets; a name that Linux does not have is put aside for a warning (config.md: runtimes SHOULD NOT fail on
    one).
    """
    if type(value) is not dict:
        expected("an object", value, path, faults)
        return None
    known = names.CAPABILITIES
    ignored: dict[str, None] = {}
    sets = []
    for name in ("bounding", "effective", "inheritable", "permitted", "ambient"):
        given = () if value.get(name) is None else strings(value[name], (path, name), faults)
        unknown = [capability for capability in given if capability not in known]
        if unknown:
            ignored |= dict.fromkeys(unknown)
            given = tuple([capability for capability in given if capability in known])
        sets.append(given)
    return model.make(model.Capabilities, [*sets, tuple(ignored)])


MEMBERS[model.Capabilities] = ("bounding", "effective", "inheritable", "permitted", "ambient")

# --- config.md -------------------------------------------------------------------------------------------------------

ROOT = record(model.Root, field("path", filled, REQUIRED), field("readonly", boolean, False))

ID_MAPPINGS = array(
    record(
        model.IdMapping,
        field("containerID", UINT32, REQUIRED),
        field("hostID", UINT32, REQUIRED),
        field("size", UINT32, REQUIRED),
    )
)

MOUNT = record(
    model.Mount,
    field("destination", destination, REQUIRED),
    field("type", string),
    field("source", string),
    field("options", strings, ()),
    field("uidMappings", ID_MAPPINGS, ()),
    field("gidMappings", ID_MAPPINGS, ()),
)

CONSOLE_SIZE = record(model.ConsoleSize, field("height", UINT64, REQUIRED), field("width", UINT64, REQUIRED))

USER = record(
    model.User,
    field("uid", ID, 0),
    field("gid", ID, 0),
    field("umask", UINT32),
    field("additionalGids", array(ID), ()),
    field("username", string),
)

RLIMIT = record(
    model.Rlimit,
    field("type", one_of(names.RLIMITS), REQUIRED),
    field("hard", UINT64, REQUIRED),
    field("soft", UINT64, REQUIRED),
)

SCHEDULER = record(
    model.Scheduler,
    field("policy", one_of(names.SCHEDULER_POLICIES), REQUIRED),
    field("nice", INT32),
    field("priority", INT32),
    field("flags", array(one_of(names.SCHEDULER_FLAGS)), ()),
    field("runtime", UINT64),
    field("deadline", UINT64),
    field("period", UINT64),
)

IO_PRIORITY = record(
    model.IOPriority, field("class", one_of(names.IO_PRIORITY_CLASSES), REQUIRED), field("priority", INT32)
)

EXEC_CPU_AFFINITY = record(model.ExecCPUAffinity, field("initial", number_list), field("final", number_list))

PROCESS = record(
    model.Process,
    field("cwd", absolute, REQUIRED, "/"),
    field("args", strings, REQUIRED, ("?",)),
    field("terminal", boolean, False),
    field("consoleSize", CONSOLE_SIZE),
    field("user", USER, model.User()),
    field("commandLine", text),
    field("env", strings, ()),
    field("capabilities", capabilities),
    field("rlimits", array(RLIMIT), ()),
    field("noNewPrivileges", boolean, False),
    field("apparmorProfile", string),
    field("oomScoreAdj", integer(-1000, 1000)),
    field("selinuxLabel", string),
    field("scheduler", SCHEDULER),
    field("ioPriority", IO_PRIORITY),
    field("execCPUAffinity", EXEC_CPU_AFFINITY),
)

HOOK_LIST = array(
    record(
        model.Hook,
        field("path", absolute, REQUIRED),
        field("args", strings, ()),
        field("env", strings),
        field("timeout", integer(1, 2**63 - 1)),
    )
)

HOOKS = record(
    model.Hooks,
    field("prestart", HOOK_LIST, ()),
    field("createRuntime", HOOK_LIST, ()),
    field("createContainer", HOOK_LIST, ()),
    field("startContainer", HOOK_LIST, ()),
    field("poststart", HOOK_LIST, ()),
    field("poststop", HOOK_LIST, ()),
)

# --- config-linux.md: resources --------------------------------------------------------------------------------------

DEVICE_CGROUP = record(
    model.DeviceCgroup,
    field("allow", boolean, REQUIRED),
    field("type", string),
    field("major", LIMIT),
    field("minor", LIMIT),
    field("access", string),
)

MEMORY = record(
    model.Memory,
    field("limit", LIMIT),
    field("reservation", LIMIT),
    field("swap", LIMIT),
    field("kernel", LIMIT),
    field("kernelTCP", LIMIT),
    field("swappiness", integer(0, 100)),
    field("disableOOMKiller", boolean, False),
    field("useHierarchy", boolean, False),
    field("checkBeforeUpdate", boolean, False),
)

CPU = record(
    model.Cpu,
    field("shares", UINT64),
    field("quota", INT64),
    field("burst", UINT64),
    field("period", UINT64),
    field("realtimeRuntime", INT64),
    field("realtimePeriod", UINT64),
    field("cpus", string),
    field("mems", string),
    field("idle", integer(0, 1)),
)

PIDS = record(model.Pids, field("limit", LIMIT, REQUIRED))

WEIGHT_DEVICES = array(
    record(
        model.WeightDevice,
        field("major", NUMBER, REQUIRED),
        field("minor", NUMBER, REQUIRED),
        field("weight", UINT16),
        field("leafWeight", UINT16),
    )
)

THROTTLE_DEVICES = array(
    record(
        model.ThrottleDevice,
        field("major", NUMBER, REQUIRED),
        field("minor", NUMBER, REQUIRED),
        field("rate", UINT64, REQUIRED),
    )
)

BLOCK_IO = record(
    model.BlockIO,
    field("weight", UINT16),
    field("leafWeight", UINT16),
    field("weightDevice", WEIGHT_DEVICES, ()),
    field("throttleReadBpsDevice", THROTTLE_DEVICES, ()),
    field("throttleWriteBpsDevice", THROTTLE_DEVICES, ()),
    field("throttleReadIOPSDevice", THROTTLE_DEVICES, ()),
    field("throttleWriteIOPSDevice", THROTTLE_DEVICES, ()),
)

HUGEPAGE_LIMIT = record(model.HugepageLimit, field("pageSize", page_size, REQUIRED), field("limit", UINT64, REQUIRED))

INTERFACE_PRIORITY = record(
    model.InterfacePriority, field("name", filled, REQUIRED), field("priority", UINT32, REQUIRED)
)

NETWORK = record(model.Network, field("classID", UINT32), field("priorities", array(INTERFACE_PRIORITY), ()))

RDMA = record(model.Rdma, field("hcaHandles", UINT32), field("hcaObjects", UINT32))

RESOURCES = record(
    model.Resources,
    field("devices", array(DEVICE_CGROUP), ()),
    field("memory", MEMORY),
    field("cpu", CPU),
    field("pids", PIDS),
    field("blockIO", BLOCK_IO),
    field("hugepageLimits", array(HUGEPAGE_LIMIT), ()),
    field("network", NETWORK),
    field("rdma", mapping(RDMA), EMPTY),
    field("unified", mapping(item), EMPTY),
)

# --- config-linux.md: the rest ---------------------------------------------------------------------------------------

NAMESPACE = record(model.Namespace, field("type", one_of(names.NAMESPACES), REQUIRED), field("path", string))

_PERMISSIONS = integer(0, 0o777)
_FORMATS = (0o010000, 0o020000, 0o060000)  # S_IFIFO, S_IFCHR, S_IFBLK


def permissions(value: Any, path: Path, faults: Faults) -> int | None:
    """The 9 bits of a file's mode. podman gives st_mode as it is, so the bits of a device's type are taken off."""
    if type(value) is int and value & ~0o777 in _FORMATS:
        value &= 0o777
    mode: int | None = _PERMISSIONS(value, path, faults)
    return mode


DEVICE = record(
    model.Device,
    field("type", one_of(("c", "b", "u", "p")), REQUIRED),
    field("path", absolute, REQUIRED),
    field("major", INT64),
    field("minor", INT64),
    field("fileMode", permissions),
    field("uid", ID),
    field("gid", ID),
)

NET_DEVICE = record(model.NetDevice, field("name", string))

SECCOMP_ARG = record(
    model.SeccompArg,
    field("index", integer(0, 5), REQUIRED),
    field("value", UINT64, REQUIRED),
    field("valueTwo", UINT64),
    field("op", one_of(names.SECCOMP_OPERATORS), REQUIRED),
)

SECCOMP_SYSCALL = record(
    model.SeccompSyscall,
    field("names", array(filled, least=1), REQUIRED),
    field("action", one_of(names.SECCOMP_ACTIONS), REQUIRED),
    field("errnoRet", UINT32),
    field("args", array(SECCOMP_ARG), ()),
)

SECCOMP = record(
    model.Seccomp,
    field("defaultAction", one_of(names.SECCOMP_ACTIONS), REQUIRED),
    field("defaultErrnoRet", UINT32),
    field("architectures", array(one_of(names.SECCOMP_ARCHITECTURES)), ()),
    field("flags", array(one_of(names.SECCOMP_FLAGS)), None),
    field("listenerPath", string),
    field("listenerMetadata", text),
    field("syscalls", array(SECCOMP_SYSCALL), ()),
)

INTEL_RDT = record(
    model.IntelRdt,
    field("closID", string),
    field("schemata", array(line), ()),
    field("l3CacheSchema", string),
    field("memBwSchema", bandwidth),
    field("enableMonitoring", boolean, False),
)

MEMORY_POLICY = record(
    model.MemoryPolicy,
    field("mode", one_of(names.MEMORY_POLICY_MODES), REQUIRED),
    field("nodes", number_list),
    field("flags", array(one_of(names.MEMORY_POLICY_FLAGS)), ()),
)

PERSONALITY = record(
    model.Personality, field("domain", one_of(names.PERSONALITY_DOMAINS), REQUIRED), field("flags", strings, ())
)

TIME_OFFSET = record(model.TimeOffset, field("secs", INT64, 0), field("nanosecs", integer(0, 999_999_999), 0))

TIME_OFFSETS = record(model.TimeOffsets, field("monotonic", TIME_OFFSET), field("boottime", TIME_OFFSET))

LINUX = record(
    model.Linux,
    field("namespaces", array(NAMESPACE), ()),
    field("uidMappings", ID_MAPPINGS, ()),
    field("gidMappings", ID_MAPPINGS, ()),
    field("timeOffsets", TIME_OFFSETS),
    field("devices", array(DEVICE), ()),
    field("netDevices", mapping(NET_DEVICE), EMPTY),
    field("cgroupsPath", string),
    field("rootfsPropagation", one_of(names.ROOTFS_PROPAGATIONS)),
    field("maskedPaths", array(absolute), ()),
    field("readonlyPaths", array(absolute), ()),
    field("mountLabel", string),
    field("sysctl", mapping(item), EMPTY),
    field("resources", RESOURCES),
    field("seccomp", SECCOMP),
    field("intelRdt", INTEL_RDT),
    field("memoryPolicy", MEMORY_POLICY),
    field("personality", PERSONALITY),
)

SPEC = record(
    model.Spec,
    field("ociVersion", version, REQUIRED, SPEC_VERSION),
    field("root", ROOT, REQUIRED, model.Root(path="rootfs")),
    field("process", PROCESS),
    field("hostname", string),
    field("domainname", string),
    field("mounts", array(MOUNT), ()),
    field("hooks", HOOKS),
    field("linux", LINUX),
    field("annotations", mapping(text), EMPTY),
)
