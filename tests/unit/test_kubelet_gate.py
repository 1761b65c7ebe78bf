"""Which right a request needs, who a certificate is, and how long an answer is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pyrun.errors import InvalidArgument, PyrunError, Unavailable
from pyrun.kubelet.access import Right, rights
from pyrun.kubelet.gate import (
    ALLOWED_S,
    ANONYMOUS,
    DENIED_S,
    LONGEST_TOKEN,
    MOST,
    TOKEN_S,
    Gate,
    User,
    user_of_certificate,
)
from pyrun.kubelet.logs import parse_wanted


@pytest.mark.parametrize("command", ["exec", "attach", "portForward", "run"])
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT", "BREW"])
def test_who_runs_a_command_creates(command: str, method: str) -> None:
    """A WebSocket begins with GET, and `get` alone must never run anything."""
    for path in (f"/{command}/default/web/c", f"//{command}//default/web/c", f"/{command}", f"/{command}/"):
        assert rights(method, path) == (Right("create", "proxy"),)


def test_other_rights() -> None:
    proxy = Right("get", "proxy")
    assert rights("GET", "/pods") == (Right("get", "pods"), proxy)
    assert rights("HEAD", "/runningpods/") == (Right("get", "pods"), proxy)
    assert rights("GET", "/healthz/syncloop") == (Right("get", "healthz"), proxy)
    assert rights("GET", "/configz") == (Right("get", "configz"), proxy)
    assert rights("GET", "/stats/summary") == (Right("get", "stats"),)
    assert rights("GET", "/metrics/cadvisor") == (Right("get", "metrics"),)
    assert rights("GET", "/logs/messages") == (Right("get", "log"),)
    assert rights("POST", "/checkpoint/a/b/c") == (Right("create", "checkpoint"),)
    assert rights("GET", "/containerLogs/a/b/c") == (proxy,)
    assert rights("DELETE", "/podsx") == (Right("delete", "proxy"),)
    assert rights("BREW", "/metricsx") == (Right("*", "proxy"),)


def test_users_of_certificates() -> None:
    subject = ((("organizationName", "a"),), (("organizationName", "b"), ("commonName", "who")))
    assert user_of_certificate({"subject": subject}) == User("who", ("a", "b"))
    assert user_of_certificate({"subject": ((("organizationName", "system:masters"),),)}) is None
    assert user_of_certificate({"subject": ((("commonName", "a"),), (("commonName", "b"),))}) is None
    assert user_of_certificate({}) is user_of_certificate(None) is None


class Server:
    """Knows the token `good`, whose user may get nodes/stats. Counts what it is asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.down = False

    async def ask(self, ask: str, /, **question: Any) -> Any:
        self.asked.append(ask)
        if self.down:
            raise Unavailable("the API server is away")
        if ask == "token":
            return {"username": "who", "groups": ["g"]} if question["token"] == "good" else None
        return question["user"]["name"] == "who" and question["right"] == {"verb": "get", "subresource": "stats"}


def test_answers_are_kept_for_a_while() -> None:
    server = Server()
    gate = Gate(server.ask, lambda: server.now)
    stats, proxy = Right("get", "stats"), Right("get", "proxy")

    async def look() -> None:
        for _ in range(3):
            user = await gate.user(None, "Bearer good")
            assert user == User("who", ("g",)) and await gate.may(user, (proxy, stats))
            assert await gate.user(None, "bearer bad") is None
        assert server.asked == ["token", "may", "may", "token"]
        server.now = DENIED_S + 1  # who was refused is asked about again soon
        assert await gate.may(User("who", ("g",)), (proxy, stats)) and await gate.user(None, "Bearer bad") is None
        assert server.asked[4:] == ["may", "token"]
        server.now, server.down = TOKEN_S + 1, True
        with pytest.raises(PyrunError):
            await gate.user(None, "Bearer good")
        assert await gate.may(User("who", ("g",)), (stats,))
        server.now = ALLOWED_S + 1
        with pytest.raises(PyrunError):
            await gate.may(User("who", ("g",)), (stats,))

    asyncio.run(look())


def test_who_shows_a_bad_token_is_not_anonymous() -> None:
    """As with a kubelet: anonymous is who shows nothing, or what is not looked at here."""

    async def no_tokens(ask: str, /, **question: Any) -> Any:
        return {}

    async def look() -> None:
        gate = Gate(Server().ask, lambda: 0.0, anonymous=True)
        assert await gate.user(None, None) == await gate.user(None, "Basic bad") == ANONYMOUS
        assert await gate.user(None, "Bearer bad") is None
        assert await gate.user(None, f"Bearer {'a' * (LONGEST_TOKEN + 1)}") is None
        assert await gate.user(None, "Bearer good") == User("who", ("g",))
        assert await Gate(no_tokens, lambda: 0.0, anonymous=True).user(None, "Bearer any") == ANONYMOUS
        assert await Gate(no_tokens, lambda: 0.0).user(None, "Bearer any") is None

    asyncio.run(look())


def test_a_right_is_of_a_user_with_his_extra() -> None:
    """An authorizer may decide by it: what one with another may is asked anew."""
    asked: list[Any] = []

    async def ask(ask: str, /, **question: Any) -> Any:
        asked.append(question["user"]["extra"])
        return question["user"]["extra"] == {"scopes": ["all"]}

    async def look() -> None:
        gate = Gate(ask, lambda: 0.0)
        for _ in range(2):
            assert await gate.may(User("who", extra={"scopes": ["all"]}), (Right("get", "stats"),))
            assert not await gate.may(User("who", extra={"scopes": ["few"]}), (Right("get", "stats"),))
            assert not await gate.may(User("who"), (Right("get", "stats"),))

    asyncio.run(look())
    assert asked == [{"scopes": ["all"]}, {"scopes": ["few"]}, {}]


def test_no_more_is_kept_than_there_is_room_for() -> None:
    server = Server()
    gate = Gate(server.ask, lambda: server.now)

    async def look() -> None:
        for number in range(MOST + 50):
            assert await gate.user(None, f"Bearer {number}") is None
        assert await gate.user(None, f"Bearer {MOST + 49}") is None
        assert len(server.asked) == MOST + 50
        assert await gate.user(None, "Bearer 0") is None
        assert len(server.asked) == MOST + 51
        for wrong in (None, "", "Bearer", "Basic x", "Bearer " + "x" * 20_000):
            assert await gate.user(None, wrong) is None
        assert len(server.asked) == MOST + 51

    asyncio.run(look())


def test_what_is_asked_of_logs() -> None:
    assert parse_wanted({"sinceSeconds": "10"}, 100.0).since == 90_000_000_000
    assert parse_wanted({"sinceTime": "1970-01-01T00:00:01.5Z", "tailLines": "0"}, 0).since == 1_500_000_000
    for wrong in (
        {"sinceTime": "1970-01-01T00:00:00Z", "sinceSeconds": "1"},
        {"stream": "both"},
        {"tailLines": "9" * 20},
    ):
        with pytest.raises(InvalidArgument):
            parse_wanted(wrong, 0)
