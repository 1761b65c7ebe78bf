"""Commands, attachments and ports of pods as descriptors, for whoever may have them: bytes do not go through the agent.

A question is `{"ask": "exec", "attach" or "ports", …}`, and its answer `{"value": …}` or `{"error": …, "kind": …}` in
a line that brings the descriptors. The socket then takes `{"do": "code"}` and `{"do": "resize", …}`, until its end. Who
has lost interest closes it. remote.py is the other side.

`StreamSocket` is for `pyrun node exec`, `attach` and `port-forward`: root's alone, a connection a question.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from ...cri.backend import PodBackend
from ...cri.stream.ports import open_sockets
from ...ending import cancel
from ...errors import InvalidArgument, PyrunError
from ...listen import listen, unlink_ours
from .agent import Agent
from .found import Of, find_running, find_sandbox

SOCKET = "node-streams.sock"
MOST = 256
LONGEST = 192 * 1024
PATIENCE_S = 30.0
AGAIN_S = 1.0  # until the next caller is taken where there were no descriptors left
SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))

Question = dict[str, Any]


class Streams:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._backend = PodBackend(agent.host.cri.pods)

    async def answer(self, question: Question, stream: socket.socket) -> None:
        """To the end of what was asked for. PyrunError; KeyError, TypeError and ValueError of no question."""
        match question["ask"]:
            case "exec":
                await self._exec(question, stream)
            case "attach":
                await self._attach(question, stream)
            case "ports":
                await self._ports(question, stream)
            case other:
                raise InvalidArgument(f"{other!r} is no question")

    async def _exec(self, question: Question, stream: socket.socket) -> None:
        id = find_running(self._agent, of_question(question)).id
        argv, wanted = tuple(str(word) for word in question["argv"]), _wanted(question)
        command = await asyncio.to_thread(lambda: self._backend.exec(id, argv, **wanted))
        try:
            held = {n: fd for n in ("stdin", "stdout", "stderr") if (fd := getattr(command, n)) >= 0}
            try:
                has = {n: n in held for n in ("stdin", "stdout", "stderr")}
                await put(stream, {"value": has}, [command.done, *held.values()])
            finally:
                for fd in held.values():
                    os.close(fd)
            await self._serve(stream, command.resize, command.code)
        finally:
            await asyncio.shield(asyncio.to_thread(command.close))

    async def _attach(self, question: Question, stream: socket.socket) -> None:
        id = find_running(self._agent, of_question(question)).id
        wanted = _wanted(question)
        attachment = await asyncio.to_thread(lambda: self._backend.attach(id, **wanted))
        fds = [fd for fd in (attachment.socket, attachment.stdin) if fd >= 0]
        try:
            await put(stream, {"value": {"stdin": attachment.stdin >= 0}}, fds)
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
                await put(stream, {"value": value})
        finally:
            writer.close()

    async def _ports(self, question: Question, stream: socket.socket) -> None:
        id = find_sandbox(self._agent, of_question(question))
        sockets = await asyncio.to_thread(lambda: open_sockets(lambda: self._backend.netns(id)))
        try:
            await put(stream, {"value": len(sockets)}, [one.fileno() for one in sockets])
        finally:
            for one in sockets:
                one.close()


class StreamSocket:
    def __init__(self, agent: Agent) -> None:
        self._streams = Streams(agent)
        self._listener: socket.socket | None = None
        self._path, self._inode = "", 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None

    def start(self, path: str) -> None:
        """PyrunError where it can't be had."""
        self._listener = listen(path)
        self._path, self._inode = path, os.lstat(path).st_ino
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        if self._again is not None:
            self._again.cancel()
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            unlink_ours(self._path, self._inode)
            self._listener.close()
        await cancel(self._tasks)

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            stream, _ = self._listener.accept()
        except OSError as error:
            if error.errno in SHORT:  # it would be told again at once, for as long as there are none
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                self._again = loop.call_later(AGAIN_S, loop.add_reader, self._listener, self._accept)
            return  # or it has gone already
        if len(self._tasks) >= MOST:
            stream.close()
            return
        stream.setblocking(False)
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: socket.socket) -> None:
        async with telling(stream):
            line = b""
            async with asyncio.timeout(PATIENCE_S):
                while not line.endswith(b"\n"):
                    data = await asyncio.get_running_loop().sock_recv(stream, LONGEST)
                    if not data:
                        return
                    line += data
                    if len(line) > LONGEST:
                        raise InvalidArgument(f"a question of more than {LONGEST >> 10} KiB")
            await self._streams.answer(json.loads(line), stream)


@contextlib.asynccontextmanager
async def telling(stream: socket.socket) -> AsyncIterator[None]:
    """Closes it in the end; an error is told before."""
    with stream, contextlib.suppress(OSError):
        try:
            yield
        except PyrunError as error:
            await put(stream, {"error": "; ".join(error.lines()), "kind": type(error).__name__})
        except (KeyError, TypeError, ValueError) as error:
            await put(stream, {"error": f"not a question: {error}", "kind": "InvalidArgument"})


def of_question(question: Question) -> Of:
    return Of(*(str(word) for word in question["of"]))


def _wanted(question: Question) -> dict[str, bool]:
    return {name: bool(question[name]) for name in ("tty", "stdin", "stdout", "stderr")}


async def put(stream: socket.socket, value: Any, fds: list[int] | None = None) -> None:
    """A line; descriptors go with its first byte."""
    data = json.dumps(value).encode() + b"\n"
    if fds:
        sent = socket.send_fds(stream, [data], fds)  # the first on this socket, and short: it has room
        data = data[sent:]
    await asyncio.get_running_loop().sock_sendall(stream, data)
