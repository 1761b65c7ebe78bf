"""A signer of pods' certificates, played by a test: an authority, and bundles by which others trust it."""

from __future__ import annotations

import base64
import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

V1 = "certificates.k8s.io/v1"
HOUR = datetime.timedelta(hours=1)


class Signer:
    """name: DOMAIN/NAME."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._own = self._signed(self._key.public_key(), self._subject, authority=True, lasts=24 * HOUR)
        self.pem = self._own.public_bytes(serialization.Encoding.PEM).decode()

    def bundle(self, name: str, *more: str, **labels: str) -> dict[str, Any]:
        """A ClusterTrustBundle SIGNER:NAME of this authority and these."""
        meta = {"name": f"{self.name.replace('/', ':')}:{name}", "labels": labels}
        spec = {"signerName": self.name, "trustBundle": self.pem + "".join(more)}
        return {"apiVersion": V1, "kind": "ClusterTrustBundle", "metadata": meta, "spec": spec}

    def issued(self, request: dict[str, Any]) -> dict[str, Any]:
        """The status of a PodCertificateRequest that is granted."""
        spec = request["spec"]
        proof = x509.load_der_x509_csr(base64.b64decode(spec["stubPKCS10Request"]))
        assert proof.is_signature_valid and not list(proof.subject) and not list(proof.extensions)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, spec["podName"])])
        lasts = datetime.timedelta(seconds=spec["maxExpirationSeconds"])
        made = self._signed(proof.public_key(), subject, authority=False, lasts=lasts)
        begins, ends = made.not_valid_before_utc, made.not_valid_after_utc
        return {
            "conditions": [_condition("Issued", "Good", "it is known")],
            "certificateChain": made.public_bytes(serialization.Encoding.PEM).decode() + self.pem,
            "notBefore": _words(begins),
            "beginRefreshAt": _words(begins + lasts / 2),
            "notAfter": _words(ends),
        }

    @staticmethod
    def refused(type: str) -> dict[str, Any]:
        """type: Denied or Failed."""
        return {"conditions": [_condition(type, "Strange", 'who is "this"?')]}

    def _signed(self, key: Any, subject: x509.Name, authority: bool, lasts: datetime.timedelta) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + lasts)
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        return made.sign(self._key, hashes.SHA256())


def _words(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _condition(type: str, reason: str, message: str) -> dict[str, str]:
    when = _words(datetime.datetime.now(datetime.UTC))
    return {"type": type, "status": "True", "reason": reason, "message": message, "lastTransitionTime": when}
