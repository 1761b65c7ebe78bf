"""pyrun-probe against real servers on loopback: what it says of an answer is what the agent says that asks once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pyrun.kube.objects.containers import (
    Container,
    ExecAction,
    GRPCAction,
    HTTPGetAction,
    HTTPHeader,
    Probe,
    TCPSocketAction,
)
from pyrun.node.probes import Prober, Result, Steady, Target, Took, asked_of, steady
from pyrun.node.probes.result import MAX_OUTPUT
from pyrun.node.probes.steady import LONGEST_PAUSE_S, LOOK_S, PROGRAM, SLACK_S, SLOTS, Asked, Pauses, Watch

HOST = "127.0.0.1"
PATIENCE_S = 60
UNDER_TEST = Path(os.environ.get("PYRUN_TEST_PROBE", PROGRAM))  # with sanitizers, from test_probe_hosted.py
GOOD, BAD, STRANGE = "good", "bad", "strange"
HEAD = b"HTTP/1.1 200 OK\r\n"


def target(**words: Any) -> Target:
    return Target("c1", Container(name="app", **words), HOST)


def warned(text: str) -> None:
    raise AssertionError(text)


async def no_exec(id: str, argv: tuple[str, ...], timeout: float) -> tuple[int, bytes, bytes]:
    raise AssertionError("nothing was to be executed")


class Heard(NamedTuple):
    """result: None where somebody else is to ask. runs: good ones before."""

    result: Result | None
    runs: int
    last: float


class Asker:
    """pyrun-probe, and what it tells."""

    def __init__(self, steady: Steady) -> None:
        self.steady = steady

    def watch(self, probe: Probe, period: float = 0.01, first: float = 0.0) -> tuple[Watch, asyncio.Future[Heard]]:
        asked = asked_of(probe, target())
        assert asked is not None
        came: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()

        def told(result: Result | None, begun: float) -> None:
            runs, last = made.take()
            made.close()
            came.set_result(Heard(result, runs, last))

        found = self.steady.watch(asked, period, first, told)
        assert found is not None
        made = found
        return made, came

    async def until_good(self, watch: Watch, came: asyncio.Future[Heard], times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE_S):
            runs = 0
            while (runs := runs + watch.take()[0]) < times:
                assert not came.done(), came.result()
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def asker(warn: Callable[[str], None] = warned, program: Path = UNDER_TEST) -> AsyncIterator[Asker]:
    made = Steady(warn, program)
    made.start()
    try:
        yield Asker(made)
    finally:
        made.close()


@contextlib.asynccontextmanager
async def server(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> AsyncIterator[int]:
    """Its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as made:
        yield made.sockets[0].getsockname()[1]


def says(data: bytes, piece: int = 1 << 20) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for at in range(0, len(data), piece):
            writer.write(data[at : at + piece])
            await writer.drain()
            await asyncio.sleep(0)

    return talk


