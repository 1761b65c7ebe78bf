"""Between a client's streams and a program's: exec and attach.

A session owns all its tasks and descriptors and ends them whatever happens, so a terminal that can't be had or a
client that comes again and again leaves nothing behind (CVE-2022-23471, CVE-2025-64329). What a program has written
is delivered after its end, but a child of its own that holds the pipe open delays it by DRAIN_S at most, and keeps no
client by writing without end (CVE-2026-53495, CVE-2022-31030)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from pyrun.cri.stream.backend import Attachment, Command
from pyrun.cri.stream.descriptors import Reader, Writer, readable
from pyrun.errors import PyrunError
from pyrun.http.remotecommand import Session
from pyrun.http.status import Outcome
from pyrun.http.streams import Inbox, Room, Stream, StreamReset

DRAIN_S = 1.0
DRAIN_BYTES = 16 * 1024 * 1024
STDOUT, STDERR = 1, 2
ATTACH_BYTES = 4 * 1024 * 1024

T = TypeVar("T")


async def in_thread(call: Callable[[], T], undo: Callable[[T], None]) -> T:
    """The call's result. When we are cancelled in the middle the call goes on, and undo() takes its result back."""
    work = asyncio.ensure_future(asyncio.to_thread(call))

    def take_back(done: asyncio.Future[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            undo(done.result())

    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(take_back)
        raise


@contextlib.asynccontextmanager
async def _tasks() -> AsyncIterator[list[asyncio.Task[None]]]:
    """All that is put into the list has ended after the block."""
    running: list[asyncio.Task[None]] = []
    try:
        yield running
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
            for task in running:
                if not task.cancelled():
                    task.exception()  # was seen


async def serve_exec(session: Session, start: Callable[[], Command]) -> None:
    """Runs the program that start() makes, in a thread, for the session, and ends that."""
    try:
        try:
            command = await in_thread(start, _close_command)
        except PyrunError as error:
            await session.finish(Outcome(None, f"error executing command in container: {error}"))
            return
        fds = _Fds(command.stdin, command.stdout, command.stderr)
        try:
            outcome = await _carry(session, command, fds)
        finally:
            fds.close()
            await asyncio.shield(asyncio.to_thread(command.close))
        if outcome is not None:
            await session.finish(outcome)
    finally:
        await session.end()


def _close_command(command: Command) -> None:
    for fd in (command.stdin, command.stdout, command.stderr):
        if fd >= 0:
            os.close(fd)
    command.close()


class _Fds:
    def __init__(self, stdin: int, stdout: int, stderr: int) -> None:
        self.stdin = Writer(stdin) if stdin >= 0 else None
        self.stdout = Reader(stdout) if stdout >= 0 else None
        self.stderr = Reader(stderr) if stderr >= 0 else None

    def close(self) -> None:
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                end.close()


async def _carry(session: Session, command: Command, fds: _Fds) -> Outcome | None:
    """The program's end; None when the client has gone before."""
    async with _tasks() as running:
        outputs = [
            asyncio.ensure_future(_drain(reader, stream))
            for reader, stream in ((fds.stdout, session.stdout), (fds.stderr, session.stderr))
            if reader is not None
        ]
        running += outputs
        running.append(asyncio.ensure_future(_resize(session, command.resize)))
        if session.stdin is not None and fds.stdin is not None:
            running.append(asyncio.ensure_future(_feed(session.stdin, fds.stdin, fds.stdin.close)))
        done = asyncio.ensure_future(readable(command.done))
        running.append(done)
        await asyncio.wait([done, session.gone], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            return None
        code = await asyncio.to_thread(command.code)
        for reader in (fds.stdout, fds.stderr):
            if reader is not None:
                reader.hurry(DRAIN_S, DRAIN_BYTES)
        if outputs:
            all_out = asyncio.ensure_future(_all(outputs))
            running.append(all_out)
            await asyncio.wait([all_out, session.gone], return_when=asyncio.FIRST_COMPLETED)
        return Outcome(code)


async def _all(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _feed(stream: Stream, writer: Writer, ended: Callable[[], None]) -> None:
    """Until the client ends its standard input; what a program no longer reads is thrown away."""
    broken = False
    with contextlib.suppress(StreamReset):
        while data := await stream.read():
            if not broken:
                try:
                    await writer.write(data)
                except BrokenPipeError:
                    broken = True
        ended()


async def _drain(reader: Reader, stream: Stream | None) -> None:
    """To the end of what comes. A client that has closed the stream gets no more, but the program's pipe is emptied,
    so that it does not stand still."""
    while data := await reader.read():
        if stream is not None:
            try:
                await stream.write(data)
            except StreamReset:
                stream = None


async def _resize(session: Session, resize: Callable[[int, int], None]) -> None:
    with contextlib.suppress(StreamReset):
        async for width, height in session.sizes():
            with contextlib.suppress(PyrunError, OSError):
                await asyncio.to_thread(resize, width, height)


async def serve_attach(session: Session, start: Callable[[], Attachment]) -> None:
    """Connects the session with what start() gives, in a thread, until the container ends or the client goes."""
    try:
        try:
            attachment = await in_thread(start, _close_attachment)
        except PyrunError as error:
            await session.finish(Outcome(None, f"error attaching to container: {error}"))
            return
        packets = Reader(attachment.socket)
        stdin = Writer(attachment.stdin) if attachment.stdin >= 0 else None
        try:
            ended = await _look_on(session, attachment, packets, stdin)
        finally:
            packets.close()
            if stdin is not None:
                stdin.close()
            await asyncio.shield(asyncio.to_thread(attachment.close))
        if ended:
            await session.finish(Outcome())
    finally:
        await session.end()


def _close_attachment(attachment: Attachment) -> None:
    for fd in (attachment.socket, attachment.stdin):
        if fd >= 0:
            os.close(fd)
    attachment.close()


async def _look_on(session: Session, attachment: Attachment, packets: Reader, stdin: Writer | None) -> bool:
    """Whether the container has ended, and not the client gone. The supervisor cuts who does not read, so what comes is
    taken at once and kept for the client, up to ATTACH_BYTES."""
    room = Room()
    kept = {STDOUT: Inbox(room), STDERR: Inbox(room)}
    async with _tasks() as running:
        running.append(asyncio.ensure_future(_resize(session, attachment.resize)))
        if session.stdin is not None and stdin is not None:
            running.append(asyncio.ensure_future(_feed(session.stdin, stdin, _ending(stdin, attachment))))
        outputs = [
            asyncio.ensure_future(_pass_on(kept[number], stream))
            for number, stream in ((STDOUT, session.stdout), (STDERR, session.stderr))
        ]
        running += outputs
        running.append(asyncio.ensure_future(_sort(packets, kept)))
        all_out = asyncio.ensure_future(_all(outputs))
        running.append(all_out)
        await asyncio.wait([all_out, session.gone], return_when=asyncio.FIRST_COMPLETED)
        return all_out.done()


def _ending(stdin: Writer, attachment: Attachment) -> Callable[[], None]:
    def ended() -> None:
        stdin.close()
        attachment.stdin_ended()

    return ended


async def _sort(packets: Reader, kept: dict[int, Inbox]) -> None:
    size = 0
    try:
        while packet := await packets.read():
            if (inbox := kept.get(packet[0])) is not None:
                inbox.put(packet[1:])
            size = sum(inbox.size for inbox in kept.values())
            while size > ATTACH_BYTES:
                await asyncio.sleep(0.05)
                size = sum(inbox.size for inbox in kept.values())
    finally:
        for inbox in kept.values():
            inbox.end()


async def _pass_on(inbox: Inbox, stream: Stream | None) -> None:
    while data := await inbox.get():
        if stream is not None:
            try:
                await stream.write(data)
            except StreamReset:
                stream = None
