"""Clients of the dashboard that mean harm, over its socket. No runtime answers, and that is to be told."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dashboard import Served, a_dashboard

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("dashboard")
    (path / "logs").mkdir()
    with a_dashboard(path, path / "cri.sock", path / "logs", "--host", "node-1.test") as found:
        yield found


def test_pages_need_no_token_and_bring_their_policy(served: Served) -> None:
    for path in ("/", "/app.js", "/style.css", "/icon.svg"):
        status, headers, body = served.ask(path)
        assert status == 200 and body
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "require-trusted-types-for" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_data_needs_a_token(served: Served) -> None:
    cookie, key = served.login()
    for headers in (
        {},
        {"authorization": "Bearer x"},
        {"authorization": served.token},
        {"authorization": f"Basic {served.token}"},
        {"cookie": cookie},  # stolen: a cookie goes to all ports of a host
        {"x_pyrun_key": key},
        {"cookie": f"{cookie}x", "x_pyrun_key": key},
    ):
        for path in ("/api/state", "/api/live", "/api/logs", "/api/follow", "/api/nothing"):
            status, _, body = served.ask(path, **headers)
            assert status in (401, 429) and "token" in body, (headers, path, body)
    assert served.ask("/api/state", cookie=cookie, x_pyrun_key=key)[0] == 200
    assert served.ask("/api/logout", "POST", "", cookie=cookie, x_pyrun_key=key, origin=served.url[:-1])[0] == 204
    assert served.ask("/api/state", cookie=cookie, x_pyrun_key=key)[0] == 401


def test_the_cookie_is_for_nobody_else(served: Served) -> None:
    _, headers, _ = served.ask("/api/login", "POST", json.dumps({"token": served.token}), origin=served.url[:-1])
    assert {"HttpOnly", "SameSite=Strict", "Path=/api"} <= set(headers["set-cookie"].split("; "))


def test_other_hosts_and_origins(served: Served) -> None:
    bearer = f"Bearer {served.token}"
    for host in ("evil.test", f"evil.test:{served.place.split(':')[1]}", "127.0.0.1.evil.test", ""):
        assert served.ask("/", host=host)[0] == 421, host
        assert served.ask("/api/state", host=host, authorization=bearer)[0] == 421, host
    assert served.ask("/", host="node-1.test:80")[0] == 200
    for origin in ("http://evil.test", "null", f"https://{served.place}", "http://127.0.0.1", ""):
        assert served.ask("/api/state", origin=origin, authorization=bearer)[0] == 403, origin
        body = json.dumps({"token": served.token})
        assert served.ask("/api/login", "POST", body, origin=origin)[0] == 403, origin
    assert served.ask("/api/login", "POST", "{}")[0] == 403, "a form of another site without an Origin"
    for site in ("cross-site", "same-site"):
        assert served.ask("/api/state", sec_fetch_site=site, authorization=bearer)[0] == 403
    assert served.ask("/api/state", origin=served.url[:-1], authorization=bearer)[0] == 200


def test_nothing_outside_of_the_pages_can_be_had(served: Served) -> None:
    bearer = f"Bearer {served.token}"
    for path in (
        "/../web.py",
        "/..%2fweb.py",
        "/%2e%2e/web.py",
        "//etc/passwd",
        "/page/app.js",
        "/app.js%00",
        "/app.js/",
    ):
        assert served.ask(path, authorization=bearer)[0] == 404, path
    assert served.ask("/app.js", "POST", "", origin=served.url[:-1])[0] == 405
    assert served.ask("/api/state", "DELETE", origin=served.url[:-1], authorization=bearer)[0] == 405
    assert served.ask("/api/state", "GET", upgrade="websocket", connection="upgrade")[0] == 401


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"token": 1}', '{"token": null}', "[" * 100_000, "\x00"])
def test_bodies_that_are_no_login(served: Served, body: str) -> None:
    assert served.ask("/api/login", "POST", body, origin=served.url[:-1])[0] == 400


def test_questions_that_are_none(served: Served) -> None:
    bearer = f"Bearer {served.token}"
    of = "namespace=a&pod=b&uid=c"
    for query in (
        "",
        "pod=b",
        f"{of}&stream=x",
        f"{of}&lines=x",
        f"{of}&lines=0",
        f"{of}&lines=-1",
        f"{of}&lines=999999",
        f"{of}&pod=d",
        f"{of}&container={'x' * 400}",
        of + "&word=x" * 20,
    ):
        status, _, body = served.ask(f"/api/logs?{query}", authorization=bearer)
        assert status == 400 and "error" in body, (query, body)
    assert served.ask(f"/api/logs?{of}", authorization=bearer)[0] == 404


def test_a_runtime_that_is_away_is_told(served: Served) -> None:
    state = served.get("/api/state")
    assert "cri.sock" in state["node"]["error"]
    assert state["problem/0"]["what"] == "the runtime does not answer"


def dial(served: Served) -> socket.socket:
    host, port = served.place.split(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE_S)


def test_requests_that_are_no_http(served: Served) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000,
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /api/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
    ):
        with dial(served) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = connection.recv(100)
                assert not answer or answer.split(b" ")[1][:1] == b"4", (data[:40], answer)
    assert served.ask("/healthz")[0] == 200


def test_clients_that_read_nothing_and_send_slowly_hold_up_nobody(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(120):
            connection = stack.enter_context(dial(served))
            # Some send half a head and no more, some ask for much and read nothing.
            half = b"GET / HTTP/1.1\r\nHost: loc"
            many = b"GET /app.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500
            with contextlib.suppress(OSError):
                connection.setblocking(False)
                connection.send(half if number % 2 else many)
        assert served.ask("/healthz")[0] == 200
        assert served.get("/api/state")
        # Nobody but these is there any more once they are cut off.
        slow = stack.enter_context(dial(served))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert slow.recv(1) == b"", "half a head is not waited for"


def test_too_many_pages(served: Served) -> None:
    """Streams are bounded; when some are closed there is room again."""
    request = f"GET /api/live HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {served.token}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        statuses = []
        for _ in range(60):
            connection = stack.enter_context(dial(served))
            connection.sendall(request)
            statuses.append(connection.recv(12)[9:12])
        assert set(statuses) == {b"200", b"429"}
    last = time.monotonic() + PATIENCE_S
    while True:
        with dial(served) as connection:
            connection.sendall(request)
            if connection.recv(12)[9:12] == b"200":
                return
        assert time.monotonic() < last
        time.sleep(0.2)


def test_wrong_tokens_are_slowed_down(served: Served) -> None:
    wrong = json.dumps({"token": "x" * 43})
    statuses = {served.ask("/api/login", "POST", wrong, origin=served.url[:-1])[0] for _ in range(20)}
    assert 429 in statuses and statuses <= {401, 429}
    assert served.login()
    assert "Traceback" not in served.said.read_text(), "none of all this was a fault of ours"


def test_tls(tmp_path: Path) -> None:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    argv += [
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(cert),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    (tmp_path / "logs").mkdir()
    with a_dashboard(
        tmp_path, tmp_path / "cri.sock", tmp_path / "logs", "--tls-cert", str(cert), "--tls-key", str(key)
    ) as found:
        context = ssl.create_default_context(cafile=str(cert))
        with dial(found) as plain, context.wrap_socket(plain, server_hostname="localhost") as secured:
            body = json.dumps({"token": found.token})
            head = f"POST /api/login HTTP/1.1\r\nHost: {found.place}\r\nOrigin: https://{found.place}\r\n"
            secured.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            answer = secured.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200") and b"; Secure" in answer
        with dial(found) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not plain.recv(100).startswith(b"HTTP/1.1 200")
