"""A client of the Kubernetes API: objects as plain dicts, over HTTP/1.1 with TLS.

Every wait has a deadline. Errors are the API server's own Status, by its code: NotFound, AlreadyExists and Conflict,
Gone (a resourceVersion or a continue token is too old), Forbidden, Unavailable (it may work later). Any number of
threads may use one client. A watch is `open_watch`; one that goes on for ever is pyrun/kube/watch.py.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from .. import __version__
from ..errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound, PyrunError, Unavailable
from .connections import Connections
from .kubeconfig import Cluster

Object = dict[str, Any]
PAGE = 500  # objects of a list in one answer
CONNECT_S, READ_S = 10.0, 30.0  # for a connection, for the next bytes
WHOLE_S = 120.0  # for an answer
ANSWER_BYTES = 256 << 20  # of one answer: 500 objects of 1.5 MB would not come from etcd in one piece
LINE_BYTES = 16 << 20  # of one event of a watch
AFTER_END_S = 30.0  # that a watch may outlive the time it was asked for
KINDS = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Conflict(PyrunError):
    """The object is another by now (its resourceVersion or uid)."""


class Gone(PyrunError):
    """A resourceVersion or continue token is too old: list anew. proceed: a token for the rest of the list, which may
    then not be of one moment; None where there is none."""

    proceed: str | None = None


class Forbidden(PyrunError):
    """We are known and may not, or we are not known."""


class TooMany(Unavailable):
    """The server asks to come later. after_s: in how many seconds."""

    after_s = 1.0


def path(version: str, plural: str, namespace: str | None = None, name: str = "", sub: str = "") -> str:
    """The path of a resource: path("v1", "pods", "default", "web", "status"), path("apps/v1", "deployments")."""
    words = ["api" if "/" not in version else "apis", version]
    if namespace is not None:
        words += ["namespaces", quote(namespace, safe="")]
    words += [word for word in (plural, quote(name, safe=""), sub) if word]
    return "/" + "/".join(words)


class Client:
    def __init__(self, cluster: Cluster, agent: str = f"pyrun/{__version__}") -> None:
        self.cluster = cluster
        self.connections = Connections(cluster)
        self._agent = agent
        self._prefix = urlsplit(cluster.server).path

    # --- verbs ---

    def get(self, where: str, **query: Any) -> Object:
        return self._call("GET", where, query)

    def create(self, where: str, value: Object, **query: Any) -> Object:
        return self._call("POST", where, query, value)

    def update(self, where: str, value: Object, **query: Any) -> Object:
        """Puts the whole object in place of the one that is there; its resourceVersion, where it has one, must be."""
        return self._call("PUT", where, query, value)

    def patch(self, where: str, value: Any, kind: str = "merge", **query: Any) -> Object:
        """kind: merge, strategic, json (then value is a list), or apply (with fieldManager=…)."""
        return self._call("PATCH", where, query, value, KINDS[kind])

    def delete(
        self, where: str, *, grace_s: int | None = None, uid: str | None = None, propagation: str | None = None
    ) -> Object:
        """uid: only if the object is still this one; Conflict if it is not."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if propagation is not None:
            options["propagationPolicy"] = propagation
        return self._call("DELETE", where, {}, options)

    def pages(self, where: str, **query: Any) -> Iterator[Object]:
        """The lists that make up the whole, each of PAGE objects at most, all of one moment. Gone when reading them
        took longer than the server keeps that moment."""
        asked = {"limit": PAGE, **query}
        while True:
            page = self._call("GET", where, asked)
            yield page
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            asked = {**query, "limit": PAGE, "continue": token}

    def list(self, where: str, slim: Callable[[Object], Any] = lambda one: one, **query: Any) -> tuple[list[Any], str]:
        """(objects, the resourceVersion of that moment). slim: what to keep of each, so that all of them are never in
        memory whole."""
        found: list[Any] = []
        version = ""
        try:
            for page in self.pages(where, **query):
                found += [slim(one) for one in page.get("items") or ()]
                version = (page.get("metadata") or {}).get("resourceVersion", version)
        except Gone:  # of the continue token: in one piece, then
            page = self._call("GET", where, query)
            return [slim(one) for one in page.get("items") or ()], page["metadata"]["resourceVersion"]
        return found, version

    def open_watch(self, where: str, version: str, seconds: int, **query: Any) -> Stream:
        """What changes after this resourceVersion, for so many seconds at most."""
        asked = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": seconds,
            **query,
        }
        timeout = urllib3.Timeout(connect=CONNECT_S, read=seconds + AFTER_END_S)
        response = self._send("GET", where, asked, None, None, timeout)
        if response.status != 200:
            raise _error("GET", where, response, self._read(response, time.monotonic() + WHOLE_S))
        return Stream(response)

    def close(self) -> None:
        self.connections.close()

    # --- one request ---

    def _call(
        self, verb: str, where: str, query: Mapping[str, Any], value: Any = None, kind: str = "application/json"
    ) -> Object:
        last = time.monotonic() + WHOLE_S
        body = None if value is None else json.dumps(value).encode()
        response = self._send(verb, where, query, body, kind, urllib3.Timeout(connect=CONNECT_S, read=READ_S))
        data = self._read(response, last)
        if response.status >= 300:
            raise _error(verb, where, response, data)
        try:
            answer = json.loads(data)
        except ValueError as error:
            raise Unavailable(f"{verb} {where}: the answer is no JSON: {error}") from None
        if not isinstance(answer, dict):
            raise Unavailable(f"{verb} {where}: the answer is no object")
        return answer

    def _send(
        self,
        verb: str,
        where: str,
        query: Mapping[str, Any],
        body: bytes | None,
        kind: str | None,
        timeout: urllib3.Timeout,
    ) -> urllib3.BaseHTTPResponse:
        """The answer's head. An answer 401 may be of a token that was replaced this moment: asked once more."""
        target = self._prefix + where + (f"?{urlencode(query)}" if query else "")
        response = None
        for again in (False, True):
            headers = urllib3.HTTPHeaderDict({"User-Agent": self._agent, "Accept": "application/json"})
            if body is not None and kind:
                headers["Content-Type"] = kind
            for name, value in self.connections.headers(anew=again):
                headers.add(name, value)
            try:
                response = self.connections.pool().urlopen(
                    verb,
                    target,
                    body=body,
                    headers=headers,
                    timeout=timeout,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                )
            except urllib3.exceptions.HTTPError as error:
                raise unreachable(f"{verb} {where}", error) from None
            if response.status != 401 or again or not self.connections.rereads:
                break
            response.drain_conn()
        assert response is not None
        return response

    @staticmethod
    def _read(response: urllib3.BaseHTTPResponse, last: float) -> bytes:
        parts, size = [], 0
        try:
            for part in response.stream(1 << 18, decode_content=True):
                parts.append(part)
                size += len(part)
                if size > ANSWER_BYTES:
                    response.close()
                    raise Unavailable(f"an answer of more than {ANSWER_BYTES >> 20} MiB")
                if time.monotonic() > last:
                    response.close()
                    raise DeadlineExceeded(f"the answer was not there in {WHOLE_S:.0f} s")
        except urllib3.exceptions.HTTPError as error:
            raise unreachable("reading an answer", error) from None
        response.release_conn()
        return b"".join(parts)


