"""What is wrong, why, and what to do: the first thing that people look for. Pure.

A problem: `level` is "broken" or "warning"; `pod` an id or ""; `namespace`, `name`, `container`; `what` in a few words,
`why` with what is known of the cause, `hint` the way out, `since` nanoseconds since 1970, `manifest` the file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .agent import NORMAL

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
# A restart is told of so long after it.
RECENT = 10 * MINUTE
# How long a pod may be without containers, or a container without a start, as they are while images come.
PATIENCE = 2 * MINUTE
MIB = 1 << 20

Value = dict[str, Any]


def diagnose(node: Value, pods: list[Value], now: int, events: Iterable[Value] = ()) -> list[Value]:
    """What is broken comes first, and of that the newest. events: the agent's."""
    newest: dict[tuple[str, str, str], Value] = {}
    for pod in sorted(pods, key=lambda pod: (pod["attempt"], pod["created"])):
        newest[pod["namespace"], pod["name"], pod["uid"]] = pod
    found = _of_node(node, now)
    events = list(events)
    for pod in newest.values():
        found += _with_kube(pod, _of_pod(pod, now), events, now) if pod.get("kube") else _of_pod(pod, now)
    return sorted(found, key=lambda one: (one["level"] != "broken", bool(one["pod"]), -one["since"]))


def _problem(
    level: str, what: str, why: str, hint: str, since: int, pod: Value | None = None, container: str = ""
) -> Value:
    return {
        "level": level,
        "pod": pod["id"] if pod else "",
        "namespace": pod["namespace"] if pod else "",
        "name": pod["name"] if pod else "",
        "container": container,
        "what": what,
        "why": why,
        "hint": hint,
        "since": since,
        "manifest": "",
    }


def _with_kube(pod: Value, found: list[Value], events: list[Value], now: int) -> list[Value]:
    """What the runtime tells of a pod, and what the node agent knows beyond that."""
    kube = pod["kube"]
    own = [one for one in events if one["uid"] == pod["uid"]]
    if kube["ends"]:
        return []  # its containers end because they shall
    for name, one in kube["containers"].items():
        told = next((problem for problem in found if problem["container"] == name), None)
        if one["waiting"] in NORMAL:
            if one["running"] and not one["ready"] and told is None:
                found += _not_ready(pod, name, own, now)
        elif told is None:
            hint = _WAITS.get(one["waiting"], "")
            since = _since(own, one["waiting"], pod["created"])
            found.append(_problem("broken", one["waiting"], one["message"] or "no reason", hint, since, pod, name))
        else:
            told["level"], told["what"] = "broken", f"{one['waiting']}: {told['what']}"
            told["why"] += f". {one['message']}" if one["message"] else ""
    if kube["reason"] and kube["phase"] in ("Pending", "Failed") and not found:
        since = _since(own, kube["reason"], pod["created"])
        found.append(_problem("broken", kube["reason"], kube["message"] or "no more is known", "", since, pod))
    if not found and not pod["containers"]:
        found += _stuck(pod, own)
    return [one | {"manifest": kube["manifest"]} for one in found]


_WAITS = {
    "ImagePullBackOff": "look at the image's name, at the registry, and at imagePullSecrets",
    "ErrImagePull": "look at the image's name, at the registry, and at imagePullSecrets",
    "ErrImageNeverPull": "pyrun image import brings it; imagePullPolicy says that it must not be pulled",
    "CreateContainerConfigError": "what it refers to is not there: a ConfigMap, a Secret or a key",
    "CrashLoopBackOff": "its log has more; a change of its manifest, or a retry, ends the wait",
}


def _not_ready(pod: Value, name: str, events: list[Value], now: int) -> list[Value]:
    """Kubernetes' event of a failed probe names the kind of the probe, and not the container."""
    kinds = ("Readiness probe", "Startup probe", f"readiness probe of {name}:", f"startup probe of {name}:")
    told = [one for one in events if one["reason"] in ("Unhealthy", "ProbeError") and one["message"].startswith(kinds)]
    if not told:
        return []
    newest = max(told, key=lambda one: one["last"])
    since = min(one["first"] for one in told)
    level = "broken" if now - since > PATIENCE else "warning"
    hint = "no traffic comes to it until its probe succeeds"
    return [_problem(level, "not ready", newest["message"], hint, since, pod, name)]


def _stuck(pod: Value, events: list[Value]) -> list[Value]:
    """Nothing of it runs, and the newest that happened was a failure."""
    newest = max(events, key=lambda one: one["last"], default=None)
    if newest is None or newest["type"] != "Warning":
        return []
    return [_problem("broken", newest["reason"], newest["message"], "it is tried again", newest["first"], pod)]


def _since(events: list[Value], reason: str, otherwise: int) -> int:
    """When it was first told of."""
    return min((one["first"] for one in events if reason in (one["reason"], one["message"])), default=otherwise)


