"""A gRPC server on a unix socket, whose methods are plain functions: `await function(context, request)`.

A method that streams is an async generator. What a function raises becomes a status (status.py). A client that gives up
ends its own waiting and nothing else: whatever changes something is a task that goes on.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler
from grpclib.encoding.base import CodecBase
from grpclib.server import Server, Stream

from ..cri_api import Rpc
from ..errors import PyrunError, Unimplemented, printable
from .status import status_of

Function = Callable[[Any, Any], Any]
MOST_BYTES = 16 << 20  # of a message, as the kubelet's client has it


class Codec(CodecBase):
    """Messages; or bytes that are one already, as lists are kept encoded."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if isinstance(message, bytes) else bytes(message.SerializeToString())

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type.FromString(data)


class Service:
    """One service: its RPCs, and the functions of those that are there."""

    def __init__(self, rpcs: Mapping[str, Rpc], functions: Mapping[str, Function], context: Any) -> None:
        self._rpcs = rpcs
        self._functions = functions
        self._context = context

    def __mapping__(self) -> dict[str, Handler]:
        return {rpc.path: self._handler(name, rpc) for name, rpc in self._rpcs.items()}

    def _handler(self, name: str, rpc: Rpc) -> Handler:
        function = self._functions.get(name)
        kind = Cardinality.UNARY_STREAM if rpc.streaming else Cardinality.UNARY_UNARY

        async def handle(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            try:
                if function is None:
                    raise Unimplemented(f"{name} is not in this version of pyrun")
                if rpc.streaming:
                    await _send_all(stream, function(self._context, request))
                else:
                    await stream.send_message(await _call(function, self._context, request))
            except (asyncio.CancelledError, ConnectionError):
                raise
            except Exception as error:
                _log(name, error)
                raise status_of(error) from None

        return Handler(handle, kind, rpc.request, rpc.response)


async def _call(function: Callable[[Any, Any], Awaitable[Any]], context: Any, request: Any) -> Any:
    return await asyncio.shield(asyncio.ensure_future(function(context, request)))


async def _send_all(stream: Stream[Any, Any], messages: AsyncIterator[Any]) -> None:
    async for message in messages:
        await stream.send_message(message)


def _log(name: str, error: Exception) -> None:
    """What nobody has foreseen; the rest is the client's to tell."""
    if not isinstance(error, PyrunError):
        lines = "".join(traceback.format_exception(error)).splitlines()
        sys.stderr.write(f"pyrun: cri: {name}:\n" + "".join(f"  {printable(line)}\n" for line in lines))


def make_server(services: list[Service]) -> Server:
    """Not listening yet."""
    config = Configuration(http2_connection_window_size=4 << 20, http2_stream_window_size=4 << 20)
    return Server(services, codec=Codec(), config=config)
