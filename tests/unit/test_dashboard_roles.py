"""Who may do what at the dashboard, over its socket: roles, tickets of terminals, and what is written down of it. No
runtime answers, which is what somebody is told who gets as far as it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrun.dashboard.acts import Acts
from pyrun.dashboard.audit import Audit
from pyrun.dashboard.grep import MOST_MEMORY, Asked, search
from pyrun.dashboard.guard import Guard, digest
from pyrun.dashboard.tokens import Tokens
from pyrun.errors import InvalidArgument, ResourceExhausted, Unavailable
from pyrun.listen import only_one
from pyrun.logs.tree import Logs
from tests.support.dashboard import Served, a_dashboard

from .test_logs_blocks import seal

PATIENCE_S = 60.0
SHELL = json.dumps({"container": "c1", "command": ["sh"], "tty": True})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("dashboard")
    (path / "logs").mkdir()
    with a_dashboard(path, path / "cri.sock", path / "logs", "--log-store", str(path / "store")) as found:
        yield found


def act(served: Served, name: str, body: Any, token: str = "", **headers: str) -> tuple[int, Any]:
    """(status, what is told)"""
    headers = {"authorization": f"Bearer {token or served.token}", "origin": served.url[:-1]} | headers
    text = body if isinstance(body, str) else json.dumps(body)
    status, _, told = served.ask(f"/api/act/{name}", "POST", text, **headers)
    return status, json.loads(told)


def make(served: Served, name: str, role: str) -> str:
    status, told = act(served, "make-token", {"name": name, "role": role})
    assert status == 200, told
    return str(told["token"])


def open_terminal(served: Served, ticket: str, **headers: str) -> int:
    handshake = {"upgrade": "websocket", "connection": "Upgrade", "sec_websocket_version": "13"}
    handshake |= {"sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==", "sec_websocket_protocol": "v5.channel.k8s.io"}
    return served.ask(f"/api/terminal?ticket={ticket}", **handshake, **headers)[0]


def audit(served: Served) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = served.get("/api/read/tokens")["audit"]
    return found


def test_what_each_role_may(served: Served) -> None:
    view, operate = make(served, "ann", "view"), make(served, "bob", "operate")
    change = {"file": "", "version": "", "text": "", "dry": False}
    for token, name, body, expected in (
        (view, "retry", {"pod": "a/b"}, 403),
        (view, "remove-image", {"image": "x"}, 403),
        (view, "change", change, 403),
        (view, "change", change | {"dry": True}, 403),
        (view, "make-token", {"name": "eve", "role": "admin"}, 403),
        (operate, "retry", {"pod": "a/b"}, 503),  # there is no agent
        (operate, "change", change, 403),
        (operate, "revoke-token", {"name": "ann"}, 403),
        (served.token, "change", change, 503),
        (served.token, "make-token", {"name": "ann", "role": "view"}, 409),
        (served.token, "make-token", {"name": "x y", "role": "view"}, 400),
        (served.token, "make-token", {"name": "x", "role": "root"}, 400),
        (served.token, "retry", {"pod": "../x"}, 503),
        (served.token, "nothing", {}, 404),
    ):
        status, told = act(served, name, body, token)
        assert status == expected, (name, body, status, told)
    for act_name, expected in (("yaml?pod=a/b", 503), ("garbage", 503), ("tokens", 403), ("manifest?pod=a/b", 403)):
        assert served.ask(f"/api/read/{act_name}", authorization=f"Bearer {view}")[0] == expected, act_name
    assert served.ask("/api/me", authorization=f"Bearer {view}")[2].strip() == '{"name": "ann", "role": "view"}'
    lines = audit(served)
    assert {"who": "ann", "action": "change", "outcome": "refused: it takes admin"}.items() <= next(
        one for one in lines if one["who"] == "ann" and one["action"] == "change"
    ).items()
    told = json.dumps(lines)
    assert view not in told and operate not in told and served.token not in told
    assert view not in (served.said.parent / "dashboard" / "tokens.json").read_text()


def test_a_token_that_is_revoked(served: Served) -> None:
    """Its sessions end, too."""
    token = make(served, "carl", "view")
    body = json.dumps({"token": token})
    _, headers, told = served.ask("/api/login", "POST", body, origin=served.url[:-1])
    session = {"cookie": headers["set-cookie"].split(";")[0], "x_pyrun_key": json.loads(told)["key"]}
    assert served.ask("/api/me", **session)[0] == 200
    assert act(served, "revoke-token", {"name": "root"})[0] == 404
    assert act(served, "revoke-token", {"name": "carl"})[0] == 200
    last = time.monotonic() + PATIENCE_S
    while served.ask("/api/me", **session)[0] != 401:
        assert time.monotonic() < last
        time.sleep(0.1)


def test_a_terminal_takes_a_ticket_that_is_good_once(served: Served) -> None:
    cookie, key = served.login()
    own = {"cookie": cookie, "origin": served.url[:-1]}

    def ticket() -> str:
        status, _, told = served.ask("/api/act/terminal", "POST", SHELL, x_pyrun_key=key, **own)
        assert status == 200
        return str(json.loads(told)["ticket"])

    first = ticket()
    assert open_terminal(served, first, **own) == 503, "there is no runtime"
    assert open_terminal(served, first, **own) == 401, "it was used"
    assert open_terminal(served, "", **own) == open_terminal(served, "x" * 22, **own) == 401
    assert served.ask("/api/act/terminal", "POST", SHELL, **own)[0] == 401, "a cookie alone gives none"
    for origin in ("http://evil.test", "null", f"https://{served.place}"):
        assert open_terminal(served, ticket(), cookie=cookie, origin=origin) == 403
    assert open_terminal(served, ticket(), cookie=cookie) == 403, "every browser tells an Origin"
    other, _ = served.login()
    for stolen in ({"cookie": other}, {}, {"authorization": f"Bearer {served.token}"}):
        assert open_terminal(served, ticket(), origin=own["origin"], **stolen) == 401
    assert served.ask(f"/api/terminal?ticket={ticket()}", **own)[0] == 400, "no WebSocket"
    view = make(served, "dora", "view")
    bearer = {"authorization": f"Bearer {view}", "origin": own["origin"]}
    status, told = act(served, "terminal", SHELL, view)
    assert status == 403 and "ticket" not in told and open_terminal(served, "", **bearer) == 401, "it takes admin"
    lines = [one for one in audit(served) if one["action"] == "terminal" and one["of"] == "c1 ['sh']"]
    assert {"root", "dora"} <= {one["who"] for one in lines}


CALLS: dict[str, dict[str, Any]] = {
    "retry": {"pod": "a/b"},
    "remove-image": {"image": "x"},
    "terminal": json.loads(SHELL),
    "make-token": {"name": "dry", "role": "admin"},
    "revoke-token": {"name": "dry"},
}


@pytest.mark.parametrize("dry", [1, True, "1", False, None])
def test_nothing_but_a_change_has_a_dry_run(served: Served, dry: Any) -> None:
    """It would leave no line in the audit."""
    for name, body in CALLS.items():
        status, told = act(served, name, body | {"dry": dry})
        assert status == 400 and f"{name} has no 'dry'" in told["error"], name
    status, _, text = served.ask("/api/read/manifest?pod=a/b&dry=1", authorization=f"Bearer {served.token}")
    assert status == 400 and "manifest has no 'dry'" in text
    assert "dry" not in [one["name"] for one in served.get("/api/read/tokens")["tokens"]]


def test_a_change_is_dry_or_audited(served: Served) -> None:
    for dry, status, noted in ((True, 503, False), (False, 503, True), (1, 400, True), ("true", 400, True)):
        file = f"of-{dry!r}.yaml"
        assert act(served, "change", {"file": file, "version": "", "text": "", "dry": dry})[0] == status, dry
        assert any(one["of"] == file for one in audit(served)) == noted, dry


@pytest.mark.parametrize("name", ["ask", "with", "patience_s", "self", "act", "x" * 300, "%00"])
def test_fields_that_are_none(served: Served, name: str) -> None:
    bearer = f"Bearer {served.token}"
    for path in (f"yaml?pod=a/b&{name}=x", f"services?{name}=x", f"tokens?{name}=x"):
        status, _, told = served.ask(f"/api/read/{path}", authorization=bearer)
        assert status == 400 and "has no" in told, (path, told)
    for act_name, body in CALLS.items():
        assert act(served, act_name, body | {name: "x"})[0] == 400, act_name
    assert "Traceback" not in served.said.read_text()


def test_the_reader_does_not_trust_the_web_process(tmp_path: Path) -> None:
    """Asked without it, each audited act with a field that is none is refused, too."""
    tokens = Tokens(str(tmp_path), digest("first"))
    token = tokens.make("ann", "admin")
    acts = Acts(str(tmp_path / "cri.sock"), str(tmp_path), Guard(tokens.known), tokens, Audit(str(tmp_path)))
    for name, body in (CALLS | {"manifest": {"pod": "a/b"}}).items():
        with pytest.raises(InvalidArgument, match="has no 'dry'"):
            acts.act(name, {"ask": name, "with": {"bearer": f"Bearer {token}"}, "dry": 1, **body})


def test_parts_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part runs as long as it holds the lock of its directory; what it has left there does not count."""
    tokens = Tokens(str(tmp_path), digest("first"))
    token = tokens.make("ann", "view")
    places = [str(tmp_path / name) for name in ("proxy", "metrics", "logs")]
    for place in places:
        os.mkdir(place)
    guard, audit = Guard(tokens.known), Audit(str(tmp_path))
    acts = Acts(str(tmp_path / "cri.sock"), places[0], guard, tokens, audit, (places[1], places[2]))
    asked = {"ask": "parts", "with": {"bearer": f"Bearer {token}"}}
    none = {"node": False, "proxy": False, "metrics": False, "collect": False}
    with only_one(places[1], "a daemon"):
        assert acts.act("parts", asked).items() >= (none | {"metrics": True}).items()
    assert acts.act("parts", asked).items() >= none.items()
    # The agent runs the proxy and the DNS itself, and tells where.
    own = str(tmp_path / "own")
    value = {"key": "maxPods", "value": "\x1b[31m90", "from": "node.yaml"}
    limit = {"signal": "memory.available", "condition": "MemoryPressure", "limit": 100, "available": 90, "grace": None}
    answers = {"status": {"services": own, "configuration": [value]}, "limits": [limit | {"met": True}]}
    monkeypatch.setattr(acts, "_ask", answers.get)
    for name in ("proxy", "dns"):
        os.makedirs(f"{own}/{name}")
        found = acts.act("parts", asked)
        assert found[name] is False and found["node"] is True
        assert found["configuration"] == [value | {"value": "90"}] and found["limits"] == answers["limits"]
        with only_one(f"{own}/{name}", "a daemon"):
            assert acts.act("parts", asked)[name] is True
    monkeypatch.undo()
    services = asked | {"ask": "services"}
    assert acts.act("services", services) == {"missing": f"{places[0]}/proxy.sock"}
    with only_one(places[0], "a daemon"), pytest.raises(Unavailable, match="proxy.sock"):  # it runs, and is silent
        acts.act("services", services)


