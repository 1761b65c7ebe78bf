"""exec and attach over real connections, with real pipes and terminals: every version of the protocol, and every
end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from pyrun.cri.stream.server import Streams
from pyrun.errors import InvalidArgument
from pyrun.http.remotecommand import VERSIONS, Wanted
from tests.support.streams.backend import Backend, Container
from tests.support.streams.client import Refused, command, exit_code, spdy, websocket
from tests.support.streams.serving import ALL, OUT, TTY, run, serving, settle


def sh(streams: Streams, script: str, wanted: Wanted = OUT) -> str:
    return streams.exec("ctr", ("sh", "-c", script), wanted)


def test_output_and_exit_code() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            url = sh(streams, "echo out; echo err >&2; exit 3")
            async with command(url, stdout=True, stderr=True) as (_, s):
                assert await s["stdout"].read_all() == b"out\n"
                assert await s["stderr"].read_all() == b"err\n"
                status = json.loads(await s["error"].read_all())
                assert status["reason"] == "NonZeroExitCode"
                assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]

    run(test)


@pytest.mark.parametrize("version", [*VERSIONS, None])
def test_every_version_carries_stdin_and_its_end(version: str | None) -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            url = sh(streams, "cat; exit 7", ALL)
            async with command(url, version, stdin=True, stdout=True, stderr=True) as (client, s):
                assert client.version == version
                await s["stdin"].write(b"a" * 200_000)
                await s["stdin"].write(b"end", fin=True)
                assert await s["stdout"].read_all() == b"a" * 200_000 + b"end"
                error = await s["error"].read_all()
                if version == VERSIONS[0]:
                    assert json.loads(error)["status"] == "Failure"
                else:
                    assert error == b"command terminated with non-zero exit code: exit status 7"

    run(test)


def test_success_is_said_from_v4_on_only() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with command(sh(streams, "true"), stdout=True, stderr=True) as (_, s):
                assert json.loads(await s["error"].read_all()) == {"metadata": {}, "status": "Success"}
            async with command(sh(streams, "true"), VERSIONS[1], stdout=True, stderr=True) as (_, s):
                assert await s["error"].read_all() == b""

    run(test)


def test_terminal_and_its_size() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            url = sh(streams, 'read x; stty size; echo "got $x"', TTY)
            async with command(url, stdin=True, stdout=True, resize=True) as (_, s):
                await s["resize"].write(b'{"Width":10,"Height":20}\n{"Width":"x"}\n{"Width":132,"Heig')
                await s["resize"].write(b'ht":43}\n')
                await asyncio.sleep(0.3)
                await s["stdin"].write(b"hello\n")
                assert (await s["stdout"].read_all()).replace(b"\r", b"") == b"hello\n43 132\ngot hello\n"
                assert await exit_code(s) == 0

    run(test)


def test_all_output_of_a_program_that_has_ended_reaches_a_slow_client() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with command(sh(streams, "head -c 8000000 /dev/zero"), stdout=True, stderr=True) as (client, s):
                await s["stdout"].read_some(1)
                client.reading.clear()
                await asyncio.sleep(2.5)
                client.reading.set()
                assert len(await s["stdout"].read_all()) == 8_000_000
                assert await exit_code(s) == 0

    run(test)


@pytest.mark.parametrize("child", ["sleep 30", "timeout 30 yes"])
def test_cve_2026_53495_a_child_that_keeps_the_pipe_open_holds_nobody_up(child: str, tmp_path: Path) -> None:
    """CVE-2026-53495."""

    async def test() -> None:
        async with serving() as (streams, _):
            script = f"{child} & echo $! >{tmp_path}/pid; exit 9"
            async with command(sh(streams, script), stdout=True, stderr=True) as (_, s):
                await s["stdout"].read_all()
                assert await exit_code(s) == 9
                os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # it has lived on

    run(test)


def test_cve_2022_23471_failed_programs_are_told_and_leave_nothing() -> None:
    """CVE-2022-23471: a terminal that is asked for again and again for programs that do not start."""

    async def test() -> None:
        async with serving() as (streams, backend):
            for container, argv in [("ctr", ("/no/such",)), ("missing", ("true",))] * 20:
                url = streams.exec(container, argv, TTY)
                async with command(url, stdin=True, stdout=True, resize=True) as (_, s):
                    status = json.loads(await s["error"].read_all())
                    assert status["reason"] == "InternalError"
                    assert argv[0] in status["message"] or "not found" in status["message"]
                    assert await s["stdout"].read_all() == b""
            assert backend.commands == []

    run(test)


def test_cve_2025_64329_repeated_attach_leaves_nothing() -> None:
    """CVE-2025-64329."""

    async def test() -> None:
        async with serving() as (streams, backend):
            backend.containers["cat"] = Container(("cat",), tty=False)
            for _ in range(30):
                async with command(streams.attach("cat", ALL), stdin=True, stdout=True, stderr=True) as (_, s):
                    await s["stdin"].write(b"x")
                    await s["stdout"].read_some(1)

    run(test)


def test_attach_reads_writes_and_ends_with_the_container() -> None:
    async def test() -> None:
        async with serving() as (streams, backend):
            backend.containers["c"] = Container(("sh", "-c", "while read x; do echo $x; echo e$x >&2; done"), tty=False)
            url = streams.attach("c", ALL)
            async with command(url, stdin=True, stdout=True, stderr=True) as (_, s):
                await s["stdin"].write(b"one\ntwo\n", fin=True)
                assert await s["stdout"].read_all() == b"one\ntwo\n"
                assert await s["stderr"].read_all() == b"eone\netwo\n"
                assert await exit_code(s) == 0
            async with command(streams.attach("gone", OUT), stdout=True, stderr=True) as (_, s):
                assert "container gone: not found" in json.loads(await s["error"].read_all())["message"]

    run(test)


@pytest.mark.parametrize("tty", [True, False])
def test_a_client_that_goes_away_is_noticed(tty: bool) -> None:
    """A terminal is hung up, a pipe breaks; the server keeps nothing, even with standard input full."""

    async def test() -> None:
        async with serving() as (streams, backend):
            script = "while :; do echo y; sleep 0.05; done" if not tty else "sleep 50"
            wanted = TTY if tty else ALL
            url = sh(streams, script, wanted)
            async with command(url, stdin=True, stdout=True, resize=tty, stderr=not tty) as (_, s):
                await settle(lambda: bool(backend.commands))
                try:
                    async with asyncio.timeout(1):
                        for _ in range(100):
                            await s["stdin"].write(b"z" * 65536)
                except TimeoutError:
                    pass
            await settle(lambda: backend.closed == 1)
            process = backend.commands[0].process
            await settle(lambda: process.poll() is not None)

    run(test)


@pytest.mark.parametrize("version", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
def test_websocket(version: str) -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            url = sh(streams, "head -c 6 | tr a-z A-Z; echo err >&2; exit 5", ALL)
            async with websocket(url, version) as ws:
                await ws.send(0, b"abcdef")
                found = await ws.read_all()
                assert (found[1], found[2], ws.code) == (b"ABCDEF", b"err\n", 1000)
                assert json.loads(found[3])["details"]["causes"] == [{"reason": "ExitCode", "message": "5"}]

    run(test)


@pytest.mark.parametrize(("script", "error"), [("head -c 3", b""), ("exit 5", b"exit status 5")])
def test_websocket_of_the_first_version_tells_an_error_as_text(script: str, error: bytes) -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with websocket(sh(streams, script, ALL), "channel.k8s.io") as ws:
                await ws.send(0, b"abc")
                found = await ws.read_all()
                assert found.get(1, b"") == (b"" if error else b"abc")
                assert error in found.get(3, b"") and bool(found.get(3)) == bool(error)

    run(test)


def test_websocket_v5_closes_stdin_and_resizes() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            async with websocket(sh(streams, "wc -c", ALL), "v5.channel.k8s.io", "v4.channel.k8s.io") as ws:
                await ws.send(0, b"x" * 300_000)
                await ws.send(255, b"\0")
                assert (await ws.read_all())[1] == b"300000\n"
            async with websocket(sh(streams, "read x; stty size", TTY), "v5.channel.k8s.io") as ws:
                await ws.send(4, b'{"Width":91,"Height":17}')
                await asyncio.sleep(0.3)
                await ws.send(0, b"\n")
                assert b"17 91" in (await ws.read_all())[1]

    run(test)


@pytest.mark.parametrize("names", [("v4.base64.channel.k8s.io",), ("base64.channel.k8s.io",), ()])
def test_websocket_protocols_that_are_refused_by_name(names: tuple[str, ...]) -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            with pytest.raises(Refused) as refused:
                async with websocket(sh(streams, "true"), *names):
                    pass
            assert refused.value.status == 400
            for name in (*names, "v5.channel.k8s.io"):
                assert name.encode() in refused.value.body

    run(test)


def test_handshakes_that_are_refused() -> None:
    async def test() -> None:
        async with serving() as (streams, _):
            with pytest.raises(Refused) as refused:
                async with spdy(sh(streams, "true"), "v9.channel.k8s.io"):
                    pass
            assert refused.value.status == 403
            accepted = [value for name, value in refused.value.headers if name == "x-accepted-stream-protocol-versions"]
            assert tuple(accepted) == VERSIONS

    run(test)


def test_requests_that_make_no_sense() -> None:
    streams = Streams(Backend())
    with pytest.raises(InvalidArgument, match="tty and stderr"):
        streams.exec("c", ("sh",), Wanted(True, True, True, True))
    with pytest.raises(InvalidArgument, match="must be set"):
        streams.attach("c", Wanted(False, False, False, False))
    with pytest.raises(InvalidArgument, match="without a command"):
        streams.exec("c", (), OUT)
