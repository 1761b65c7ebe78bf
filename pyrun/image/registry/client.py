"""An image's documents and blobs out of its registry or one of its mirrors.

A place that fails in any way is followed by the next one. A cut is resumed by Range where it happened; 429 and 5xx wait
as long as Retry-After says, within bounds; bytes that come without an end, or in drops with a cut after each, end too.
What is read is checked by those who take it (pyrun/image/fetch.py): nothing here believes a length or a digest.
"""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import urllib3.exceptions

from pyrun.errors import Aborted, NotFound, PyrunError, Unavailable
from pyrun.image.documents import ACCEPT, JSON_MOST, Descriptor
from pyrun.image.fetch import Cancelled, Damaged, Write, digest_of
from pyrun.image.reference import Reference
from pyrun.image.registry.hosts import Endpoint
from pyrun.image.registry.reading import PROGRESS_BYTES, Busy, Pace, check, piece, read_all
from pyrun.image.registry.tokens import Lookup, Tokens
from pyrun.image.registry.transport import Response, Transport, discard

TRIES = 5
TRIES_ELSEWHERE = 2  # where there is another place to ask
WAIT_MOST_S = 60.0
WAIT_FIRST_S = 0.3
CONNECTIONS_MOST = 200  # for one blob
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})

T = TypeVar("T")


class Registry:
    """A source of one reference's image. lookup: the credentials for an endpoint. Use it as a context."""

    def __init__(
        self, reference: Reference, places: tuple[Endpoint, ...], lookup: Lookup, transport: Transport
    ) -> None:
        self.reference = reference
        self._places = places
        self._transport = transport
        self._tokens = Tokens(transport, reference.repository, lookup)
        self._blamed: set[tuple[str, str]] = set()
        self._gave: dict[str, set[str]] = {}
        self.cancelled: Cancelled = lambda: False

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    # --- what pyrun.image.fetch asks for ---------------------------------------------------------------------------

    def document(self, descriptor: Descriptor | None) -> tuple[bytes, str]:
        wanted = descriptor.digest if descriptor else self.reference.wanted
        by_tag = descriptor is None and self.reference.digest is None
        places = [one for one in self._places if (one.resolve if by_tag else one.pull)]
        return self._first(places, f"manifest {wanted}", lambda one, tries: self._document(one, tries, wanted, by_tag))

    def blob(self, descriptor: Descriptor, write: Write, cancelled: Cancelled) -> None:
        download = Download(self, descriptor, write, cancelled)
        self._gave[descriptor.digest] = download.gave
        self._first(self._unblamed(descriptor), f"blob {descriptor.digest}", download.run)

    def blame(self, descriptor: Descriptor) -> bool:
        """The blob that came was wrong. Returns whether another place is left to ask."""
        blamed = {(base, descriptor.digest) for base in self._gave.pop(descriptor.digest, ())}
        self._blamed |= blamed
        return bool(blamed) and bool(self._unblamed(descriptor))

    def _unblamed(self, descriptor: Descriptor) -> list[Endpoint]:
        return [one for one in self._places if one.pull and (one.base, descriptor.digest) not in self._blamed]

    # --- inside ------------------------------------------------------------------------------------------------------

    def _first(self, places: list[Endpoint], what: str, do: Callable[[Endpoint, int], T]) -> T:
        """The result of the first place that has one; otherwise all that was said, the registry's own word last."""
        errors: list[PyrunError] = []
        for place in places:
            try:
                return do(place, TRIES if place is places[-1] else TRIES_ELSEWHERE)
            except (Aborted, BrokenPipeError):
                raise
            except PyrunError as error:
                errors.append(error)
        if not errors:
            raise PyrunError(f"{self.reference.host}: no place to ask for {what}", hint="hosts.toml leaves none")
        if len(errors) == 1:
            raise errors[0]
        kind = NotFound if all(isinstance(error, NotFound) for error in errors) else type(errors[-1])
        text = "; ".join(error.text for error in errors)
        raise (Unavailable if kind is Busy else kind)(text, hint=errors[-1].hint)

    def url(self, endpoint: Endpoint, kind: str, name: str) -> str:
        url = f"{endpoint.base}/{self.reference.repository}/{kind}/{name}"
        # A mirror of many registries is told whose image it is.
        return f"{url}?ns={self.reference.host}" if endpoint.mirror else url

    def get(self, endpoint: Endpoint, url: str, headers: Mapping[str, str]) -> Response:
        """An answer of 200 or 206. Raises NotFound, Busy, PyrunError."""
        failed: str | None = None
        for turn in range(2):
            sent = dict(headers)
            if (failed := self._tokens.header(endpoint)) is not None:
                sent["Authorization"] = failed
            try:
                response, own = self._transport.request(endpoint, "GET", url, sent)
                if response.status == 401 and own and turn == 0:
                    challenge = ", ".join(response.headers.getlist("WWW-Authenticate"))
                    discard(response)
                    self._tokens.answer(endpoint, challenge, failed, self.cancelled)
                    continue
            except urllib3.exceptions.HTTPError as error:
                raise told(endpoint, error)
            return self._checked(endpoint, response)
        raise AssertionError("unreachable")

    def _checked(self, endpoint: Endpoint, response: Response) -> Response:
        if response.status in (200, 206):
            return response
        status, wait = response.status, retry_after(response.headers.get("Retry-After", ""))
        discard(response)
        where = f"{endpoint.host}/{self.reference.repository}"
        if status == 404:
            raise NotFound(f"{where}: not found", hint="is the name right? some registries say so without credentials")
        if status in (401, 403):
            raise PyrunError(
                f"{where}: {status}: access is denied", hint="wrong credentials, or none where some are due"
            )
        if status in BUSY:
            raise Busy(f"{where}: {status}" + (": too many requests" if status == 429 else ""), wait)
        raise PyrunError(f"{where}: the answer is {status}")

    def _document(self, endpoint: Endpoint, tries: int, wanted: str, by_tag: bool) -> tuple[bytes, str]:
        url = self.url(endpoint, "manifests", wanted)
        data, kind, said = self.patiently(lambda: self._read_document(endpoint, url), tries)
        if (promised := said if by_tag else wanted) and promised.startswith("sha256:") and digest_of(data) != promised:
            raise Damaged(f"{endpoint.host}: the manifest that came is {digest_of(data)}, not {promised}")
        return data, kind

    def _read_document(self, endpoint: Endpoint, url: str) -> tuple[bytes, str, str]:
        response = self.get(endpoint, url, {"Accept": ", ".join(ACCEPT)})
        try:
            data = read_all(response, JSON_MOST, f"{endpoint.host}: a manifest", self.cancelled)
        except urllib3.exceptions.HTTPError as error:
            raise told(endpoint, error)
        finally:
            discard(response)
        return data, response.headers.get("Content-Type", ""), response.headers.get("Docker-Content-Digest", "")

    def patiently(self, do: Callable[[], T], tries: int) -> T:
        """Does it until it works, or has failed too often."""
        for turn in range(tries):
            try:
                return do()
            except Busy as error:
                if turn == tries - 1:
                    raise
                pause(error.wait, turn, self.cancelled)
        raise AssertionError("unreachable")


