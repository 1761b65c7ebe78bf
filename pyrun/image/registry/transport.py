"""HTTP to registries by urllib3: TLS of an endpoint's own, proxies from the environment, redirects with care.

A redirect is followed here and not by the library: on another host there is no credential and no header of ours
(CVE-2020-15157), and from https there is no way to http. Every wait has an end: 30 s to connect, 60 s without a byte.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import threading
import warnings
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import urllib3
import urllib3.exceptions

from pyrun import __version__
from pyrun.errors import PyrunError
from pyrun.image.registry.hosts import Endpoint
from pyrun.tls import load_certificate

CONNECT_S = 30.0
SILENCE_S = 60.0
REDIRECTS_MOST = 5
POOL_SIZE = 8
AGENT = f"pyrun/{__version__}"
MOVED = frozenset({301, 302, 303, 307, 308})

Response = urllib3.BaseHTTPResponse
Tls = tuple[tuple[str, ...], tuple[tuple[str, str], ...], bool]  # of an endpoint: ca, client, skip_verify


class Transport:
    """The connections of one pull. silence_s: how long a connection may say nothing."""

    def __init__(self, silence_s: float = SILENCE_S, environment: Mapping[str, str] = os.environ) -> None:
        self._timeout = urllib3.Timeout(connect=min(CONNECT_S, silence_s), read=silence_s)
        self._environment = environment
        self._pools: dict[tuple[object, ...], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def request(
        self, endpoint: Endpoint, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[Response, bool]:
        """(answer, whether it comes from where it was asked), its body not read yet. Raises urllib3's errors, and
        PyrunError for a redirect that is not followed. endpoint: whose TLS and headers hold, on its own host."""
        origin = _origin(url)
        sent = {"User-Agent": AGENT, "Accept-Encoding": "identity", **dict(endpoint.headers), **headers}
        for _ in range(REDIRECTS_MOST + 1):
            own = _origin(url) == origin
            response = self._pool(endpoint if own else None, url).request(
                method,
                url,
                body=body,
                headers=sent,
                preload_content=False,
                redirect=False,
                retries=False,
                decode_content=False,
                timeout=self._timeout,
            )
            if response.status not in MOVED or method != "GET":
                return response, own
            location = response.headers.get("Location", "")
            discard(response)
            url = _next(url, location)
            if _origin(url) != origin:
                kept = ("User-Agent", "Accept-Encoding", "Accept", "Range")
                sent = {name: value for name, value in sent.items() if name in kept}
        raise PyrunError(f"{urlsplit(url).netloc}: more than {REDIRECTS_MOST} redirects")

    def _pool(self, endpoint: Endpoint | None, url: str) -> urllib3.PoolManager:
        proxy = proxy_for(url, self._environment)
        tls: Tls | None = None
        if "https" in (urlsplit(url).scheme, urlsplit(proxy or "").scheme):
            tls = (endpoint.ca, endpoint.client, endpoint.skip_verify) if endpoint else ((), (), False)
        with self._lock:
            pool = self._pools.get((proxy, tls))
            if pool is None:
                pool = self._pools[(proxy, tls)] = _make_pool(proxy, tls)
            return pool


def discard(response: Response) -> None:
    """Ends an answer whose body nobody wants, and its connection with it."""
    response.close()
    response.release_conn()


def _make_pool(proxy: str | None, tls: Tls | None) -> urllib3.PoolManager:
    """tls: None where nothing is encrypted; to read the authorities that are trusted takes 40 ms."""
    context = None if tls is None else _make_context(*tls)
    if proxy is None:
        return urllib3.PoolManager(maxsize=POOL_SIZE, ssl_context=context)
    return urllib3.ProxyManager(proxy, maxsize=POOL_SIZE, ssl_context=context)


def _make_context(ca: tuple[str, ...], client: tuple[tuple[str, str], ...], skip_verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        for file in ca:
            context.load_verify_locations(file)
        for certificate, key in client:
            load_certificate(context, certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise PyrunError(f"certificates {', '.join([*ca, *(one for pair in client for one in pair)])}: {error}")
    if skip_verify:  # it was asked for in hosts.toml: no word of it at each request
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, f"{parts.hostname}:{port}"


def _next(url: str, location: str) -> str:
    if not location or len(location) > 8192 or not location.isprintable():
        raise PyrunError(f"{urlsplit(url).netloc}: a redirect to nowhere")
    new = urljoin(url, location)
    parts = urlsplit(new)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise PyrunError(f"{urlsplit(url).netloc}: a redirect to {new[:200]!r}, which is not followed")
    if urlsplit(url).scheme == "https" and parts.scheme != "https":
        raise PyrunError(f"{urlsplit(url).netloc}: a redirect from https to {new[:200]!r}, which is not followed")
    return new


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """The proxy for a URL, as Go's programs choose it: https_proxy, http_proxy, no_proxy (with CIDRs), large or small;
    none to this machine itself."""
    parts = urlsplit(url)
    name = f"{parts.scheme}_proxy"
    proxy = environment.get(name) or environment.get(name.upper()) or ""
    host = (parts.hostname or "").lower()
    if not proxy or host == "localhost" or (address := _address(host)) and address.is_loopback:
        return None
    for rule in (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(","):
        if _is_excluded(rule.strip().lower(), host, parts.port or (443 if parts.scheme == "https" else 80)):
            return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_excluded(rule: str, host: str, port: int) -> bool:
    if not rule:
        return False
    if rule == "*":
        return True
    if (address := _address(host)) is not None:
        try:
            return address in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            pass
    name, colon, wanted = rule.rpartition(":")
    if colon and wanted.isdigit():
        if int(wanted) != port:
            return False
        rule = name
    rule = rule.removeprefix("*")
    return host == rule.lstrip(".") and not rule.startswith(".") or host.endswith(f".{rule.lstrip('.')}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