def of(status: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", body]).encode("latin-1")


# What a server answers, and what pyrun-probe makes of it. Where that is not STRANGE, the agent says the same.
ANSWERS: dict[str, tuple[bytes, str]] = {
    "whole": (of("200 OK", "Content-Length: 4", body="fine"), GOOD),
    "until the end": (of("200 OK", body="fine"), GOOD),
    "of 1.0": (b"HTTP/1.0 200 OK\r\n\r\nfine", GOOD),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", GOOD),
    "more than promised": (of("200 OK", "content-length:2", body="fine and more"), GOOD),
    "no content": (of("204 No Content"), GOOD),
    "empty": (of("299 Odd", "CONTENT-LENGTH: \t0 "), GOOD),
    "a long body": (of("200 OK", body="x" * (MAX_OUTPUT + 1)), GOOD),
    "of which only the beginning comes": (of("200 OK", "Content-Length: 99999999", body="x" * MAX_OUTPUT), GOOD),
    "a large head": (of("200 OK", "X-Large: " + "x" * 15000, "Content-Length: 0"), GOOD),
    "refused": (of("404 Not Found", "Content-Length: 4", body="nope"), BAD),
    "broken": (of("503 Service Unavailable", body="ill"), BAD),
    "the last": (of("599 X", "Content-Length: 0"), BAD),
    "nothing": (b"", BAD),
    "a part of the body": (of("200 OK", "Content-Length: 5", body="fine"), BAD),
    "a part of a bad one": (of("500 X", "Content-Length: 5", body="fine"), BAD),
    "a part of the head": (HEAD + b"Content-", STRANGE),
    "redirect": (of("302 Found", "Location: /other", "Content-Length: 0"), STRANGE),
    "to another host": (of("302 Found", "Location: http://192.0.2.1/", "Content-Length: 0"), STRANGE),
    "not modified": (of("304 Not Modified"), STRANGE),
    "interim": (of("100 Continue") + of("200 OK", "Content-Length: 0"), STRANGE),
    "switched": (of("101 Switching Protocols", "Upgrade: odd"), STRANGE),
    "chunked": (of("200 OK", "Transfer-Encoding: chunked", body="4\r\nfine\r\n0\r\n\r\n"), STRANGE),
    "both lengths": (of("200 OK", "Content-Length: 4", "Transfer-Encoding: chunked", body="fine"), STRANGE),
    "two lengths": (of("200 OK", "Content-Length: 4", "Content-Length: 5", body="fine"), STRANGE),
    "no length": (of("200 OK", "Content-Length: four", body="fine"), STRANGE),
    "a negative length": (of("200 OK", "Content-Length: -1", body="fine"), STRANGE),
    "a length of many digits": (of("200 OK", "Content-Length: 18446744073709551617", body="x"), STRANGE),
    "folded": (of("200 OK", "X-One: 1", " more", "Content-Length: 0"), STRANGE),
    "a space before the colon": (of("200 OK", "Content-Length : 4", body="fine"), STRANGE),
    "lines of another system": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", STRANGE),
    "a NUL": (of("200 OK", "X-One: a\0b", "Content-Length: 0"), STRANGE),
    "a name of none": (of("200 OK", ": 1", "Content-Length: 0"), STRANGE),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", STRANGE),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n", STRANGE),
    "a status of two digits": (b"HTTP/1.1 20 OK\r\n\r\n", STRANGE),
    "a status beyond all": (of("999 Odd", "Content-Length: 0"), STRANGE),
    "an endless head": (of("200 OK", *(["X-Large: " + "x" * 1000] * 300)), STRANGE),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_what_the_agent_says_of_it(name: str) -> None:
    data, wanted = ANSWERS[name]

    async def main() -> None:
        async with server(says(data)) as port, asker() as c:
            probe = Probe(httpGet=HTTPGetAction(port=port, path="/healthz?x=1"), timeoutSeconds=PATIENCE_S)
            once = await Prober(no_exec).run(probe, target())
            watch, came = c.watch(probe)
            if wanted == GOOD:
                assert once.good is True, once
                await c.until_good(watch, came, 3)
                return
            heard = await asyncio.wait_for(came, PATIENCE_S)
            assert heard.runs == 0 and (heard.result is None) is (wanted == STRANGE), heard
            assert heard.result is None or heard.result == once

    asyncio.run(main())


@pytest.mark.parametrize("name", [name for name, (data, _) in ANSWERS.items() if len(data) < 200])
def test_an_answer_that_comes_byte_by_byte(name: str) -> None:
    data, wanted = ANSWERS[name]

    async def main() -> None:
        async with server(says(data, 1)) as port, asker() as c:
            probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=PATIENCE_S)
            watch, came = c.watch(probe, period=PATIENCE_S)
            if wanted == GOOD:
                return await c.until_good(watch, came)
            heard = await asyncio.wait_for(came, PATIENCE_S)
            assert (heard.result is None) is (wanted == STRANGE), heard

    asyncio.run(main())


def test_the_request_is_the_same() -> None:
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(of("200 OK", "Content-Length: 0"))

    async def main() -> None:
        headers = [HTTPHeader(name="Host", value="shop.example"), HTTPHeader(name="X-One", value="1")]
        async with server(talk) as port, asker() as c:
            probe = Probe(httpGet=HTTPGetAction(port=port, path="/a b", httpHeaders=headers), timeoutSeconds=PATIENCE_S)
            assert (await Prober(no_exec).run(probe, target())).good
            await c.until_good(*c.watch(probe))

    asyncio.run(main())
    assert len(heads) >= 2 and set(heads) == {heads[0]} and heads[0].startswith(b"GET /a%20b HTTP/1.1\r\n")


