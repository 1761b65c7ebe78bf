"""What decides a node's way into a cluster: signatures, files that are broken, and when a certificate is due."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import time
from pathlib import Path

import pytest

from pyrun.errors import InvalidArgument, PyrunError
from pyrun.kube.certificates import Pair, Subject, new_key, new_request, read_pair, write_private
from pyrun.kube.client import Client
from pyrun.kube.discovery import is_signed, parse_token
from pyrun.kube.kubeconfig import Cluster
from pyrun.kube.signing import CLIENT, Refused, decided
from pyrun.node.join import renewal
from pyrun.node.join.credentials import Credentials
from pyrun.node.join.pending import Pending
from pyrun.node.join.renewal import Renewal, due_in

SUBJECT = Subject("system:node:n1", ("system:nodes",), ("n1",), ("10.0.0.1", "fd00::1"))


def signature(config: str, secret: str, **header: str) -> str:
    def encoded(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    head = encoded(json.dumps({"alg": "HS256", "kid": "aaaaaa", **header}).encode())
    sum = hmac.digest(secret.encode(), f"{head}.{encoded(config.encode())}".encode(), hashlib.sha256)
    return f"{head}..{encoded(sum)}"


def test_a_signature_of_cluster_info() -> None:
    good = signature("config", "secret")
    assert is_signed("config", good, "aaaaaa", "secret")
    head, _, sum = good.split(".")
    broken = (
        None,
        "",
        "a",
        f"{head}.{sum}",
        f"{head}.Y29uZmln.{sum}",
        f"..{sum}",
        f"{head}..",
        f"{head}..\u00e9",
        "W10..x",
    )
    for text in (*broken, signature("config", "secret", alg="none"), signature("config", "secret", kid="bbbbbb")):
        assert not is_signed("config", text, "aaaaaa", "secret"), text
    assert not is_signed("another", good, "aaaaaa", "secret")
    assert not is_signed("config", good, "aaaaaa", "other")


@pytest.mark.parametrize(
    "text", ["", "abcdef", "abcdef.0123456789abcde", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef\n"]
)
def test_a_token_that_is_none(text: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse_token(text)
    assert "0123456789" not in str(raised.value)


def test_when_a_certificate_is_due() -> None:
    pair = Pair(SUBJECT, 1000.0, 2000.0, b"", b"")
    assert due_in(pair, SUBJECT, 1500.0, 0.7) == 200.0
    assert due_in(pair, SUBJECT, 1800.0, 0.7) <= 0
    assert due_in(None, SUBJECT, 1500.0, 0.7) <= 0
    assert due_in(pair, Subject("system:node:n1", ("system:nodes",), ("n1",), ("10.0.0.2",)), 1500.0, 0.7) <= 0
    assert due_in(pair, SUBJECT, 999.0, 0.7) <= 0


@pytest.mark.parametrize("fault", [None, ValueError("no base64")])
def test_a_certificate_that_helps_nothing_is_not_asked_for_at_once_again(
    monkeypatch: pytest.MonkeyPatch, fault: Exception | None
) -> None:
    """Of a node whose clock is behind, each is not good yet; and what nobody thought of does not end the thread."""
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    asked: list[float] = []

    class Counted(Renewal):
        def _renew(self) -> None:
            asked.append(time.monotonic())
            if fault is not None:
                raise fault

    future = time.time() + 10_000
    monkeypatch.setattr(renewal, "read_pair", lambda path: Pair(SUBJECT, future, future + 1000, b"", b""))
    it = Counted(Client(Cluster("http://127.0.0.1:1")), CLIENT, "client.pem", SUBJECT, told.put)
    it.start()
    assert "can't be renewed" in told.get(timeout=60)
    assert it.error and len(asked) == 1
    it.stop()


def test_what_a_request_came_to() -> None:
    def request(**status: object) -> dict[str, object]:
        return {"metadata": {"name": "r"}, "status": status}

    assert decided({"metadata": {"name": "r"}}) is None
    assert decided(request(conditions=[{"type": "Approved"}])) is None
    assert decided(request(conditions=[{"type": "Approved"}], certificate="cGVt")) == b"pem"
    for type in ("Denied", "Failed"):
        with pytest.raises(Refused, match=f"r was {type.lower()}: not you"):
            decided(request(conditions=[{"type": type, "message": "not you"}]))


def test_a_request_that_waits_outlives_us(tmp_path: Path) -> None:
    """As long as it is for the same, and whole."""
    path = tmp_path / "client.next"
    first = Pending(str(path), SUBJECT)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Pending(str(path), SUBJECT)
    assert (again.key, again.request) == (first.key, first.request)
    other = Pending(str(path), Subject("system:node:n2", ("system:nodes",)))
    assert other.key != first.key
    path.write_bytes(path.read_bytes()[:50])
    third = Pending(str(path), SUBJECT)
    assert third.key not in (first.key, other.key)
    with pytest.raises(Refused, match="can't be used"):
        third.pair(b"no certificate")
    third.forget()
    third.forget()
    assert not path.exists()


def test_credentials_that_are_broken_are_told(tmp_path: Path) -> None:
    credentials = Credentials(str(tmp_path))
    with pytest.raises(PyrunError, match="no node's certificate"):
        credentials.node()
    key = new_key()
    write_private(credentials.client, new_request(key, SUBJECT) + key)
    assert read_pair(credentials.client) is None
    with pytest.raises(PyrunError, match="pyrun node join makes it anew"):
        credentials.node()
