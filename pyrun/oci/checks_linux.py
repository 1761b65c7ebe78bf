"""The rules of config-linux.md that relate members of ``linux`` to each other and to the namespaces; see checks.py
for the style.

A setting that only makes sense in a namespace of the container's own is refused without it, because it would change
the host.
"""

from __future__ import annotations

from pyrun.oci.readers import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.oci.model import BlockIO, Device, IdMapping, IntelRdt, Linux, MemoryPolicy, NetDevice, Resources, Seccomp
    from pyrun.oci.readers import Faults

# The System V IPC settings that belong to the IPC namespace (ipc/ipc_sysctl.c); fs.mqueue.* do too.
IPC_SYSCTLS = {
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.msg_next_id", "kernel.sem", "kernel.sem_next_id",
    "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_next_id", "kernel.shm_rmid_forced",
}  # fmt: skip


def namespace_kinds(linux: Linux | None) -> set[str] | None:
    """The types of the container's namespaces; None when a faulty entry leaves them unknown, so that no follow-up is
    reported.
    """
    if linux is None:
        return set()
    if None in linux.namespaces:
        return None
    return {namespace.type for namespace in linux.namespaces}


def need_namespace(kind: str, kinds: set[str] | None, at: str, faults: Faults, what: str = "") -> None:
    """A fault at pointer ``at`` unless the container has a namespace of this kind, new or joined."""
    if kinds is not None and kind not in kinds:
        faults.append((at, f"{what}needs a {kind} namespace in /linux/namespaces, or it would change the host's"))


def check_linux(linux: Linux, kinds: set[str] | None, faults: Faults) -> None:
    """All rules of the linux section."""
    check_namespaces(linux, faults)
    check_user_namespace(linux, kinds, faults)
    check_time(linux, kinds, faults)
    for name, paths in (("maskedPaths", linux.masked_paths), ("readonlyPaths", linux.readonly_paths)):
        if paths:
            need_namespace("mount", kinds, f"/linux/{name}", faults)
    for index, device in enumerate(linux.devices):
        if device is not None:
            check_device(f"/linux/devices/{index}", device, faults)
    if linux.net_devices:
        check_net_devices(linux.net_devices, kinds, faults)
    if linux.cgroups_path is not None and ".." in linux.cgroups_path.split("/"):
        faults.append(("/linux/cgroupsPath", f"must not contain .. as in {shown(linux.cgroups_path)}"))
    for key in linux.sysctl:
        check_sysctl(key, kinds, faults)
    if linux.resources is not None:
        check_resources_at("/linux/resources", linux.resources, faults)
    if linux.seccomp is not None:
        check_seccomp(linux.seccomp, faults)
    if linux.intel_rdt is not None:
        check_intel_rdt(linux.intel_rdt, faults)
    if linux.memory_policy is not None:
        check_memory_policy(linux.memory_policy, faults)
    if linux.personality is not None and linux.personality.flags:
        faults.append(("/linux/personality/flags", "no flag is supported"))  # the spec: currently none


# --- namespaces ------------------------------------------------------------------------------------------------------


def check_namespaces(linux: Linux, faults: Faults) -> None:
    """Each type once, and paths absolute (the spec)."""
    seen: dict[str, int] = {}
    for index, namespace in enumerate(linux.namespaces):
        if namespace is None:
            continue
        first = seen.setdefault(namespace.type, index)
        if first != index:
            faults.append(
                (f"/linux/namespaces/{index}/type", f"a {namespace.type} namespace is listed already, as item {first}")
            )
        if namespace.path is not None and namespace.path[0] != "/":
            faults.append((f"/linux/namespaces/{index}/path", f"must be an absolute path, not {shown(namespace.path)}"))


def check_user_namespace(linux: Linux, kinds: set[str] | None, faults: Faults) -> None:
    """Maps need a user namespace, and a new one needs both (without, nobody in it could become root: setresuid
    fails).
    """
    maps = (("uidMappings", linux.uid_mappings), ("gidMappings", linux.gid_mappings))
    for name, mappings in maps:
        if mappings:
            need_namespace("user", kinds, f"/linux/{name}", faults)
            check_id_mappings(f"/linux/{name}", mappings, faults)
    for index, namespace in enumerate(linux.namespaces):
        if namespace is not None and namespace.type == "user" and namespace.path is None:
            missing = [name for name, mappings in maps if not mappings]
            if missing:
                text = f"a new user namespace needs {' and '.join(missing)} in /linux"
                faults.append((f"/linux/namespaces/{index}", text))


