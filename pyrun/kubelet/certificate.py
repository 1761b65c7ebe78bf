"""A serving certificate of the node's own, for who is given none: signed by itself, as a kubelet's is."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable

from ..errors import PyrunError, reason

DAYS, RENEW_DAYS = 365, 30


def own_certificate(path: str, name: str, addresses: Iterable[str]) -> None:
    """Makes the file, certificate and key in PEM, unless it has one that fits for RENEW_DAYS more. PyrunError."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ModuleNotFoundError:
        hint = "--tls-cert-file and --tls-private-key-file name them, or pip install 'pyrun[kube]'"
        raise PyrunError("the Python package cryptography, which makes certificates, is missing", hint=hint) from None
    now = datetime.datetime.now(datetime.UTC)
    hosts = sorted({*addresses, "127.0.0.1", "::1"})
    names = x509.SubjectAlternativeName(
        [x509.DNSName(name), x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(host)) for host in hosts)]
    )
    try:
        with open(path, "rb") as file:
            found = x509.load_pem_x509_certificate(file.read())
        kept = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if kept == names and found.not_valid_after_utc - now > datetime.timedelta(days=RENEW_DAYS):
            return
    except (OSError, ValueError, x509.ExtensionNotFound):
        pass
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
        .add_extension(names, critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write(path, made.public_bytes(encoding) + key.private_bytes(encoding, form, plain))


def _write(path: str, data: bytes) -> None:
    made = f"{path}.{os.getpid()}"
    try:
        fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(data)
        os.rename(made, path)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None
