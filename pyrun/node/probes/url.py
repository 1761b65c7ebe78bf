"""PURE: the address of an httpGet, what is sent to it, and where its answer may lead.

Source: kubernetes pkg/probe/http (request.go, http.go), net/http's client and net/url.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from ...kube.objects.containers import HTTPGetAction, HTTPHeader
from .result import joined

DEFAULT_PORTS = {"http": 80, "https": 443}
FOLLOWED = (301, 302, 303, 307, 308)
_PATH = "/%:@!$&'()*+,;=~-._[]"
_QUERY = _PATH + "?"


class Url(NamedTuple):
    """target: path and query, as a request line has them."""

    scheme: str
    host: str
    port: int
    target: str

    def __str__(self) -> str:
        return f"{self.scheme}://{joined(self.host, self.port)}{self.target}"

    @property
    def authority(self) -> str:
        """As the header Host has it: net/http leaves a port in that was given."""
        return joined(self.host, self.port)


def url_of(action: HTTPGetAction, host: str, port: int) -> Url:
    return Url((action.scheme or "HTTP").lower(), action.host or host, port, _target(action.path or "/"))


def _target(path: str) -> str:
    """What no request line may hold is quoted, a fragment left out."""
    path, _, query = path.partition("#")[0].partition("?")
    if not path.startswith("/"):
        path = f"/{path}"
    return quote(path, safe=_PATH) + (f"?{quote(query, safe=_QUERY)}" if query else "")


def headers_of(given: list[HTTPHeader] | None, url: Url, agent: str) -> list[tuple[str, str]]:
    """All of a request's. An empty User-Agent or Accept takes ours away; Host is the one given last."""
    lower = {h.name.lower(): h.value for h in given or ()}
    found = [("Host", lower.get("host") or url.authority)]
    for name, value in (("User-Agent", agent), ("Accept", "*/*")):
        if (value := lower.get(name.lower(), value)) != "":
            found.append((name, value))
    ours = ("host", "user-agent", "accept", "connection", "content-length", "transfer-encoding")
    found += [(h.name, h.value) for h in given or () if h.name.lower() not in ours]
    return [*found, ("Connection", "close")]


def redirected(url: Url, first: Url, status: int, location: str | None) -> Url | None:
    """Where an answer leads, if there is to be another request: on the same host, whatever the port.

    ValueError where it can't be read as an address of the web."""
    if status not in FOLLOWED or not location:
        return None
    parts = urlsplit(urljoin(str(url), location))
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"unsupported protocol scheme {parts.scheme!r}")
    host = parts.hostname or ""
    if host != first.host.lower():
        return None
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    return Url(parts.scheme, host, port, _target(parts.path + (f"?{parts.query}" if parts.query else "")))
