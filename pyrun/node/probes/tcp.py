"""TCP: a connection is made, or it is not. Also what the other probers connect by.

Source: kubernetes pkg/probe/tcp/tcp.go. Words of an error are Go's, as people look for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct

from ...errors import reason
from .result import Result, joined

LIMIT = 64 << 10  # bytes that are read ahead of us; twice that stops the peer
SHUTDOWN_S = 1.0
_AT_ONCE = struct.pack("ii", 1, 0)


# What OpenSSL calls an answer that is no TLS.
NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


class DialError(Exception):
    """There is no connection; the text is Go's. plain: the server answered, and not by TLS."""

    def __init__(self, text: str, *, plain: bool = False) -> None:
        super().__init__(text)
        self.plain = plain


async def connect(
    host: str, port: int, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """DialError. The caller ends it by `leave`."""
    more = {"ssl": context, "ssl_shutdown_timeout": SHUTDOWN_S, "server_hostname": host} if context else {}
    try:
        return await asyncio.open_connection(host, port, limit=LIMIT, **more)  # type: ignore[arg-type]
    except ssl.SSLError as error:
        plain = error.reason in NO_TLS
        told = "the server does not speak TLS" if plain else str(error.reason or error)
        raise DialError(f"tls: {told}", plain=plain) from None
    except socket.gaierror as error:
        raise DialError(f"dial tcp: lookup {host}: {reason(error)}") from None
    except (OSError, UnicodeError) as error:
        told = reason(OSError(error.errno, _strerror(error))) if isinstance(error, OSError) else str(error)
        raise DialError(f"dial tcp {joined(host, port)}: connect: {told}") from None


def _strerror(error: OSError) -> str:
    """The system's word: asyncio puts one of its own in its place."""
    return os.strerror(error.errno) if error.errno else str(error)


def leave(writer: asyncio.StreamWriter, *, at_once: bool = False) -> None:
    """Ends a connection; nothing of it waits for the peer for longer than SHUTDOWN_S. at_once: by a reset, so that no
    port of ours stays in TIME_WAIT for a peer that does not keep to its part."""
    transport = writer.transport
    if at_once:
        found: socket.socket | None = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            if found is not None:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        transport.abort()
    elif transport.get_extra_info("sslcontext") is not None:
        transport.close()  # says so to the peer, and aborts after SHUTDOWN_S
    else:
        transport.abort()  # what we sent may still go out: an end, and no reset, unless there is something unread


async def ask_tcp(host: str, port: int) -> Result:
    try:
        _, writer = await connect(host, port)
    except DialError as error:
        return Result(False, str(error))
    leave(writer)
    return Result(True)
