"""A signer of pods' certificates, played by a test: an authority, and bundles by which others trust it."""

from __future__ import annotations

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

    def _signed(self, key: Any, subject: x509.Name, authority: bool, lasts: datetime.timedelta) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + lasts)
        made = made.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        return made.sign(self._key, hashes.SHA256())
