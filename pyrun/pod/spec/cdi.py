"""Devices of the Container Device Interface (CDI 1.1): what a vendor's spec on this node says has to be done for one.

Only for names in the request's CDI_devices, which the kubelet fills in: an annotation or an image asks for nothing here
(CVE-2026-53492). Specs are the administrator's files, yet each is read bounded, and an edit that is not known is
refused by name: a device with half of its edits would look as if it worked.
"""

from __future__ import annotations

import os
import re
import stat

from ...errors import InvalidArgument, PyrunError, reason
from ...oci.load import parse
from ...plan.rootfs.rootfs_plan import clean_path
from .draft import Draft, check_path, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SPEC_BYTES = 1 << 20
PLACE = "CDI_devices"
NAME = re.compile(
    r"[a-zA-Z][a-zA-Z0-9_.-]*[a-zA-Z0-9]/[a-zA-Z][a-zA-Z0-9_-]*=[a-zA-Z0-9]([a-zA-Z0-9_.:-]*[a-zA-Z0-9])?"
)
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
EDITS = ("env", "deviceNodes", "netDevices", "mounts", "hooks", "intelRdt", "additionalGids")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
RDT = {"closID": "closID", "l3CacheSchema": "l3CacheSchema", "memBwSchema": "memBwSchema", "schemata": "schemata"}


class Edits:
    """What one spec says: place in the request, file, the containerEdits. Nodes have their numbers."""

    __slots__ = ("edits", "file", "place")

    def __init__(self, place: str, file: str, edits: dict[str, Any]) -> None:
        self.place = place
        self.file = file
        self.edits = edits


def collect_edits(names: list[str], directories: tuple[str, ...]) -> list[Edits]:
    """The edits for these devices, a spec's own before its devices', each once. InvalidArgument."""
    for index, name in enumerate(names):
        if not NAME.fullmatch(name):
            refuse(f"{PLACE}.{index}", f"{name!r} is not of the form vendor.com/class=device")
    specs, faults = _read(directories)
    found: list[Edits] = []
    used: set[str] = set()
    for index, name in enumerate(names):
        place = f"{PLACE}.{index}"
        file, spec, device = _find(place, name, specs, faults)
        if file not in used and spec.get("containerEdits"):
            found.append(Edits(place, file, _complete(place, file, spec["containerEdits"])))
        used.add(file)
        found.append(Edits(place, file, _complete(place, file, device.get("containerEdits") or {})))
    return found


def _read(directories: tuple[str, ...]) -> tuple[list[tuple[int, str, dict[str, Any]]], list[str]]:
    """(priority, file, document), and what could not be read: a fault only for who needs it."""
    specs: list[tuple[int, str, dict[str, Any]]] = []
    faults: list[str] = []
    for priority, directory in enumerate(directories):
        try:
            files = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in files:
            if not name.endswith((".json", ".yaml", ".yml")):
                continue
            path = f"{directory}/{name}"
            try:
                document = _document(path)
            except (PyrunError, OSError) as error:
                faults.append(f"{path}: {reason(error) if isinstance(error, OSError) else error.text}")
                continue
            specs.append((priority, path, document))
    return specs, faults


def _document(path: str) -> dict[str, Any]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArgument("is no regular file")
        data = os.read(fd, SPEC_BYTES + 1)
    finally:
        os.close(fd)
    if len(data) > SPEC_BYTES:
        raise InvalidArgument("is larger than 1 MiB")
    document = parse(data, path)[0] if path.endswith(".json") else _yaml(data)
    if not isinstance(document, dict) or not isinstance(document.get("devices"), list):
        raise InvalidArgument("is no CDI spec: it has no devices")
    if document.get("cdiVersion") not in VERSIONS:
        raise InvalidArgument(f"cdiVersion {document.get('cdiVersion')!r} is not known: {VERSIONS[-1]} is the newest")
    return document


def _yaml(data: bytes) -> Any:
    try:
        import yaml
    except ImportError:
        raise InvalidArgument("is YAML, and PyYAML is not installed") from None
    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidArgument(f"is no YAML: {str(error).splitlines()[0]}") from None


