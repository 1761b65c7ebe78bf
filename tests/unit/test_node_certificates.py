"""A pod's certificate: its key and proof, its course (pure), and requests to an API server that the test plays."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pyrun.errors import Unavailable
from pyrun.kube.certificates import new_key_and_proof
from pyrun.kube.objects.certificates import PodCertificateRequestStatus
from pyrun.kube.objects.pods import Pod
from pyrun.node.server import pod_certificates
from pyrun.node.server.certificate_course import Asked, Course, Given, answered, due
from pyrun.node.server.pod_certificates import PodCertificates
from pyrun.node.server.pods import record_of
from pyrun.node.supported import unsupported
from pyrun.node.volumes import Objects, VolumeError, plan_volumes
from pyrun.node.volumes.contents import Credential, File
from pyrun.node.volumes.plan import Filled

CHAIN = ssl.DER_cert_to_PEM_cert(b"leaf") + ssl.DER_cert_to_PEM_cert(b"root")
AT = ("v", 1)


def pod_of(**fields: Any) -> Pod:
    source = {"signerName": "a.b/c", "keyType": "ED25519", "credentialBundlePath": "both", **fields}
    sources = [{"downwardAPI": {}}, {"podCertificate": source}]
    spec = {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "v", "projected": {"sources": sources}}]}
    return msgspec.convert({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}, Pod)


def status(type: str, refresh: str = "1970-01-01T00:10:00Z") -> dict[str, Any]:
    condition = {"type": type, "status": "True", "reason": "R", "message": "m", "lastTransitionTime": refresh}
    given = {"beginRefreshAt": refresh, "notAfter": "1970-01-01T01:00:00Z", "certificateChain": f"text\n{CHAIN}"}
    return {"conditions": [condition], **(given if type == "Issued" else {})}


def read(value: dict[str, Any]) -> PodCertificateRequestStatus:
    return msgspec.convert(value, PodCertificateRequestStatus)


@pytest.mark.parametrize("kind", ["RSA3072", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"])
def test_a_key_proves_that_it_is_there(kind: str) -> None:
    pem, proof = new_key_and_proof(kind)
    request = x509.load_der_x509_csr(proof)
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    key = serialization.load_pem_private_key(pem, None)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----") and request.is_signature_valid and not list(request.subject)
    assert key.public_key().public_bytes(*form) == request.public_key().public_bytes(*form)
    assert kind.endswith(str(getattr(key, "key_size", 25519)))


def test_a_key_of_another_kind() -> None:
    with pytest.raises(ValueError, match="RSA2048"):
        new_key_and_proof("RSA2048")


# --- its course -------------------------------------------------------------------------------------------------------

ASKED = Asked("req-1", b"key", 900.0)
GIVEN = Given(Credential(b"old", b"chain"), 600.0, 3600.0)


def test_it_is_given() -> None:
    assert answered(Course(asked=ASKED), read({}), 0.0) == (Course(asked=ASKED), None)
    course, told = answered(Course(GIVEN, ASKED), read(status("Issued")), 5.0)
    assert told is None and course == Course(Given(Credential(b"key", CHAIN.encode()), 605.0, 3600.0))


@pytest.mark.parametrize(("type", "word"), [("Denied", "was denied"), ("Failed", "failed")])
def test_it_is_refused_for_ever(type: str, word: str) -> None:
    course, told = answered(Course(GIVEN, ASKED), read(status(type)), 0.0)
    assert told == (type, f'PodCertificateRequest req-1 {word}, reason="R" message="m"')
    why = f'PodCertificateRequest was permanently {type.lower()}: reason="R" message="m"'
    assert course.refused == why and course.asked is None
    assert due(course, 1e9) == (course, (), False, None)


@pytest.mark.parametrize(
    ("course", "now", "ask", "reasons", "at"),
    [
        (Course(), 0.0, True, [], None),
        (Course(asked=ASKED), 0.0, False, [], 900.0),
        (Course(asked=ASKED), 900.0, True, [], None),
        (Course(GIVEN), 0.0, False, [], 600.0),
        (Course(GIVEN), 600.0, True, [], 1200.0),
        (Course(GIVEN, replace(ASKED, until=1500.0)), 600.0, False, [], 1200.0),
        (Course(GIVEN, replace(ASKED, until=1500.0)), 1200.0, False, ["CertificateOverdueForRefresh"], 1500.0),
        (Course(GIVEN, told=frozenset({"CertificateOverdueForRefresh"})), 1300.0, True, [], 3600.0),
        (Course(GIVEN), 3600.0, True, ["CertificateOverdueForRefresh", "CertificateExpired"], None),
    ],
)
def test_what_is_due(course: Course, now: float, ask: bool, reasons: list[str], at: float | None) -> None:
    found = due(course, now)
    assert (found.ask, [told.reason for told in found.told], found.at) == (ask, reasons, at)
    assert found.course.given == course.given and not due(found.course, now).told, "told twice"


# --- its files --------------------------------------------------------------------------------------------------------


def test_its_files() -> None:
    objects = Objects(certificates={AT: Credential(b"k", b"c")})
    (found,) = plan_volumes(pod_of(keyPath="key", certificateChainPath="d/chain"), "u", objects)
    assert isinstance(found, Filled)
    files = {"both": b"kc", "key": b"k", "d/chain": b"c"}
    assert found.payload == {path: File(data, 0o644) for path, data in files.items()}


def test_without_one_the_pod_waits() -> None:
    with pytest.raises(VolumeError, match='"v": not yet'):
        plan_volumes(pod_of(), "u", Objects(certificates={AT: "not yet"}))
    with pytest.raises(VolumeError, match="no API server"):
        plan_volumes(pod_of(), "u", Objects())
    (fault,) = unsupported(pod_of())
    assert fault.pointer == "/spec/volumes/0/projected/sources/1/podCertificate"
    assert not list(unsupported(pod_of(), served=True))


# --- requests ---------------------------------------------------------------------------------------------------------


class Server:
    """What a client and a watch of it do. made: requests; each is shown to the watch when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[dict[str, Any]] = []
        self.refreshed: list[str] = []
        self.events: list[str] = []
        self.away = 0  # how often a request fails
        self.watch: Any = None
        monkeypatch.setattr(pod_certificates, "Watch", self._watch)
        monkeypatch.setattr(pod_certificates, "AGAIN_S", (0.001, 0.001))
        self.certificates = PodCertificates(
            self,  # type: ignore[arg-type]
            self._call,
            "n1",
            lambda: "node-uid",
            self.refreshed.append,
            lambda uid, told: self.events.append(told.reason),
        )

    def _watch(self, client: Any, where: str, replaced: Any, changed: Any, *, slim: Any, **query: Any) -> Any:
        assert query == {"fieldSelector": "spec.nodeName=n1"}
        self.watch = SimpleNamespace(
            start=lambda: None,
            stop=lambda: None,
            error=None,
            replaced=lambda *found: replaced([slim(one) for one in found]),
            changed=lambda kind, one: changed(kind, slim(one)),
        )
        return self.watch

    async def _call(self, function: Any, *given: Any) -> Any:
        return function(*given)

    def get(self, where: str) -> Any:
        assert where == "/api/v1/namespaces/ns/serviceaccounts/default"
        return {"metadata": {"uid": "account-uid"}}

    def create(self, where: str, value: dict[str, Any]) -> Any:
        if self.away:
            self.away -= 1
            raise Unavailable("away")
        made = {**value, "metadata": {**value["metadata"], "name": f"req-{len(self.made)}"}}
        self.made.append(made)
        return made

    async def until(self, true: Any) -> None:
        last = time.monotonic() + 60
        while not true():
            assert time.monotonic() < last
            await asyncio.sleep(0.001)

    def shown(self) -> Any:
        return self.certificates.shown("u")[AT]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


