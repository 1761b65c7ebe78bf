"""What people call an image: `busybox`, `ghcr.io/org/app:1.2`, `repo@sha256:…`.

The rules are docker's, because every registry and every manifest of Kubernetes counts on them: no host means
docker.io, one word there means library/, no tag means latest. A digest wins over a tag that stands beside it. What
does not fit is refused here, before a byte of it becomes a part of a URL or of a file's name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pyrun.errors import InvalidArgument

DEFAULT_HOST = "docker.io"
OLD_DEFAULT_HOST = "index.docker.io"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{64}")
NAME_MOST = 255


@dataclass(frozen=True)
class Reference:
    """host: with its port. repository: below it. One of tag and digest, or neither for a bare name."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    @property
    def tagged(self) -> str | None:
        """`HOST/REPOSITORY:TAG`, if it is a tag's name."""
        return f"{self.name}:{self.tag}" if self.tag else None

    @property
    def wanted(self) -> str:
        """The last part of the manifest's URL."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}" if self.tag else self.name


def parse_reference(text: str) -> Reference:
    """The reference that `text` means. Raises InvalidArgument, which says which part is wrong."""
    if len(text) > 1024:
        raise InvalidArgument("an image reference of more than 1024 characters")
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _wrong(text, f"the digest {digest!r}", "a digest is sha256: and 64 hexadecimal digits")
    host, repository = _split_host(rest)
    repository, colon, tag = repository.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(text, f"the tag {tag!r}", "a tag has letters, digits, _ . - and at most 128 of them")
    if not _HOST.fullmatch(host):
        raise _wrong(text, f"the registry {host!r}", "a registry is a host name with or without a port")
    if host == DEFAULT_HOST and repository and "/" not in repository:
        repository = f"library/{repository}"
    if not _REPOSITORY.fullmatch(repository):
        raise _wrong(
            text, f"the repository {repository!r}", "a repository has small letters, digits and single . _ - /"
        )
    if _HEX.fullmatch(rest):
        raise _wrong(text, "64 hexadecimal digits as a name", "put sha256: before an image's id")
    if len(host) + 1 + len(repository) > NAME_MOST:
        raise _wrong(text, "the name", f"registry and repository have at most {NAME_MOST} characters")
    if digest:
        return Reference(host, repository, None, digest)
    return Reference(host, repository, tag or "latest")


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def _split_host(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    # A first word with a dot, a port or capitals can be no part of a repository at docker.io.
    if slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        return (DEFAULT_HOST if first == OLD_DEFAULT_HOST else first), rest
    return DEFAULT_HOST, text


def _wrong(text: str, what: str, rule: str) -> InvalidArgument:
    return InvalidArgument(f"image reference {text!r}: {what} is none", hint=rule)
