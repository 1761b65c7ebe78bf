"""Keys, requests for certificates (PKCS #10), and files that have a certificate and its key, both in PEM.

Such a file is replaced as a whole, so that nobody ever sees a certificate beside another one's key.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
from dataclasses import dataclass

from ..errors import PyrunError, reason
from ..tls import load_certificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from typing import Any


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose a certificate is. names, addresses: its alternative ones, sorted."""

    name: str
    organizations: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate (with those after it) and its key. begins, ends: seconds since 1970."""

    subject: Subject
    begins: float
    ends: float
    certificate: bytes
    key: bytes


def needs_cryptography() -> None:
    """PyrunError where the package is missing."""
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError:
        hint = "pip install 'pyrun[kube]'"
        raise PyrunError("the Python package cryptography, which makes certificates, is missing", hint=hint) from None


def new_key() -> bytes:
    """Of the curve P-256, as PKCS #8 in PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, form, plain)


def new_key_and_proof(kind: str) -> tuple[bytes, bytes]:
    """A key of this kind (RSA3072, ECDSAP256, … of a PodCertificateRequest) as PKCS #8 in PEM, and an empty request
    that it has signed, in DER. Blocks for seconds where it is RSA's. ValueError of another kind."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    curves: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
        "ECDSAP256": (ec.SECP256R1(), hashes.SHA256()),
        "ECDSAP384": (ec.SECP384R1(), hashes.SHA384()),
        "ECDSAP521": (ec.SECP521R1(), hashes.SHA512()),
    }
    key: Any
    by: hashes.HashAlgorithm | None = hashes.SHA256()
    if kind in ("RSA3072", "RSA4096"):
        key = rsa.generate_private_key(65537, int(kind.removeprefix("RSA")))
    elif kind in curves:
        curve, by = curves[kind]
        key = ec.generate_private_key(curve)
    elif kind == "ED25519":
        key, by = ed25519.Ed25519PrivateKey.generate(), None
    else:
        raise ValueError(f"keys can't be {kind!r}")
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    proof = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, by)  # type: ignore[arg-type]
    return key.private_bytes(serialization.Encoding.PEM, form, plain), proof.public_bytes(serialization.Encoding.DER)


def new_request(key: bytes, subject: Subject) -> bytes:
    """A request for a certificate of this key, in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    words = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in subject.organizations]
    made = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*words, x509.NameAttribute(NameOID.COMMON_NAME, subject.name)])
    )
    others: list[x509.GeneralName] = [x509.DNSName(name) for name in subject.names]
    others += [x509.IPAddress(ipaddress.ip_address(address)) for address in subject.addresses]
    if others:
        made = made.add_extension(x509.SubjectAlternativeName(others), critical=False)
    signer: Any = serialization.load_pem_private_key(key, None)
    return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def parse_pair(certificate: bytes, key: bytes) -> Pair:
    """ValueError where it is none: damaged, or of two keys."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.oid import NameOID

    found = x509.load_pem_x509_certificate(certificate)
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if found.public_key().public_bytes(*form) != serialization.load_pem_private_key(
        key, None
    ).public_key().public_bytes(*form):
        raise ValueError("the certificate is of another key")
    names: list[str] = []
    addresses: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound):
        others = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = others.get_values_for_type(x509.DNSName)
        addresses = [str(one) for one in others.get_values_for_type(x509.IPAddress)]

    def words(of: x509.ObjectIdentifier) -> list[str]:
        return [str(one.value) for one in found.subject.get_attributes_for_oid(of)]

    subject = Subject(
        (words(NameOID.COMMON_NAME) or [""])[0],
        tuple(words(NameOID.ORGANIZATION_NAME)),
        tuple(sorted(names)),
        tuple(sorted(addresses)),
    )
    begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
    return Pair(subject, begins, ends, certificate, key)


def read_pair(path: str) -> Pair | None:
    """None where there is no such file, or nothing in it that can be used."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        return parse_pair(data, data)
    except (FileNotFoundError, ValueError):
        return None
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None


def key_hashes(authorities: bytes) -> dict[str, bytes]:
    """`sha256:HEX` of the public key (SubjectPublicKeyInfo, as kubeadm prints it) of each certificate, and that in PEM.
    ValueError where there is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    found = {}
    for one in x509.load_pem_x509_certificates(authorities):
        key = one.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        found[f"sha256:{hashlib.sha256(key).hexdigest()}"] = one.public_bytes(serialization.Encoding.PEM)
    return found


def load_pair(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """For connections from now on. ssl takes names of files only; a memfd has one, and no other process reads it."""
    fds = []
    try:
        for data in (certificate, key):
            fds.append(os.memfd_create("pem", os.MFD_CLOEXEC))
            os.write(fds[-1], data)
        load_certificate(context, *(f"/proc/self/fd/{fd}" for fd in fds), named="the key in the kubeconfig")
    finally:
        for fd in fds:
            os.close(fd)


def write_private(path: str, data: bytes) -> None:
    """The file as a whole or not at all, also over a power cut; root's alone. PyrunError."""
    made = f"{path}.new"
    try:
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(made, path)
        directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None
