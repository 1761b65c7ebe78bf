"""Security contexts, sysctls and profiles."""

from __future__ import annotations

from collections.abc import Iterator

from ..objects.containers import AppArmorProfile, SeccompProfile, SecurityContext
from ..objects.pods import PodSecurityContext, PodSpec
from ..strict import Fault
from .names import check, number_range, one_of, relative_path_fault, sysctl_fault

MOST_NAME = 4095  # bytes of an AppArmor profile's
MAX_ID = (1 << 31) - 1
# Sysctls of namespaces that a pod on the host's has not: the kernel's names by what must not be shared.
NET_SYSCTLS = ("net.",)
IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def validate_pod_security(found: PodSecurityContext | None, spec: PodSpec, at: str) -> Iterator[Fault]:
    if found is None:
        return
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        yield from number_range(getattr(found, field), 0, MAX_ID, f"{at}/{field}")
    for i, group in enumerate(found.supplementalGroups or ()):
        yield from number_range(group, 0, MAX_ID, f"{at}/supplementalGroups/{i}")
    yield from one_of(found.supplementalGroupsPolicy, ("Merge", "Strict"), f"{at}/supplementalGroupsPolicy")
    yield from one_of(found.fsGroupChangePolicy, ("OnRootMismatch", "Always"), f"{at}/fsGroupChangePolicy")
    yield from one_of(found.seLinuxChangePolicy, ("Recursive", "MountOption"), f"{at}/seLinuxChangePolicy")
    yield from profiles(found.seccompProfile, found.appArmorProfile, at)
    names: set[str] = set()
    for i, sysctl in enumerate(found.sysctls or ()):
        here, name = f"{at}/sysctls/{i}/name", sysctl.name.replace("/", ".")
        yield from check(sysctl_fault(sysctl.name), here)
        if name in names:
            yield Fault(here, f"{sysctl.name!r} is there twice")
        names.add(name)
        if spec.hostNetwork and name.startswith(NET_SYSCTLS):
            yield Fault(here, f"{sysctl.name!r} is not for a pod with hostNetwork")
        if spec.hostIPC and name.startswith(IPC_SYSCTLS):
            yield Fault(here, f"{sysctl.name!r} is not for a pod with hostIPC")


def validate_security(found: SecurityContext | None, spec: PodSpec, at: str) -> Iterator[Fault]:
    if found is None:
        return
    for field in ("runAsUser", "runAsGroup"):
        yield from number_range(getattr(found, field), 0, MAX_ID, f"{at}/{field}")
    yield from one_of(found.procMount, ("Default", "Unmasked"), f"{at}/procMount")
    if found.procMount == "Unmasked" and spec.hostUsers is not False:
        yield Fault(f"{at}/procMount", "Unmasked needs hostUsers: false, or the container could change the host")
    yield from profiles(found.seccompProfile, found.appArmorProfile, at)
    if found.allowPrivilegeEscalation is False:
        if found.privileged:
            yield Fault(f"{at}/allowPrivilegeEscalation", "can't be false in a privileged container")
        for i, name in enumerate((found.capabilities and found.capabilities.add) or ()):
            if name in ("SYS_ADMIN", "CAP_SYS_ADMIN"):
                yield Fault(f"{at}/capabilities/add/{i}", f"{name} needs allowPrivilegeEscalation: true")


def profiles(seccomp: SeccompProfile | None, apparmor: AppArmorProfile | None, at: str) -> Iterator[Fault]:
    """Localhost has a name, the others have none; an empty name was CVE-2023-2431, where no profile was set at all."""
    for field, found in (("seccompProfile", seccomp), ("appArmorProfile", apparmor)):
        if found is None:
            continue
        here = f"{at}/{field}"
        yield from one_of(found.type, ("Localhost", "RuntimeDefault", "Unconfined"), f"{here}/type")
        if found.type == "Localhost":
            if not (found.localhostProfile or "").strip():
                yield Fault(f"{here}/localhostProfile", "is missing: Localhost needs a profile's name")
            elif field == "seccompProfile":
                yield from check(relative_path_fault(found.localhostProfile or ""), f"{here}/localhostProfile")
            elif found.localhostProfile != (found.localhostProfile or "").strip():
                yield Fault(f"{here}/localhostProfile", "must not begin or end with white space")
            elif len((found.localhostProfile or "").encode()) > MOST_NAME:
                yield Fault(f"{here}/localhostProfile", f"is longer than {MOST_NAME} bytes")
        elif found.localhostProfile is not None:
            yield Fault(f"{here}/localhostProfile", f"is for type Localhost, not {found.type}")
