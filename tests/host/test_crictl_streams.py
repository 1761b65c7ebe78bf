"""crictl, whose client is the one that kubectl and the kubelet have: exec, attach and port-forward, by SPDY and by
WebSocket.

Its answers come from a stub of the CRI; the streaming server, the programs, terminals and sockets are real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pyrun.cri.stream.ports import make_sockets
from pyrun.cri.stream.server import Streams
from tests.support.streams.backend import Backend, Container, set_size
from tests.support.streams.serving import run, serving, settle
from tests.support.streams.stub import serving as stub

pytestmark = pytest.mark.root
TRANSPORTS = ("spdy", "websocket")


class Crictl:
    def __init__(self, program: str, path: str, streams: Streams, backend: Backend) -> None:
        self.argv = [program, "--config", "/dev/null", "-r", f"unix://{path}", "-t", "20s"]
        self.streams = streams
        self.backend = backend

    async def start(self, *argv: str, **streams: int) -> asyncio.subprocess.Process:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE) | streams
        return await asyncio.create_subprocess_exec(*self.argv, *argv, start_new_session=True, **pipes)  # type: ignore[arg-type]

    async def run(self, *argv: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        process = await self.start(*argv)
        async with asyncio.timeout(30):
            out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return process.returncode, out, err.decode()


@contextlib.asynccontextmanager
async def over(program: str, tmp_path: Path) -> AsyncIterator[Crictl]:
    async with serving() as (streams, backend), stub(streams, str(tmp_path / "s")):
        yield Crictl(program, str(tmp_path / "s"), streams, backend)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_exec(crictl: str, tmp_path: Path, transport: str) -> None:
    async def test() -> None:
        async with over(crictl, tmp_path) as c:
            script = "cat; echo err >&2; exit 3"
            code, out, err = await c.run("exec", "-r", transport, "ctr", "sh", "-c", "echo out; echo err >&2; exit 3")
            assert (code, out) == (1, b"out\n")
            assert "err\n" in err and "command terminated with exit code 3" in err
            code, out, err = await c.run(
                "exec", "-r", transport, "-i", "ctr", "sh", "-c", script, stdin=bytes(3_000_000)
            )
            assert (code, len(out)) == (1, 3_000_000), err
            code, out, err = await c.run("exec", "-r", transport, "ctr", "/no/such")
            assert code == 1 and "error executing command in container: exec /no/such" in err
            code, out, err = await c.run("exec", "-r", transport, "missing", "true")
            assert code == 1 and "container missing: not found" in err

    run(test)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_exec_with_a_terminal(crictl: str, tmp_path: Path, transport: str) -> None:
    """It starts with the size of crictl's terminal, follows it, and hands control characters on."""

    async def test() -> None:
        async with over(crictl, tmp_path) as c:
            master, slave = pty.openpty()
            set_size(slave, 101, 37)
            argv = (
                "exec",
                "-r",
                transport,
                "-i",
                "-t",
                "ctr",
                "sh",
                "-c",
                "sleep 1; stty size; read x; stty size; cat",
            )
            process = await c.start(*argv, stdin=slave, stdout=slave, stderr=slave)
            os.close(slave)
            seen = bytearray()
            asyncio.get_running_loop().add_reader(master, lambda: seen.extend(_read(master)))
            try:
                await settle(lambda: b"37 101" in seen, 20)
                set_size(master, 60, 11)
                process.send_signal(28)  # SIGWINCH, which the kernel sends to the terminal's own group
                await asyncio.sleep(1)
                os.write(master, b"\n")
                await settle(lambda: b"11 60" in seen, 20)
                os.write(master, b"hello\n\x04")
                async with asyncio.timeout(20):
                    assert await process.wait() == 0
                assert seen.count(b"hello") >= 2
            finally:
                asyncio.get_running_loop().remove_reader(master)
                os.close(master)

    run(test)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:
        return b""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_attach(crictl: str, tmp_path: Path, transport: str) -> None:
    async def test() -> None:
        async with over(crictl, tmp_path) as c:
            c.backend.containers["c"] = Container(("sh", "-c", "read x; echo got $x; exit 4"), tty=False)
            code, out, err = await c.run("attach", "-r", transport, "-i", "c", stdin=b"word\n")
            assert (code, out) == (0, b"got word\n"), err

    run(test)


@pytest.fixture
def netns() -> Iterator[str]:
    """The path of a network namespace with lo up."""
    argv = ["unshare", "-n", "sh", "-c", "ip link set lo up && echo up && exec sleep 100"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"up\n"
        yield f"/proc/{holder.pid}/ns/net"
        holder.kill()


@contextlib.asynccontextmanager
async def listening(netns: str, port: int, host: str) -> AsyncIterator[None]:
    """A web server of sorts in the namespace: it answers what it was sent, when that has ended, and says its own
    host."""
    fd = os.open(netns, os.O_RDONLY)
    for one in make_sockets(fd):
        if (":" in host) == (one.family == socket.AF_INET6):
            listener = one
        else:
            one.close()
    os.close(fd)
    listener.bind((host, port))
    listener.listen()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(await reader.read())
        await asyncio.sleep(1.2)
        writer.write(f"{host} got {size}".encode())
        writer.close()

    server = await asyncio.start_server(answer, sock=listener)
    try:
        yield
    finally:
        server.close()


async def ask(port: int, size: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(bytes(size))
    writer.write_eof()
    async with asyncio.timeout(15):
        said = await reader.read()
    writer.close()
    return said


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_forward_into_a_network_namespace(
    crictl: str, tmp_path: Path, netns: str, transport: str, host: str
) -> None:
    async def test() -> None:
        before = os.readlink("/proc/self/ns/net")
        async with over(crictl, tmp_path) as c, listening(netns, 8080, host):
            c.backend.netns_path = netns
            process = await c.start("port-forward", "-r", transport, "pod", ":8080")
            assert process.stdout is not None
            async with asyncio.timeout(20):
                line = (await process.stdout.readline()).decode()
            found = re.search(r"127.0.0.1:(\d+) -> 8080", line)
            assert found, line
            answers = await asyncio.gather(*(ask(int(found[1]), 100_000 + n) for n in range(8)))
            assert answers == [f"{host} got {100_000 + n}".encode() for n in range(8)]
            assert await ask(int(found[1]), 1) == f"{host} got 1".encode()
            process.terminate()
            async with asyncio.timeout(20):
                await process.communicate()
        assert {os.readlink(f"/proc/self/task/{task}/ns/net") for task in os.listdir("/proc/self/task")} == {before}

    run(test)
