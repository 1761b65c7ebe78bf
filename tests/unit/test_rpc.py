"""The gRPC server against a client of grpclib's, and against one that speaks HTTP/2 by hand and badly."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from pyrun import cri_api as v1
from pyrun import errors
from pyrun.rpc.server import MOST_BYTES, Service, make_server
from pyrun.rpc.status import CODES, status_of

RPCS = v1.SERVICES["RuntimeService"]


class Context:
    """What the functions here are called with."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.go = asyncio.Event()
        self.closed = asyncio.Event()
        self.error: Exception = errors.PyrunError("no")


async def version(context: Context, request: Any) -> Any:
    return v1.VersionResponse(runtime_name=request.version)


async def status(context: Context, request: Any) -> Any:
    raise context.error


async def stop_container(context: Context, request: Any) -> Any:
    await context.go.wait()
    context.done.append(request.container_id)
    return v1.StopContainerResponse()


async def list_containers(context: Context, request: Any) -> Any:
    return v1.ListContainersResponse(containers=[v1.Container(id="encoded")]).SerializeToString()


async def get_container_events(context: Context, request: Any) -> AsyncIterator[Any]:
    try:
        for number in range(3):
            yield v1.ContainerEventResponse(container_id=str(number))
        await context.go.wait()
    finally:
        context.closed.set()


FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Version": version,
    "Status": status,
    "StopContainer": stop_container,
    "ListContainers": list_containers,
    "GetContainerEvents": get_container_events,
}


def serve(tmp_path: Path, work: Callable[[str, Context], Awaitable[None]]) -> None:
    """Runs `work(socket's path, context)` with a server, within 30 s."""

    async def run() -> None:
        context = Context()
        server = make_server([Service(RPCS, FUNCTIONS, context)])
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "s"))
        await server.start(sock=listener)
        try:
            await asyncio.wait_for(work(str(tmp_path / "s"), context), 120)
        finally:
            server.close()
            await asyncio.wait_for(server.wait_closed(), 60)

    asyncio.run(run())


async def call(channel: Channel, name: str, request: Any, **words: Any) -> Any:
    rpc = RPCS[name]
    method: Any = UnaryUnaryMethod(channel, rpc.path, rpc.request, rpc.response)
    return await method(request, **words)


async def answers(channel: Channel) -> bool:
    response = await call(channel, "Version", v1.VersionRequest(version="hello"))
    return bool(response.runtime_name == "hello")


def test_messages_and_bytes_come_back(tmp_path: Path) -> None:
    async def work(path: str, context: Context) -> None:
        async with Channel(path=path) as channel:
            assert await answers(channel)
            response = await call(channel, "ListContainers", v1.ListContainersRequest())
            assert [container.id for container in response.containers] == ["encoded"]
            large = v1.VersionRequest(version="x" * (MOST_BYTES - 100))
            assert len((await call(channel, "Version", large)).runtime_name) == MOST_BYTES - 100

    serve(tmp_path, work)


@pytest.mark.parametrize("kind", [*CODES, errors.PyrunError])
def test_each_error_has_its_code(kind: type[errors.PyrunError], tmp_path: Path) -> None:
    async def work(path: str, context: Context) -> None:
        context.error = kind("it went wrong", hint="do so")
        async with Channel(path=path) as channel:
            with pytest.raises(GRPCError) as raised:
                await call(channel, "Status", v1.StatusRequest())
        assert raised.value.status is CODES.get(kind, Status.UNKNOWN)
        assert raised.value.message == "it went wrong; hint: do so"

    serve(tmp_path, work)


def test_what_nobody_foresaw_is_internal_and_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def work(path: str, context: Context) -> None:
        context.error = KeyError("zebra")
        async with Channel(path=path) as channel:
            with pytest.raises(GRPCError) as raised:
                await call(channel, "Status", v1.StatusRequest())
        assert raised.value.status is Status.INTERNAL

    serve(tmp_path, work)
    told = capsys.readouterr().err
    assert "Traceback" in told and "zebra" in told


