"""What pages show, out of what a runtime said: a value for each thing by its key. Pure.

Keys are `node`, `pod/ID`, `image/ID`, `problem/N`, `event/UID/MARK`; a pod that has no sandbox yet has the
ID `uid-UID`. Times are nanoseconds since 1970, 0 for never; memory is bytes, cpu
nanoseconds a second, None where it is not known. All text is clean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import cri_api as v1
from ..node.agent.masked import LAST_APPLIED
from .agent import nanoseconds, plan_events, plan_kube
from .clean import clean, clean_bytes
from .diagnose import diagnose
from .observe import Observed

State = dict[str, dict[str, Any]]
STATES = {
    v1.CONTAINER_CREATED: "created",
    v1.CONTAINER_RUNNING: "running",
    v1.CONTAINER_EXITED: "exited",
    v1.CONTAINER_UNKNOWN: "unknown",
}
WORD = 300


def plan_state(name: str, seen: Observed) -> State:
    """name: the node's."""
    usage = {one.attributes.id: one for one in seen.stats}
    containers: dict[str, list[Any]] = {}
    for one in sorted(seen.containers, key=lambda one: int(one.created_at)):
        containers.setdefault(one.pod_sandbox_id, []).append(one)
    node = _node(name, seen)
    pods = [_pod(pod, containers.get(pod.id, []), usage.get(pod.id), seen) for pod in seen.pods]
    _add_kube(pods, seen)
    images = _images(seen, pods)
    state: State = {"node": node}
    state |= {f"pod/{pod['id']}": pod for pod in pods}
    state |= {f"image/{image['id']}": image for image in images}
    events = plan_events(seen.agent.events) if seen.agent else {}
    state |= events
    state |= {
        f"problem/{number}": problem for number, problem in enumerate(diagnose(node, pods, seen.time, events.values()))
    }
    return state


def _node(name: str, seen: Observed) -> dict[str, Any]:
    disk = seen.disk
    return {
        "name": clean(name, WORD),
        "error": clean(seen.error),
        "runtime": _word(seen.version.runtime_name) if seen.version else "",
        "version": _word(seen.version.runtime_version) if seen.version else "",
        "conditions": [
            {"type": _word(one.type), "status": one.status, "reason": _word(one.reason), "message": clean(one.message)}
            for one in seen.conditions
        ],
        "started": seen.node.started,
        "agent": _agent(seen),
        "cpus": seen.cpus,
        "cpu": seen.cores,
        "memory": seen.node.working,
        "available": seen.node.available,
        "total": seen.total,
        "received": seen.traffic[0] if seen.traffic else None,
        "sent": seen.traffic[1] if seen.traffic else None,
        "pressure": seen.pressure or None,
        "disk": {"path": _word(disk.path), "total": disk.total, "free": disk.free} if disk else None,
    }


def _agent(seen: Observed) -> dict[str, Any] | None:
    if seen.agent is None:
        return None
    status = seen.agent.status
    faults = [word for word in (seen.agent.error, status.get("error"), *status.get("faults", ())) if word]
    return {"manifests": _word(status.get("manifests") or ""), "faults": [clean(word, 2000) for word in faults]}


def _add_kube(pods: list[dict[str, Any]], seen: Observed) -> None:
    """`kube` of each pod that the agent has; those that it has not begun are added."""
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for pod in sorted(pods, key=lambda pod: (pod["attempt"], pod["created"])):
        newest[pod["namespace"], pod["name"], pod["uid"]] = pod
    for wanted in seen.agent.pods if seen.agent else ():
        meta = wanted["metadata"]
        key = (_word(meta.get("namespace") or "default"), _word(meta["name"]), _word(meta["uid"]))
        if (found := newest.get(key)) is None:
            pods.append(found := _not_begun(key, meta))
        found["kube"] = plan_kube(wanted)


def _not_begun(key: tuple[str, str, str], meta: Mapping[str, Any]) -> dict[str, Any]:
    about = v1.PodSandboxMetadata(namespace=key[0], name=key[1], uid=key[2])
    made = v1.PodSandbox(id=f"uid-{key[2]}", metadata=about, created_at=nanoseconds(meta["creationTimestamp"]))
    made.state = v1.SANDBOX_NOTREADY
    for name in ("labels", "annotations"):
        getattr(made, name).update(meta.get(name) or {})
    return _pod(made, [], None, None)


