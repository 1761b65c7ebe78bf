"""Port-forward on the wire: for each connection a data and an error stream, paired by their `requestid`.

A pair whose other half does not come in CREATE_S is reset. Old clients send no requestid: then the error stream is
opened first, and the data stream's number is two higher. Over WebSocket the very same SPDY is carried in binary
messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pyrun.http import websocket
from pyrun.http.remotecommand import CREATE_S, SPDY, choose_version
from pyrun.http.server import Exchange
from pyrun.http.spdy import frames
from pyrun.http.spdy.connection import Connection, SpdyStream
from pyrun.http.spdy.errors import SpdyError
from pyrun.http.transport import Transport

PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
MOST_PAIRS = 512  # connections of one client at a time
LINGER_S = 1.0

Forward = Callable[[int, SpdyStream, SpdyStream], Awaitable[None]]


async def serve_ports(exchange: Exchange, forward: Forward) -> None:
    """Until the client goes. forward(port, data stream, error stream): one connection, which ends both streams."""
    transport: Transport
    if websocket.asked(exchange):
        accepted = await websocket.accept(exchange, (TUNNEL,))
        if accepted is None:
            return
        transport = websocket.Tunnel(accepted[0])
    else:
        if await choose_version(exchange, (PROTOCOL,)) is None:
            return
        transport = await exchange.upgrade(
            (("Connection", "Upgrade"), ("Upgrade", SPDY), ("X-Stream-Protocol-Version", PROTOCOL))
        )
    pairs = _Pairs(forward)
    try:
        await Connection(transport, 2 * MOST_PAIRS, pairs.opened).run()
    except SpdyError:
        pass
    finally:
        await pairs.end()
        await transport.close(LINGER_S)


class _Pairs:
    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self._halves: dict[str, dict[str, SpdyStream]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def opened(self, stream: SpdyStream) -> None:
        kind = stream.headers.get("streamtype", "")
        port = stream.headers.get("port", "")
        if kind not in ("data", "error") or not (port.isdecimal() and port.isascii() and 0 < int(port[:6]) < 65536):
            self._run(stream.reset(frames.REFUSED_STREAM))
            return
        name = stream.headers.get("requestid") or f"#{stream.number - (2 if kind == 'data' else 0)}"
        if len(self._halves) >= MOST_PAIRS:
            self._sweep()
        halves = self._halves.setdefault(name, {})
        if (
            len(self._halves) > MOST_PAIRS
            or kind in halves
            or any(other.headers["port"] != port for other in halves.values())
        ):
            if not halves:
                del self._halves[name]
            self._run(stream.reset(frames.REFUSED_STREAM))
            return
        halves[kind] = stream
        if kind == "error":
            stream.inbox.drop()
        if len(halves) == 1:
            self._timers[name] = asyncio.get_running_loop().call_later(CREATE_S, self._expire, name)
            return
        self._timers.pop(name).cancel()
        del self._halves[name]
        self._run(self._forward(int(port), halves["data"], halves["error"]))

    def _sweep(self) -> None:
        """Forgets halves that the client has reset."""
        for name in [name for name, halves in self._halves.items() if all(half.closed for half in halves.values())]:
            self._timers.pop(name).cancel()
            del self._halves[name]

    def _expire(self, name: str) -> None:
        del self._timers[name]
        for stream in self._halves.pop(name).values():
            self._run(stream.reset())

    async def end(self) -> None:
        """All connections are cut, and each has closed its socket when this comes back."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
