"""`pyrun node port-forward`: ports of this machine's loopback that lead to a pod's.

A connection is made by a socket that was born in the pod's network and handed over by the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket

from pyrun.cli.commands.cri import STATE
from pyrun.cli.output import write
from pyrun.cli.pods import pod_of
from pyrun.errors import FailedPrecondition, PyrunError, UsageError, printable, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
CHUNK = 1 << 16


def run(g: Globals, o: Options) -> int:
    ports = [_ports(word) for word in o.ports]
    if not ports:
        raise UsageError("no port: [LOCAL:]REMOTE, or :REMOTE for any free one")
    from pyrun.ending import run as run_daemon
    from pyrun.node.agent.remote import asked, remote_sockets

    state = o.state or STATE
    pod = pod_of(state, o.namespace or "default", o.name)
    meta, phase = pod["metadata"], pod["status"].get("phase")
    if phase != "Running":
        raise FailedPrecondition(f"pod {meta['name']} does not run: it is {phase}")
    of = [meta.get("namespace") or "default", meta["name"], meta["uid"], ""]

    def make() -> list[socket.socket]:
        return remote_sockets(asked(f"{state}/node-streams.sock", "ports", of=of))

    return run_daemon(_forward(g, ports, make), g.warn)


def _ports(word: str) -> tuple[int, int]:
    """(of this machine, 0 for any; of the pod)."""
    local, colon, remote = word.rpartition(":")
    texts = (local or "0", remote) if colon else (remote, remote)
    if not all(text.isascii() and text.isdigit() and int(text) <= 65535 for text in texts) or int(remote) == 0:
        raise UsageError(f"{word!r} is no port: [LOCAL:]REMOTE, each 1 to 65535")
    return int(texts[0]), int(texts[1])


def _listen(local: int) -> list[socket.socket]:
    """One of each family that this machine has, on one port."""
    made: list[socket.socket] = []
    try:
        for family, host in LOOPBACK:
            try:
                made.append(socket.create_server((host, local), family=family))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise PyrunError(f"{host}, port {local}: {reason(error)}", hint="take another local port") from None
                continue
            local = made[0].getsockname()[1]
    except BaseException:
        for one in made:
            one.close()
        raise
    if not made:
        raise PyrunError("this machine has no loopback address")
    return made


async def _forward(g: Globals, ports: list[tuple[int, int]], make: Callable[[], list[socket.socket]]) -> int:
    """Until a signal."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    async with contextlib.AsyncExitStack() as stack:
        for local, remote in ports:
            for listener in _listen(local):
                host, port = listener.getsockname()[:2]
                server = await asyncio.start_server(_handler(g, port, remote, make), sock=listener)
                stack.callback(server.close)
                write(f"Forwarding from {f'[{host}]' if ':' in host else host}:{port} -> {remote}\n")
        await ended.wait()
    return 0


def _handler(g: Globals, local: int, remote: int, make: Callable[[], list[socket.socket]]):  # type: ignore[no-untyped-def]
    from pyrun.cri.stream.ports import connect

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        write(f"Handling connection for {local}\n")
        try:
            connection = await connect(remote, make)
            there = await asyncio.open_connection(sock=connection)
        except (PyrunError, OSError) as error:
            g.warn(printable(f"port {remote}: {error}"))
            writer.transport.abort()
            return
        ways = [asyncio.ensure_future(_copy(reader, there[1])), asyncio.ensure_future(_copy(there[0], writer))]
        try:
            await asyncio.gather(*ways)
        except OSError:
            for way in ways:
                way.cancel()
        finally:
            for one in (writer, there[1]):
                one.transport.abort() if any(way.cancelled() for way in ways) else one.close()

    return handle


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """To the end of one direction, which ends the other side's."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