def test_a_message_of_any_length_fits_a_header() -> None:
    assert len(status_of(errors.PyrunError("x" * 100_000)).message or "") <= 4096


def test_an_rpc_that_is_not_there_is_unimplemented_to_every_client(tmp_path: Path) -> None:
    """Of the CRI, of a newer CRI, and of no service at all; with the content-type that grpc-go insists on."""

    async def work(path: str, context: Context) -> None:
        for method in (RPCS["CheckpointPod"].path, "/runtime.v1.RuntimeService/FoldPod", "/x.Y/z"):
            headers = await by_hand(path, method, message(b""))
            assert headers["grpc-status"] == "12", headers
            assert headers[":status"] == "200"
            assert headers["content-type"].startswith("application/grpc")

    serve(tmp_path, work)


@pytest.mark.parametrize(
    "data, code",
    [
        (b"\0" + struct.pack(">I", MOST_BYTES + 1), "8"),
        (b"\0" + struct.pack(">I", 0xFFFFFFFF) + b"x" * 100, "8"),
        (b"\0\0\0\0\x09abc", "3"),
        (b"\0\0", "3"),
        (b"", "3"),
        (b"\x01\0\0\0\0", "12"),
        (b"\0\0\0\0\x03\xff\xff\xff", "3"),
        (b"\0\0\0\0\x04\x0a\x02\xff\xfe", "3"),  # no UTF-8
    ],
    ids=["large", "huge", "cut", "cut prefix", "nothing", "compressed", "no message", "no text"],
)
def test_a_bad_request_is_told_and_harms_nobody(data: bytes, code: str, tmp_path: Path) -> None:
    async def work(path: str, context: Context) -> None:
        headers = await by_hand(path, RPCS["Version"].path, data)
        assert headers["grpc-status"] == code, headers
        async with Channel(path=path) as channel:
            assert await answers(channel)

    serve(tmp_path, work)


def test_a_deadline_ends_the_waiting_and_not_the_work(tmp_path: Path) -> None:
    async def work(path: str, context: Context) -> None:
        async with Channel(path=path) as channel:
            with pytest.raises((GRPCError, TimeoutError)):
                await call(channel, "StopContainer", v1.StopContainerRequest(container_id="a"), timeout=0.1)
            assert context.done == []
            context.go.set()
            await until(lambda: context.done == ["a"])

    serve(tmp_path, work)


def test_a_deadline_that_is_over_before_the_call_is_nothing_to_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(path: str, context: Context) -> None:
        request = v1.StopContainerRequest(container_id="a").SerializeToString()
        found = await by_hand(path, RPCS["StopContainer"].path, message(request), [("grpc-timeout", "0n")])
        assert found["grpc-status"] != "0"
        assert caplog.text == ""

    serve(tmp_path, work)


def test_a_client_that_goes_away_ends_its_waiting_and_not_the_work(tmp_path: Path) -> None:
    async def work(path: str, context: Context) -> None:
        channel = Channel(path=path)
        waiting = asyncio.ensure_future(call(channel, "StopContainer", v1.StopContainerRequest(container_id="b")))
        await asyncio.sleep(0.1)
        channel.close()
        with pytest.raises((StreamTerminatedError, GRPCError, ConnectionError)):
            await waiting
        context.go.set()
        await until(lambda: context.done == ["b"])

    serve(tmp_path, work)


def test_a_stream_that_nobody_reads_any_more_ends(tmp_path: Path) -> None:
    async def work(path: str, context: Context) -> None:
        rpc = RPCS["GetContainerEvents"]
        async with Channel(path=path) as channel:
            method: Any = UnaryStreamMethod(channel, rpc.path, rpc.request, rpc.response)
            async with method.open() as stream:
                await stream.send_message(v1.GetEventsRequest(), end=True)
                assert [(await stream.recv_message()).container_id for _ in range(3)] == ["0", "1", "2"]
                assert not context.closed.is_set()
                await stream.cancel()
            await asyncio.wait_for(context.closed.wait(), 60)
            assert await answers(channel)

    serve(tmp_path, work)


