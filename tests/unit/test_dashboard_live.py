"""What tabs are told of the state, over the socket to a reader that comes and goes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pyrun.dashboard.live import Live
from pyrun.errors import NotFound, PyrunError, Unavailable
from pyrun.web.ask import Questions

PATIENCE_S = 60.0


@contextlib.contextmanager
def reader(*answers: list[Any]) -> Iterator[Questions]:
    """The other side of the protocol: to each question its answers, then the end. None: waits until the asker ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def serve() -> None:
        for answer in answers:
            message, [fd], _, _ = socket.recv_fds(theirs, 65536, 1)
            assert json.loads(message)["ask"]
            with socket.socket(fileno=fd) as stream:
                for value in answer:
                    if value is None:
                        stream.settimeout(PATIENCE_S)
                        assert stream.recv(1) == b""
                        return
                    stream.sendall(json.dumps(value).encode() + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Questions(ours)
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "it was not asked so often"
    finally:
        theirs.close()
        ours.close()


def value(**state: Any) -> dict[str, Any]:
    return {"value": {key: {"x": x} for key, x in state.items()}}


def test_a_reader_that_ends_is_told_and_the_next_tab_starts_another() -> None:
    async def test(questions: Questions) -> None:
        live = Live(questions)
        with pytest.raises(Unavailable, match="ended"):
            async for put, gone in live.deltas(PATIENCE_S):
                assert put and not gone
        assert await live.state() == {"a": {"x": 2}}
        await live.stop()

    with reader([value(a=1)], [value(a=2), None]) as questions:
        asyncio.run(test(questions))


def test_errors_keep_their_kind() -> None:
    async def test(questions: Questions) -> None:
        with pytest.raises(NotFound, match="no such pod"):
            await questions.ask_one("logs", PATIENCE_S)
        with pytest.raises(PyrunError, match="worse"):
            await questions.ask_one("logs", PATIENCE_S)
        with pytest.raises(Unavailable):
            await questions.ask_one("logs", PATIENCE_S)

    told: tuple[list[Any], ...] = (
        [{"error": "no such pod", "kind": "NotFound"}],
        [{"error": "worse", "kind": "What"}],
        [],
    )
    with reader(*told) as questions:
        asyncio.run(test(questions))


def test_a_reader_that_is_gone() -> None:
    async def test() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        with ours, pytest.raises(Unavailable):
            await Questions(ours).ask_one("watch", PATIENCE_S)

    asyncio.run(test())
