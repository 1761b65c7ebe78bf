"""PURE: how far a pod is on its way: each line of its plan with what has become of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..explain import Line

DONE, FAILED, TO_COME = "done", "failed", "to come"
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
Value = dict[str, Any]
Mark = tuple[str, str]


def marked(lines: Iterable[Line], pod: Value, events: list[Value], place: Callable[[str], str]) -> list[dict[str, str]]:
    """[{part, text, place, mark, why}]. pod: as the agent shows it, with its status. events: the newest last."""
    told = _Told(pod, events)
    found = []
    for line in lines:
        mark, why = told.mark(line)
        where = place(line.pointer) if line.pointer else ""
        found.append({"part": line.part, "text": line.text, "place": where, "mark": mark, "why": why})
    return found


class _Told:
    """What a pod's status and events say of the parts of its plan."""

    def __init__(self, pod: Value, events: list[Value]) -> None:
        self._pod, self._events = pod, events
        self._status = pod.get("status") or {}
        self._conditions = {one["type"]: one.get("status") for one in self._status.get("conditions") or ()}
        self._containers: dict[str, Value] = {}
        for field, statuses in (
            ("initContainers", "initContainerStatuses"),
            ("containers", "containerStatuses"),
        ):
            by_name = {one["name"]: one for one in self._status.get(statuses) or ()}
            for number, one in enumerate((pod.get("spec") or {}).get(field) or ()):
                self._containers[f"/spec/{field}/{number}"] = by_name.get(one["name"], {})
        self._begun = any(one.get("containerID") for one in self._containers.values())
        self._sandbox = self._conditions.get("PodReadyToStartContainers") == "True" or self._begun

    def mark(self, line: Line) -> Mark:
        of = next((one for at, one in self._containers.items() if line.pointer.startswith(f"{at}/")), None)
        own = self._containers.get(line.pointer)
        match line.part:
            case "admission":
                return self._admission()
            case "images":
                return self._image(of or {})
            case "cgroup" if of is not None:
                return (DONE if of.get("containerID") else TO_COME), ""
            case "cgroup":
                return (DONE if self._sandbox else TO_COME), ""
            case "volumes":
                return self._told_by(self._begun, "FailedMount", "FailedMapVolume")
            case "start" if own is not None:
                return self._container(own)
            case "start":
                return self._told_by(self._sandbox, "FailedCreatePodSandBox")
            case "probes":
                return self._probe(of or {}, line.pointer)
        return (DONE if self._pod["metadata"].get("deletionTimestamp") else TO_COME), ""

    def _admission(self) -> Mark:
        reason, message = self._status.get("reason") or "", self._status.get("message") or ""
        if self._sandbox:
            return DONE, ""
        return (FAILED, f"{reason}: {message}") if reason else (DONE, "")

    def _image(self, one: Value) -> Mark:
        waiting = (one.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _IMAGE:
            return FAILED, _words(waiting)
        return (DONE if one.get("containerID") else TO_COME), ""

    def _container(self, one: Value) -> Mark:
        state = one.get("state") or {}
        if "running" in state:
            again = one.get("restartCount") or 0
            return DONE, f"runs since {state['running'].get('startedAt')}" + (f", restart {again}" if again else "")
        if "terminated" in state:
            ended = state["terminated"]
            text = f"exit {ended.get('exitCode')}, {_words(ended)}"
            return (FAILED if ended.get("exitCode") else DONE), text
        waiting, last = state.get("waiting") or {}, (one.get("lastState") or {}).get("terminated") or {}
        if waiting.get("reason") in (None, "ContainerCreating", "PodInitializing", *_IMAGE):
            return TO_COME, ""
        before = f"; before it: exit {last.get('exitCode')}, {_words(last)}" if last else ""
        return FAILED, _words(waiting) + before

    def _probe(self, one: Value, pointer: str) -> Mark:
        kind = pointer.rpartition("/")[2].removesuffix("Probe")
        if "running" not in (one.get("state") or {}):
            return TO_COME, ""
        if kind == "startup":
            good = bool(one.get("started"))
        else:
            good = bool(one.get("ready")) if kind == "readiness" else bool(one.get("started"))
        if good:
            return DONE, ""
        why = self._newest(f"{kind.capitalize()} probe", "Unhealthy")
        return (FAILED, why) if why else (TO_COME, "")

    def _told_by(self, done: bool, *reasons: str) -> Mark:
        if done:
            return DONE, ""
        why = self._newest("", *reasons)
        return (FAILED, why) if why else (TO_COME, "")

    def _newest(self, words: str, *reasons: str) -> str:
        for event in reversed(self._events):
            if event["reason"] in reasons and words.lower() in event["message"].lower():
                return str(event["message"]).rstrip()
        return ""


def _words(state: Value) -> str:
    return ": ".join(word.strip() for word in (state.get("reason"), state.get("message")) if word)
