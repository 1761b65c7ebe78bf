"""gRPC: grpc.health.v1.Health/Check, one call on a connection of its own, by h2.

Not by grpclib's client, which believes what length it is told and has its own User-Agent. Of all that the server sends,
MOST_BYTES are taken. Source: kubernetes pkg/probe/grpc/grpc.go.
"""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import unquote

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from google.protobuf.message import DecodeError
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from .result import Result
from .tcp import DialError, connect, leave

METHOD = "/grpc.health.v1.Health/Check"
SERVING = 1
UNIMPLEMENTED, DEADLINE_EXCEEDED = "12", "4"
MOST_BYTES = 128 << 10
CHUNK = 16 << 10


class GrpcError(Exception):
    """No answer came; the text of the failure."""


async def ask_grpc(host: str, port: int, service: str, agent: str, context: ssl.SSLContext | None) -> Result:
    """context: with TLS, not verified; None: plain h2."""
    try:
        reader, writer = await connect(host, port, context)
    except DialError as error:
        return Result(False, f'error: failed to connect service "{host}:{port}": {error}')
    try:
        call = _Call(f"{host}:{port}", service, agent, "https" if context else "http")
        status = await call.run(reader, writer)
    except GrpcError as error:
        return Result(False, f"error: {error}")
    except (h2.exceptions.H2Error, OSError) as error:
        return Result(False, f"error: health rpc probe failed: {str(error).lower() or type(error).__name__}")
    finally:
        leave(writer)
    if status == SERVING:
        return Result(True, "service healthy")
    return Result(False, f'service unhealthy (responded with "{_name(status)}")')


def _name(status: int) -> str:
    found = HealthCheckResponse.ServingStatus
    return str(found.Name(status)) if status in found.values() else str(status)


class _Call:
    def __init__(self, authority: str, service: str, agent: str, scheme: str) -> None:
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._headers: dict[str, str] = {}
        self._data = bytearray()
        self._ended = False
        message = HealthCheckRequest(service=service).SerializeToString()
        request = [
            (":method", "POST"), (":scheme", scheme), (":path", METHOD), (":authority", authority),
            ("te", "trailers"), ("content-type", "application/grpc"), ("user-agent", agent),
        ]  # fmt: skip
        self._h2.initiate_connection()
        self._h2.send_headers(1, request)
        self._h2.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The serving status that was answered. GrpcError."""
        came = 0
        while not self._ended:
            writer.write(self._h2.data_to_send())
            await writer.drain()
            data = await reader.read(CHUNK)
            if not data:
                raise GrpcError("health rpc probe failed: the connection ended without an answer")
            if data.startswith(b"HTTP/"):  # else h2 waits for a frame of 4 MB, as which it reads this
                raise GrpcError("health rpc probe failed: the server speaks HTTP/1 here")
            came += len(data)
            if came > MOST_BYTES:
                raise GrpcError("health rpc probe failed: the answer is larger than any of this service")
            for event in self._h2.receive_data(data):
                self._heard(event)
        self._check()
        if len(self._data) < 5 or self._data[0] or int.from_bytes(self._data[1:5], "big") != len(self._data) - 5:
            raise GrpcError("health rpc probe failed: the answer is no single message")
        try:
            return int(HealthCheckResponse.FromString(bytes(self._data[5:])).status)
        except DecodeError:
            raise GrpcError("health rpc probe failed: the answer is no HealthCheckResponse") from None

    def _heard(self, event: object) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._headers |= {str(name): str(value) for name, value in event.headers}
            case h2.events.DataReceived():
                self._data += event.data
            case h2.events.StreamEnded():
                self._ended = True
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                raise GrpcError(f"health rpc probe failed: the server broke the call off (error {event.error_code})")

    def _check(self) -> None:
        if self._headers.get(":status") != "200":
            raise GrpcError(f"health rpc probe failed: HTTP status {self._headers.get(':status')}")
        code = self._headers.get("grpc-status")
        said = unquote(self._headers.get("grpc-message", ""))
        if code == UNIMPLEMENTED:
            raise GrpcError(f"this server does not implement the grpc health protocol (grpc.health.v1.Health): {said}")
        if code == DEADLINE_EXCEEDED:
            raise GrpcError(f"timeout: health rpc did not complete: {said}")
        if code != "0":
            raise GrpcError(f"health rpc probe failed: {said or f'grpc-status {code}'}")
