"""A certificate from the API server: a CertificateSigningRequest, and the wait for who approves it.

The request's name is a digest of what is asked for, so who asks again with the same bytes waits for the same request.

https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

import base64
import hashlib
import queue
import time
from collections.abc import Callable
from typing import Any

from ..errors import Aborted, AlreadyExists, DeadlineExceeded, NotFound, PyrunError
from .client import Client, Conflict, path
from .watch import Watch

CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"
USAGES = {CLIENT: ("digital signature", "client auth"), SERVING: ("digital signature", "server auth")}
VERSION, PLURAL = "certificates.k8s.io/v1", "certificatesigningrequests"


BY_ITSELF_S = 2.0  # in which a controller would have approved it


class Refused(PyrunError):
    """It was denied, or the signer does not sign it."""


class SigningRequest:
    """signer: one of USAGES. request: PKCS #10 in PEM. told: a line for the log."""

    def __init__(self, client: Client, signer: str, request: bytes, told: Callable[[str], None]) -> None:
        self._client, self._signer, self._request, self._told = client, signer, request, told
        self._seen: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.name = f"node-csr-{hashlib.sha256(signer.encode() + request).hexdigest()[:40]}"

    def certificate(self, patience_s: float | None, waits: Callable[[str], None] = lambda name: None) -> bytes:
        """In PEM, when it has been approved and signed. waits: called with the request's name, if nobody decides soon.
        Refused; DeadlineExceeded after patience_s; NotFound where it is removed meanwhile; Aborted by cancel()."""
        self._ask()
        watch = Watch(
            self._client,
            path(VERSION, PLURAL),
            lambda found: self._seen.put(found[0] if found else NotFound(f"{self.name} was removed")),
            lambda kind, one: self._seen.put(one if kind != "DELETED" else NotFound(f"{self.name} was removed")),
            told=self._told,
            fieldSelector=f"metadata.name={self.name}",
        )
        watch.start()
        try:
            return self._wait(patience_s, waits)
        finally:
            watch.stop()

    def cancel(self) -> None:
        """From any thread: certificate() raises Aborted."""
        self._seen.put(Aborted(f"{self.name} is not waited for any more"))

    def _ask(self) -> None:
        spec = {
            "signerName": self._signer,
            "usages": list(USAGES[self._signer]),
            "request": base64.b64encode(self._request).decode(),
        }
        made = {
            "apiVersion": VERSION,
            "kind": "CertificateSigningRequest",
            "metadata": {"name": self.name},
            "spec": spec,
        }
        try:
            self._client.create(path(VERSION, PLURAL), made)
        except AlreadyExists:
            found = self._client.get(path(VERSION, PLURAL, name=self.name))["spec"]
            if any(found.get(key) != spec[key] for key in ("signerName", "request")):
                raise Conflict(f"{self.name} is somebody else's", hint=f"kubectl delete csr {self.name}") from None

    def _wait(self, patience_s: float | None, waits: Callable[[str], None]) -> bytes:
        last = None if patience_s is None else time.monotonic() + patience_s
        soon: float | None = BY_ITSELF_S
        while True:
            left = None if last is None else max(0.0, last - time.monotonic())
            try:
                seen = self._seen.get(timeout=min((one for one in (left, soon) if one is not None), default=None))
            except queue.Empty:
                if soon is not None:
                    soon = None
                    waits(self.name)
                elif left is not None:
                    raise DeadlineExceeded(
                        f"{self.name} was not approved and signed in {patience_s:.0f} s",
                        hint=f"kubectl certificate approve {self.name}, and once more",
                    ) from None
                continue
            if isinstance(seen, PyrunError):
                raise seen
            if (found := decided(seen)) is not None:
                return found


def decided(request: dict[str, Any]) -> bytes | None:
    """The certificate of a CertificateSigningRequest, or None while there is none. Refused."""
    status = request.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Denied", "Failed"):
            why = condition.get("message") or condition.get("reason") or "no reason is given"
            raise Refused(f"{request['metadata']['name']} was {condition['type'].lower()}: {why}")
    data = status.get("certificate")
    return base64.b64decode(data) if data else None