class Stream:
    """A watch's events, as (type, object): ADDED, MODIFIED, DELETED, BOOKMARK (an object with nothing but a
    resourceVersion). Gone when the version it began at is too old by now. It ends when the server ends it."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._closed = False

    def __iter__(self) -> Iterator[tuple[str, Object]]:
        try:
            for line in self._lines():
                yield self._event(line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if not self._closed:
                raise unreachable("a watch", error) from None
        finally:
            self._response.close()

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        for part in self._response.stream(1 << 16, decode_content=True):
            *lines, rest = (rest + part).split(b"\n")
            yield from (line for line in lines if line)
            if len(rest) > LINE_BYTES:
                raise ValueError(f"an event of more than {LINE_BYTES >> 20} MiB")

    @staticmethod
    def _event(line: bytes) -> tuple[str, Object]:
        event = json.loads(line)
        kind, value = event["type"], event["object"]
        if kind == "ERROR":
            raise of_status("a watch", value.get("code", 500), value)
        return kind, value

    def close(self) -> None:
        """From any thread: who waits for the next event gets the end."""
        self._closed = True
        with contextlib.suppress(ValueError, RuntimeError, OSError):  # it has ended already
            self._response.shutdown()


# --- errors ---


def _error(verb: str, where: str, response: urllib3.BaseHTTPResponse, data: bytes) -> PyrunError:
    try:
        status = json.loads(data)
    except ValueError:
        status = {}
    if not isinstance(status, dict) or not status.get("message"):
        status = {"message": data[:300].decode(errors="replace").strip() or f"HTTP {response.status}"}
    error = of_status(f"{verb} {where}", response.status, status)
    after = response.headers.get("Retry-After", "")
    if isinstance(error, TooMany) and after.isdigit():
        error.after_s = float(after)
    return error


def of_status(what: str, code: int, status: Mapping[str, Any]) -> PyrunError:
    """The error of a Status (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/)."""
    text = f"{what}: {status.get('message') or status.get('reason') or code}"
    if code == 410:
        gone = Gone(text)
        gone.proceed = (status.get("metadata") or {}).get("continue")
        return gone
    if code == 409:
        return AlreadyExists(text) if status.get("reason") == "AlreadyExists" else Conflict(text)
    if code in (401, 403):
        hint = "the credentials are not known to the API server" if code == 401 else None
        return Forbidden(text, hint=hint)
    if code in (429, 503):
        return TooMany(text)
    if code == 404:
        return NotFound(text)
    if code == 504:
        return Gone(text) if "Too large resource version" in text else DeadlineExceeded(text)
    return Unavailable(text) if code >= 500 else InvalidArgument(text)


def unreachable(what: str, error: Exception) -> PyrunError:
    slow = isinstance(error, urllib3.exceptions.TimeoutError)
    if slow and not isinstance(error, urllib3.exceptions.NewConnectionError):
        return DeadlineExceeded(f"{what}: {_plain(error)}")
    return Unavailable(f"{what}: {_plain(error)}")


def _plain(error: Exception) -> str:
    """Without the addresses of Python's objects."""
    text = str(error)
    return text.partition(">: ")[2] or text.partition("): ")[2] or text
