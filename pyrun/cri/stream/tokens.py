"""One-time tokens: what a URL of the streaming server holds in place of a credential.

A token is 128 random bits, good for one request to the verb that it was made for, and for TTL_S. Their number is
bounded, so that a caller who never comes back for them can't fill the memory."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from pyrun.errors import ResourceExhausted

TTL_S = 60.0
MOST = 1000
BYTES = 16

T = TypeVar("T")


class Tokens(Generic[T]):
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, T]] = {}  # in the order of their making, so of their expiry

    def make(self, request: T) -> str:
        """Raises ResourceExhausted."""
        self._sweep()
        if len(self._kept) >= MOST:
            raise ResourceExhausted(f"{MOST} streaming requests wait for their client", hint="try again in a minute")
        token = secrets.token_urlsafe(BYTES)
        self._kept[token] = (self._clock() + TTL_S, request)
        return token

    def take(self, token: str) -> T | None:
        """The request, once."""
        self._sweep()
        found = self._kept.pop(token, None)
        return None if found is None else found[1]

    def _sweep(self) -> None:
        now = self._clock()
        while self._kept and self._kept[first := next(iter(self._kept))][0] <= now:
            del self._kept[first]

    def __len__(self) -> int:
        self._sweep()
        return len(self._kept)
