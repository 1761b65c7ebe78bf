"""The web process: pages and their data over HTTP. It holds no privilege and no file: pages are in its memory, and the
rest comes from the reader.

    POST /api/login     {"token": …} → {"key": …} and a cookie
    POST /api/logout
    GET  /api/state     what there is, by key (state.py)
    GET  /api/live      the same as events: `delta` {"put": {}, "gone": []}, `error`
    GET  /api/logs      ?namespace&pod&uid&container&word…&stream&lines&since&until&entries&previous: the last lines, of
                        those that began at `until` (RFC 3339) or before, or with `since` the first ones from then on;
                        entries: what belongs together is one line
    GET  /api/history   ?namespace&pod&uid&seconds&step; of the node without a pod
    GET  /api/sparks    ?uid…&seconds&step: {"since", "until", "pods": {UID: {"cpu", "memory"}}}, of many pods at once
    GET  /api/metrics   {"names", "namespaces", "pods", "containers"} of what is kept
    GET  /api/metric    ?name&namespace&pod&container&seconds&step: each series of a name; words of the others
    GET  /api/follow    the same as events: `lines` {"lines": [], "skipped": BYTES}, the first of them what there is,
                        or {"told"} why that can't be had
    GET  /api/search    ?namespace&pod&uid&container&word…&regex&stream&since&lines&entries&previous; names are patterns
    GET  /api/me        {"name", "role"}
    GET  /api/read/ACT  ?pod…, see acts.py; POST /api/act/ACT with a body of JSON
    GET  /api/terminal  ?ticket, which /api/act/terminal gives for one use: a WebSocket of v5.channel.k8s.io
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ..cri.stream.tokens import Tokens
from ..errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PyrunError, ResourceExhausted
from ..http.server import Exchange
from ..web.ask import Forbidden, LoggedOut, Questions
from .admission import Admission, Secrets, secrets_of
from .fields import check_fields
from .guard import COOKIE, LIFE_S, host_of, parse_cookie
from .live import Live
from .terminal import check_handshake, relay

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = (
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Cache-Control", "no-store"),
)
JSON, EVENTS = "application/json", "text/event-stream"
STATUS = {InvalidArgument: 400, LoggedOut: 401, Forbidden: 403, NotFound: 404, AlreadyExists: 409}
STATUS |= {FailedPrecondition: 409, ResourceExhausted: 429}
READS = ("yaml", "plan", "services", "service", "volumes", "garbage", "parts", "manifest", "tokens")
ACTS = ("retry", "remove-image", "change", "make-token", "revoke-token")
HEARTBEAT_S = 10.0
SEARCH_S = 30.0
MOST_STREAMS = 40
MOST_TERMINALS = 10
WORDS, LONGEST_WORD = 8, 200
OF = ("namespace", "pod", "uid", "container")

log = logging.getLogger(__name__)
Page = tuple[bytes, str]
Ticket = tuple[Secrets, dict[str, Any]]
Events = AsyncGenerator[tuple[str, Any] | None, None]


class Web:
    """pages: path → (body by gzip, media type). names: the hosts by which it may be called. secure: it is reached by
    TLS."""

    def __init__(self, questions: Questions, pages: Mapping[str, Page], names: frozenset[str], *, secure: bool) -> None:
        self._questions = questions
        self._admission = Admission(questions)
        self._tickets: Tokens[Ticket] = Tokens()
        self._pages = pages
        self._names = names
        self._secure = secure
        self._live = Live(questions)
        self._streams = self._terminals = 0

    async def stop(self) -> None:
        await self._live.stop()

    async def handle(self, exchange: Exchange) -> None:
        try:
            if (refusal := self._refusal(exchange)) is not None:
                return await _say(exchange, *refusal)
            if (page := self._pages.get(exchange.path)) is not None:
                if exchange.method not in ("GET", "HEAD"):
                    return await _say(exchange, 405, "GET alone")
                return await _send_page(exchange, page)
            await self._answer(exchange)
        except PyrunError as error:
            if exchange.answered:
                raise
            await _say(exchange, STATUS.get(type(error), 503), "; ".join(error.lines()))

    def _refusal(self, exchange: Exchange) -> tuple[int, str] | None:
        """What is wrong with where a request comes from, before anything else is looked at."""
        hosts = [value for name, value in exchange.headers if name == "host"]
        if len(hosts) != 1 or host_of(hosts[0]) not in self._names:
            return 421, "this is not the host that you look for: --host NAME adds a name"
        origin = exchange.header("origin")
        own = f"{'https' if self._secure else 'http'}://{hosts[0]}"
        if (origin is not None or exchange.method not in ("GET", "HEAD")) and (origin or "").lower() != own.lower():
            return 403, "a request of another origin"
        if exchange.path.startswith("/api/") and exchange.header("sec-fetch-site") not in (None, "same-origin", "none"):
            return 403, "a request of another site"
        return None

    async def _answer(self, exchange: Exchange) -> None:
        method, path = exchange.method, exchange.path
        if path == "/healthz":
            return await _say(exchange, 200, "ok")
        if (method, path) == ("POST", "/api/login"):
            return await self._login(exchange)
        if path == "/api/terminal":
            return await self._open_terminal(exchange)
        who = await self._admission.who(secrets_of(exchange))
        if who is None:
            return await _say(exchange, 401, "log in with the token, or send it as a bearer")
        if (method, path) == ("POST", "/api/logout"):
            cookie = parse_cookie(exchange.header("cookie") or "")
            await self._questions.ask_one("logout", SEARCH_S, cookie=cookie)
            self._admission.forget()
            return await exchange.respond(204, headers=(*HEADERS, self._cookie("", 0)))
        if path == "/api/me":
            return await _tell(exchange, {"name": who.name, "role": who.role})
        kind, _, act = path.removeprefix("/api/").partition("/")
        if kind == "read" and act in READS and method == "GET":
            return await self._read(exchange, act)
        if kind == "act" and act in (*ACTS, "terminal") and method == "POST":
            return await self._act(exchange, act)
        routes = {
            "/api/state": self._state,
            "/api/live": self._live_events,
            "/api/logs": self._logs,
            "/api/search": self._search,
            "/api/history": self._history,
            "/api/sparks": self._sparks,
            "/api/metrics": self._metrics,
            "/api/metric": self._metric,
            "/api/follow": self._follow,
        }
        if path not in routes:
            await _say(exchange, 404, "there is no such page")
        elif method != "GET":
            await _say(exchange, 405, "GET alone")
        else:
            await routes[path](exchange)

    async def _read(self, exchange: Exchange, act: str) -> None:
        check_fields(act, exchange.query)
        words = {name: _word(exchange.query, name) for name in exchange.query}
        await _tell(exchange, await self._ask_act(exchange, act, words))

    async def _act(self, exchange: Exchange, act: str) -> None:
        try:
            asked = json.loads(await exchange.body())
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return await _say(exchange, 400, "a body of JSON: an object")
        check_fields(act, asked)
        if act != "terminal":
            found = await self._ask_act(exchange, act, asked)
            self._admission.forget()
            return await _tell(exchange, found)
        if not isinstance(asked.get("command"), list) or not asked.get("container"):
            return await _say(exchange, 400, 'send {"container": ID, "command": [], "tty": true}')
        await self._ask_act(exchange, "may", {"act": act, **asked})
        await _tell(exchange, {"ticket": self._tickets.make((secrets_of(exchange), asked))})

    async def _ask_act(self, exchange: Exchange, act: str, asked: dict[str, Any]) -> Any:
        return await self._questions.ask_one(act, SEARCH_S, **asked, **{"with": secrets_of(exchange)})

    async def _open_terminal(self, exchange: Exchange) -> None:
        """A page can't send its key with a WebSocket: it has sent it for the ticket, and the cookie comes once more."""
        check_handshake(exchange)
        if exchange.header("origin") is None:
            return await _say(exchange, 403, "a WebSocket without an Origin")
        ticket = self._tickets.take(_word(exchange.query, "ticket"))
        given = secrets_of(exchange)
        if ticket is None or any(ticket[0].get(name) != given.get(name) for name in ("cookie", "bearer")):
            return await _say(exchange, 401, "this ticket is none, or of somebody else, or was used")
        if self._terminals >= MOST_TERMINALS:
            raise ResourceExhausted("too many terminals are open", hint="close some")
        self._terminals += 1
        try:
            secrets, asked = ticket
            place = await self._questions.ask_one("terminal", SEARCH_S, **asked, **{"with": secrets})

            async def admitted() -> bool:
                return await self._admission.who(secrets) is not None

            await relay(exchange, place, admitted)
        finally:
            self._terminals -= 1

    async def _login(self, exchange: Exchange) -> None:
        try:
            token = json.loads(await exchange.body())["token"].strip()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return await _say(exchange, 400, 'send {"token": "…"}')
        found = await self._questions.ask_one("login", SEARCH_S, token=token)
        if found is None:
            log.warning("a wrong token")
            return await _say(exchange, 401, "this is not the token")
        log.warning("%s logged in", found["name"])
        body = json.dumps({"key": found["key"], "name": found["name"], "role": found["role"]})
        await exchange.respond(200, body, JSON, (*HEADERS, self._cookie(found["cookie"], int(LIFE_S))))

    def _cookie(self, value: str, seconds: int) -> tuple[str, str]:
        secure = "; Secure" if self._secure else ""
        return "Set-Cookie", f"{COOKIE}={value}; Path=/api; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"

    async def _state(self, exchange: Exchange) -> None:
        await _tell(exchange, await self._live.state())

    async def _logs(self, exchange: Exchange) -> None:
        question = parse_question(exchange.query) | {"lines": _number(exchange.query, "lines", 200)}
        question |= {name: _word(exchange.query, name) for name in ("since", "until")}
        question |= {"previous": "previous" in exchange.query}
        await _tell(exchange, {"lines": await self._questions.ask_one("logs", SEARCH_S, **question)})

    async def _search(self, exchange: Exchange) -> None:
        query = exchange.query
        question = parse_words(query) | {"of": [_word(query, name) for name in OF]}
        question |= {"lines": _number(query, "lines", 500), "since": _number(query, "since", 0)}
        question |= {"regex": "regex" in query, "previous": "previous" in query}
        question |= {"entries": "entries" in query}
        await _tell(exchange, {"lines": await self._questions.ask_one("search", SEARCH_S, **question)})

    async def _history(self, exchange: Exchange) -> None:
        query = exchange.query
        of = [_word(query, name) for name in ("namespace", "pod", "uid")]
        seconds, step = _number(query, "seconds", 3600), _number(query, "step", 30)
        await self._tell_kept(exchange, "history", of=of, seconds=seconds, step=step)

    async def _sparks(self, exchange: Exchange) -> None:
        query = exchange.query
        seconds, step = _number(query, "seconds", 3600), _number(query, "step", 120)
        await self._tell_kept(exchange, "sparks", uids=query.get("uid", []), seconds=seconds, step=step)

    async def _metrics(self, exchange: Exchange) -> None:
        await self._tell_kept(exchange, "metrics")

    async def _metric(self, exchange: Exchange) -> None:
        query = exchange.query
        match = [_word(query, name) for name in ("namespace", "pod", "container")]
        seconds, step = _number(query, "seconds", 3600), _number(query, "step", 30)
        await self._tell_kept(exchange, "metric", name=_word(query, "name"), match=match, seconds=seconds, step=step)

    async def _tell_kept(self, exchange: Exchange, ask: str, **question: Any) -> None:
        try:
            found = await self._questions.ask_one(ask, SEARCH_S, **question)
        except NotFound as error:  # nobody keeps it, which is no fault
            found = {"series": [], "missing": "; ".join(error.lines())}
        await _tell(exchange, found)

    async def _live_events(self, exchange: Exchange) -> None:
        async def events() -> Events:
            async with contextlib.aclosing(self._live.deltas(HEARTBEAT_S)) as deltas:
                async for put, gone in deltas:
                    yield ("delta", {"put": put, "gone": gone}) if put or gone else None

        await self._stream(exchange, events())

    async def _follow(self, exchange: Exchange) -> None:
        question = parse_question(exchange.query) | {"lines": _number(exchange.query, "lines", 0)}

        async def events() -> Events:
            async with contextlib.aclosing(self._questions.ask("follow", **question)) as answers:
                turn = aiter(answers)
                waiting = asyncio.ensure_future(anext(turn))
                try:
                    while True:
                        done, _ = await asyncio.wait([waiting], timeout=HEARTBEAT_S)
                        if not done:
                            yield None
                            continue
                        yield "lines", await waiting
                        waiting = asyncio.ensure_future(anext(turn))
                except StopAsyncIteration:
                    return
                finally:
                    waiting.cancel()
                    await asyncio.wait([waiting])

        await self._stream(exchange, events())

    async def _stream(self, exchange: Exchange, events: Events) -> None:
        """Events until the client goes, its session ends, or an error, which is told. None: nothing has happened, which
        is told too, so that we find out who is gone."""
        if self._streams >= MOST_STREAMS:
            raise ResourceExhausted("too many pages are open", hint="close some")
        self._streams += 1
        try:
            await exchange.begin(200, EVENTS, HEADERS)
            async with contextlib.aclosing(events) as turn:
                try:
                    async for event in turn:
                        if await self._admission.who(secrets_of(exchange)) is None:
                            break
                        await exchange.send(_encode(event))
                except PyrunError as error:
                    await exchange.send(_encode(("error", {"error": "; ".join(error.lines())})))
            await exchange.end()
        finally:
            self._streams -= 1