def test_a_request_is_made_again_until_it_is_given(server: Server) -> None:
    """The server is away, somebody removes a request, and a list does not have one that was seen."""
    server.away = 1 << 20

    async def run() -> None:
        record = record_of(pod_of(maxExpirationSeconds=3600, userAnnotations={"a/b": "c"}))
        server.certificates.acquire(record)
        server.certificates.acquire(record)
        await server.until(lambda: "away" in server.shown())
        server.away = 0
        await server.until(lambda: len(server.made) == 1)
        server.watch.replaced()  # a list from before it was made
        server.watch.changed("ADDED", server.made[0])
        server.watch.changed("DELETED", server.made[0])
        await server.until(lambda: len(server.made) == 2)
        server.watch.changed("ADDED", server.made[1])
        server.watch.replaced()
        await server.until(lambda: len(server.made) == 3)
        assert server.shown() == "credential bundle is not issued yet" and not server.refreshed
        server.watch.changed("MODIFIED", {**server.made[2], "status": status("Issued", "2999-01-01T00:00:00Z")})
        await server.until(lambda: server.refreshed == ["u"])
        assert server.shown().chain == CHAIN.encode() and server.events == ["CertificateExpired"]
        server.certificates.close()

    asyncio.run(run())
    spec = server.made[2]["spec"]
    assert x509.load_der_x509_csr(base64.b64decode(spec.pop("stubPKCS10Request"))).is_signature_valid
    assert spec == {
        "signerName": "a.b/c", "podName": "p", "podUID": "u", "serviceAccountName": "default",
        "serviceAccountUID": "account-uid", "nodeName": "n1", "nodeUID": "node-uid", "maxExpirationSeconds": 3600,
        "unverifiedUserAnnotations": {"a/b": "c"},
    }  # fmt: skip