def _pod(pod: Any, containers: list[Any], usage: Any, seen: Observed | None) -> dict[str, Any]:
    about, network = pod.metadata, seen.networks.get(pod.id) if seen else None
    of_containers = {one.attributes.id: one for one in usage.linux.containers} if usage else {}
    views = [_container(one, of_containers.get(one.id), seen) for one in containers if seen]
    newest = {view["name"]: view for view in views}
    for view in newest.values():
        view["earlier"] = [one for one in views if one["name"] == view["name"] and one is not view]
    ips = [network.network.ip, *(one.ip for one in network.network.additional_ips)] if network else []
    interface = usage.linux.network.default_interface if usage else None
    return {
        "id": pod.id,
        "namespace": _word(about.namespace),
        "name": _word(about.name),
        "uid": _word(about.uid),
        "attempt": about.attempt,
        "ready": pod.state == v1.SANDBOX_READY,
        "created": pod.created_at,
        "ips": [_word(ip) for ip in ips if ip],
        "labels": _pairs(pod.labels),
        # kubectl's copy of the whole manifest may have secrets, and who looks at this may not have them.
        "annotations": _pairs({name: value for name, value in pod.annotations.items() if name != LAST_APPLIED}),
        "containers": list(newest.values()),
        "kube": None,
        "cpu": _number(usage.linux.cpu, "usage_nano_cores") if usage else None,
        "memory": _number(usage.linux.memory, "working_set_bytes") if usage else None,
        "processes": _number(usage.linux.process, "process_count") if usage else None,
        "received": _number(interface, "rx_bytes") if interface else None,
        "sent": _number(interface, "tx_bytes") if interface else None,
    }


def _container(one: Any, usage: Any, seen: Observed) -> dict[str, Any]:
    status = seen.statuses.get(one.id)
    working = _number(usage.memory, "working_set_bytes") if usage else None
    available = _number(usage.memory, "available_bytes") if usage else None
    return {
        "id": one.id,
        "name": _word(one.metadata.name),
        "attempt": one.metadata.attempt,
        "state": STATES.get(one.state, "unknown"),
        "image": _word(one.image.user_specified_image or one.image.image or one.image_ref),
        "created": one.created_at,
        "started": status.started_at if status else 0,
        "finished": status.finished_at if status else 0,
        "exit": status.exit_code if status and one.state == v1.CONTAINER_EXITED else None,
        "reason": _word(status.reason) if status else "",
        "message": clean(status.message, 2000) if status else "",
        "last": clean_bytes(seen.last.get(one.id, b""), 500),
        "cpu": _number(usage.cpu, "usage_nano_cores") if usage else None,
        "memory": working,
        "limit": None if working is None or available is None else working + available,
        "written": _number(usage.writable_layer, "used_bytes") if usage else None,
        "earlier": [],
    }


def _images(seen: Observed, pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = {pod["id"]: f"{pod['namespace']}/{pod['name']}" for pod in pods}
    used: dict[str, set[str]] = {}
    for one in seen.containers:
        for reference in {one.image_id, one.image_ref, one.image.image} - {""}:
            used.setdefault(reference, set()).add(names.get(one.pod_sandbox_id, "?"))
    return [
        {
            "id": image.id,
            "tags": [_word(tag) for tag in image.repo_tags],
            "digests": [_word(digest) for digest in image.repo_digests],
            "size": image.size,
            "pinned": image.pinned,
            "used": sorted(
                set().union(*(used.get(name, set()) for name in (image.id, *image.repo_tags, *image.repo_digests)))
            ),
        }
        for image in seen.images
    ]


def _word(text: str) -> str:
    return clean(text, WORD)


def _pairs(pairs: Mapping[str, str]) -> dict[str, str]:
    return {_word(key): clean(value, 2000) for key, value in sorted(pairs.items())}


def _number(message: Any, name: str) -> int | None:
    return int(getattr(message, name).value) if message.HasField(name) else None


def delta(before: State, after: State) -> tuple[State, list[str]]:
    """(what is new or different, the keys of what is gone)."""
    put = {key: value for key, value in after.items() if before.get(key) != value}
    return put, [key for key in before if key not in after]
