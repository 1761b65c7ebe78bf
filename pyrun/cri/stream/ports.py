"""Port-forward: a connection to a port in a pod's network namespace, made by a socket that was born there.

A thread of its own joins the namespace, makes the sockets and ends: a thread that has been in a pod's namespace is
used for nothing else, so no other work can find itself there. Only that a connection can't be made is told on the
error stream, for a client that reads anything there ends all its forwards. Either side may end its own direction and
go on reading."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable

from pyrun.cri.stream.commands import in_thread
from pyrun.errors import PyrunError, reason
from pyrun.http.spdy.connection import SpdyStream
from pyrun.http.streams import StreamReset

CLONE_NEWNET = 0x40000000
CONNECT_S = 10.0
CHUNK = 64 * 1024
LOCALHOSTS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

_libc = ctypes.CDLL(None, use_errno=True)


def make_sockets(netns: int) -> list[socket.socket]:
    """One for each of LOCALHOSTS that the node knows, in the namespace; -1: in our own. Raises PyrunError."""
    if netns < 0:
        return _sockets()
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            if _libc.setns(netns, CLONE_NEWNET):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            made.extend(_sockets())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work, name="netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise PyrunError(f"the pod's network namespace can't be joined: {reason(failed[0])}")
    return made


def _sockets() -> list[socket.socket]:
    found = []
    for family, _ in LOCALHOSTS:
        with contextlib.suppress(OSError):
            found.append(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    return found


def _close_all(sockets: list[socket.socket]) -> None:
    for one in sockets:
        one.close()


def open_sockets(netns: Callable[[], int]) -> list[socket.socket]:
    fd = netns()
    try:
        return make_sockets(fd)
    finally:
        if fd >= 0:
            os.close(fd)


async def connect(port: int, make: Callable[[], list[socket.socket]]) -> socket.socket:
    """To the port of the pod's localhost, by IPv4 and else by IPv6. make: open_sockets() or its like, in a thread.
    Raises PyrunError."""
    sockets = await in_thread(make, _close_all)
    loop = asyncio.get_running_loop()
    why = "no socket can be made"
    hosts = dict(LOCALHOSTS)
    try:
        for one in sockets:
            host = hosts[one.family]
            try:
                async with asyncio.timeout(CONNECT_S):
                    await loop.sock_connect(one, (host, port))
            except TimeoutError:
                why = f"connect to {host}: no answer in {CONNECT_S:g} s"
            except OSError as error:
                # The first one's: a pod without IPv6 would tell of that alone.
                if not why.startswith("connect"):
                    why = f"connect to {host}: {os.strerror(error.errno or 0).lower()}"
            else:
                sockets.remove(one)
                return one
    finally:
        _close_all(sockets)
    raise PyrunError(why)


async def forward(
    pod: str, port: int, make: Callable[[], list[socket.socket]], data: SpdyStream, errors: SpdyStream
) -> None:
    """One connection, to its end."""
    try:
        try:
            connection = await connect(port, make)
        except PyrunError as error:
            with contextlib.suppress(StreamReset):
                text = f"error forwarding port {port} to pod {pod}: {error.text}"
                await errors.write(text.encode())
            await errors.close()
            await data.reset()
            return
        await errors.close()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await _both_ways(connection, data)
    except asyncio.CancelledError:
        await data.reset()
        await errors.reset()
        raise


async def _both_ways(connection: socket.socket, data: SpdyStream) -> None:
    """Until both directions have ended, or one is broken."""
    ways = [asyncio.ensure_future(_to_pod(connection, data)), asyncio.ensure_future(_to_client(connection, data))]
    try:
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.exception() for task in done):
            await data.reset()
    finally:
        for task in ways:
            task.cancel()
        await asyncio.wait(ways)


async def _to_pod(connection: socket.socket, data: SpdyStream) -> None:
    loop = asyncio.get_running_loop()
    while piece := await data.read():
        await loop.sock_sendall(connection, piece)
    connection.shutdown(socket.SHUT_WR)


async def _to_client(connection: socket.socket, data: SpdyStream) -> None:
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(connection, CHUNK):
        await data.write(piece)
    await data.close()
