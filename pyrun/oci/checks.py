"""The rules of the OCI runtime spec that relate members of config.json to each other: everything outside ``linux``.

Each ``check_*`` notes faults and raises nothing. It sees values whose types are right already; an array's item at
fault is None there. Where a rule is ours and not the spec's sentence, the comment says whose it is (mostly the
kernel's, or runc's).
"""

from __future__ import annotations

from pyrun.oci import checks_linux
from pyrun.oci.checks_linux import check_id_mappings, need_namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.oci.model import Capabilities, Mount, Process, Resources, Rlimit, Scheduler, Spec
    from pyrun.oci.readers import Faults

    Check = Callable[[Any, Any, Faults], None]

NGROUPS_MAX = 65536  # limits.h
OTHER_PLATFORMS = {
    "freebsd": "FreeBSD",
    "solaris": "Solaris",
    "windows": "Windows",
    "zos": "z/OS",
    "vm": "a virtual machine",
}


def check_spec(spec: Spec, document: dict[str, Any], faults: Faults) -> None:
    """All rules of config.json."""
    if document.get("linux") is None:
        check_platform(document, faults)
    kinds = checks_linux.namespace_kinds(spec.linux)
    check_names(spec, kinds, faults)
    if spec.process is not None:
        check_process_at("/process", spec.process, faults)
    check_mounts(spec.mounts, kinds, faults)
    if "" in spec.annotations:
        faults.append(("/annotations/", "an annotation must have a name"))
    if spec.linux is not None:
        checks_linux.check_linux(spec.linux, kinds, faults)


def check_process(process: Process, _document: dict[str, Any], faults: Faults) -> None:
    """All rules of a process object that stands alone."""
    check_process_at("", process, faults)


def check_resources(resources: Resources, _document: dict[str, Any], faults: Faults) -> None:
    """All rules of a resources object that stands alone."""
    checks_linux.check_resources_at("", resources, faults)


def check_platform(document: dict[str, Any], faults: Faults) -> None:
    """A section for another platform MAY only be set where that is the target; beside a linux section it is ignored, as
    by runc.
    """
    for name, platform in OTHER_PLATFORMS.items():
        if document.get(name) is not None:
            faults.append(
                (f"/{name}", f"is for {platform}, and there is no linux section: this runtime runs Linux containers")
            )


def check_names(spec: Spec, kinds: set[str] | None, faults: Faults) -> None:
    """Host and domain name: in a UTS namespace of their own (runc: not the host's), of at most 64 bytes (the
    kernel).
    """
    for name, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if value is None:
            continue
        need_namespace("uts", kinds, f"/{name}", faults)
        if len(value.encode()) > 64:
            faults.append((f"/{name}", "must not be longer than 64 bytes"))


# --- process ---------------------------------------------------------------------------------------------------------


def check_process_at(at: str, process: Process, faults: Faults) -> None:
    """The process at pointer ``at``."""
    if not process.args:
        faults.append((f"{at}/args", "must have at least 1 item"))
    size = process.console_size
    if size is not None and process.terminal:  # else the spec has it ignored
        for name, value in (("height", size.height), ("width", size.width)):
            if value > 0xFFFF:  # struct winsize
                faults.append((f"{at}/consoleSize/{name}", f"must be from 0 to 65535, not {value}"))
    if len(process.user.additional_gids) > NGROUPS_MAX:
        count = len(process.user.additional_gids)
        faults.append((f"{at}/user/additionalGids", f"must have at most {NGROUPS_MAX} items, not {count}"))
    if process.capabilities is not None:
        check_capabilities(f"{at}/capabilities", process.capabilities, faults)
    if process.rlimits:
        check_rlimits(f"{at}/rlimits", process.rlimits, faults)
    if process.scheduler is not None:
        check_scheduler(f"{at}/scheduler", process.scheduler, faults)
    priority = process.io_priority.priority if process.io_priority is not None else None
    if priority is not None and not 0 <= priority <= 7:
        faults.append((f"{at}/ioPriority/priority", f"must be from 0 (highest) to 7 (lowest), not {priority}"))