def test_a_refresh_has_a_key_of_its_own_and_what_was_given_stays_until_then(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_certificates, "SPREAD_S", 0.0)

    async def run() -> None:
        server.certificates.acquire(record_of(pod_of()))
        await server.until(lambda: len(server.made) == 1)
        server.watch.changed("MODIFIED", {**server.made[0], "status": status("Issued")})  # to be refreshed long ago
        await server.until(lambda: len(server.made) == 2)
        first = server.shown()
        assert isinstance(first, Credential)
        server.watch.changed("MODIFIED", {**server.made[1], "status": status("Issued", "2999-01-01T00:00:00Z")})
        await server.until(lambda: server.shown().key != first.key)
        server.certificates.release("u")
        assert server.certificates.shown("u") == {} and server.refreshed == ["u", "u"]
        server.certificates.close()

    asyncio.run(run())


def test_a_request_that_was_given_up_is_not_taken_for_the_next_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its certificate is of another key."""
    monkeypatch.setattr(pod_certificates, "GIVEN_UP_S", -1e6)

    async def run() -> None:
        server.certificates.acquire(record_of(pod_of()))
        await server.until(lambda: server.made)
        monkeypatch.setattr(pod_certificates, "GIVEN_UP_S", 1e6)
        await server.until(lambda: len(server.made) > 1 and server.certificates._all["u"][AT].course.asked)
        last = len(server.made) - 1
        for one in server.made[:last]:
            server.watch.changed("MODIFIED", {**one, "status": status("Issued", "2999-01-01T00:00:00Z")})
            server.watch.changed("DELETED", one)
            await asyncio.sleep(0)  # in which the loop takes both
        assert not server.refreshed and isinstance(server.shown(), str)
        server.watch.changed("MODIFIED", {**server.made[last], "status": status("Issued", "2999-01-01T00:00:00Z")})
        await server.until(lambda: server.refreshed)
        assert server.refreshed == ["u"] and len(server.made) == last + 1
        given = server.shown()
        key = serialization.load_pem_private_key(given.key, None).public_key()
        asked = x509.load_der_x509_csr(base64.b64decode(server.made[last]["spec"]["stubPKCS10Request"]))
        assert key == asked.public_key()
        server.certificates.close()

    asyncio.run(run())


def test_a_refusal_is_told_once(server: Server) -> None:
    async def run() -> None:
        server.certificates.acquire(record_of(pod_of()))
        await server.until(lambda: len(server.made) == 1)
        server.watch.replaced({**server.made[0], "status": status("Denied")})
        await server.until(lambda: server.refreshed == ["u"])
        server.watch.changed("MODIFIED", {**server.made[0], "status": status("Denied")})
        server.watch.changed("DELETED", server.made[0])
        await server.until(lambda: not server.certificates._seen)
        assert server.events == ["Denied"] and "permanently denied" in server.shown()
        assert len(server.made) == 1
        server.certificates.close()

    asyncio.run(run())