def check_id_mappings(at: str, mappings: tuple[IdMapping, ...], faults: Faults) -> None:
    """What map_write in kernel/user_namespace.c takes: up to 340 lines, sizes from 1, no wrap, no overlap on either
    side.
    """
    if len(mappings) > 340:
        faults.append((at, f"must have at most 340 items, which is all that the kernel takes, and has {len(mappings)}"))
    for index, mapping in enumerate(mappings):
        if mapping is None:
            continue
        if mapping.size == 0:
            faults.append((f"{at}/{index}/size", "must be at least 1"))
        for name, start in (("containerID", mapping.container_id), ("hostID", mapping.host_id)):
            if start + mapping.size > 0xFFFFFFFF:
                faults.append(
                    (f"{at}/{index}/{name}", f"{start} and a size of {mapping.size} go beyond the id 4294967294")
                )
    whole = [(index, mapping) for index, mapping in enumerate(mappings) if mapping is not None]
    for name, attribute in (("containerID", "container_id"), ("hostID", "host_id")):
        ranges = sorted((getattr(mapping, attribute), index, mapping.size) for index, mapping in whole)
        end, owner = 0, 0
        for start, index, size in ranges:
            if size and start < end:
                faults.append((f"{at}/{max(index, owner)}/{name}", f"overlaps with item {min(index, owner)}"))
            if start + size > end:
                end, owner = start + size, index


def check_time(linux: Linux, kinds: set[str] | None, faults: Faults) -> None:
    """Offsets are those of a new time namespace; a joined one has its own and they can't change
    (time_namespaces(7)).
    """
    if linux.time_offsets is None or (linux.time_offsets.monotonic is None and linux.time_offsets.boottime is None):
        return
    if kinds is not None and "time" not in kinds:
        faults.append(("/linux/timeOffsets", "needs a time namespace in /linux/namespaces"))
    for namespace in linux.namespaces:
        if namespace is not None and namespace.type == "time" and namespace.path is not None:
            faults.append(("/linux/timeOffsets", "must not be set when the time namespace is joined by path"))


# --- devices ---------------------------------------------------------------------------------------------------------


def check_device(at: str, device: Device, faults: Faults) -> None:
    """Numbers are required but for a FIFO (the spec), and 12 and 20 bits wide (the kernel's dev_t)."""
    for name, value, most in (("major", device.major, 0xFFF), ("minor", device.minor, 0xFFFFF)):
        if value is None:
            if device.type != "p":
                faults.append((f"{at}/{name}", f"is missing, and a device of type {device.type} needs it"))
        elif not 0 <= value <= most and device.type != "p":
            faults.append((f"{at}/{name}", f"must be from 0 to {most}, not {value}"))


def check_net_devices(devices: dict[str, NetDevice], kinds: set[str] | None, faults: Faults) -> None:
    """Names that the kernel takes (dev_valid_name), each once inside; %d in the new one asks the kernel for a
    number.
    """
    need_namespace("network", kinds, "/linux/netDevices", faults)
    inside: dict[str, str] = {}
    for host, device in devices.items():
        at = "/linux/netDevices/" + host.replace("~", "~0").replace("/", "~1")
        if not _is_interface(host):
            faults.append((at, f"{shown(host)} can't be the name of a network device"))
        if device is None:
            continue
        name = device.name or host
        where = f"{at}/name" if device.name else at
        if device.name is not None and not _is_interface(device.name):
            faults.append((where, f"{shown(device.name)} can't be the name of a network device"))
        first = inside.setdefault(name, host)
        if first != host and "%d" not in name:
            faults.append((where, f"{shown(name)} is the name that {shown(first)} gets"))


def _is_interface(name: str) -> bool:
    return 0 < len(name.encode()) < 16 and name not in (".", "..") and not any(c in "/:" or c.isspace() for c in name)


# --- sysctl ----------------------------------------------------------------------------------------------------------


def sysctl_path(key: str) -> str:
    """The file below /proc/sys that a sysctl names; the first separator decides, as in sysctl(8).

    net.ipv4.conf.eno2/100.rp_filter and net/ipv4/conf/eno2.100/rp_filter are the same file.
    """
    dot, slash = key.find("."), key.find("/")
    if slash != -1 and (dot == -1 or slash < dot):
        return key
    return key.replace(".", "\0").replace("/", ".").replace("\0", "/")


def check_sysctl(key: str, kinds: set[str] | None, faults: Faults) -> None:
    """Only what a namespace of the container's own holds may be set, as runc has it: all else would change the host."""
    path = sysctl_path(key)
    name = path.replace("/", ".")
    at = "/linux/sysctl/" + key.replace("~", "~0").replace("/", "~1")
    if any(part in ("", ".", "..") for part in path.split("/")):
        faults.append((at, f"{shown(key)} is not the name of a sysctl"))
    elif name in IPC_SYSCTLS or path.startswith("fs/mqueue/"):
        need_namespace("ipc", kinds, at, faults)
    elif path.startswith("net/"):
        need_namespace("network", kinds, at, faults)
    elif path.startswith("user/"):
        need_namespace("user", kinds, at, faults)
    elif name == "kernel.domainname":
        need_namespace("uts", kinds, at, faults)
    elif name == "kernel.hostname":
        faults.append((at, "is set by /hostname, not as a sysctl"))
    else:
        faults.append((at, f"{shown(key)} is not in a namespace: it would change the host's"))


# --- resources -------------------------------------------------------------------------------------------------------