def _encode(event: tuple[str, Any] | None) -> bytes:
    """As text/event-stream (HTML, 9.2)."""
    return b": still here\n\n" if event is None else f"event: {event[0]}\ndata: {json.dumps(event[1])}\n\n".encode()


async def _send_page(exchange: Exchange, page: Page) -> None:
    body, kind = page
    if "gzip" in (exchange.header("accept-encoding") or ""):
        return await exchange.respond(200, body, kind, (*HEADERS, ("Content-Encoding", "gzip")))
    await exchange.respond(200, gzip.decompress(body), kind, HEADERS)


async def _say(exchange: Exchange, status: int, text: str) -> None:
    wait = (("Retry-After", "60"),) if status == 429 else ()
    await exchange.respond(status, json.dumps({"error": text}) + "\n", JSON, (*HEADERS, *wait))


async def _tell(exchange: Exchange, value: Any) -> None:
    await exchange.respond(200, json.dumps(value) + "\n", JSON, HEADERS)


def parse_question(query: Mapping[str, list[str]]) -> dict[str, Any]:
    """What is asked of logs. InvalidArgument names the parameter."""
    of = [_word(query, name) for name in OF]
    if not all(of[:3]):
        raise InvalidArgument("namespace, pod and uid: one is missing", hint="container may be")
    return parse_words(query) | {"of": of, "entries": "entries" in query}


def parse_words(query: Mapping[str, list[str]]) -> dict[str, Any]:
    words = query.get("word", [])
    if len(words) > WORDS or any(len(word) > LONGEST_WORD for word in words):
        raise InvalidArgument(f"word: {WORDS} words of {LONGEST_WORD} characters at most")
    stream = _word(query, "stream")
    if stream not in ("", "stdout", "stderr"):
        raise InvalidArgument(f"stream: {stream!r} is none", hint="stdout or stderr")
    return {"words": words, "stream": stream}


def _word(query: Mapping[str, list[str]], name: str) -> str:
    values = query.get(name, [""])
    if len(values) != 1 or len(values[0]) > 300:
        raise InvalidArgument(f"{name}: one value of 300 characters at most")
    return values[0]


def _number(query: Mapping[str, list[str]], name: str, otherwise: int) -> int:
    text = _word(query, name)
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument(f"{name}: {text!r} is no number")
    return int(text) if text else otherwise