def _find(
    place: str, name: str, specs: list[tuple[int, str, dict[str, Any]]], faults: list[str]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """A later directory wins; two in one directory are a conflict, by the CDI's rule."""
    kind, _, device = name.partition("=")
    found = [
        (priority, file, spec, entry)
        for priority, file, spec in specs
        if spec.get("kind") == kind
        for entry in spec["devices"]
        if isinstance(entry, dict) and entry.get("name") == device
    ]
    best = [item for item in found if item[0] == max(item[0] for item in found)]
    if not best:
        more = f"; not readable: {'; '.join(faults[:5])}" if faults else ""
        refuse(place, f"{name} is in no spec of this node{more}", hint="the vendor's tool writes /etc/cdi/*.yaml")
    if len(best) > 1:
        refuse(place, f"{name} is in {best[0][1]} and in {best[1][1]}")
    return best[0][1], best[0][2], best[0][3]


def _complete(place: str, file: str, edits: Any) -> dict[str, Any]:
    """Checked as far as the names go, with the numbers of device nodes that have none in the spec."""
    if not isinstance(edits, dict):
        refuse(place, f"{file}: containerEdits must be an object")
    made = {}
    for key, value in edits.items():
        key = "additionalGids" if key == "additionalGIDs" else key
        if key not in EDITS:
            refuse(place, f"{file}: {key!r} is not known in containerEdits")
        if key != "intelRdt" and not isinstance(value, list):
            refuse(place, f"{file}: {key} must be a list")
        made[key] = value
    made["deviceNodes"] = [_device(place, file, entry) for entry in made.get("deviceNodes", ())]
    return made


def _device(place: str, file: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        refuse(place, f"{file}: a device node needs a path")
    host = str(entry.get("hostPath") or entry["path"])
    made = dict(entry)
    if entry.get("type") != "p" and not ("major" in entry and "minor" in entry and entry.get("type")):
        try:
            found = os.stat(host)
        except OSError as error:
            raise InvalidArgument(f"{place}: {file}: {host}: {reason(error)}") from None
        kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            refuse(place, f"{file}: {host} is no device")
        made |= {"type": kind, "major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}
    return made


# --- pure from here on -----------------------------------------------------------------------------------------------


def plan_cdi(d: Draft, found: list[Edits]) -> None:
    """Applies the edits, in their order, to what the request has made already."""
    for one in found:
        try:
            _apply(d, one)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            refuse(one.place, f"{one.file}: containerEdits are not of the form that the CDI has: {error!r}")


def _apply(d: Draft, one: Edits) -> None:
    edits, process, linux = one.edits, d.doc["process"], d.doc["linux"]
    for variable in edits.get("env", ()):
        name, equals, _ = variable.partition("=")
        if not name or not equals or "\0" in variable:
            refuse(one.place, f"{one.file}: {variable!r} is no variable")
        process["env"] = [v for v in process["env"] if v.partition("=")[0] != name] + [variable]
    for entry in edits["deviceNodes"]:
        _add_device(d, one, entry)
    for entry in edits.get("netDevices", ()):
        linux.setdefault("netDevices", {})[entry["hostInterfaceName"]] = {"name": entry["name"]}
    for entry in edits.get("mounts", ()):
        _add_mount(d, one, entry)
    for entry in edits.get("hooks", ()):
        if entry["hookName"] not in HOOKS:
            refuse(one.place, f"{one.file}: {entry['hookName']!r} is no hook")
        hook = {key: entry[key] for key in ("path", "args", "env", "timeout") if entry.get(key)}
        d.doc.setdefault("hooks", {}).setdefault(entry["hookName"], []).append(hook)
        d.note("/hooks", one.place)
    groups = process["user"]["additionalGids"]
    groups += [gid for gid in dict.fromkeys(edits.get("additionalGids", ())) if gid and gid not in groups]
    rdt = edits.get("intelRdt")
    if rdt:
        unknown = sorted(set(rdt) - set(RDT))
        if unknown:
            refuse(one.place, f"{one.file}: {unknown[0]!r} is not known in intelRdt")
        linux["intelRdt"] = {RDT[key]: value for key, value in rdt.items()}


def _add_device(d: Draft, one: Edits, entry: dict[str, Any]) -> None:
    linux = d.doc["linux"]
    node = {"type": entry["type"], "path": clean_path(check_path(one.place, entry["path"]))}
    for name in ("major", "minor", "fileMode", "uid", "gid"):
        if entry.get(name) is not None:
            node[name] = entry[name]
    devices = [other for other in linux.get("devices", ()) if other["path"] != node["path"]]
    d.note(f"/linux/devices/{len(devices)}", one.place)
    linux["devices"] = [*devices, node]
    if node["type"] in ("b", "c"):
        rules = linux["resources"].setdefault("devices", [])
        d.note(f"/linux/resources/devices/{len(rules)}", one.place)
        access = entry.get("permissions") or "rwm"
        rule = {"allow": True, "type": node["type"], "major": node["major"], "minor": node["minor"], "access": access}
        rules.append(rule)


def _add_mount(d: Draft, one: Edits, entry: dict[str, Any]) -> None:
    mount = {
        "destination": clean_path(check_path(one.place, entry["containerPath"])),
        "type": entry.get("type") or "bind",
        "source": entry["hostPath"],
        "options": list(entry.get("options") or ("rbind", "rprivate", "nosuid", "nodev")),
    }
    if mount["type"] == "bind" and not {"bind", "rbind"} & set(mount["options"]):
        mount["options"].insert(0, "rbind")
    d.note(f"/mounts/{len(d.doc['mounts'])}", one.place)
    d.doc["mounts"].append(mount)
