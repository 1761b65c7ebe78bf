"""A request for a certificate that outlives us: its key and the request are on the disk before anybody is asked.

So who was killed meanwhile, and begins again, waits for the same request and leaves none behind that an administrator
has approved for nothing.
"""

from __future__ import annotations

import contextlib
import os

from ...errors import PyrunError, reason
from ...kube.certificates import Pair, Subject, new_key, new_request, parse_pair, write_private
from ...kube.signing import Refused

KEY = b"-----BEGIN CERTIFICATE REQUEST-----"


class Pending:
    """path: of its file. subject: who the certificate is for; another one's request is thrown away."""

    def __init__(self, path: str, subject: Subject) -> None:
        self._path, self._subject = path, subject
        self.key, self.request = self._found() or self._made()

    def _found(self) -> tuple[bytes, bytes] | None:
        try:
            with open(self._path, "rb") as file:
                key, mark, rest = file.read().partition(KEY)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PyrunError(f"{self._path}: {reason(error)}") from None
        head, _, body = key.partition(b"\n")
        if not mark or head != _line_of(self._subject):
            return None
        return body, mark + rest

    def _made(self) -> tuple[bytes, bytes]:
        key = new_key()
        request = new_request(key, self._subject)
        write_private(self._path, _line_of(self._subject) + b"\n" + key + request)
        return key, request

    def pair(self, certificate: bytes) -> Pair:
        """With the key. Refused where the certificate is not the one that was asked for."""
        try:
            found = parse_pair(certificate, self.key)
        except ValueError as error:
            raise Refused(f"the certificate that was signed can't be used: {error}") from None
        if found.subject != self._subject:
            raise Refused(f"the certificate that was signed is for {found.subject}, not {self._subject}")
        return found

    def forget(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def _line_of(subject: Subject) -> bytes:
    return b"# " + repr(subject).encode()
