"""Who has sent a request, asked of the reader and remembered for a moment."""

from __future__ import annotations

import asyncio

from ..http.server import Exchange
from ..web.ask import Questions
from .guard import KEY_HEADER, Who, parse_cookie

PATIENCE_S = 30.0
# A token that is revoked lets nobody in after so long.
REMEMBERED_S = 3.0
MOST = 200
Secrets = dict[str, str]


def secrets_of(exchange: Exchange) -> Secrets:
    """What a request brings: a bearer, or a cookie and the key that pages of this origin alone have."""
    if (bearer := exchange.header("authorization")) is not None:
        return {"bearer": bearer}
    cookie = parse_cookie("; ".join(value for name, value in exchange.headers if name == "cookie"))
    return {"cookie": cookie, "key": exchange.header(KEY_HEADER) or ""}


class Admission:
    def __init__(self, questions: Questions) -> None:
        self._questions = questions
        self._known: dict[tuple[str, ...], tuple[float, Who]] = {}

    async def who(self, given: Secrets) -> Who | None:
        """ResourceExhausted where too many wrong tokens came."""
        if not all(given.values()):
            return None
        key, now = tuple(given.values()), asyncio.get_running_loop().time()
        if (known := self._known.get(key)) is not None and known[0] > now:
            return known[1]
        found = await self._questions.ask_one("who", PATIENCE_S, **{"with": given})
        self._known = {key: one for key, one in self._known.items() if one[0] > now}
        if found is None:
            return None
        who = Who(found["name"], found["role"])
        if len(self._known) < MOST:
            self._known[key] = (now + REMEMBERED_S, who)
        return who

    def forget(self) -> None:
        """Somebody has logged out, or a token has gone."""
        self._known.clear()
