"""Probes and hooks against real servers on loopback: a kubelet's results, and peers that mean no good."""

from __future__ import annotations

import asyncio
import gc
import os
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.server import Server

from pyrun.errors import DeadlineExceeded, FailedPrecondition
from pyrun.kube.objects.containers import (
    Container,
    ContainerPort,
    EnvVar,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    LifecycleHandler,
    Probe,
    SleepAction,
    TCPSocketAction,
)
from pyrun.node.probes import Prober, Result, Target, spread
from pyrun.node.probes.http import LONGEST_HEAD
from pyrun.node.probes.result import MAX_OUTPUT

HOST = "127.0.0.1"
LONG_S = 60  # a probe's time where that is not the matter
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
Talk = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


async def no_exec(id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
    raise AssertionError("nothing was to be executed")


def target(*ports: tuple[str, int], **words: Any) -> Target:
    named = [ContainerPort(name=name, containerPort=number) for name, number in ports]
    return Target("c1", Container(name="app", ports=named, **words), HOST)


def ask_server(talk: Talk, make: Callable[[int], Probe], context: ssl.SSLContext | None = None) -> Result:
    """The result of the probe that `make` makes for a port; talk(request's head, writer) answers on it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(await reader.readuntil(b"\r\n\r\n"), writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def main() -> Result:
        async with await asyncio.start_server(serve, HOST, 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            return await Prober(no_exec).run(make(port), target(("web", port)))

    return asyncio.run(main())


def http(timeout: int = LONG_S, **words: Any) -> Callable[[int], Probe]:
    return lambda port: Probe(httpGet=HTTPGetAction(port=port, **words), timeoutSeconds=timeout)


def says(data: bytes) -> Talk:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return talk


def answer(status: int, *headers: str, body: str = "") -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers, "", body]
    return "\r\n".join(lines).encode()


# --- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status, good", [(200, True), (204, True), (399, True), (400, False), (404, False), (503, False)]
)
def test_http_status(status: int, good: bool) -> None:
    result = ask_server(says(answer(status)), http())
    assert result.good is good
    assert good or result.output == f"HTTP probe failed with statuscode: {status}"


def request_of(**words: Any) -> list[str]:
    """The lines of the request of a probe."""
    heads: list[bytes] = []

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(OK)

    assert ask_server(talk, http(**words)).output == "fine"
    return heads[0].decode().split("\r\n")


def test_http_request_is_a_kubelets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the environment has a proxy, at which nobody listens."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    line, *headers, _, _ = request_of(path="/healthz?full=1#part")
    assert line == "GET /healthz?full=1 HTTP/1.1"
    assert headers[0].startswith("Host: 127.0.0.1:")
    assert headers[1:] == ["User-Agent: kube-probe/1.37", "Accept: */*", "Connection: close"]


def test_http_headers_of_the_pod() -> None:
    given = [("Host", "shop.example"), ("X-One", "1"), ("X-One", "2"), ("user-agent", ""), ("Accept", "text/plain")]
    headers = [HTTPHeader(name=name, value=value) for name, value in given]
    line, *found, _, _ = request_of(path="no slash", httpHeaders=headers)
    assert line == "GET /no%20slash HTTP/1.1"
    assert found == ["Host: shop.example", "Accept: text/plain", "X-One: 1", "X-One: 2", "Connection: close"]


def test_http_port_by_name() -> None:
    probe = Probe(httpGet=HTTPGetAction(port="web"), timeoutSeconds=LONG_S)
    assert ask_server(says(OK), lambda port: probe).good is True
    wrong = Probe(httpGet=HTTPGetAction(port="metrics"))
    assert ask_server(says(OK), lambda port: wrong) == Result(None, "the container has no port named 'metrics'")


def test_http_refused_connection() -> None:
    async def main() -> Result:
        server = await asyncio.start_server(lambda r, w: None, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await Prober(no_exec).run(http()(port), target())

    result = asyncio.run(main())
    assert result.good is False
    assert result.output.endswith(": connect: connection refused"), result.output


def redirect(location: str) -> tuple[Talk, list[str]]:
    paths: list[str] = []

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        paths.append(head.split()[1].decode())
        writer.write(answer(302, f"Location: {location}") if paths[-1] == "/" else OK)

    return talk, paths


def test_http_redirect_on_the_same_host_is_followed() -> None:
    talk, paths = redirect("/there?a=b")
    assert ask_server(talk, http()) == Result(True, "fine")
    assert paths == ["/", "/there?a=b"]


@pytest.mark.parametrize("location", ["http://elsewhere.example/", "//elsewhere.example/x", "http://localhost:1/"])
def test_http_redirect_to_another_host_is_a_warning(location: str) -> None:
    talk, paths = redirect(location)
    result = ask_server(talk, http())
    assert (result.good, result.warning, paths) == (True, True, ["/"])
    assert result.output.startswith("Probe terminated redirects")


@pytest.mark.parametrize("status", [300, 304, 305])
def test_http_3xx_that_leads_nowhere_is_a_warning(status: int) -> None:
    result = ask_server(says(answer(status)), http())
    assert (result.good, result.warning) == (True, True)


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[::1", "http://127.0.0.1:99999/"])
def test_http_redirect_that_is_no_address_fails(location: str) -> None:
    talk, _ = redirect(location)
    result = ask_server(talk, http())
    assert result.good is False
    assert "Location" in result.output


def test_http_redirect_loop_ends() -> None:
    count = 0

    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        writer.write(answer(302, "Location: /"))

    result = ask_server(talk, http())
    assert (result.good, count) == (False, 10)
    assert result.output.endswith("stopped after 10 redirects")


def test_http_endless_body_is_cut() -> None:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    result = ask_server(talk, http())
    assert (result.good, len(result.output)) == (True, MAX_OUTPUT)


@pytest.mark.parametrize(
    "data, told",
    [
        (b"", "EOF"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "EOF"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "EOF"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhal", "EOF"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffffffff\r\n", "malformed"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "malformed"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, "too many 1xx"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * (4 * LONGEST_HEAD), "malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Many: yes\r\n" * (LONGEST_HEAD // 4), "malformed"),
    ],
    ids=[
        "nothing",
        "half-head",
        "half-body",
        "half-chunk",
        "huge-chunk",
        "ssh",
        "interim",
        "long-header",
        "many-headers",
    ],
)
def test_http_broken_answers_fail(data: bytes, told: str) -> None:
    result = ask_server(says(data), http())
    assert result.good is False
    assert told in result.output


def never(first: bytes, more: bytes) -> Talk:
    async def talk(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(0.01)

    return talk


@pytest.mark.parametrize(
    "talk",
    [
        never(b"", b""),
        never(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"."),
        never(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["silent", "loris-head", "loris-body"],
)
def test_http_time_is_bounded(talk: Talk) -> None:
    result = ask_server(talk, http(timeout=1))
    assert result.good is False
    assert "context deadline exceeded" in result.output


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's, with a certificate that nobody would trust."""
    directory: Path = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
        + ["-subj", "/CN=somebody-else.example", "-keyout", key, "-out", cert],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def test_https_is_not_verified(tls: ssl.SSLContext) -> None:
    assert ask_server(says(OK), http(scheme="HTTPS"), tls) == Result(True, "fine")


def test_https_of_a_server_without_tls_fails() -> None:
    async def main() -> Result:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1 << 16)  # all of it, or the close would be a reset
            writer.write(answer(400))
            writer.close()

        async with await asyncio.start_server(plain, HOST, 0) as server:
            return await Prober(no_exec).run(http(scheme="HTTPS")(server.sockets[0].getsockname()[1]), target())

    result = asyncio.run(main())
    assert result.good is False
    assert result.output.endswith("tls: the server does not speak TLS")


