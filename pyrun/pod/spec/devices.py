"""Devices of the request: nodes in the container's /dev, and the rules by which they may be used.

A privileged container has all of the host's, as they were when it was made.
"""

from __future__ import annotations

from ...plan.rootfs.rootfs_plan import clean_path
from .draft import CONTEXT, Draft, check_path, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .node import HostDevice, Node


def plan_devices(d: Draft, config: Any, node: Node) -> None:
    linux = d.doc["linux"]
    if config.linux.security_context.privileged:
        nodes = [_node(found, found.path) for found in node.host_devices]
        rules = [{"allow": True, "access": "rwm"}]
        d.note("/linux/resources/devices", f"{CONTEXT}.privileged")
        d.note("/linux/devices", f"{CONTEXT}.privileged")
    else:
        nodes, rules = [], [{"allow": False, "access": "rwm"}]
    for index, given in enumerate(config.devices):
        for found, path in _found(index, given, node):
            d.note(f"/linux/devices/{len(nodes)}", f"devices.{index}")
            d.note(f"/linux/resources/devices/{len(rules)}", f"devices.{index}")
            nodes.append(_node(found, path))
            rules.append(
                {
                    "allow": True,
                    "type": found.type,
                    "major": found.major,
                    "minor": found.minor,
                    "access": _access(index, given.permissions),
                }
            )
    if nodes:
        linux["devices"] = list({entry["path"]: entry for entry in nodes}.values())
    linux["resources"]["devices"] = rules


def _found(index: int, given: Any, node: Node) -> list[tuple[HostDevice, str]]:
    """The device, or all in a directory, each with its path in the container."""
    host = check_path(f"devices.{index}.host_path", given.host_path)
    inside = clean_path(check_path(f"devices.{index}.container_path", given.container_path or host))
    found = node.devices.get(host)
    if not found:
        refuse(f"devices.{index}.host_path", f"{host} is no device, and no directory with any")
    base = clean_path(host)
    return [(one, inside + one.path[len(base) :] if one.path != base else inside) for one in found]


def _access(index: int, permissions: str) -> str:
    if not permissions or set(permissions) - set("rwm"):
        refuse(f"devices.{index}.permissions", f"are made of r, w and m, not {permissions!r}")
    return permissions


def _node(found: HostDevice, path: str) -> dict[str, Any]:
    return {
        "type": found.type,
        "path": path,
        "major": found.major,
        "minor": found.minor,
        "fileMode": found.mode,
        "uid": found.uid,
        "gid": found.gid,
    }
