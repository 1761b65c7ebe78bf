"""Who is let in, and what he may do. A browser logs in with a token and gets two secrets: a cookie that scripts can't
read, and a key that pages of other origins can't. Both are needed, so neither a stolen cookie (cookies go to every port
of a host) nor a page of another origin is enough. Tools send the token as a bearer.

A token has 256 bits and can't be guessed; who sends many wrong ones is told to wait, and a right one always works. The
reader has the guard, so that the process that talks to browsers can do no more than somebody who is logged in there."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..errors import ResourceExhausted

COOKIE = "pyrun-dashboard"
KEY_HEADER = "x-pyrun-key"
LIFE_S = 12 * 3600.0
MOST_SESSIONS = 100
# So many wrong tokens in a minute are told that they are wrong; further ones are told to wait.
MOST_WRONG = 10
WINDOW_S = 60.0
LOOPBACK_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))


# view reads; operate tries again what failed; admin opens terminals, changes manifests (who writes a pod's manifest can
# be root on the node) and makes tokens. Each may what those before it may.
VIEW, OPERATE, ADMIN = "view", "operate", "admin"
ROLES = (VIEW, OPERATE, ADMIN)


@dataclass(frozen=True, slots=True)
class Who:
    """name: of the token. role: one of ROLES."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass(frozen=True, slots=True)
class Session:
    """token: the digest of the one that it was begun with."""

    key: bytes
    until: float
    token: bytes


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """tokens: who has the token of a digest, as of now. clock: seconds that only grow. Threads may share it."""

    def __init__(self, tokens: Callable[[], Mapping[bytes, Who]], clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = tokens
        self._clock = clock
        self._sessions: dict[bytes, Session] = {}
        self._wrong: deque[float] = deque(maxlen=MOST_WRONG)
        self._lock = threading.Lock()

    def login(self, token: str) -> tuple[str, str] | None:
        """(cookie, key); None when the token is wrong. ResourceExhausted when too many were."""
        own = digest(token)
        with self._lock:
            if own not in self._tokens():
                self._count_wrong()
                return None
            now = self._clock()
            self._sessions = {cookie: one for cookie, one in self._sessions.items() if one.until > now}
            while len(self._sessions) >= MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
            cookie, key = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
            self._sessions[digest(cookie)] = Session(digest(key), now + LIFE_S, own)
        return cookie, key

    def logout(self, cookie: str) -> None:
        with self._lock:
            self._sessions.pop(digest(cookie), None)

    def admits(self, cookie: str, key: str) -> Who | None:
        """A session ends with its token."""
        session = self._sessions.get(digest(cookie))
        if session is None or session.until <= self._clock() or not hmac.compare_digest(digest(key), session.key):
            return None
        return self._tokens().get(session.token)

    def admits_bearer(self, header: str) -> Who | None:
        """Of an Authorization header. ResourceExhausted as login()."""
        scheme, _, token = header.partition(" ")
        found = self._tokens().get(digest(token.strip())) if scheme.lower() == "bearer" else None
        if found is None:
            with self._lock:
                self._count_wrong()
        return found

    def _count_wrong(self) -> None:
        now = self._clock()
        full = len(self._wrong) == MOST_WRONG and now - self._wrong[0] < WINDOW_S
        self._wrong.append(now)
        if full:
            raise ResourceExhausted("too many wrong tokens", hint="wait a minute")


def parse_cookie(header: str) -> str:
    """The value of our cookie, "" without one."""
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def host_names(address: str, names: Iterable[str]) -> frozenset[str]:
    """The names by which browsers may call us; of a name that an attacker's DNS gives us there is no answer."""
    own = LOOPBACK_NAMES if address in LOOPBACK_NAMES or address.startswith("127.") else frozenset()
    return own | {address.lower(), *(name.lower() for name in names)}


def host_of(header: str) -> str:
    """The name in a Host header, without its port; "" where it is no name."""
    if header.startswith("["):
        name, bracket, rest = header[1:].partition("]")
        return name.lower() if bracket and (not rest or (rest[0] == ":" and rest[1:].isdecimal())) else ""
    name, colon, port = header.partition(":")
    return "" if colon and not port.isdecimal() else name.lower()