class Download:
    """One blob, over as many connections and places as it takes: what `write` has had is not fetched again."""

    def __init__(self, registry: Registry, descriptor: Descriptor, write: Write, cancelled: Cancelled) -> None:
        self._registry = registry
        self._descriptor = descriptor
        self._write = write
        self._cancelled = cancelled
        self._done = 0
        self._connections = 0
        self.gave: set[str] = set()  # the places that answered, and that a wrong byte may be from

    def run(self, endpoint: Endpoint, tries: int) -> None:
        url = self._registry.url(endpoint, "blobs", self._descriptor.digest)
        failures = 0
        while True:
            before = self._done
            try:
                return self._connect(endpoint, url)
            except Busy as error:
                failures = 0 if self._done - before >= PROGRESS_BYTES else failures + 1
                if failures >= tries or self._connections >= CONNECTIONS_MOST:
                    raise
                pause(error.wait, failures, self._cancelled)

    def _connect(self, endpoint: Endpoint, url: str) -> None:
        self._connections += 1
        check(self._cancelled)
        if self._done >= self._descriptor.size > 0:  # cut after the last byte
            return
        headers = {"Accept": "application/octet-stream, */*"}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
        response = self._registry.get(endpoint, url, headers)
        self.gave.add(endpoint.base)
        try:
            self._read(endpoint, response, self._skip(response))
        except urllib3.exceptions.HTTPError as error:
            raise told(endpoint, error)
        finally:
            discard(response)

    def _skip(self, response: Response) -> int:
        """How many of the bytes that come have been written before."""
        size = self._descriptor.size
        if response.status == 200:
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and int(length) != size:
                raise Damaged(f"blob {self._descriptor.digest}: {length} bytes are sent, not {size}")
            return self._done
        unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
        start = rest.partition("-")[0]
        if unit.lower() != "bytes" or not start.isdigit() or int(start) != self._done:
            raise Damaged(f"blob {self._descriptor.digest}: another range came than was asked for")
        return 0

    def _read(self, endpoint: Endpoint, response: Response, skip: int) -> None:
        size = self._descriptor.size
        pace = Pace(self._done)
        while True:
            check(self._cancelled)
            if not pace.holds(self._done):
                raise Busy(f"{endpoint.host}: blob {self._descriptor.digest}: less than {PROGRESS_BYTES} bytes a while")
            data = piece(response)
            if not data:
                break
            if skip:
                skip, data = max(0, skip - len(data)), data[skip:]
                if not data:
                    continue
            self._done += len(data)
            if self._done > size:
                raise Damaged(f"blob {self._descriptor.digest}: more than the {size} bytes of its descriptor")
            self._write(data)
        if self._done < size:
            raise Busy(f"{endpoint.host}: blob {self._descriptor.digest} ended after {self._done} of {size} bytes")


def told(endpoint: Endpoint, error: urllib3.exceptions.HTTPError) -> PyrunError:
    """An error of the connection: one that another try may mend is Busy."""
    text = f"{endpoint.host}: {_plain(error)}"
    if isinstance(error, urllib3.exceptions.SSLError):
        return PyrunError(text, hint="a private authority's certificate goes into certs.d/HOST/, see docs")
    if isinstance(error, urllib3.exceptions.LocationParseError | urllib3.exceptions.InvalidHeader):
        return PyrunError(text)
    return Busy(text)


def _plain(error: BaseException) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "nothing came for too long"
    text = " ".join(str(error).split())
    return text.rpartition(">: ")[2][:300] or type(error).__name__


def retry_after(text: str) -> float | None:
    """Seconds, of either form of the header (RFC 9110, 10.2.3)."""
    text = text.strip()[:64]
    if text.isdigit() and text.isascii():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except (ValueError, TypeError, OverflowError):
        return None


def pause(wait: float | None, turn: int, cancelled: Cancelled) -> None:
    """Waits as long as was asked for, or twice as long each turn. Raises Aborted at once when it is cancelled."""
    backoff = WAIT_FIRST_S * 2**turn * random.uniform(0.8, 1.2)
    end = time.monotonic() + min(WAIT_MOST_S, max(wait if wait is not None else backoff, 0.01))
    while (left := end - time.monotonic()) > 0:
        check(cancelled)
        time.sleep(min(left, 0.1))