@pytest.mark.parametrize("body", ["", "[]", "null", "{", '{"with": {}}', '{"ask": "x"}', "[" * 100_000])
def test_bodies_that_are_no_act(served: Served, body: str) -> None:
    assert act(served, "retry", body)[0] == 400
    assert act(served, "terminal", body)[0] == 400


@pytest.mark.parametrize("body", [{}, {"container": "c1"}, {"container": "", "command": ["sh"]}, {"command": "sh"}])
def test_terminals_of_nothing(served: Served, body: Any) -> None:
    assert act(served, "terminal", body)[0] == 400


def test_acts_of_other_origins(served: Served) -> None:
    for origin in ("http://evil.test", "null", ""):
        assert act(served, "make-token", {"name": "eve", "role": "admin"}, origin=origin)[0] == 403
    assert "eve" not in [one["name"] for one in served.get("/api/read/tokens")["tokens"]]


def test_a_search_that_finds_more_than_there_is_memory_for(served: Served) -> None:
    directory = served.said.parent / "logs" / "large_p_u" / "c"
    directory.mkdir(parents=True)
    with (directory / "0.log").open("wb") as file:
        for end in range(1 << 20, MOST_MEMORY + 1, 1 << 20):  # with holes, which cost no disk
            file.write(b"2026-01-01T00:00:00Z stdout F x")
            file.seek(end)
            file.write(b"\n")
    of = "/api/search?namespace=large&lines=10000"
    until, told = time.monotonic() + PATIENCE_S, ""
    while "too much was found" not in told and time.monotonic() < until:  # its time is up first on a loaded machine
        status, _, told = served.ask(f"{of}&word=x", authorization=f"Bearer {served.token}")
        assert status == 429, told
    assert "too much was found" in told
    assert served.ask("/healthz")[0] == 200