def test_many_calls_wait_at_a_time(tmp_path: Path) -> None:
    """More than HTTP/2's usual hundred: a kubelet with as many probes has one connection."""

    async def work(path: str, context: Context) -> None:
        async with Channel(path=path) as channel:
            waiting = [
                asyncio.ensure_future(call(channel, "StopContainer", v1.StopContainerRequest(container_id=str(i))))
                for i in range(500)
            ]
            await asyncio.sleep(0.5)
            assert await asyncio.wait_for(answers(channel), 60)
            context.go.set()
            await asyncio.gather(*waiting)
            assert sorted(context.done, key=int) == [str(i) for i in range(500)]

    serve(tmp_path, work)


def test_idle_connections_cost_others_nothing(tmp_path: Path) -> None:
    async def work(path: str, context: Context) -> None:
        idle = [await asyncio.open_unix_connection(path) for _ in range(200)]
        async with Channel(path=path) as channel:
            assert await answers(channel)
        for _, writer in idle:
            writer.close()

    serve(tmp_path, work)


def test_a_grpclib_that_can_not_be_bounded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would leave our bounds out without a word."""
    monkeypatch.delattr("grpclib.server.Server._protocol_factory")
    with pytest.raises(errors.PyrunError, match="grpclib: this version") as caught:
        make_server([])
    assert "pip install" in str(caught.value.hint)


def test_headers_have_a_bound(tmp_path: Path) -> None:
    """A connection that sends more is ended; the server goes on."""

    async def work(path: str, context: Context) -> None:
        with pytest.raises(ConnectionError):
            await by_hand(path, RPCS["Version"].path, message(b""), more=[("x-a", "y" * 8000)] * 20)
        async with Channel(path=path) as channel:
            assert await answers(channel)

    serve(tmp_path, work)


def test_garbage_ends_its_connection_only(tmp_path: Path) -> None:
    """Whatever comes after the preface: noise, and frames of each type with nonsense in them."""

    async def work(path: str, context: Context) -> None:
        dice = random.Random(8)
        async with Channel(path=path) as channel:
            for _ in range(300):
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(dice.choice([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"]))
                for _ in range(dice.randrange(1, 6)):
                    body = dice.randbytes(dice.randrange(60))
                    kind, flags, id = dice.randrange(12), dice.randrange(256), dice.choice([0, 1, 3, 1 << 30])
                    writer.write(struct.pack(">I", len(body))[1:] + bytes((kind, flags)) + struct.pack(">I", id) + body)
                writer.write_eof()
                await asyncio.wait_for(reader.read(1 << 16), 60)
                writer.close()
            assert await answers(channel)

    serve(tmp_path, work)


def message(data: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(data)) + data


async def by_hand(path: str, method: str, data: bytes, more: list[tuple[str, str]] | None = None) -> dict[str, str]:
    """Sends this as a request's body; all headers and trailers that come. ConnectionError where the server hangs up."""
    reader, writer = await asyncio.open_unix_connection(path)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost")]
    headers += [("te", "trailers"), ("content-type", "application/grpc"), *(more or [])]
    connection.send_headers(1, headers)
    connection.send_data(1, data, end_stream=True)
    writer.write(connection.data_to_send())
    found: dict[str, str] = {}
    try:
        while got := await asyncio.wait_for(reader.read(1 << 16), 60):
            for event in connection.receive_data(got):
                if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
                    found |= {str(name): str(value) for name, value in event.headers}
                if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                    return found
        raise ConnectionError("the server hung up")
    finally:
        writer.close()


async def until(what: Callable[[], bool]) -> None:
    while not what():
        await asyncio.sleep(0.01)
