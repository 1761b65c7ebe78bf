"""Who asks, and whether he may: a client's certificate or a bearer's token, and then a right. Nobody is anonymous
unless that was asked for.

The agent says whose a token is and who may what, as only it speaks with the API server; its answers are kept for a
while, as a kubelet keeps them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from .access import Right

TOKEN_S, ALLOWED_S, DENIED_S = 120.0, 300.0, 30.0
LONGEST_TOKEN = 16 * 1024
MOST = 1000  # answers that are kept


@dataclass(frozen=True, slots=True)
class User:
    """As of a TokenReview's status.user."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what may be depends on it, too


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Asked(Protocol):
    async def __call__(self, ask: str, /, **question: Any) -> Any: ...


class Kept:
    """Answers, each for a time of its own."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[Any, tuple[float, Any]] = {}

    async def get(self, key: Any, ask: Callable[[], Awaitable[Any]], seconds: Callable[[Any], float]) -> Any:
        now = self._clock()
        found = self._found.get(key)
        if found is not None and found[0] > now:
            return found[1]
        value = await ask()
        self._found.pop(key, None)
        while len(self._found) >= MOST:
            del self._found[next(iter(self._found))]
        self._found[key] = (self._clock() + seconds(value), value)
        return value


class Gate:
    def __init__(self, ask: Asked, clock: Callable[[], float] = time.monotonic, *, anonymous: bool = False) -> None:
        self._ask = ask
        self._unknown = ANONYMOUS if anonymous else None
        self._tokens, self._allowed = Kept(clock), Kept(clock)

    async def user(self, certificate: dict[str, Any] | None, authorization: str | None) -> User | None:
        """None: he is not known. PyrunError where that can't be found out."""
        if (user := user_of_certificate(certificate)) is not None:
            return user
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return self._unknown
        if len(token) > LONGEST_TOKEN:
            return None
        found = await self._tokens.get(token, lambda: self._ask("token", token=token), _token_seconds)
        if found is None:  # who shows a token that is nobody's is not anonymous
            return None
        if not found:
            return self._unknown
        groups = tuple(str(group) for group in found.get("groups") or ())
        return User(str(found["username"]), groups, str(found.get("uid") or ""), found.get("extra") or {})

    async def may(self, user: User, wanted: tuple[Right, ...]) -> bool:
        """PyrunError where that can't be found out: then he may not."""
        for right in wanted:
            if await self._allowed.get((user, right), lambda right=right: self._asked(user, right), _right_seconds):  # type: ignore[misc]
                return True
        return False

    async def _asked(self, user: User, right: Right) -> bool:
        return bool(await self._ask("may", user=asdict(user), right=asdict(right)))


def _token_seconds(found: Any) -> float:
    return TOKEN_S if found else DENIED_S


def _right_seconds(allowed: Any) -> float:
    return ALLOWED_S if allowed else DENIED_S


def user_of_certificate(certificate: dict[str, Any] | None) -> User | None:
    """The common name is the user's, organisations are groups. certificate: as ssl.getpeercert() has it."""
    pairs = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    names = [value for key, value in pairs if key == "commonName"]
    if len(names) != 1 or not names[0]:
        return None
    return User(names[0], tuple(value for key, value in pairs if key == "organizationName"))
