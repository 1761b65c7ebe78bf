"""HTTP and HTTPS: a GET, whose answer is read by h11 within bounds. Certificates are not verified, as in a kubelet;
nothing of the environment, such as a proxy, is looked at.

Source: kubernetes pkg/probe/http/http.go. The time is the caller's to bound.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

import h11

from ...kube.objects.containers import HTTPHeader
from .result import MAX_OUTPUT, Result, text_of
from .tcp import DialError, connect, leave
from .url import Url, headers_of, redirected

LONGEST_HEAD = 256 << 10
MOST_INTERIM = 5  # answers 1xx before the real one, as net/http takes them
MOST_REDIRECTS = 10
CHUNK = 16 << 10


class HttpError(Exception):
    """No whole answer came."""


class Answer(NamedTuple):
    """body: the first MAX_OUTPUT bytes."""

    status: int
    location: str | None
    body: bytes


async def ask_http(url: Url, given: list[HTTPHeader] | None, agent: str, context: ssl.SSLContext) -> Result:
    """200 to 399 is good; an answer that leads to another host is good with a warning."""
    try:
        answer = await get(url, given, agent, context)
    except (DialError, HttpError) as error:
        return Result(False, f'Get "{url}": {error}')
    body = text_of(answer.body)
    if not 200 <= answer.status < 400:
        return Result(False, f"HTTP probe failed with statuscode: {answer.status}")
    if answer.status >= 300:
        return Result(True, f"Probe terminated redirects, Response body: {body}"[:MAX_OUTPUT], warning=True)
    return Result(True, body)


async def get(url: Url, given: list[HTTPHeader] | None, agent: str, context: ssl.SSLContext) -> Answer:
    """The last answer of a chain of redirects on one host. DialError, HttpError."""
    first = url
    for _ in range(MOST_REDIRECTS):
        answer = await _get_once(url, headers_of(given, url, agent), context)
        try:
            following = redirected(url, first, answer.status, answer.location)
        except ValueError as error:
            raise HttpError(f"failed to parse Location header {answer.location!r}: {error}") from None
        if following is None:
            return answer
        url = following
    raise HttpError(f"stopped after {MOST_REDIRECTS} redirects")


async def _get_once(url: Url, headers: list[tuple[str, str]], context: ssl.SSLContext) -> Answer:
    reader, writer = await connect(url.host, url.port, context if url.scheme == "https" else None)
    whole = False
    try:
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        request = h11.Request(method="GET", target=url.target, headers=_encoded(headers))
        writer.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        head = await _head(http, reader)
        location = next((value.decode("latin-1") for name, value in head.headers if name == b"location"), None)
        body, whole = await _body(http, reader)
        return Answer(head.status_code, location, body)
    except h11.LocalProtocolError as error:
        raise HttpError(f"net/http: invalid request: {error}") from None
    except h11.RemoteProtocolError as error:
        raise HttpError(f"malformed HTTP response: {error}") from None
    except OSError as error:
        raise HttpError(f"read tcp: {(error.strerror or str(error)).lower()}") from None
    finally:
        leave(writer, at_once=not whole)


def _encoded(headers: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("utf-8"), value.encode("utf-8")) for name, value in headers]


async def _head(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Response:
    interim = 0
    while True:
        event = await _next(http, reader)
        if isinstance(event, h11.Response):
            return event
        if isinstance(event, h11.InformationalResponse):
            interim += 1
            if interim > MOST_INTERIM:
                raise HttpError("too many 1xx informational responses")
        else:
            raise HttpError("EOF")


async def _body(http: h11.Connection, reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """(its first MAX_OUTPUT bytes, whether that is all). HttpError where it ends in the middle before that."""
    body = bytearray()
    while len(body) < MAX_OUTPUT:
        event = await _next(http, reader)
        if isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body), True
        else:
            raise HttpError("EOF")
    return bytes(body[:MAX_OUTPUT]), False


async def _next(http: h11.Connection, reader: asyncio.StreamReader) -> object:
    ended = False
    while True:
        try:
            event = http.next_event()
        except h11.RemoteProtocolError:
            if ended:
                raise HttpError("EOF") from None
            raise
        if event is not h11.NEED_DATA:
            return event
        data = await reader.read(CHUNK)
        ended = not data
        http.receive_data(data)
