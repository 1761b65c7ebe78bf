"""Manifests of a URL, from a real server: what of its answers counts, and what stays where it has none."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from pyrun.errors import InvalidArgument
from pyrun.node.agent import url_source
from pyrun.node.agent.source import Source, Wanted
from pyrun.node.agent.url_source import MOST_BYTES, NO_ANSWER, Url, UrlSource, parse_url, told
from tests.support.node.manifest_server import ManifestServer, a_manifest_server
from tests.support.node.world import pod_of
from tests.support.serving import end_threads

PATIENCE_S = 60.0
ONE = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME}\nspec: {containers: [{name: c, image: i}]}\n"


@pytest.fixture
def server() -> Iterator[ManifestServer]:
    with a_manifest_server() as found:
        yield found


class Node:
    """What a node would see. changes: how often it was told that something else is wanted."""

    def __init__(self, path: Path, url: str, last: tuple[Wanted, ...] = (), *headers: str) -> None:
        (path / "manifests").mkdir(exist_ok=True)
        self.said: list[str] = []
        self.changes = 0
        self.source = Source(str(path / "manifests"), "n1", self._changed, self.said.append, last)
        given = parse_url(url, headers)
        faster = Url(given.url, given.headers, 0.02, given.ca_file)
        self.url = UrlSource(faster, self.source, str(path), "n1", self.said.append, last)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def pods(self) -> list[str]:
        return sorted(name for _, _, name in self.source.objects)

    @property
    def faults(self) -> list[str]:
        return [fault.text for fault in self.source.faults]

    async def until(self, true: Callable[[], object]) -> None:
        last = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < last, (self.pods, self.faults, self.said)
            await asyncio.sleep(0.01)


def follow(node: Node, work: Callable[[Node], Awaitable[None]]) -> None:
    async def run() -> None:
        node.source.start()
        task = asyncio.ensure_future(node.url.for_ever())
        try:
            await work(node)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            node.source.stop()
            node.url.close()

    asyncio.run(run())


def pods(*names: str) -> str:
    return "---\n".join(ONE.replace("NAME", name) for name in names)


def test_it_is_asked_with_headers_and_by_its_tag(server: ManifestServer, tmp_path: Path) -> None:
    server.say(pods("a", "b"), '"1"')
    node = Node(tmp_path, server.url, (), "Authorization: Bearer word", "X-A:b")

    async def work(node: Node) -> None:
        assert node.pods == [] and node.faults == [NO_ANSWER] and not node.source.complete and node.source.read
        await node.until(lambda: node.pods == ["a", "b"])
        assert node.faults == [] and node.source.complete
        first, count = server.asked[0], len(server.asked)
        assert (first["path"], first["authorization"], first["x-a"]) == ("/pods.yaml?of=n1", "Bearer word", "b")
        assert "if-none-match" not in first
        await node.until(lambda: len(server.asked) > count + 3)
        assert server.asked[-1]["if-none-match"] == '"1"' and node.faults == []
        told = node.changes
        server.say(pods("b", "c"), '"2"')
        await node.until(lambda: node.pods == ["b", "c"])
        assert node.changes == told + 1

    follow(node, work)
    kept = tmp_path / "manifest-url.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


BAD = {
    "an error": (pods("x"), {"status": 500}, "answered 500"),
    "not there": ("", {"status": 404}, "answered 404"),
    "elsewhere": ("", {"status": 302}, "leads elsewhere, to 'http://other/'"),
    "not whole": (pods("x"), {"length": 10_000}, "IncompleteRead"),
    "too much": (b"#" * (MOST_BYTES + 1), {}, "more than 10 MiB"),
    "nothing": ("", {}, "there is no object in it: a List without items says that"),
    "a comment": ("# none\n", {}, "there is no object in it"),
    "no YAML": ("{", {}, ""),
    "a wrong field": (pods("x").replace("image", "imagee"), {}, "did you mean image"),
    "one of two wrong": (pods("x", "y").replace("image: i}]}\n---", "imagee: i}]}\n---"), {}, "did you mean image"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_is_no_good_answer_changes_nothing_and_is_told(server: ManifestServer, tmp_path: Path, name: str) -> None:
    data, how, wanted = BAD[name]
    server.place = "http://other/" if name == "elsewhere" else ""
    server.say(pods("a"), '"1"')

    async def work(node: Node) -> None:
        await node.until(lambda: node.pods == ["a"] and not node.faults)
        server.say(data, '"2"', **how)  # type: ignore[arg-type]
        await node.until(lambda: node.faults)
        assert node.pods == ["a"] and any(wanted in fault for fault in node.faults)
        assert any(told(server.url) in line and "stays" in line for line in node.said)
        assert not any("of=n1" in line for line in [*node.said, *map(str, node.source.faults)])
        assert sum("stays" in line for line in node.said) <= len(node.faults)  # once, and not with each turn
        server.say(pods("a"), '"1"')
        await node.until(lambda: not node.faults)
        assert node.pods == ["a"]

    follow(Node(tmp_path, server.url), work)


def test_a_list_of_none_means_none(server: ManifestServer, tmp_path: Path) -> None:
    server.say(pods("a"))

    async def work(node: Node) -> None:
        await node.until(lambda: node.pods == ["a"])
        server.say('{"apiVersion": "v1", "kind": "PodList", "items": []}')
        await node.until(lambda: node.pods == [])
        assert node.faults == []

    follow(Node(tmp_path, server.url), work)


def test_what_it_said_last_is_there_before_it_answers(server: ManifestServer, tmp_path: Path) -> None:
    """Also to the next agent, and after a boot."""
    server.say(pods("a"), '"1"')

    async def first(node: Node) -> None:
        await node.until(lambda: node.pods == ["a"])

    follow(Node(tmp_path, server.url), first)
    server.say("", status=503)

    async def again(node: Node) -> None:
        assert node.pods == ["a"] and node.source.complete and node.changes == 1
        await node.until(lambda: any("answered 503" in fault for fault in node.faults))
        assert node.pods == ["a"]
        server.say(pods("a"), '"1"')
        await node.until(lambda: not node.faults)
        assert server.asked[-1]["if-none-match"] == '"1"' and node.changes == 1

    follow(Node(tmp_path, server.url), again)


def test_without_what_it_said_its_pods_stay_until_it_answers(server: ManifestServer, tmp_path: Path) -> None:
    """Nothing is known to be unwanted before, whatever was kept is lost, damaged or another URL's."""
    server.say("", status=503)
    last = pod_of("containers: [{name: c}]")
    assert last.metadata is not None
    last.metadata.namespace = "default"
    (tmp_path / "manifest-url.json").write_text("{")

    async def work(node: Node) -> None:
        await node.until(lambda: any("answered 503" in fault for fault in node.faults))
        assert node.pods == ["p"] and not node.source.complete and told(server.url) in node.source.broken
        server.say(pods("a"))
        await node.until(lambda: node.pods == ["a"])
        assert node.source.complete

    follow(Node(tmp_path, server.url, (Wanted(last, "https://other/", "https://other/"),)), work)