def test_nothing_stays_open() -> None:
    def descriptors() -> int:
        gc.collect()  # what belongs to a loop that is closed
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(20):
        ask_server(says(answer(302, "Location: /")), http())
        ask_server(says(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70000), http())
    assert descriptors() <= before


# --- TCP, gRPC --------------------------------------------------------------------------------------------------------


def test_tcp() -> None:
    async def main() -> tuple[Result, Result, bytes]:
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.put_nowait(await reader.read())  # an end, and no reset
            writer.close()

        prober, server = Prober(no_exec), await asyncio.start_server(serve, HOST, 0)
        port = server.sockets[0].getsockname()[1]
        probe = Probe(tcpSocket=TCPSocketAction(port="web"), timeoutSeconds=LONG_S)
        good = await prober.run(probe, target(("web", port)))
        data = await heard.get()
        server.close()
        await server.wait_closed()
        return good, await prober.run(probe, target(("web", port))), data

    good, bad, data = asyncio.run(main())
    assert (good, data) == (Result(True), b"")
    assert bad.good is False
    assert bad.output.endswith("connect: connection refused")


def port_of_server(server: Any) -> int:
    return int(server._server.sockets[0].getsockname()[1])


def ask_grpc(service: str, *, timeout: int = LONG_S, context: ssl.SSLContext | None = None, mode: str = "") -> Result:
    async def main() -> Result:
        up, down = ServiceStatus(), ServiceStatus()
        up.set(True)
        down.set(False)

        class Named:
            def __init__(self, name: str) -> None:
                self.name = name

            def __mapping__(self) -> dict[str, Any]:
                return {f"/{self.name}/Do": None}

        server = Server([Health({Named("up"): [up], Named("down"): [down]})])
        await server.start(HOST, 0, ssl=context)
        try:
            port = port_of_server(server)
            probe = Probe(grpc=GRPCAction(port=port, service=service, mode=mode or None), timeoutSeconds=timeout)
            return await Prober(no_exec).run(probe, target())
        finally:
            server.close()
            await server.wait_closed()

    return asyncio.run(main())