@pytest.mark.parametrize("kind", ["http", "tcp"])
def test_a_port_at_which_nobody_listens_any_more(kind: str) -> None:
    async def main() -> None:
        async with asker() as c:
            async with server(says(of("200 OK", "Content-Length: 0"))) as port:
                probe = Probe(tcpSocket=TCPSocketAction(port=port), timeoutSeconds=PATIENCE_S)
                if kind == "http":
                    probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=PATIENCE_S)
                watch, came = c.watch(probe)
                await c.until_good(watch, came, 3)
            await asyncio.wait_for(came, PATIENCE_S)  # what had connected as the server went may have been reset
            heard = await asyncio.wait_for(c.watch(probe)[1], PATIENCE_S)
            assert heard.result == await Prober(no_exec).run(probe, target())
            assert heard.result.good is False and heard.result.output.endswith(": connect: connection refused")

    asyncio.run(main())


SLOW: dict[str, bytes] = {
    "nothing": b"",
    "half a head": HEAD + b"Content-Len",
    "half a body": of("200 OK", "Content-Length: 9", body="fine"),
    "no end": of("200 OK", body="fine"),
}


@pytest.mark.parametrize("name", SLOW)
def test_a_server_that_keeps_us_waiting(name: str) -> None:
    """In the words of the agent's own."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SLOW[name])
        await writer.drain()
        while await reader.read(1 << 16):
            pass

    async def main() -> None:
        async with server(talk) as port, asker() as c:
            probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=1)
            _, came = c.watch(probe)
            once, heard = await asyncio.gather(Prober(no_exec).run(probe, target()), asyncio.wait_for(came, PATIENCE_S))
            assert heard.result == once
            assert "context deadline exceeded" in (heard.result.output if heard.result else "")

    asyncio.run(main())


def test_a_server_that_breaks_off() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER: a reset
        writer.transport.abort()

    async def main() -> None:
        async with server(talk) as port, asker() as c:
            probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=PATIENCE_S)
            _, came = c.watch(probe)
            heard = await asyncio.wait_for(came, PATIENCE_S)
            assert heard.result == await Prober(no_exec).run(probe, target())
            assert heard.result.output.endswith("read tcp: connection reset by peer")

    asyncio.run(main())


def test_what_is_not_wanted_any_more_is_not_asked() -> None:
    asked: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(1)
        await says(of("200 OK", "Content-Length: 0"))(reader, writer)

    async def main() -> None:
        async with server(talk) as port, server(says(b"")) as other, asker() as c:
            probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=PATIENCE_S)
            watch, came = c.watch(probe)
            await c.until_good(watch, came)
            watch.close()
            bad = Probe(httpGet=HTTPGetAction(port=other), timeoutSeconds=PATIENCE_S)
            for _ in range(2):  # the first may have met one that was under way
                _, end = c.watch(bad)
                await asyncio.wait_for(end, PATIENCE_S)
            before = len(asked)
            for _ in range(20):
                _, end = c.watch(bad, first=0.02)
                await asyncio.wait_for(end, PATIENCE_S)
            assert len(asked) == before and not came.done()

    asyncio.run(main())


def test_many_at_once_and_no_more_than_there_are_places() -> None:
    async def main() -> None:
        async with server(says(of("200 OK", "Content-Length: 0"))) as port, asker() as c:
            probe = Probe(tcpSocket=TCPSocketAction(port=port), timeoutSeconds=PATIENCE_S)
            asked = asked_of(probe, target())
            assert asked is not None
            made: list[Watch] = []
            while len(made) < SLOTS:
                found = c.steady.watch(asked, PATIENCE_S, 3600.0, lambda result, begun: None)
                if found is None:
                    await asyncio.sleep(0.001)  # it has not read them all yet
                else:
                    made.append(found)
            assert c.steady.watch(asked, 1.0, 0.0, lambda result, begun: None) is None
            made.pop().close()
            await c.until_good(*c.watch(probe))

    asyncio.run(main())


async def until_started(c: Asker, before: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while c.steady._pid in (0, before):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_one_that_ends_or_hangs_is_told_of_and_the_next_begins(how: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All is asked from here before it does; the old one is gone, and what it had counted stays."""
    monkeypatch.setattr(steady, "LOOK_S", 0.05)
    monkeypatch.setattr(steady, "SLACK_S", 1.0)
    monkeypatch.setattr(steady, "END_S", PATIENCE_S)
    monkeypatch.setattr(steady, "FIRST_PAUSE_S", 3.0)

    async def main() -> None:
        warnings: list[str] = []
        async with server(says(of("200 OK", "Content-Length: 0"))) as port, asker(warnings.append) as c:
            probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=10)
            one, one_came = c.watch(probe)
            await c.until_good(one, one_came)
            other, other_came = c.watch(probe)  # counts from here, at another place
            await c.until_good(other, other_came)
            old = c.steady._pid
            os.kill(old, how)
            for heard in await asyncio.wait_for(asyncio.gather(one_came, other_came), PATIENCE_S):
                assert heard.result is not None and heard.result.good is None and heard.last > 0
            asked = asked_of(probe, target())
            assert asked is not None and c.steady.watch(asked, 1.0, 0.0, lambda result, begun: None) is None
            assert not Path(f"/proc/{old}").exists()
            await until_started(c, old)
            assert one.take()[0] == 0
            await c.until_good(*c.watch(probe), 3)
        assert len(warnings) == 1 and "asked by the agent" in warnings[0], warnings

    asyncio.run(main())


