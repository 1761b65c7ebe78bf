"""Names of images, as docker writes them: [HOST[:PORT]/]PATH[:TAG][@DIGEST].

A first part with a dot, a colon or "localhost" is a host; else the host is docker.io, where a path of one part is below
library/. Without tag and digest the tag is latest.
"""

from __future__ import annotations

import re

from ..errors import InvalidArgument

DEFAULT_HOST, DEFAULT_TAG = "docker.io", "latest"
LONGEST = 4096
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")
_PART = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class Reference:
    """host, path; tag or None; digest or None."""

    __slots__ = ("digest", "host", "path", "tag")

    def __init__(self, host: str, path: str, tag: str | None, digest: str | None) -> None:
        self.host = host
        self.path = path
        self.tag = tag
        self.digest = digest

    @property
    def repository(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def name(self) -> str:
        """What the image is known by: the digest counts, where one is given."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """InvalidArgument."""
    rest = text[: LONGEST + 1]
    if not rest or len(rest) > LONGEST:
        raise _wrong(text, "is empty or too long")
    rest, at, digest = rest.partition("@")
    if at and not DIGEST.fullmatch(digest):
        raise _wrong(text, "has no digest of the form sha256:64 hex digits behind its @")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise _wrong(text, f"has {tag!r} for a tag")
    host, slash, path = head.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = DEFAULT_HOST, head if slash else f"library/{head}"
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DEFAULT_HOST
    if not _HOST.fullmatch(host):
        raise _wrong(text, f"has {host!r} for a host")
    if len(path) > 255 or not all(_PART.fullmatch(part) for part in path.split("/")):
        raise _wrong(text, f"has {path!r} for a repository")
    return Reference(host, path, tag or (None if digest else DEFAULT_TAG), digest or None)


def _wrong(text: str, why: str) -> InvalidArgument:
    hint = "such as busybox, quay.io/org/name:tag or name@sha256:…; lower case letters only"
    return InvalidArgument(f"image {text[:200]!r} {why}", hint=hint)