def test_grpc() -> None:
    assert ask_grpc("up") == Result(True, "service healthy")
    assert ask_grpc("down") == Result(False, 'service unhealthy (responded with "NOT_SERVING")')
    assert ask_grpc("unknown").good is False


def test_grpc_with_tls(tls: ssl.SSLContext) -> None:
    assert ask_grpc("up", context=tls, mode="TLS") == Result(True, "service healthy")
    assert ask_grpc("up", context=tls, timeout=2).good is False


def test_grpc_of_another_service() -> None:
    async def main() -> Result:
        server = Server([])
        await server.start(HOST, 0)
        try:
            port = port_of_server(server)
            return await Prober(no_exec).run(Probe(grpc=GRPCAction(port=port), timeoutSeconds=LONG_S), target())
        finally:
            server.close()
            await server.wait_closed()

    result = asyncio.run(main())
    assert result.good is False
    assert "does not implement the grpc health protocol" in result.output


@pytest.mark.parametrize(
    "first, more, told",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", "speaks HTTP/1"),
        (b"\0\0\0\4\0\0\0\0\0", b"\0\0\x08\6\0\0\0\0\0pingpong", "larger than any"),
        (b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\4\0\0\0\1\x88", b"\0\x40\0\0\0\0\0\0\1" + b"\xff" * 16384, "error"),
        (b"\0\0\0\4\0\0\0\0\0", b"\0\x40\0\1\0\0\0\0\1" + b"\0" * 16384, "error"),
        (b"\xff\xff\xff\4\0\0\0\0\0", b"\0" * 16384, "larger than any"),
    ],
    ids=["http1", "ping-flood", "endless-message", "endless-head", "huge-frame"],
)
def test_grpc_bounds(first: bytes, more: bytes, told: str) -> None:
    """Of a server that sends `first`, and then `more` as long as it is let."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(first)
            while more:
                writer.write(more)
                await writer.drain()
            await reader.read()
        except OSError:
            pass
        finally:
            writer.close()

    async def main() -> Result:
        async with await asyncio.start_server(serve, HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await Prober(no_exec).run(Probe(grpc=GRPCAction(port=port), timeoutSeconds=LONG_S), target())

    result = asyncio.run(main())
    assert result.good is False
    assert told in result.output


# --- exec, hooks ------------------------------------------------------------------------------------------------------


def exec_probe(run: Any, *command: str, env: dict[str, str] | None = None) -> Result:
    variables = [EnvVar(name=name, value=value) for name, value in (env or {}).items()]
    probe = Probe(exec=ExecAction(command=list(command)), timeoutSeconds=7)
    return asyncio.run(Prober(run).run(probe, target(env=variables)))


def test_exec_gets_its_words_and_its_time() -> None:
    asked = []

    async def run(id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
        asked.append((id, argv, timeout))
        return int(argv[0] == "false"), b"out", b"err" * MAX_OUTPUT

    result = exec_probe(run, "echo", "$(WHO) $$(WHO) $(NOBODY)", env={"WHO": "me"})
    assert (result.good, len(result.output), result.output[:6]) == (True, MAX_OUTPUT, "outerr")
    assert asked == [("c1", ("echo", "me $(WHO) $(NOBODY)"), 7.0)]
    assert exec_probe(run, "false").good is False


def test_exec_that_takes_too_long_is_a_failure() -> None:
    async def run(id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
        raise DeadlineExceeded("killed")

    result = exec_probe(run, "sleep", "99")
    assert (result.good, result.output) == (False, "command timed out: 'sleep 99' timed out after 7s")


def test_exec_that_can_not_be_asked_is_no_result() -> None:
    """Three times, and then nothing is known of the container."""
    tries = 0

    async def run(id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
        nonlocal tries
        tries += 1
        raise FailedPrecondition("the container is being made")

    assert exec_probe(run, "true") == Result(None, "the container is being made")
    assert tries == 3


def test_hooks() -> None:
    async def run(id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
        return (0, b"", b"") if argv[0] == "true" else (3, b"", b"it broke\n")

    def hook(handler: LifecycleHandler, timeout: float | None = None) -> str:
        return asyncio.run(Prober(run).hook(handler, target(), timeout))

    assert hook(LifecycleHandler(exec=ExecAction(command=["true"]))) == ""
    assert hook(LifecycleHandler(exec=ExecAction(command=["do", "it"]))) == "'do it' exited with 3: it broke"
    assert hook(LifecycleHandler(sleep=SleepAction(seconds=0))) == ""
    assert hook(LifecycleHandler(sleep=SleepAction(seconds=600)), 0.05) == "it did not end within 0.05 s"
    assert "no port named" in hook(LifecycleHandler(httpGet=HTTPGetAction(port="none")))


@pytest.mark.parametrize("status", [200, 500])
def test_http_hook_takes_any_answer(status: int) -> None:
    async def main() -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert b"User-Agent: kube-lifecycle/1.37" in await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(status))
            writer.close()

        async with await asyncio.start_server(serve, HOST, 0) as server:
            action = HTTPGetAction(port=server.sockets[0].getsockname()[1])
            return await Prober(no_exec).hook(LifecycleHandler(httpGet=action), target(), LONG_S)

    assert asyncio.run(main()) == ""


def test_https_hook_of_a_server_without_tls_is_asked_by_http() -> None:
    """Without what is only for TLS."""
    heads: list[bytes] = []

    async def main() -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read(1 << 16)  # all of it, or the close would be a reset
            if data.startswith(b"GET "):
                heads.append(data)
            writer.write(answer(200 if heads else 400))
            writer.close()

        async with await asyncio.start_server(serve, HOST, 0) as server:
            headers = [HTTPHeader(name="Authorization", value="Bearer x"), HTTPHeader(name="X-A", value="1")]
            port = server.sockets[0].getsockname()[1]
            action = HTTPGetAction(port=port, scheme="HTTPS", httpHeaders=headers)
            return await Prober(no_exec).hook(LifecycleHandler(httpGet=action), target(), LONG_S)

    assert asyncio.run(main()) == ""
    assert len(heads) == 1 and b"X-A: 1" in heads[0] and b"Bearer" not in heads[0]


def test_spread() -> None:
    probe = Probe(periodSeconds=20)
    assert spread(probe, now=105.0, started=100.0, random=0.25) == 100.0
    assert spread(probe, now=121.0, started=100.0, random=0.25) is None
