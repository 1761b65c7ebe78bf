"""The agent's side: it answers what the process without privileges asks.

A question is a datagram of JSON on the control socket, with a descriptor: a stream socket for the answer,
`{"value": …}` or `{"error": …, "kind": …}` in a line. A log follows its line as bytes. A command's
line brings descriptors, and the socket then takes `{"do": "code"}` and `{"do": "resize", …}`, until its end. Who has
lost interest closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ..ending import END_S, cancel
from ..errors import InvalidArgument, ResourceExhausted
from ..kube.certificates import Pair
from ..metrics.durations import plan_durations
from ..metrics.text import render
from ..node.agent.agent import Agent
from ..node.agent.found import find_log, find_pod, find_running
from ..node.agent.streams import Question, Streams, of_question, put, telling
from ..node.agent.view import pod_value
from ..web.ask import take_question
from .logs import parse_wanted, write_logs
from .measures import Measures, plan_own, plan_probes

MOST = 512
# Each log that is read has a thread, and a follower has it for long: there is always one for who only reads.
MOST_LOGS, MOST_FOLLOWERS = 96, 64
# Who does not take a log for so long has no thread any more.
STALLED_S = 5 * 60.0


class Reviews(Protocol):
    """Who is who, and who may what; each is called in a thread. PyrunError where it can't be found out."""

    def token(self, token: str) -> dict[str, Any] | None:
        """A TokenReview's status.user; None of a token that is nobody's; {} where tokens are not looked at."""
        ...

    def may(self, user: dict[str, Any], right: dict[str, Any]) -> bool: ...


class Answers:
    """control: the socket of the process that asks. config: as a KubeletConfiguration."""

    def __init__(
        self,
        agent: Agent,
        control: socket.socket,
        reviews: Reviews,
        config: dict[str, Any],
    ) -> None:
        self._agent, self._control, self._reviews, self._config = agent, control, reviews, config
        self._cri = agent.host.cri
        self._streams = Streams(agent)
        self._measures = Measures(self._cri, agent.name)
        self._tasks: set[asyncio.Task[None]] = set()
        self._logs: dict[socket.socket, bool] = {}  # whether it is followed
        self._pair: Pair | None = None
        self._anew = asyncio.Event()
        self._threads = ThreadPoolExecutor(MOST_LOGS, "log")

    def start(self) -> None:
        self._control.setblocking(False)
        asyncio.get_running_loop().add_reader(self._control, self._take)

    def renewed(self, pair: Pair) -> None:
        """The process without privileges shows this certificate from now on."""
        self._pair = pair
        self._anew.set()
        self._anew = asyncio.Event()

    async def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control)
        for stream in self._logs:  # their threads see the end
            with contextlib.suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)
        await cancel(self._tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _take(self) -> None:
        try:
            message, streams = take_question(self._control)
        except BlockingIOError:
            return
        if len(streams) == 1 and len(self._tasks) < MOST:
            task = asyncio.get_running_loop().create_task(self._answer(message, streams.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for stream in streams:
            stream.close()

    async def _answer(self, message: bytes, stream: socket.socket) -> None:
        stream.setblocking(False)
        async with telling(stream):
            await self._dispatch(json.loads(message), stream)

    async def _dispatch(self, question: Question, stream: socket.socket) -> None:
        match question["ask"]:
            case "logs":
                await self._log(question, stream)
            case "exec" | "attach" | "ports":
                await self._streams.answer(question, stream)
            case "certificate":
                await self._certificates(stream)
            case _:
                await put(stream, {"value": await self._value(question)})

    async def _value(self, question: Question) -> Any:
        agent = self._agent
        match question["ask"]:
            case "healthy":
                return True
            case "token":
                return await asyncio.to_thread(self._reviews.token, str(question["token"]))
            case "may":
                return await asyncio.to_thread(self._reviews.may, question["user"], question["right"])
            case "pods":
                return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods()}
            case "runningpods":
                return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._running()}
            case "pod":  # whether it is there, before anybody changes the protocol
                return find_pod(agent, of_question(question)).record.uid
            case "container":
                return find_running(agent, of_question(question)).id
            case "configz":
                return {"kubeletconfig": self._config}
            case "summary":
                return await self._measures.summary()
            case "cadvisor":
                return await self._measures.cadvisor()
            case "resource":
                return await self._measures.resource()
            case "probes":
                return render(plan_probes(agent))
            case "metrics":
                own = plan_own(agent, time.process_time(), len(os.listdir("/proc/self/fd")))
                told = self._cri.durations.value() | self._cri.pods.own.step_times.value()
                return render([*own, *plan_durations(told)])
            case other:
                raise InvalidArgument(f"{other!r} is no question")

    def _pods(self) -> list[dict[str, Any]]:
        return [pod_value(actor) for _, actor in sorted(self._agent.actors.items())]

    def _running(self) -> list[dict[str, Any]]:
        """What the runtime has, whoever made it."""
        found = []
        for pod in self._cri.pods.pods.values():
            running = [c for c in pod.containers.values() if c.visible and c.alive]
            if not (pod.visible and running):
                continue
            meta = pod.config.metadata
            containers = [
                {"name": c.config.metadata.name, "image": c.config.image.image, "resources": {}} for c in running
            ]
            about = {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "creationTimestamp": None}
            found.append({"metadata": about, "spec": {"containers": containers}, "status": {}})
        return found

    async def _certificates(self, stream: socket.socket) -> None:
        """Each new one, until nobody reads them any more."""
        gone = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(stream, 1))
        try:
            while not gone.done():
                event = self._anew
                if self._pair is not None:
                    pair = {"certificate": self._pair.certificate.decode(), "key": self._pair.key.decode()}
                    await put(stream, {"value": pair})
                anew = asyncio.ensure_future(event.wait())
                await asyncio.wait((gone, anew), return_when=asyncio.FIRST_COMPLETED)
                anew.cancel()
        finally:
            gone.cancel()

    # --- logs ---

    async def _log(self, question: Question, stream: socket.socket) -> None:
        wanted = parse_wanted(question["query"], time.time())
        container, attempt = find_log(self._agent, of_question(question), previous=wanted.previous)
        if len(self._logs) >= MOST_LOGS or (wanted.follow and sum(self._logs.values()) >= MOST_FOLLOWERS):
            what = "logs are followed" if wanted.follow else "logs are read"
            raise ResourceExhausted(f"too many {what}", hint="end some, or try again")
        pods = self._cri.pods

        def ended() -> bool:
            c = pods.containers.get(attempt.id)
            return c is None or not c.alive

        def write() -> None:
            stream.settimeout(STALLED_S)
            with contextlib.suppress(OSError):
                write_logs(container, wanted, stream, ended)

        self._logs[stream] = wanted.follow
        try:
            await put(stream, {"value": None})
            work = asyncio.get_running_loop().run_in_executor(self._threads, write)
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait([work], timeout=END_S)  # stop() has ended its socket, but a disk may hang
                raise
        finally:
            del self._logs[stream]