def check_capabilities(at: str, caps: Capabilities, faults: Faults) -> None:
    """What capset(2) takes: effective only what is permitted, inheritable only what the bounding set leaves."""
    for name, within in (("effective", "permitted"), ("inheritable", "bounding")):
        allowed = set(getattr(caps, within))
        beyond = [cap for cap in getattr(caps, name) if cap not in allowed]
        if beyond:
            faults.append((at, f"{name} has {', '.join(beyond)}, which must be in {within} as well"))


def check_rlimits(at: str, rlimits: tuple[Rlimit, ...], faults: Faults) -> None:
    """Each type once (the spec); soft at most hard (the kernel: EINVAL)."""
    seen: dict[str, int] = {}
    for index, rlimit in enumerate(rlimits):
        if rlimit is None:
            continue
        first = seen.setdefault(rlimit.type, index)
        if first != index:
            faults.append((f"{at}/{index}/type", f"{rlimit.type} is set already by item {first}"))
        if rlimit.soft > rlimit.hard:
            faults.append(
                (f"{at}/{index}/soft", f"must not be above the hard limit {rlimit.hard}, and is {rlimit.soft}")
            )


def check_scheduler(at: str, scheduler: Scheduler, faults: Faults) -> None:
    """What sched_setattr(2) takes with each policy; runc's rules, and the kernel's for priorities and deadlines."""
    policy, priority = scheduler.policy, scheduler.priority or 0
    real_time = policy in ("SCHED_FIFO", "SCHED_RR")
    if scheduler.nice is not None and not -20 <= scheduler.nice <= 19:
        faults.append((f"{at}/nice", f"must be from -20 to 19, not {scheduler.nice}"))
    if real_time and not 1 <= priority <= 99:
        faults.append((f"{at}/priority", f"must be from 1 to 99 with {policy}, not {priority}"))
    if not real_time and priority:
        faults.append((f"{at}/priority", f"is for SCHED_FIFO and SCHED_RR only, and the policy is {policy}"))
    times = (("runtime", scheduler.runtime), ("deadline", scheduler.deadline), ("period", scheduler.period))
    if policy != "SCHED_DEADLINE":
        faults += [
            (f"{at}/{name}", f"is for SCHED_DEADLINE only, and the policy is {policy}")
            for name, value in times
            if value
        ]
        return
    runtime, deadline = scheduler.runtime or 0, scheduler.deadline or 0
    period = scheduler.period or deadline
    if not 0 < runtime <= deadline <= period:
        text = f"SCHED_DEADLINE needs 0 < runtime <= deadline <= period, not {runtime}, {deadline} and {period}"
        faults.append((at, text))


# --- mounts --------------------------------------------------------------------------------------------------------


def check_mounts(mounts: tuple[Mount, ...], kinds: set[str] | None, faults: Faults) -> None:
    """Id maps: both or none; an idmap option needs maps, its own or a user namespace's."""
    for index, mount in enumerate(mounts):
        if mount is None:
            continue
        uids, gids = mount.uid_mappings, mount.gid_mappings
        if uids or gids:
            check_mount_maps(f"/mounts/{index}", mount, faults)
        elif kinds is not None and "user" not in kinds:
            for place, option in enumerate(mount.options):
                if option in ("idmap", "ridmap"):
                    text = f"{option} needs uidMappings and gidMappings, or a user namespace whose it could take"
                    faults.append((f"/mounts/{index}/options/{place}", text))


def check_mount_maps(at: str, mount: Mount, faults: Faults) -> None:
    uids, gids = mount.uid_mappings, mount.gid_mappings
    if not gids:
        faults.append((f"{at}/uidMappings", "must be set along with gidMappings"))
    if not uids:
        faults.append((f"{at}/gidMappings", "must be set along with uidMappings"))
    check_id_mappings(f"{at}/uidMappings", uids, faults)
    check_id_mappings(f"{at}/gidMappings", gids, faults)
