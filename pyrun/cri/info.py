"""The verbose info of a pod, a container and an image, as JSON: what `crictl inspect` shows beside the status.

The names are those that tools look for with peers: pid, sandboxID, config, runtimeSpec; runtimeSpec.linux.namespaces of
a pod has the paths to enter. What else is there is ours.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from .. import SPEC_VERSION
from ..errors import PyrunError
from ..facts import read_text
from ..pod.container import pid_of
from ..pod.pod import Container, Pod
from ..pod.pods import Pods
from ..pod.sandbox import Sandbox

CONFIG_BYTES = 8 << 20
NAMESPACES = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user", "pid": "pid"}


def pod_info(pod: Pod) -> str:
    """The namespaces that it has not got are the node's; one of PIDs is not pinned before a container needs it."""
    sandbox = pod.sandbox
    info = {
        "cgroup": sandbox.cgroup_parent if sandbox else "",
        "netns": (sandbox.net if sandbox else None) or "",
        "directory": pod.directory,
        "state": pod.record.state,
        "warnings": pod.record.warnings,
        "config": plain(pod.config),
    }
    return json.dumps(info | ({"runtimeSpec": _pod_spec(pod, sandbox)} if sandbox else {}))


def _pod_spec(pod: Pod, sandbox: Sandbox) -> dict[str, Any]:
    """There is no container of the pod's own, so this has no process and no root."""
    paths = {kind: getattr(sandbox, word) for kind, word in NAMESPACES.items()}
    linux = {
        "cgroupsPath": sandbox.cgroup_parent,
        "namespaces": [{"type": kind, "path": path} for kind, path in paths.items() if path],
        "sysctl": dict(pod.config.linux.sysctls),
    }
    return {"ociVersion": SPEC_VERSION, "hostname": sandbox.hostname, "linux": linux}


def container_info(pods: Pods, c: Container) -> str:
    """Blocks. runtimeSpec is there until the container has ended."""
    info = {
        "pid": pid_of(pods, c),
        "sandboxID": c.pod.id,
        "cgroup": c.record.cgroup,
        "warnings": c.record.warnings,
        "privileged": c.config.linux.security_context.privileged,
        "config": plain(c.config),
    }
    try:
        text = read_text(pods.handler(c.pod).config_path(c), CONFIG_BYTES)
        return json.dumps(info | ({"runtimeSpec": json.loads(text)} if text else {}))
    except (PyrunError, ValueError):  # it goes away meanwhile
        return json.dumps(info)


def plain(message: Any) -> dict[str, Any]:
    """A message as peers print it: the proto's names, numbers as numbers, bytes in base64, nothing that is unset."""
    return {field.name: _value(field, value) for field, value in message.ListFields()}


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, str | int | float):
        return value
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    return plain(value) if hasattr(value, "ListFields") else [_value(field, each) for each in value]
