"""What a registry's 401 asks for, and the Authorization that answers it.

Credentials go to the registry that they are for, and to the token server that this registry itself names, over TLS
wherever the registry is asked over TLS. A mirror gets the registry's only if they are said to be the mirror's, and who
answers after a redirect gets none at all (CVE-2020-15157).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from pyrun.errors import PyrunError
from pyrun.image.registry.credentials import Auth
from pyrun.image.registry.hosts import Endpoint
from pyrun.image.registry.reading import read_all
from pyrun.image.registry.transport import Transport, discard

ANSWER_MOST = 1 << 20
CHALLENGES_MOST = 8192
CLIENT_ID = "pyrun"
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s+")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')

Lookup = Callable[[Endpoint], Auth | None]


@dataclass(frozen=True)
class Challenge:
    """scheme: in small letters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(text: str) -> list[Challenge]:
    """Those of a WWW-Authenticate header (RFC 9110, 11.6.1); what can't be read ends the list."""
    found, at = [], 0
    text = text[:CHALLENGES_MOST]
    while (scheme := _SCHEME.match(text, at)) is not None or at == 0 and text.strip().isalpha():
        if scheme is None:
            return [Challenge(text.strip().lower(), {})]
        at, parameters = scheme.end(), {}
        while (one := _PARAMETER.match(text, at)) is not None:
            value = one.group(2) if one.group(2) is not None else one.group(3)
            parameters[one.group(1).lower()] = re.sub(r"\\(.)", r"\1", value)
            at = one.end()
        found.append(Challenge(scheme.group(1).lower(), parameters))
    return found


class Tokens:
    """The Authorization for each endpoint, for one repository. lookup: the credentials for an endpoint."""

    def __init__(self, transport: Transport, repository: str, lookup: Lookup) -> None:
        self._transport = transport
        self._repository = repository
        self._lookup = lookup
        self._lock = threading.Lock()
        self._kept: dict[str, str] = {}

    def header(self, endpoint: Endpoint) -> str | None:
        """What to send without being asked."""
        with self._lock:
            return self._kept.get(endpoint.base)

    def answer(
        self, endpoint: Endpoint, header: str, failed: str | None, cancelled: Callable[[], bool] = lambda: False
    ) -> str:
        """The Authorization for a 401 with this WWW-Authenticate. failed: what was sent. Raises PyrunError; Busy where
        the token comes too slowly."""
        with self._lock:
            kept = self._kept.get(endpoint.base)
            if kept is not None and kept != failed:  # another thread has just got a new one
                return kept
            self._kept.pop(endpoint.base, None)
            made = self._make(endpoint, header, cancelled)
            if made == failed:
                raise PyrunError(f"{endpoint.host}: it refuses the credentials")
            self._kept[endpoint.base] = made
            return made

    def _make(self, endpoint: Endpoint, header: str, cancelled: Callable[[], bool]) -> str:
        challenges = {challenge.scheme: challenge.parameters for challenge in parse_challenges(header)}
        auth = self._lookup(endpoint)
        if auth is not None and auth.registry_token:
            return f"Bearer {auth.registry_token}"
        if "bearer" in challenges:
            return f"Bearer {self._fetch(endpoint, challenges['bearer'], auth, cancelled)}"
        if "basic" in challenges:
            if auth is None or not auth.username:
                raise PyrunError(
                    f"{endpoint.host}: {self._repository} wants credentials", hint="give some, or use docker login"
                )
            return f"Basic {auth.basic}"
        raise PyrunError(f"{endpoint.host}: 401 that asks neither for a token nor for a password")

    def _fetch(
        self, endpoint: Endpoint, parameters: dict[str, str], auth: Auth | None, cancelled: Callable[[], bool]
    ) -> str:
        realm = parameters.get("realm", "")
        parts = urlsplit(realm)
        if (
            parts.scheme not in ("https", "http")
            or not parts.hostname
            or "@" in parts.netloc
            or not realm.isprintable()
        ):
            raise PyrunError(f"{endpoint.host}: its token server {realm[:200]!r} is no URL")
        if parts.scheme == "http" and endpoint.scheme == "https":
            raise PyrunError(
                f"{endpoint.host}: its token server {realm[:200]!r} is not https",
                hint="what is sent there could be read by anybody on the way",
            )
        wanted = {"scope": parameters.get("scope") or f"repository:{self._repository}:pull"}
        if "service" in parameters:
            wanted["service"] = parameters["service"]
        headers: dict[str, str] = {"Accept": "application/json"}
        body = None
        url = f"{realm}{'&' if parts.query else '?'}{urlencode(wanted)}"
        if auth is not None and auth.identity_token:
            wanted |= {"grant_type": "refresh_token", "refresh_token": auth.identity_token, "client_id": CLIENT_ID}
            body, url = urlencode(wanted).encode(), realm
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif auth is not None and auth.username:
            headers["Authorization"] = f"Basic {auth.basic}"
        return self._read(endpoint, url, headers, body, cancelled)

    def _read(
        self,
        endpoint: Endpoint,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        cancelled: Callable[[], bool],
    ) -> str:
        host = urlsplit(url).netloc
        # The endpoint's own TLS is for its own host; its headers are, too.
        where = endpoint if host == endpoint.host else Endpoint(f"{urlsplit(url).scheme}://{host}", ca=endpoint.ca)
        response, _ = self._transport.request(where, "POST" if body else "GET", url, headers, body)
        try:
            if response.status in (401, 403):
                raise PyrunError(f"{host}: {response.status}: it refuses the credentials")
            if response.status != 200:
                raise PyrunError(f"{host}: {response.status} in place of a token")
            data = read_all(response, ANSWER_MOST, f"{host}: a token", cancelled)
        finally:
            discard(response)
        try:
            made = json.loads(data)
            token = made.get("token") or made.get("access_token")
        except (ValueError, AttributeError, RecursionError):
            token = None
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise PyrunError(f"{host}: its answer has no token")
        return token
