"""What confines the container beside its namespaces: hidden paths, seccomp, AppArmor, SELinux.

A profile that is asked for and can't be had is an error. One that nobody asked for (AppArmor's default on a node
without AppArmor) is not there.
"""

from __future__ import annotations

import hashlib

from ...errors import ConfigError
from ...oci.load import parse
from .apparmor import NAME
from .draft import CONTEXT, Draft, check_path, refuse
from .node import localhost_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .node import Node

RUNTIME_DEFAULT, UNCONFINED, LOCALHOST = range(3)  # SecurityProfile.ProfileType


def plan_security(d: Draft, config: Any, sandbox: Any, node: Node) -> None:
    context = config.linux.security_context
    _paths(d, context)
    _seccomp(d, context, node)
    profile = apparmor_profile(context, node)
    if profile:
        d.doc["process"]["apparmorProfile"] = profile
        d.note("/process/apparmorProfile", f"{CONTEXT}.apparmor")
    _selinux(d, context, sandbox, node)


def _paths(d: Draft, context: Any) -> None:
    """Exactly those of the request: the kubelet sends none for procMount Unmasked, and else its list."""
    for name, key in (("masked_paths", "maskedPaths"), ("readonly_paths", "readonlyPaths")):
        paths = [check_path(f"{CONTEXT}.{name}.{i}", path) for i, path in enumerate(getattr(context, name))]
        if paths and not context.privileged:
            d.doc["linux"][key] = paths
            d.note(f"/linux/{key}", f"{CONTEXT}.{name}")


# --- seccomp ---------------------------------------------------------------------------------------------------------


def _seccomp(d: Draft, context: Any, node: Node) -> None:
    kind = seccomp_kind(context, node)
    if kind == UNCONFINED or context.privileged:
        return
    if kind == RUNTIME_DEFAULT:
        from .seccomp_default import default_profile

        made = default_profile(d.doc["process"]["capabilities"]["bounding"], node.facts.arch)
    else:
        path = localhost_profile(context) or ""
        made = _local_profile(node.profiles[path], path, d.doc["process"]["capabilities"]["bounding"], node)
    d.doc["linux"]["seccomp"] = made
    d.note("/linux/seccomp", f"{CONTEXT}.seccomp")


def seccomp_kind(context: Any, node: Node) -> int:
    """RUNTIME_DEFAULT, UNCONFINED or LOCALHOST; the string of old counts where the message is not there."""
    if context.HasField("seccomp"):
        kind: int = context.seccomp.profile_type
        if kind not in (RUNTIME_DEFAULT, UNCONFINED, LOCALHOST):
            refuse(f"{CONTEXT}.seccomp.profile_type", f"{kind} is no type of a profile")
        return kind
    old = context.seccomp_profile_path
    if not old:
        return RUNTIME_DEFAULT if node.settings.default_seccomp else UNCONFINED
    if old in ("runtime/default", "docker/default"):
        return RUNTIME_DEFAULT
    if old == "unconfined":
        return UNCONFINED
    if old.startswith("localhost/"):
        return LOCALHOST
    refuse(f"{CONTEXT}.seccomp_profile_path", f"{old!r} is neither runtime/default, unconfined nor localhost/PATH")


def _local_profile(data: bytes, path: str, bounding: list[str], node: Node) -> dict[str, Any]:
    """linux.seccomp of the OCI, or docker's form of it with archMap, includes and excludes."""
    place = f"{CONTEXT}.seccomp.localhost_ref"
    try:
        document, faults = parse(data, path)
    except ConfigError as error:
        refuse(place, error.text)
    if faults or not isinstance(document, dict) or "defaultAction" not in document:
        refuse(
            place, f"{path} is no seccomp profile" + (f": {faults[0][1]}" if faults else ": it has no defaultAction")
        )
    from .seccomp_docker import plain_profile

    return plain_profile(document, bounding, node.facts, place)


# --- AppArmor --------------------------------------------------------------------------------------------------------


def apparmor_profile(context: Any, node: Node) -> str | None:
    """The profile to enter at the exec. Who names none gets the default, but for a privileged container."""
    place = f"{CONTEXT}.apparmor"
    kind, name = _apparmor_wanted(context)
    if node.apparmor is None:
        if kind == LOCALHOST:
            refuse(place, f"profile {name}: this node has no AppArmor")
        return None
    if kind == UNCONFINED or (context.privileged and kind is None):
        return None
    if kind == LOCALHOST:
        if name not in node.apparmor:
            refuse(place, f"profile {name} is not loaded on this node", hint="apparmor_parser -r FILE")
        return name
    if NAME not in node.apparmor:
        if kind is None:
            return None
        refuse(place, f"the runtime's profile {NAME} is not loaded", hint="install apparmor_parser")
    return NAME


def _apparmor_wanted(context: Any) -> tuple[int | None, str]:
    if context.HasField("apparmor"):
        kind: int = context.apparmor.profile_type
        if kind not in (RUNTIME_DEFAULT, UNCONFINED, LOCALHOST):
            refuse(f"{CONTEXT}.apparmor.profile_type", f"{kind} is no type of a profile")
        return kind, _profile_name(f"{CONTEXT}.apparmor.localhost_ref", context.apparmor.localhost_ref, kind)
    old: str = context.apparmor_profile
    if not old:
        return None, ""
    if old == "runtime/default":
        return RUNTIME_DEFAULT, ""
    if old == "unconfined":
        return UNCONFINED, ""
    if not old.startswith("localhost/"):
        refuse(f"{CONTEXT}.apparmor_profile", f"{old!r} is neither runtime/default, unconfined nor localhost/NAME")
    return LOCALHOST, _profile_name(f"{CONTEXT}.apparmor_profile", old, LOCALHOST)


def _profile_name(place: str, ref: str, kind: int) -> str:
    """It goes into one write to the kernel, with a word of ours before it: no blank, no line of its own."""
    name = ref.removeprefix("localhost/")
    if kind != LOCALHOST:
        return ""
    if not name or not name.isprintable() or " " in name:
        refuse(place, f"{ref!r} is no name of a profile")
    return name


# --- SELinux ---------------------------------------------------------------------------------------------------------


def _selinux(d: Draft, context: Any, sandbox: Any, node: Node) -> None:
    """A pod's containers share a level of their own: two categories that its id chooses."""
    options = context.selinux_options
    place = f"{CONTEXT}.selinux_options"
    given = {name: getattr(options, name) for name in ("user", "role", "type", "level")}
    for name, value in given.items():
        if value and (not value.isprintable() or any(c in value for c in ' "\\')):
            refuse(f"{place}.{name}", f"{value!r} is no part of a label")
    if "selinux" not in node.facts.lsm:
        if any(given.values()):
            node.warnings.append(f"{place} is left out: this node has no SELinux")
        return
    if context.privileged and not any(given.values()):
        return
    user, role = given["user"] or "system_u", given["role"] or "system_r"
    level = given["level"] or _level(sandbox.id)
    d.doc["process"]["selinuxLabel"] = f"{user}:{role}:{given['type'] or 'container_t'}:{level}"
    d.doc["linux"]["mountLabel"] = f"{user}:object_r:container_file_t:{level}"
    d.note("/process/selinuxLabel", place)
    d.note("/linux/mountLabel", place)


def _level(pod: str) -> str:
    number = int.from_bytes(hashlib.sha256(pod.encode()).digest()[:8], "big")
    first, second = number % 1024, number // 1024 % 1023
    if second >= first:
        second += 1
    low, high = sorted((first, second))
    return f"s0:c{low},c{high}"