def test_a_file_comes_first(server: ManifestServer, tmp_path: Path) -> None:
    server.say(pods("a", "b"))
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/a.yaml").write_text(pods("a"))

    async def work(node: Node) -> None:
        await node.until(lambda: node.pods == ["a", "b"])
        kept = node.source.objects["Pod", "default", "a"]
        assert kept.file.endswith("/manifests/a.yaml") and node.source.paths == {kept.file}
        (fault,) = node.faults
        assert "Pod default/a is in" in fault

    follow(Node(tmp_path, server.url), work)


def test_nobody_waits_for_a_server_that_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(url_source, "WHOLE_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        async def work(node: Node) -> None:
            await node.until(lambda: any("timed out" in fault for fault in node.faults))

        follow(Node(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}/"), work)


def test_who_answers_byte_by_byte_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait of it is long, and there is no end of them."""
    monkeypatch.setattr(url_source, "LATE_S", 0.2)
    gone = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as slow:

        def answer() -> None:
            stream, _ = slow.accept()
            with stream:
                stream.recv(1 << 16)
                stream.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                last = time.monotonic() + PATIENCE_S
                with contextlib.suppress(OSError):
                    while time.monotonic() < last:
                        stream.sendall(b"x")
                        time.sleep(0.02)
                    return
            gone.set()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()

        async def work(node: Node) -> None:
            await node.until(lambda: any("no whole answer within" in fault for fault in node.faults))
            await node.until(gone.is_set)

        follow(Node(tmp_path, f"http://127.0.0.1:{slow.getsockname()[1]}/"), work)
        end_threads(thread)


@pytest.mark.parametrize(
    ("url", "headers", "more", "wanted"),
    [
        ("http://192.0.2.1/pods", (), {}, "whoever is between here and 192.0.2.1 would be root here"),
        ("ftp://h/", (), {}, "must be https://"),
        ("https:///pods", (), {}, "must be https://"),
        ("https://h:x/", (), {}, "manifest-url"),
        ("https://me:word@h/", (), {}, "a user or a fragment has no place in it"),
        ("https://h/", ("no colon",), {}, "must be NAME: VALUE"),
        ("https://h/", ("A: b\nC: d",), {}, "must be NAME: VALUE"),
        ("https://h/", ("Host: h",), {}, "Host is the client's own"),
        ("https://h/", (), {"period": 0}, "must be 1 second or more"),
        ("http://localhost/", (), {"ca_file": "/ca"}, "needs a URL of https"),
    ],
)
def test_a_url_that_is_refused(url: str, headers: tuple[str, ...], more: dict[str, int], wanted: str) -> None:
    with pytest.raises(InvalidArgument, match=wanted) as told:
        parse_url(url, headers, **more)  # type: ignore[arg-type]
    assert "word" not in str(told.value)


def test_a_url_that_is_taken() -> None:
    assert parse_url("https://h/p", ("A: b:c",), 5, "/ca") == Url("https://h/p", (("A", "b:c"),), 5.0, "/ca")
    assert parse_url("http://[::1]:80/").period == 20.0