def check_resources_at(at: str, resources: Resources, faults: Faults) -> None:
    """The rules of the resources object at pointer ``at``."""
    for index, device in enumerate(resources.devices):
        if device is None:
            continue
        if device.type not in (None, "a", "b", "c"):
            faults.append((f"{at}/devices/{index}/type", f"must be a, b or c, not {shown(device.type)}"))
        if device.access is not None and device.access.strip("rwm"):
            faults.append((f"{at}/devices/{index}/access", f"must be made of r, w and m, not {shown(device.access)}"))
    cpu = resources.cpu
    if cpu is not None and cpu.burst and cpu.quota is not None and 0 < cpu.quota < cpu.burst:
        faults.append((f"{at}/cpu/burst", f"must not be above the quota {cpu.quota}, and is {cpu.burst}"))
    if resources.block_io is not None:
        check_block_io(f"{at}/blockIO", resources.block_io, faults)
    for name, rdma in resources.rdma.items():
        if rdma is not None and rdma.hca_handles is None and rdma.hca_objects is None:
            escaped = name.replace("~", "~0").replace("/", "~1")
            faults.append((f"{at}/rdma/{escaped}", "must have hcaHandles or hcaObjects"))
    for name in resources.unified:
        if "/" in name or name in (".", ".."):  # the key is a file of the container's cgroup, and of no other
            escaped = name.replace("~", "~0").replace("/", "~1")
            faults.append((f"{at}/unified/{escaped}", f"{shown(name)} must be the name of a file, without a path"))


def check_block_io(at: str, block_io: BlockIO, faults: Faults) -> None:
    """A device's entry sets one weight at least (the spec)."""
    for index, device in enumerate(block_io.weight_device):
        if device is not None and device.weight is None and device.leaf_weight is None:
            faults.append((f"{at}/weightDevice/{index}", "must have weight or leafWeight"))


# --- seccomp and the rest --------------------------------------------------------------------------------------------


def check_seccomp(seccomp: Seccomp, faults: Faults) -> None:
    """An errno only where the action takes one; a listener where SCMP_ACT_NOTIFY is used; metadata only with a
    listener.
    """
    at = "/linux/seccomp"
    check_errno(f"{at}/defaultErrnoRet", seccomp.default_action, seccomp.default_errno_ret, faults)
    if seccomp.default_action == "SCMP_ACT_NOTIFY":  # as runc: whoever answers would have to answer for its own calls
        faults.append((f"{at}/defaultAction", "SCMP_ACT_NOTIFY can't be the default action"))
    notifies = None
    for index, rule in enumerate(seccomp.syscalls):
        if rule is None:
            continue
        check_errno(f"{at}/syscalls/{index}/errnoRet", rule.action, rule.errno_ret, faults)
        if rule.action == "SCMP_ACT_NOTIFY" and notifies is None:
            notifies = index
    if seccomp.listener_path is None:
        if notifies is not None:
            faults.append((f"{at}/syscalls/{notifies}/action", "SCMP_ACT_NOTIFY needs /linux/seccomp/listenerPath"))
        if seccomp.listener_metadata:
            faults.append((f"{at}/listenerMetadata", "must not be set without listenerPath"))


def check_errno(at: str, action: str, value: int | None, faults: Faults) -> None:
    """Only SCMP_ACT_ERRNO (an errno, at most the kernel's MAX_ERRNO) and SCMP_ACT_TRACE (16 bits for the tracer) take
    one.
    """
    if value is None:
        return
    most = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 0xFFFF}.get(action)
    if most is None:
        faults.append((at, f"{action} takes no errno"))
    elif value > most:
        faults.append((at, f"must be from 0 to {most}, not {value}"))


def check_intel_rdt(rdt: IntelRdt, faults: Faults) -> None:
    """closID is one directory of the resctrl file system, or / for its root."""
    clos = rdt.clos_id
    if clos is not None and clos != "/" and ("/" in clos or clos in (".", "..")):
        faults.append(("/linux/intelRdt/closID", f"must be the name of a directory, or /, not {shown(clos)}"))


def check_memory_policy(policy: MemoryPolicy, faults: Faults) -> None:
    """Nodes and flags that set_mempolicy(2) takes with the mode."""
    at, mode, flags = "/linux/memoryPolicy", policy.mode, policy.flags
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        if policy.nodes is not None:
            faults.append((f"{at}/nodes", f"{mode} takes no nodes"))
        if flags:
            faults.append((f"{at}/flags", f"{mode} takes no flags"))
    elif policy.nodes is None and mode != "MPOL_PREFERRED":
        faults.append((f"{at}/nodes", f"is missing, and {mode} needs at least one node"))
    if "MPOL_F_STATIC_NODES" in flags and "MPOL_F_RELATIVE_NODES" in flags:
        faults.append((f"{at}/flags", "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other"))
    if "MPOL_F_NUMA_BALANCING" in flags and mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        faults.append((f"{at}/flags", f"MPOL_F_NUMA_BALANCING is for MPOL_BIND and MPOL_PREFERRED_MANY, not {mode}"))