def test_who_is_told_of_one_may_close_the_others() -> None:
    async def main() -> None:
        warnings: list[str] = []
        made: list[Watch] = []
        told: list[int] = []

        def hear(result: Result | None, begun: float) -> None:
            told.append(1)
            for watch in made:
                watch.close()

        async with asker(warnings.append) as c:
            for _ in range(3):
                found = c.steady.watch(Asked(HOST, 1, "dial tcp", b"", 1.0), 60.0, 3600.0, hear)
                assert found is not None
                made.append(found)
            os.kill(c.steady._pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_S):
                while not told:
                    await asyncio.sleep(0.01)
            assert told == [1] and len(c.steady._free) == SLOTS

    asyncio.run(main())


def test_no_alarm_where_the_agent_itself_was_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long we, or all of the machine, have not run: another look comes first."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    async def main() -> None:
        warnings: list[str] = []
        async with asker(warnings.append) as c:
            heard: list[Result | None] = []
            asked = Asked(HOST, 1, "dial tcp", b"", 1.0)
            assert c.steady.watch(asked, 10.0, 30.0, lambda result, begun: heard.append(result))
            looks = int((30.0 + 10.0 + 1.0 + SLACK_S) / LOOK_S)
            for _ in range(looks):
                assert not heard
                now[0] += 86400.0
                c.steady._look()
            now[0] += LOOK_S
            c.steady._look()
            assert [result.good for result in heard if result] == [None] and len(warnings) == 1

    asyncio.run(main())


def test_pauses_are_longer_each_time_until_all_was_well() -> None:
    pauses, now = Pauses(), 1000.0
    found = []
    for _ in range(11):
        found.append(pauses.next(now))
        now = pauses.until + LONGEST_PAUSE_S
    assert found == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert pauses.next(now + 1) == 1


def test_a_shortage_of_its_own_is_no_verdict_and_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a descriptor for one connection: of another the agent asks for a while, and hands it over again."""
    monkeypatch.setattr(steady, "FIRST_PAUSE_S", 3.0)
    few = tmp_path / "few"
    few.write_text(f'#!/bin/sh\nulimit -n 6\nexec {UNDER_TEST} "$@"\n')
    few.chmod(0o755)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await may_end.wait()

    connected, may_end = asyncio.Event(), asyncio.Event()

    async def main() -> None:
        warnings: list[str] = []
        good = says(of("200 OK", "Content-Length: 0"))
        async with server(silent) as other, server(good) as port, asker(warnings.append, few) as c:
            probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=PATIENCE_S)
            asked = asked_of(probe, target())
            assert asked is not None
            _, end = c.watch(Probe(httpGet=HTTPGetAction(port=other), timeoutSeconds=PATIENCE_S))
            await asyncio.wait_for(connected.wait(), PATIENCE_S)
            heard = await asyncio.wait_for(c.watch(probe)[1], PATIENCE_S)
            assert heard.result == Result(None, "too many open files")
            assert c.steady.watch(asked, 1.0, 0.0, lambda result, begun: None) is None
            may_end.set()
            assert (await asyncio.wait_for(end, PATIENCE_S)).result is not None
            async with asyncio.timeout(PATIENCE_S):
                while (again := c.steady.watch(asked, 0.01, 0.0, lambda result, begun: None)) is None:
                    await asyncio.sleep(0.01)
                while not again.take()[0]:
                    await asyncio.sleep(0.01)
        assert len(warnings) == 1 and "too many open files" in warnings[0], warnings

    asyncio.run(main())


def test_how_long_answers_took() -> None:
    """Each in its bucket, and none twice."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.12)
        writer.write(of("200 OK", "Content-Length: 0"))

    async def main() -> None:
        async with server(slow) as port, asker() as c:
            watch, came = c.watch(Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=PATIENCE_S))
            took, runs = Took(), 0
            async with asyncio.timeout(PATIENCE_S):
                while runs < 3:
                    assert not came.done(), came.result()
                    await asyncio.sleep(0.005)
                    watch.take_durations(took)
                    runs += watch.take()[0]
            watch.take_durations(took)
            assert sum(took.counts) >= 3 and sum(took.counts[:5]) == 0, "none was as quick as 0.1 s"
            assert took.seconds >= 0.12 * sum(took.counts)
            watch.close()
            other, _ = c.watch(Probe(httpGet=HTTPGetAction(port=port)), first=3600.0)
            again = Took()
            other.take_durations(again)
            assert (sum(again.counts), again.seconds) == (0, 0.0)

    asyncio.run(main())


