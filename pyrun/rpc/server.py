"""A gRPC server on a unix socket, whose methods are plain functions: `await function(context, request)`.

A method that streams is an async generator. What a function raises becomes a status (status.py). A client that gives
up ends its own waiting and nothing else: whatever changes something is a task that goes on. Nothing that a client sends
makes the server keep more than a message of MOST_BYTES a call.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import h2.exceptions
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream
from h2.settings import SettingCodes

from ..cri_api import Rpc
from ..errors import PyrunError, Unimplemented, printable
from .durations import Durations
from .status import status_of

Function = Callable[[Any, Any], Any]
MOST_BYTES = 16 << 20  # of a message, as the kubelet's client has it
PREFIX = 5  # bytes before a message: whether it is compressed, and its length
WINDOW = 4 << 20
MOST_CALLS = 1000  # of one connection at a time: a kubelet's probes and log readers share one
MOST_HEADERS = 32 << 10
# The client has gone, or has given this call up: there is nobody to tell.
GONE = (asyncio.CancelledError, ConnectionError, StreamTerminatedError, h2.exceptions.StreamClosedError)


class Codec(CodecBase):
    """Messages; or bytes that are one already, as lists are kept encoded."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return message if isinstance(message, bytes) else bytes(message.SerializeToString())

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type.FromString(data)


class Service:
    """One service: its RPCs, and the functions of those that are there. durations: told what each call took."""

    def __init__(
        self,
        rpcs: Mapping[str, Rpc],
        functions: Mapping[str, Function],
        context: Any,
        durations: Durations | None = None,
    ) -> None:
        self._durations = durations
        self._rpcs = rpcs
        self._functions = functions
        self._context = context

    def __mapping__(self) -> dict[str, Handler]:
        return {rpc.path: self._handler(name, rpc) for name, rpc in self._rpcs.items()}

    def _handler(self, name: str, rpc: Rpc) -> Handler:
        function = self._functions.get(name)
        if function is None:
            return unimplemented(name)

        service = rpc.path.rpartition("/")[0].removeprefix("/")
        of = (service, name, "server_stream" if rpc.streaming else "unary")

        async def handle(stream: Stream[Any, Any]) -> None:
            begun, code = time.monotonic(), "OK"
            try:
                await answer(stream)
            except BaseException as error:
                code = _code(error)
                raise
            finally:
                if self._durations is not None:
                    self._durations.add(of, time.monotonic() - begun, code)

        async def answer(stream: Stream[Any, Any]) -> None:
            try:
                request = await _receive(stream, rpc.request)
                if rpc.streaming:
                    await _send_all(stream, function(self._context, request))
                else:
                    await stream.send_message(await _call(name, function, self._context, request))
            except GONE:
                raise
            except Exception as error:
                _log(name, error)
                raise status_of(error) from None

        return Handler(handle, _kind(rpc.streaming), rpc.request, rpc.response)


def _code(error: BaseException) -> str:
    """As grpc-go writes it: NotFound, DeadlineExceeded."""
    if isinstance(error, GRPCError):
        return "".join(word.capitalize() for word in error.status.name.split("_"))
    return "Canceled" if isinstance(error, GONE) else "Unknown"


def unimplemented(name: str) -> Handler:
    """Of an RPC that is not in pyrun. Which a client may only learn by calling it, so this must be told well."""

    async def handle(stream: Stream[Any, Any]) -> None:
        raise status_of(Unimplemented(f"{name} is not in this version of pyrun"))

    return Handler(handle, Cardinality.UNARY_UNARY, None, None)


def _kind(streaming: bool) -> Cardinality:
    return Cardinality.UNARY_STREAM if streaming else Cardinality.UNARY_UNARY


# --- a call -----------------------------------------------------------------------------------------------------------


