"""The agent's own socket, root's alone: HTTP with JSON for `pyrun node get`, `describe`, `apply`, `delete` and `retry`.

GET /status; GET /limits, the thresholds of eviction with what there is; GET /pods and /configmaps and /secrets, with
?namespace=&name=; GET /events; POST /apply, a list of objects; DELETE /KIND/NAMESPACE/NAME?grace=&wait=; POST
/retry/NAMESPACE/NAME.

For the dashboard: GET /yaml/NAMESPACE/NAME, a pod without its secrets; GET /plan/NAMESPACE/NAME, what is done of it;
GET /manifest/KIND/NAMESPACE/NAME, the text of its file; POST /manifest, another text of it, see edit.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec

from ... import __version__
from ...errors import InvalidArgument, NotFound, PyrunError
from ...http.server import Exchange, Server
from ...listen import listen, unlink_ours
from ..explain import explain_pod
from ..manifests import read_objects
from .actor import Actor
from .agent import Agent
from .applied import apply, delete
from .edit import change, manifest_of
from .masked import masked
from .progress import marked
from .view import event_value, event_values, garbage_value, object_values, pod_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..services.services import Services

LONGEST_WAIT_S = 3600.0
KINDS = {"pods": "Pod", "deployments": "Deployment", "configmaps": "ConfigMap", "secrets": "Secret"}


class Socket:
    def __init__(
        self,
        agent: Agent,
        server_error: Callable[[], str | None] | None = None,
        services: Services | None = None,
        kubeconfig: str = "",
        unheld: Callable[[], str] | None = None,
    ) -> None:
        """server_error: why the API server can't be had now; None where there is none. kubeconfig: of that one. unheld:
        why the machine's shutdown does not wait for pods; "" where it does."""
        self._agent, self._server_error, self._services = agent, server_error, services
        self._kubeconfig, self._unheld = kubeconfig, unheld
        self._server = Server(self._answer)
        self._path, self._inode = "", 0

    async def start(self, path: str) -> None:
        """PyrunError where it can't be had."""
        listener = listen(path)
        self._path, self._inode = path, os.lstat(path).st_ino
        await self._server.listen_on(listener)

    async def stop(self) -> None:
        if self._path:
            unlink_ours(self._path, self._inode)
        await self._server.stop()

    async def _answer(self, exchange: Exchange) -> None:
        try:
            found = await self._find(exchange)
        except NotFound as error:
            await exchange.respond(HTTPStatus.NOT_FOUND, "\n".join(error.lines()))
        except PyrunError as error:
            await exchange.respond(HTTPStatus.BAD_REQUEST, "\n".join(error.lines()))
        else:
            await exchange.respond(HTTPStatus.OK, msgspec.json.encode(found), "application/json")

    async def _find(self, exchange: Exchange) -> Any:
        agent = self._agent
        query = {name: values[-1] for name, values in exchange.query.items()}
        match (exchange.method, exchange.path.strip("/").split("/")):
            case ("GET", ["status"]):
                return self._status()
            case ("GET", ["limits"]):
                return await agent.evictor.limits()
            case ("GET", ["events"]):
                return [value for actor in self._chosen(query) for value in event_values(actor)]
            case ("GET", ["pods"]):
                return [pod_value(actor) for actor in self._chosen(query)]
            case ("GET", ["deployments"]):
                return [
                    agent.deployments.value((namespace, name))
                    for namespace, name in sorted(agent.deployments.wanted)
                    if query.get("namespace") in (None, namespace) and query.get("name") in (None, name)
                ]
            case ("GET", [("configmaps" | "secrets") as kind]):
                return object_values(agent.source.objects, KINDS[kind], query.get("namespace"), query.get("name"))
            case ("GET" | "POST", ["garbage"]):
                return await self._garbage(carry_out=exchange.method == "POST")
            case ("POST", ["apply"]):
                given = _decoded(await exchange.body())
                return await asyncio.to_thread(apply, agent.source, given, agent.name)
            case ("GET", ["yaml", namespace, name]):
                return {"yaml": _as_yaml(masked(pod_value(self._actor(namespace, name))))}
            case ("GET", ["plan", namespace, name]):
                return await asyncio.to_thread(self._plan, self._actor(namespace, name))
            case ("GET", ["manifest", kind, namespace, name]):
                return await asyncio.to_thread(manifest_of, agent.source, (kind, namespace, name))
            case ("POST", ["manifest"]):
                return await self._change(await exchange.body())
            case ("POST", ["retry", namespace, name]):
                self._actor(namespace, name).retry()
                return {}
            case ("POST", ["drain"]):
                return await self._drain(_number("wait", query.get("wait")) or 0)
            case ("POST", ["uncordon"]):
                agent.resume()
                return {}
            case ("DELETE", [kind, namespace, name]) if kind in KINDS:
                return await self._delete(KINDS[kind], namespace, name, query)
        raise NotFound(f"{exchange.method} {exchange.path}: there is no such thing here")

    async def _drain(self, wait: int) -> dict[str, Any]:
        """left: the pods of files that have not ended in so many seconds."""
        self._agent.drain()

        def left() -> list[Actor]:
            return [actor for actor in self._agent.actors.values() if not actor.record.api]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(wait, LONGEST_WAIT_S)):
                while actors := left():
                    await actors[0].ended.wait()
                    await asyncio.sleep(0)
        return {"left": sorted("/".join(actor.record.key) for actor in left())}

    def _status(self) -> dict[str, Any]:
        source = self._agent.source
        return {
            "version": __version__,
            "node": self._agent.name,
            "manifests": source.path,
            "configuration": [
                {"key": key, "value": value, "from": place} for key, value, place in self._agent.settings.configured
            ],
            "logs": self._agent.host.logs,
            "services": self._services.state if self._services else "",
            "error": source.error,
            "faults": [str(fault) for fault in source.faults]
            + (self._services.faults() if self._services else [])
            + [word for word in (self._unheld() if self._unheld else "",) if word],
            "pods": len(self._agent.actors),
            "conditions": sorted(self._agent.evictor.conditions),
            "events": [event_value(event) for event in self._agent.events.all()],
            "drained": self._agent.drained,
            "server": None
            if self._server_error is None
            else {"error": self._server_error(), "kubeconfig": self._kubeconfig},
        }

    async def _garbage(self, *, carry_out: bool) -> dict[str, Any]:
        """Which images go, or would."""
        garbage = self._agent.garbage
        plan = await garbage.plan()
        freed = await garbage.collect() if carry_out else 0
        return {**garbage_value(plan), "freed": freed}

    def _plan(self, actor: Actor) -> list[dict[str, str]]:
        """Its lines, done, failed and to come; with their places, if its file still says the same."""
        record, facts = actor.record, self._agent.host.allocatable
        place: Callable[[str], str] = str
        with contextlib.suppress(PyrunError):
            for document, one in read_objects(record.file, self._agent.name)[0]:
                if one == record.pod:
                    place = document.place
        lines = explain_pod(record.pod, facts, record.uid)
        return marked(lines, pod_value(actor), event_values(actor), place)

    async def _change(self, body: bytes) -> dict[str, Any]:
        agent, asked = self._agent, _asked(body)
        room = agent.host.allocatable
        given = (asked.file, asked.version, asked.text, agent.name, room)
        found = await asyncio.to_thread(change, agent.source, *given, dry=asked.dry)
        if found["written"]:
            agent.source.look()
        return found

    def _chosen(self, query: dict[str, str]) -> list[Any]:
        found = []
        for (namespace, name), actor in sorted(self._agent.actors.items()):
            if query.get("namespace") in (None, namespace) and query.get("name") in (None, name):
                found.append(actor)
        return found

    def _actor(self, namespace: str, name: str) -> Any:
        actor = self._agent.actors.get((namespace, name))
        if actor is None:
            raise NotFound(f"there is no pod {namespace}/{name}")
        return actor

    async def _delete(self, kind: str, namespace: str, name: str, query: dict[str, str]) -> dict[str, Any]:
        """From its file; the end of its pods is waited for, where that is asked for."""
        grace = _number("grace", query.get("grace"))
        agent, key = self._agent, (namespace, name)
        actor = agent.actors.get(key) if kind == "Pod" else None
        actors = agent.deployments.pods(key) if kind == "Deployment" else [actor] if actor is not None else []
        file = await asyncio.to_thread(delete, agent.source, (kind, *key), gone=actor is not None)
        agent.source.look()
        for one in actors:
            one.delete(grace)
        patience = min(_number("wait", query.get("wait")) or 0, LONGEST_WAIT_S)
        try:
            async with asyncio.timeout(patience):
                for one in actors:
                    await one.ended.wait()
        except TimeoutError:
            return {"file": file, "gone": False}
        return {"file": file, "gone": True}


class _Asked(msgspec.Struct, forbid_unknown_fields=True):
    file: str
    version: str
    text: str
    dry: bool = True


def _asked(data: bytes) -> _Asked:
    try:
        return msgspec.json.decode(data, type=_Asked)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"what was sent is no change of a manifest: {error}") from None


def _as_yaml(value: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=False, allow_unicode=True))


def _decoded(data: bytes) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(data, type=list[dict[str, Any]])
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"what was sent is no list of objects: {error}") from None


def _number(name: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidArgument(f"{name}: {text!r} is no number of seconds")
    return int(text)
