"""docker's form of a seccomp profile as linux.seccomp: archMap, and rules that hold with a capability, on a machine or
from a kernel on (includes, excludes). What is in neither form is refused by name."""

from __future__ import annotations

from .draft import refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...facts import Facts

PLAIN = ("defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata", "syscalls")
RULE = ("names", "action", "errnoRet", "args")
ARG = ("index", "value", "valueTwo", "op")
ARCHES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
SHORT = {"x86_64": "amd64", "aarch64": "arm64"}


def plain_profile(document: dict[str, Any], bounding: list[str], facts: Facts, place: str) -> dict[str, Any]:
    """The profile with what holds here. InvalidArgument; the loader of config.json checks the rest."""
    made = {}
    for key, value in document.items():
        if key in ("listenerPath", "listenerMetadata"):
            refuse(place, f"{key}: an agent that answers for containers can't be given by a profile")
        if key in PLAIN:
            made[key] = value
        elif key not in ("archMap", "defaultErrno", "comment"):
            refuse(place, f"{key!r} is not known in a profile")
    if "archMap" in document and "architectures" not in document:
        made["architectures"] = _architectures(document["archMap"], facts, place)
    rules = document.get("syscalls") or []
    if not isinstance(rules, list):
        refuse(place, "syscalls must be a list")
    found = [
        _rule(rule, f"{place}: syscalls/{i}") for i, rule in enumerate(rules) if _holds(rule, bounding, facts, place)
    ]
    made["syscalls"] = found
    return made


def _architectures(given: Any, facts: Facts, place: str) -> list[str]:
    native = ARCHES.get(facts.arch)
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, dict) and entry.get("architecture") == native:
            return [str(native), *map(str, entry.get("subArchitectures") or ())]
    refuse(place, f"archMap has nothing for {facts.arch}")


def _holds(rule: Any, bounding: list[str], facts: Facts, place: str) -> bool:
    if not isinstance(rule, dict):
        refuse(place, "each of syscalls must be an object")
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if not isinstance(includes, dict) or not isinstance(excludes, dict):
        refuse(place, "includes and excludes must be objects")
    for entry in (includes, excludes):
        unknown = set(entry) - {"caps", "arches", "minKernel"}
        if unknown:
            refuse(place, f"{sorted(unknown)[0]!r} is not known in includes and excludes")
    arches = (facts.arch, SHORT.get(facts.arch, facts.arch), ARCHES.get(facts.arch))
    if includes.get("arches") and not any(arch in includes["arches"] for arch in arches):
        return False
    if not all(cap in bounding for cap in includes.get("caps") or ()):
        return False
    if includes.get("minKernel") and facts.kernel < _kernel(includes["minKernel"], place):
        return False
    if any(arch in (excludes.get("arches") or ()) for arch in arches):
        return False
    if any(cap in bounding for cap in excludes.get("caps") or ()):
        return False
    return not (excludes.get("minKernel") and facts.kernel >= _kernel(excludes["minKernel"], place))


def _kernel(text: Any, place: str) -> tuple[int, int]:
    parts = str(text).split(".")
    if len(parts) < 2 or not all(part.isdigit() for part in parts[:2]):
        refuse(place, f"minKernel: {text!r} is no version")
    return int(parts[0]), int(parts[1])


def _rule(rule: dict[str, Any], place: str) -> dict[str, Any]:
    made = {}
    for key, value in rule.items():
        if key in RULE:
            made[key] = value
        elif key == "name":
            made["names"] = [value]
        elif key not in ("includes", "excludes", "comment"):
            refuse(place, f"{key!r} is not known in a rule")
    if "args" in made:
        made["args"] = [{k: v for k, v in arg.items() if k in ARG} for arg in made["args"] or ()]
    return made
