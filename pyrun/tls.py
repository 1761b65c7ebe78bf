"""Certificates for TLS, as every server and client of ours takes them."""

from __future__ import annotations

import ssl

from .errors import InvalidArgument


def load_certificate(context: ssl.SSLContext, certificate: str, key: str | None = None, *, named: str = "") -> None:
    """For connections from now on. certificate, key: PEM files; the key may be in the certificate's. named: what the
    key is called to people, where not by its file.

    OSError of either (ssl.SSLError is one); InvalidArgument where the key has a password: OpenSSL would ask for it at
    the terminal, if there is one, for as long as it takes."""

    def encrypted() -> str:
        raise InvalidArgument(
            f"{named or key or certificate} needs a password", hint="`openssl pkey -in FILE` writes it without"
        )

    context.load_cert_chain(certificate, key, encrypted)
