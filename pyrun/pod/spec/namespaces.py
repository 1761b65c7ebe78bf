"""Which namespaces the container joins, which are its own, and its cgroup.

The pod decides on network, IPC, UTS and user; the container on PID alone. A namespace of the node's is left out.
"""

from __future__ import annotations

from ...errors import FailedPrecondition
from ..sandbox.cgroups import PREFIX
from .draft import CONTEXT, Draft, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

POD, CONTAINER, NODE, TARGET = range(4)  # NamespaceMode
OPTIONS = f"{CONTEXT}.namespace_options"


def plan_namespaces(d: Draft, config: Any, pod: Any, sandbox: Any, target: str | None, *, id: str) -> None:
    context, linux = config.linux.security_context, d.doc["linux"]
    _check_shared(context.namespace_options, sandbox)
    found: list[dict[str, str]] = []
    if sandbox.user:
        _add(d, found, "user", sandbox.user, "pod." + OPTIONS + ".userns_options")
    pid = _pid(context.namespace_options, pod.linux.security_context.namespace_options, sandbox, target)
    if pid is not None:
        _add(d, found, "pid", pid, OPTIONS + ".pid")
    for kind, path, name in (
        ("network", sandbox.net, "network"),
        ("ipc", sandbox.ipc, "ipc"),
        ("uts", sandbox.uts, "network"),
    ):
        if path:
            _add(d, found, kind, path, f"pod.{OPTIONS}.{name}")
    _add(d, found, "mount", "", "config")
    if not context.privileged:  # who may write to all of the hierarchy is to see all of it
        _add(d, found, "cgroup", "", f"{CONTEXT}.privileged")
    linux["namespaces"] = found
    linux["cgroupsPath"] = f"{sandbox.slice}:{PREFIX}:{id}" if sandbox.slice else f"{sandbox.cgroup_parent}/{id}"
    d.note("/linux/cgroupsPath", "pod.linux.cgroup_parent")


def _check_shared(options: Any, sandbox: Any) -> None:
    """Who says nothing, or what the pod has, gets the pod's."""
    for name, path in (("network", sandbox.net), ("ipc", sandbox.ipc)):
        mode = getattr(options, name)
        if mode != POD and (mode != NODE or path):
            refuse(f"{OPTIONS}.{name}", "the pod says whose it is", hint="make the pod with it, or leave it out here")
    if options.HasField("userns_options") and not _is_pods(options.userns_options, sandbox):
        text = "is not what the pod has, and a container is in its pod's user namespace"
        refuse(f"{OPTIONS}.userns_options", text, hint="make the pod with it, or leave it out here")


def _is_pods(users: Any, sandbox: Any) -> bool:
    """POD without mappings is whichever the pod has."""
    if users.mode != POD or not sandbox.user:
        return bool(users.mode == NODE and not sandbox.user)
    return all(
        not given
        or [(m.container_id, m.host_id, m.length) for m in given] == [(m.container_id, m.host_id, m.size) for m in has]
        for given, has in ((users.uids, sandbox.uid_mappings), (users.gids, sandbox.gid_mappings))
    )


def _add(d: Draft, found: list[dict[str, str]], kind: str, path: str, place: str) -> None:
    d.note(f"/linux/namespaces/{len(found)}", place)
    found.append({"type": kind, "path": path} if path else {"type": kind})


def _pid(options: Any, pod: Any, sandbox: Any, target: str | None) -> str | None:
    """A path to join, "" for one of its own, None for the node's."""
    if options.pid == CONTAINER:
        return ""
    if options.pid == NODE:
        return None
    if options.pid == POD:
        if sandbox.pid:
            path: str = sandbox.pid
            return path
        if pod.pid == NODE:
            return None
        raise FailedPrecondition(
            f"{OPTIONS}.pid: POD, and the pod has no PID namespace of its own",
            hint="the pod's own options say so: make it with pid POD, or the container with CONTAINER",
        )
    if options.pid != TARGET:
        refuse(f"{OPTIONS}.pid", f"{options.pid} is no mode")
    if not options.target_id:
        refuse(f"{OPTIONS}.target_id", "is missing, and pid TARGET needs it")
    if target is None:
        raise FailedPrecondition(f"{OPTIONS}.target_id: container {options.target_id[:13]} does not run")
    return target