def test_an_expression_that_would_take_for_ever(served: Served) -> None:
    """It is ended, and holds up nobody."""
    directory = served.said.parent / "logs" / "default_p_u" / "c"
    directory.mkdir(parents=True)
    (directory / "0.log").write_text(f"2026-01-01T00:00:00Z stdout F {'a' * 60}!\n")
    of = "/api/search?namespace=default&lines=10"
    [line] = served.get(f"{of}&regex&word=^a%2B!$")["lines"]
    assert line["line"] == "a" * 60 + "!"
    assert served.get(f"{of}&word=nothing")["lines"] == []
    status, _, told = served.ask(f"{of}&regex&word=(a", authorization=f"Bearer {served.token}")
    assert status == 400 and "regular expression" in told
    status, _, told = served.ask(f"{of}&regex&word=(a%2B)%2B$", authorization=f"Bearer {served.token}")
    assert status == 429 and "took too long" in told
    assert served.ask("/healthz")[0] == 200


def test_logs_that_are_sealed_elsewhere_are_found(served: Served) -> None:
    directory = served.said.parent / "logs" / "sealed_p_u" / "c"
    directory.mkdir(parents=True)
    rotated = directory / "0.log.20260101-000000"
    rotated.write_text("2026-01-01T00:00:00Z stdout F from the past\n")
    (directory / "0.log").write_text("2026-01-01T00:01:00Z stderr F now\n")
    assert seal(directory.parents[1], served.said.parent / "store") == 1 and not rotated.exists()
    for asked in ("logs?namespace=sealed&pod=p&uid=u&container=c", "search?namespace=sealed"):
        [line] = served.get(f"/api/{asked}&lines=10&stream=stdout")["lines"]
        assert line["line"] == "from the past", asked


def test_a_part_of_what_was_found_is_not_told_as_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = "import os; os.write(1, b'{}\\n'); os.write(2, b'pyrun: logs: out of memory\\n'); os._exit(1)"
    monkeypatch.setattr("pyrun.dashboard.grep._RUN", ends)
    with pytest.raises(ResourceExhausted, match="too much was found"):
        search(Logs("/"), Asked("", "", "", "", (), False, "", 10, 0, False, False), 60.0)
