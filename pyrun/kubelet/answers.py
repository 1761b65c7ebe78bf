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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ..cri.backend import PodBackend
from ..cri.stream.ports import open_sockets
from ..errors import InvalidArgument, PyrunError, ResourceExhausted
from ..kube.certificates import Pair
from ..metrics.text import render
from ..node.agent.agent import Agent
from ..node.agent.view import pod_value
from ..web.ask import take_question
from .found import Of, find_log, find_pod, find_running, find_sandbox
from .logs import parse_wanted, write_logs
from .measures import Measures, plan_own, plan_probes

MOST = 512
# Each log that is read has a thread, and a follower has it for long: there is always one for who only reads.
MOST_LOGS, MOST_FOLLOWERS = 96, 64
# Who does not take a log for so long has no thread any more.
STALLED_S = 5 * 60.0

Question = dict[str, Any]


class Reviews(Protocol):
    """Who is who, and who may what; each is called in a thread. PyrunError where it can't be found out."""

    def token(self, token: str) -> dict[str, Any] | None:
        """A TokenReview's status.user; None of a token that is nobody's."""
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
        warn: Callable[[str], None],
    ) -> None:
        self._agent, self._control, self._reviews, self._config, self._warn = agent, control, reviews, config, warn
        self._cri = agent.host.cri
        self._backend = PodBackend(self._cri.pods)
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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown()

    def _take(self) -> None:
        try:
            message, streams = take_question(self._control)
        except BlockingIOError:
            return
        if not message:
            asyncio.get_running_loop().remove_reader(self._control)
            self._warn("the process that serves the kubelet's API is gone; the agent's next start brings it back")
        elif len(streams) == 1 and len(self._tasks) < MOST:
            task = asyncio.get_running_loop().create_task(self._answer(message, streams.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for stream in streams:
            stream.close()

    async def _answer(self, message: bytes, stream: socket.socket) -> None:
        stream.setblocking(False)
        with stream, contextlib.suppress(OSError):
            try:
                question = json.loads(message)
                await self._dispatch(question, stream)
            except PyrunError as error:
                await _put(stream, {"error": "; ".join(error.lines()), "kind": type(error).__name__})
            except (KeyError, TypeError, ValueError) as error:
                await _put(stream, {"error": f"not a question: {error}", "kind": "InvalidArgument"})

    async def _dispatch(self, question: Question, stream: socket.socket) -> None:
        match question["ask"]:
            case "logs":
                await self._log(question, stream)
            case "exec":
                await self._exec(question, stream)
            case "attach":
                await self._attach(question, stream)
            case "ports":
                await self._ports(question, stream)
            case "certificate":
                await self._certificates(stream)
            case _:
                await _put(stream, {"value": await self._value(question)})

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
                return find_pod(agent, _of(question)).record.uid
            case "container":
                return find_running(agent, _of(question)).id
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
                return render(plan_own(agent, time.process_time(), len(os.listdir("/proc/self/fd"))))
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
                    await _put(stream, {"value": pair})
                anew = asyncio.ensure_future(event.wait())
                await asyncio.wait((gone, anew), return_when=asyncio.FIRST_COMPLETED)
                anew.cancel()
        finally:
            gone.cancel()

    # --- logs ---

    async def _log(self, question: Question, stream: socket.socket) -> None:
        wanted = parse_wanted(question["query"], time.time())
        container, attempt = find_log(self._agent, _of(question), previous=wanted.previous)
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
            await _put(stream, {"value": None})
            work = asyncio.get_running_loop().run_in_executor(self._threads, write)
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await work  # stop() has ended its socket
                raise
        finally:
            del self._logs[stream]

    # --- what needs descriptors ---

    async def _exec(self, question: Question, stream: socket.socket) -> None:
        id = find_running(self._agent, _of(question)).id
        argv, wanted = tuple(str(word) for word in question["argv"]), _wanted(question)
        command = await asyncio.to_thread(lambda: self._backend.exec(id, argv, **wanted))
        try:
            held = {n: fd for n in ("stdin", "stdout", "stderr") if (fd := getattr(command, n)) >= 0}
            try:
                has = {n: n in held for n in ("stdin", "stdout", "stderr")}
                await _put(stream, {"value": has}, [command.done, *held.values()])
            finally:
                for fd in held.values():
                    os.close(fd)
            await self._serve(stream, command.resize, command.code)
        finally:
            await asyncio.shield(asyncio.to_thread(command.close))

    async def _attach(self, question: Question, stream: socket.socket) -> None:
        id = find_running(self._agent, _of(question)).id
        wanted = _wanted(question)
        attachment = await asyncio.to_thread(lambda: self._backend.attach(id, **wanted))
        fds = [fd for fd in (attachment.socket, attachment.stdin) if fd >= 0]
        try:
            await _put(stream, {"value": {"stdin": attachment.stdin >= 0}}, fds)
        finally:
            for fd in fds:
                os.close(fd)
        await self._serve(stream, attachment.resize, lambda: 0)

    async def _serve(self, stream: socket.socket, resize: Callable[[int, int], None], code: Callable[[], int]) -> None:
        """Until the other side closes it."""
        reader, writer = await asyncio.open_connection(sock=stream.dup())
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                value = None
                if asked["do"] == "code":
                    value = await asyncio.to_thread(code)
                elif asked["do"] == "resize":
                    await asyncio.to_thread(resize, int(asked["width"]), int(asked["height"]))
                else:
                    raise InvalidArgument(f"{asked['do']!r} is nothing to do")
                await _put(stream, {"value": value})
        finally:
            writer.close()

    async def _ports(self, question: Question, stream: socket.socket) -> None:
        id = find_sandbox(self._agent, _of(question))
        sockets = await asyncio.to_thread(lambda: open_sockets(lambda: self._backend.netns(id)))
        try:
            await _put(stream, {"value": len(sockets)}, [one.fileno() for one in sockets])
        finally:
            for one in sockets:
                one.close()


def _of(question: Question) -> Of:
    return Of(*(str(word) for word in question["of"]))


def _wanted(question: Question) -> dict[str, bool]:
    return {name: bool(question[name]) for name in ("tty", "stdin", "stdout", "stderr")}


async def _put(stream: socket.socket, value: Any, fds: list[int] | None = None) -> None:
    """A line; descriptors go with its first byte."""
    data = json.dumps(value).encode() + b"\n"
    if fds:
        sent = socket.send_fds(stream, [data], fds)  # the first on this socket, and short: it has room
        data = data[sent:]
    await asyncio.get_running_loop().sock_sendall(stream, data)