def test_buckets_have_their_bounds() -> None:
    took = Took()
    for seconds in (0.0, 0.005, 0.006, 10, 11):
        took.add(seconds)
    assert took.counts == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1] and took.seconds == pytest.approx(21.011)


def test_a_place_that_somebody_had_before_counts_from_nothing() -> None:
    async def main() -> None:
        async with server(says(of("200 OK", "Content-Length: 0"))) as port, asker() as c:
            probe = Probe(httpGet=HTTPGetAction(port=port), timeoutSeconds=PATIENCE_S)
            first, came = c.watch(probe)
            await c.until_good(first, came, 3)
            first.close()
            second, _ = c.watch(probe, first=3600.0)
            assert second.slot == first.slot and second.take() == (0, 0.0) and first.take()[0] >= 0

    asyncio.run(main())


def test_a_program_that_is_not_there() -> None:
    async def main() -> None:
        warnings: list[str] = []
        made = Steady(warnings.append, Path("/nonexistent/pyrun-probe"))
        made.start()
        asked = Asked(HOST, 1, "dial tcp", b"", 1.0)
        assert made.watch(asked, 1.0, 0.0, lambda result, begun: None) is None
        made.close()
        assert len(warnings) == 1 and "no such file" in warnings[0]

    asyncio.run(main())


OURS = {
    "a name": Probe(httpGet=HTTPGetAction(port=80, host="localhost")),
    "TLS": Probe(httpGet=HTTPGetAction(port=443, scheme="HTTPS")),
    "gRPC": Probe(grpc=GRPCAction(port=80)),
    "a command": Probe(exec=ExecAction(command=["true"])),
    "a link's address": Probe(tcpSocket=TCPSocketAction(port=80, host="fe80::1%eth0")),
    "no such port": Probe(tcpSocket=TCPSocketAction(port="web")),
    "a line's end in a header": Probe(
        httpGet=HTTPGetAction(port=80, httpHeaders=[HTTPHeader(name="X", value="\r\nb")])
    ),
    "a large request": Probe(httpGet=HTTPGetAction(port=80, path="/" + "x" * 9000)),
    "a long time": Probe(httpGet=HTTPGetAction(port=80), timeoutSeconds=2**31 - 1),
}


@pytest.mark.parametrize("name", OURS)
def test_what_the_agent_asks_itself(name: str) -> None:
    assert asked_of(OURS[name], target()) is None


def test_it_may_do_next_to_nothing() -> None:
    """No capability, another user, filtered system calls."""

    async def main() -> str:
        async with server(says(of("200 OK", "Content-Length: 0"))) as port, asker() as c:
            await c.until_good(*c.watch(Probe(tcpSocket=TCPSocketAction(port=port), timeoutSeconds=PATIENCE_S)))
            return Path(f"/proc/{c.steady._pid}/status").read_text()

    found = dict(line.split(":\t", 1) for line in asyncio.run(main()).splitlines())
    assert not found["CapEff"].strip("0") and not found["CapPrm"].strip("0")
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "1")
    if os.geteuid() == 0:
        assert set(found["Uid"].split()) == {"65052"} and not found["Groups"].strip()


def test_a_clock_that_is_set_far_back_is_no_error() -> None:
    async def main() -> None:
        async with asker() as c:
            watch, _ = c.watch(Probe(tcpSocket=TCPSocketAction(port=1)), first=1e9)
            watch.close()

    asyncio.run(main())
