"""Manifests of a URL: asked for by turns, and its last good answer kept, also on disk.

It is a file of the source like any other, whose name is the URL up to its question mark. What it said last is there
before its first answer, so that a node whose server is away goes on, and comes up again after a boot; an answer that
has a fault, or none, changes nothing. Source: kubernetes pkg/kubelet/config/http.go, which has this bound and deadline.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ipaddress
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import urllib3

from ...errors import InvalidArgument, PyrunError
from ...kube.client import unreachable
from ...kube.connections import Connections
from ...kube.kubeconfig import Cluster
from ...kube.manifest import read
from ..manifests import Fault
from .applied import write_file
from .source import Key, Source, Wanted, key_of, read_file

PERIOD_S = 20
MOST_BYTES = 10 << 20
WHOLE_S = 10.0  # for an answer, and for each wait in it
LATE_S = 20.0  # then whoever answers byte by byte is hung up on
MODE = 0o600  # there may be Secrets in it
FORBIDDEN_HEADERS = ("host", "connection", "content-length", "transfer-encoding", "if-none-match", "accept-encoding")
T = TypeVar("T")
NO_ANSWER = "has not answered yet; what it said last stays"


@dataclass(frozen=True, slots=True)
class Url:
    """headers: sent with each request. period: seconds between two. ca_file: whom to believe; None for the machine's
    own authorities."""

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    period: float = float(PERIOD_S)
    ca_file: str | None = None

    @property
    def name(self) -> str:
        """What is told of it: what is behind its ? may be a secret, as with a signed one."""
        return told(self.url)


def told(url: str) -> str:
    place, question, _ = url.partition("?")
    return place + question + "…" * bool(question)


def parse_url(text: str, headers: Iterable[str] = (), period: int = PERIOD_S, ca_file: str | None = None) -> Url:
    """headers: NAME:VALUE each. InvalidArgument. Who sends the manifests is root on this node, so he is known by a
    certificate, or is on this machine."""
    try:
        found = urlsplit(text)
        host, _ = found.hostname, found.port
    except ValueError as error:
        raise InvalidArgument(f"--manifest-url: {error}") from None
    if found.scheme not in ("http", "https") or not host or not text.isascii() or not text.isprintable():
        raise InvalidArgument("--manifest-url: must be https://HOST[:PORT]/PATH")
    if found.username is not None or found.fragment:
        raise InvalidArgument(
            "--manifest-url: a user or a fragment has no place in it",
            hint="--manifest-url-header 'Authorization: Basic …' says who we are",
        )
    if found.scheme == "http" and not _is_loopback(host):
        hint = "https, with --manifest-url-ca-file for an authority of your own, or an address of loopback"
        raise InvalidArgument(f"--manifest-url: whoever is between here and {host} would be root here", hint=hint)
    if ca_file and found.scheme == "http":
        raise InvalidArgument("--manifest-url-ca-file: needs a URL of https")
    if period < 1:
        raise InvalidArgument(f"--http-check-frequency {period}: must be 1 second or more")
    return Url(text, tuple(_header(one) for one in headers), float(period), ca_file)


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not name or not name.replace("-", "").isalnum() or not text.isascii() or not text.isprintable():
        raise InvalidArgument("--manifest-url-header: must be NAME: VALUE")  # its value may be a secret
    if name.lower() in FORBIDDEN_HEADERS:
        raise InvalidArgument(f"--manifest-url-header: {name} is the client's own")
    return name, value


class Answer(NamedTuple):
    """data: None where it is the one that we have."""

    data: bytes | None
    tag: str = ""


class Fetcher:
    """Asks for it, in any thread, one at a time."""

    def __init__(self, url: Url) -> None:
        self._url = url
        parts = urlsplit(url.url)
        self._what = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
        server = f"{parts.scheme}://{parts.netloc}"
        self._connections = Connections(Cluster(server, ca_file=url.ca_file, headers=url.headers))
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._connection: Any = None  # the newest of its connections

    def _remembering(self) -> urllib3.HTTPConnectionPool:
        """Its connections can be hung up."""
        pool = self._connections.pool()
        if pool is not self._pool:
            make = pool.ConnectionCls

            def remembered(*args: Any, **words: Any) -> Any:
                self._connection = made = make(*args, **words)
                return made

            pool.ConnectionCls = remembered  # type: ignore[assignment]
            self._pool = pool
        return pool

    def hang_up(self) -> None:
        """From another thread: fetch() fails. While TLS is begun there is nothing to be hung up yet."""
        sock = getattr(self._connection, "sock", None)
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not the SSLSocket's, which would go on in the clear

    def fetch(self, tag: str) -> Answer:
        """tag: of what we have. PyrunError where there is no answer that could be used."""
        headers = [*self._connections.headers(), ("Accept", "application/yaml, application/json, */*")]
        headers += [("Accept-Encoding", "identity"), *([("If-None-Match", tag)] if tag else [])]
        last = time.monotonic() + WHOLE_S
        response: urllib3.BaseHTTPResponse | None = None
        try:
            response = self._remembering().urlopen(
                "GET",
                self._what,
                headers=urllib3.HTTPHeaderDict(headers),
                redirect=False,
                retries=False,
                preload_content=False,
                timeout=urllib3.Timeout(connect=WHOLE_S, read=WHOLE_S),
            )
            return self._read(response, tag, last)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise unreachable("GET", error) from None
        finally:
            if response is not None:
                response.close()

    @staticmethod
    def _read(response: urllib3.BaseHTTPResponse, tag: str, last: float) -> Answer:
        if response.status == 304 and tag:
            return Answer(None, tag)
        if 300 <= response.status < 400:
            place = told(response.headers.get("Location", "")[:200])
            raise PyrunError(f"GET: leads elsewhere, to {place!r}", hint="name that one, if you trust it")
        if response.status != 200:
            raise PyrunError(f"GET: answered {response.status}")
        data = bytearray()
        while part := response.read1(1 << 16):  # an answer that is not whole is urllib3's IncompleteRead
            data += part
            if len(data) > MOST_BYTES:
                raise PyrunError(f"GET: more than {MOST_BYTES >> 20} MiB")
            if time.monotonic() > last:
                raise PyrunError(f"GET: not whole within {WHOLE_S:.0f} s")
        return Answer(bytes(data), response.headers.get("ETag", ""))

    def close(self) -> None:
        self._connections.close()


class UrlSource:
    """source: of which it is a file. directory: where its last good answer is kept. last: pods that an agent before
    this one had of any URL, where no answer is kept."""

    def __init__(
        self,
        url: Url,
        source: Source,
        directory: str,
        node: str,
        warn: Callable[[str], None],
        last: Iterable[Wanted],
    ) -> None:
        self.url, self._source, self._node, self._warn = url, source, node, warn
        self._path = f"{directory}/manifest-url.json"
        self._fetcher = Fetcher(url)
        self._data, self._tag = b"", ""
        self._error = ""
        self._objects: dict[Key, Wanted] = {}
        self._faults: list[Fault] = []
        self.heard = self._recall()
        if not self.heard:
            self._objects = {key_of(one.object): one._replace(file=url.name) for one in last if "://" in one.file}
        self._error = NO_ANSWER
        self._show()

    async def for_ever(self) -> None:
        while True:
            try:
                await self._take(await self._fetch())
            except PyrunError as error:
                self._failed(str(error))
            except Exception as error:  # a fault of ours: the next answer may be another
                self._failed(f"{type(error).__name__}: {error}")
            await asyncio.sleep(self.url.period)

    async def _fetch(self) -> Answer:
        asked = asyncio.ensure_future(_in_thread(lambda: self._fetcher.fetch(self._tag)))
        try:
            while not (await asyncio.wait([asked], timeout=LATE_S))[0]:
                self._failed(f"GET: no whole answer within {LATE_S:.0f} s")
                self._fetcher.hang_up()
            return asked.result()
        finally:
            asked.cancel()

    def close(self) -> None:
        self._fetcher.close()

    # --- what it says ---

    async def _take(self, answer: Answer) -> None:
        data = answer.data
        if data is None or (data == self._data and self.heard):
            self._faults, self._tag = [], answer.tag
        else:
            objects, faults = await _in_thread(lambda: self._parse(data))
            if not faults:
                self._objects, self._data, self._tag, self.heard = objects, data, answer.tag, True
                await asyncio.to_thread(self._keep)  # before anything relies on it
            elif faults != self._faults:
                for fault in faults:
                    self._warn(f"{fault}; what it said before stays")
            self._tag = "" if faults else self._tag  # asked whole, until it is good
            self._faults = faults
        if self._error not in ("", NO_ANSWER):
            self._warn(f"{self.url.name}: answers again")
        self._error = ""
        self._show()

    def _parse(self, data: bytes) -> tuple[dict[Key, Wanted], list[Fault]]:
        objects, faults = read_file(self.url.name, self._node, data, self._source.suffix)
        if not objects and not faults and not _says_none(data):
            faults = [Fault(self.url.name, 1, 1, "", "there is no object in it: a List without items says that")]
        return objects, faults

    def _failed(self, error: str) -> None:
        if error != self._error:
            self._warn(f"{self.url.name}: {error}; what it said before stays")
        self._error = error
        self._show()

    def _show(self) -> None:
        faults = list(self._faults)
        if self._error:
            faults.append(Fault(self.url.name, 1, 1, "", self._error))
        self._source.put(self.url.name, self._objects, faults, heard=self.heard)

    # --- what is kept ---

    def _recall(self) -> bool:
        """What it said last, to an agent before this one."""
        if not os.path.exists(self._path):
            return False
        try:
            kept = json.loads(read(self._path))
            if kept["url"] != self.url.url:
                return False
            data, tag = base64.b64decode(kept["data"], validate=True), str(kept["tag"])
            if kept["digest"] != _digest(data):
                raise ValueError("its digest is another")
        except (PyrunError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._warn(f"{self._path}: can't be read, so the first answer is waited for: {error}")
            return False
        objects, faults = self._parse(data)
        if faults:  # another version took it
            for fault in faults:
                self._warn(str(fault))
            return False
        self._objects, self._data, self._tag = objects, data, tag
        return True

    def _keep(self) -> None:
        text = base64.b64encode(self._data).decode()
        kept = {"url": self.url.url, "tag": self._tag, "digest": _digest(self._data), "data": text}
        try:
            write_file(self._path, json.dumps(kept).encode(), MODE)
        except PyrunError as error:
            self._warn(f"what {self.url.name} says can't be kept: {error}")


async def _in_thread(work: Callable[[], T]) -> T:
    """In one that nobody waits for when the agent ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(found: list[T], error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(found[0])

    def run() -> None:
        found: list[T] = []
        error = None
        try:
            found.append(work())
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, found, error)

    threading.Thread(target=run, name="url", daemon=True).start()
    return await done


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _says_none(data: bytes) -> bool:
    """A List whose items are none: nothing is wanted, and that is said."""
    from ...kube.events import roots

    found = [root for root, _ in (one for one in roots(data, "") if isinstance(one, tuple)) if root is not None]
    return len(found) == 1 and isinstance(found[0], dict) and found[0].get("items") == []