def _of_node(node: Value, now: int) -> list[Value]:
    if node["error"]:
        return [_problem("broken", "the runtime does not answer", node["error"], "look at its own log", now)]
    found = []
    for one in node["conditions"]:
        if not one["status"]:
            why = ": ".join(word for word in (one["reason"], one["message"]) if word) or "no reason is given"
            found.append(_problem("broken", f"{one['type']} is false", why, "no pod starts until it is true", now))
    for fault in (node.get("agent") or {}).get("faults", ()):
        hint = "what the file said before stays; pyrun node validate tells all that is wrong"
        found.append(_problem("broken", "a manifest has a fault", fault, hint, now))
    if node["available"] < 100 * MIB:
        why = f"{node['available'] // MIB} MiB of {node['total'] // MIB} MiB can be had"
        found.append(_problem("broken", "the node has no memory left", why, "the kernel ends processes next", now))
    if disk := node["disk"]:
        full = 100 - 100 * disk["free"] // max(1, disk["total"])
        if full >= 85:
            level, hint = "broken" if full >= 95 else "warning", "pyrun image prune removes what nobody uses"
            why = f"{disk['path']} has {disk['free'] // MIB} MiB left"
            found.append(_problem(level, f"the disk of the images is {full} % full", why, hint, now))
    return found


def _of_pod(pod: Value, now: int) -> list[Value]:
    containers = pod["containers"]
    if not pod["ready"]:
        failed = [one for container in containers if (one := _of_container(pod, container, now))]
        if failed or not any(container["state"] == "running" for container in containers):
            return failed  # it has ended, well or not
        why = "its namespaces' holder has ended, and its containers have not"
        return [_problem("broken", "the pod's sandbox is gone", why, "it has to be made anew", pod["created"], pod)]
    if not containers and now - pod["created"] > PATIENCE:
        why = "its sandbox is ready, and nothing was made in it: an image is missing, or who makes it has stopped"
        return [_problem("warning", "no container", why, "who runs pods knows more", pod["created"], pod)]
    return [one for container in containers if (one := _of_container(pod, container, now))]


def _of_container(pod: Value, container: Value, now: int) -> Value | None:
    name, times = container["name"], container["attempt"]
    restarts = f"; {times} restart{'s' if times != 1 else ''}" if times else ""
    if container["state"] == "unknown":
        why = container["message"] or "the runtime has lost its process"
        return _problem("broken", "state unknown", why, "remove the container", container["created"], pod, name)
    if container["state"] == "exited":
        if not container["exit"] and container["reason"] in ("", "Completed"):
            return None
        what = _ending(container) + restarts
        return _problem("broken", what, _why(container), _hint(container), container["finished"], pod, name)
    if container["state"] == "created" and now - container["created"] > PATIENCE:
        why = container["message"] or "it was made and nobody has started it"
        return _problem("warning", "not started", why, "", container["created"], pod, name)
    if container["state"] == "running":
        return _of_running(pod, container, now)
    return None


def _of_running(pod: Value, container: Value, now: int) -> Value | None:
    before = container["earlier"][-1] if container["earlier"] else None
    if container["attempt"] and before and before["exit"] and now - before["finished"] < RECENT:
        what = f"restarted, {container['attempt']} so far"
        why = f"before it: {_ending(before)}. {_why(before)}"
        hint = "pyrun logs --previous has what it wrote"
        return _problem("warning", what, why, hint, before["finished"], pod, container["name"])
    memory, limit = container["memory"], container["limit"]
    if memory and limit and memory * 10 > limit * 9:
        why = f"it uses {memory // MIB} of {limit // MIB} MiB"
        hint = "at the limit the kernel ends it"
        return _problem("warning", "close to its memory limit", why, hint, now, pod, container["name"])
    return None


def _ending(container: Value) -> str:
    reason = container["reason"]
    code = container["exit"]
    if reason == "OOMKilled":
        return f"out of memory ({code})"
    if reason not in ("", "Error", "Completed"):
        return f"{reason} ({code})"
    ran = container["finished"] - container["started"]
    after = f" after {_duration(ran)}" if container["started"] and ran >= 0 else ""
    return f"exit {code}{after}"


def _why(container: Value) -> str:
    words = [container["message"], f"its last line: {container['last']}" if container["last"] else ""]
    return ". ".join(word for word in words if word) or "it wrote nothing"


def _hint(container: Value) -> str:
    if container["reason"] == "OOMKilled":
        return "raise its memory limit, or find out what it keeps"
    return {
        126: "the program can't be executed: look at its mode and at the image's platform",
        127: "the program was not found: look at the command and the image",
        137: "something sent SIGKILL: a liveness probe, a stop that took too long, or the kernel for memory",
        139: "it crashed (SIGSEGV)",
        143: "something sent SIGTERM",
    }.get(container["exit"], "")


def _duration(nanoseconds: int) -> str:
    seconds = nanoseconds / SECOND
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