async def _receive(stream: Stream[Any, Any], kind: Any) -> Any:
    """The request. In place of stream.recv_message(), which believes whatever length it is told."""
    raw = stream._stream
    try:
        prefix = await raw.recv_data(PREFIX)
        if not prefix:
            raise GRPCError(Status.INVALID_ARGUMENT, "a call without a request")
        if prefix[0]:
            raise GRPCError(Status.UNIMPLEMENTED, "compressed requests are not taken")
        size = int.from_bytes(prefix[1:], "big")
        if size > MOST_BYTES:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a request of {size} bytes: {MOST_BYTES} are taken")
        data = await raw.recv_data(size)
    except AssertionError:  # grpclib's word for it
        raise GRPCError(Status.INVALID_ARGUMENT, "the request ended in the middle") from None
    if len(data) < size:
        raise GRPCError(Status.INVALID_ARGUMENT, "the request ended in the middle")
    try:
        return kind.FromString(data)
    except Exception:  # protobuf's DecodeError, which each of its implementations has elsewhere
        raise GRPCError(Status.INVALID_ARGUMENT, f"the request is no {kind.DESCRIPTOR.name}") from None


_going_on: set[asyncio.Future[Any]] = set()  # the loop itself holds tasks weakly


async def _call(name: str, function: Callable[[Any, Any], Awaitable[Any]], context: Any, request: Any) -> Any:
    task = asyncio.ensure_future(function(context, request))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            _going_on.add(task)
            task.add_done_callback(lambda done: _ended_alone(name, done))
        raise


def _ended_alone(name: str, task: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more."""
    _going_on.discard(task)
    if not task.cancelled() and isinstance(error := task.exception(), Exception):
        _log(name, error)


async def _send_all(stream: Stream[Any, Any], messages: AsyncGenerator[Any, None]) -> None:
    async with aclosing(messages):
        await stream.send_initial_metadata()  # a reader of events knows by it that it is heard
        async for message in messages:
            await stream.send_message(message)


def _log(name: str, error: Exception) -> None:
    """What nobody has foreseen; the rest is the client's to tell."""
    if not isinstance(error, PyrunError | GRPCError | TimeoutError):
        lines = "".join(traceback.format_exception(error)).splitlines()
        sys.stderr.write(f"pyrun: cri: {name}:\n" + "".join(f"  {printable(line)}\n" for line in lines))


# --- the server -------------------------------------------------------------------------------------------------------


class _Methods(dict[str, Handler]):
    """By path. One that is in no service: grpclib's own answer has no content-type, which Go's clients read as an error
    of HTTP and not as UNIMPLEMENTED."""

    def get(self, path: str, default: Any = None) -> Any:
        return super().get(path) or unimplemented(path[:200])


class _Protocol(H2Protocol):
    """A connection, with bounds of ours."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        settings: dict[SettingCodes | int, int] = {
            SettingCodes.MAX_CONCURRENT_STREAMS: MOST_CALLS,
            SettingCodes.MAX_HEADER_LIST_SIZE: MOST_HEADERS,
        }
        self.connection._connection.update_settings(settings)
        self.connection.flush()


class _Foreseen(logging.Filter):
    """grpclib writes a stack trace of a client that is gone, and of one whose deadline was over before its call."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], (TimeoutError, *GONE)))


_FORESEEN = _Foreseen()


class _Server(Server):
    def _protocol_factory(self) -> H2Protocol:
        made = super()._protocol_factory()
        return _Protocol(made.handler, made.config, made.h2_config)


def make_server(services: list[Service]) -> Server:
    """Not listening yet. PyrunError where grpclib is another than the one whose private names we know: bounds that it
    silently left out would leave the daemon open."""
    if not hasattr(Server, "_protocol_factory"):
        raise PyrunError("grpclib: this version can't be given bounds", hint="pip install 'grpclib>=0.4.7,<0.5'")
    logging.getLogger("grpclib.server").addFilter(_FORESEEN)
    config = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)
    server = _Server(services, codec=Codec(), config=config)
    server._mapping = _Methods(server._mapping)
    return server
