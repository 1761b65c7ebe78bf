"""The questions of a web process to the process with the privileges."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator
from typing import Any

from ..errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PyrunError,
    ResourceExhausted,
    Unavailable,
)
from ..rights import receive_message

# A state of a node with thousands of containers.
LONGEST_LINE = 64 << 20
LONGEST_QUESTION = 192 * 1024  # less than a socket's buffer


class Forbidden(PyrunError):
    """He is logged in, and may not do that."""


class LoggedOut(PyrunError):
    """He is not, or not any more."""


_KINDS = (AlreadyExists, FailedPrecondition, Forbidden, InvalidArgument, LoggedOut, NotFound)
KINDS = {kind.__name__: kind for kind in (*_KINDS, ResourceExhausted, Unavailable)}


def take_question(control: socket.socket) -> tuple[bytes, list[socket.socket]]:
    """The other side's: (a question, b"" at the end; sockets for the answer, one where all is well). No child that is
    made meanwhile inherits them. BlockingIOError where there is none."""
    message, fds = receive_message(control, LONGEST_QUESTION)
    return message, [socket.socket(fileno=fd) for fd in fds]


class Questions:
    """control: the socket to the reader."""

    def __init__(self, control: socket.socket) -> None:
        control.setblocking(False)
        self._control = control

    def send(self, ask: str, **question: Any) -> socket.socket:
        """Asks; the answer comes on the socket. From any thread. Unavailable."""
        message = json.dumps({"ask": ask, **question}).encode()
        if len(message) > LONGEST_QUESTION:
            raise InvalidArgument(
                f"more than {LONGEST_QUESTION >> 10} KiB can't be sent here", hint="use the command line"
            )
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [message], [theirs.fileno()])
            except OSError:
                ours.close()
                raise Unavailable("the reader takes no more questions", hint="try again") from None
        return ours

    async def ask(self, ask: str, **question: Any) -> AsyncGenerator[Any, None]:
        """The values of the answer, as they come; closing it ends it. PyrunError where the answer is an error,
        Unavailable where the reader has no time or is gone."""
        ours = self.send(ask, **question)
        reader, writer = await asyncio.open_connection(sock=ours, limit=LONGEST_LINE)
        try:
            answered = False
            while line := await reader.readline():
                answered = True
                yield value_of(line)
            if not answered:
                raise Unavailable("the reader has too many questions", hint="close other pages")
        finally:
            writer.close()

    async def open(
        self, ask: str, patience_s: float, **question: Any
    ) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
        """The first value, and what follows it as bytes. Who calls closes the writer. Raises as ask_one()."""
        reader, writer = await asyncio.open_connection(sock=self.send(ask, **question), limit=LONGEST_LINE)
        try:
            async with asyncio.timeout(patience_s):
                line = await reader.readline()
            if not line:
                raise Unavailable("the reader has too many questions", hint="try again")
            return value_of(line), reader, writer
        except BaseException as error:
            writer.close()
            if isinstance(error, TimeoutError):
                raise Unavailable(f"no answer in {patience_s:.0f} s") from None
            raise

    async def ask_one(self, ask: str, patience_s: float, **question: Any) -> Any:
        """The first value."""
        answers = self.ask(ask, **question)
        try:
            async with asyncio.timeout(patience_s):
                return await anext(answers)
        except TimeoutError:
            raise Unavailable(f"no answer in {patience_s:.0f} s", hint="pyrun logs has all the time") from None
        finally:
            await answers.aclose()


def value_of(line: bytes) -> Any:
    """Of a line of an answer. PyrunError where it is an error."""
    answer = json.loads(line)
    if "error" in answer:
        raise KINDS.get(answer["kind"], PyrunError)(answer["error"])
    return answer["value"]
