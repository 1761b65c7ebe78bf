"""The tokens of people: a file of root's with the digest, name and role of each; a token itself is told once.

The token of the file `token`, made at the first start, is an admin's and can't be revoked here."""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any

from ..errors import AlreadyExists, InvalidArgument, NotFound, PyrunError, ResourceExhausted, reason
from .guard import ADMIN, ROLES, Who, digest

ROOT = "root"
MOST_TOKENS = 100
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


class Tokens:
    """state: the directory. token: the digest of the first one. PyrunError where the file is no list of tokens."""

    def __init__(self, state: str, token: bytes) -> None:
        self._path = os.path.join(state, "tokens.json")
        self._token = token
        self._lock = threading.Lock()
        self._kept = _load(self._path)
        self._known = self._digests()

    def known(self) -> Mapping[bytes, Who]:
        """By digest."""
        return self._known

    def listed(self) -> list[dict[str, Any]]:
        """{name, role, made: nanoseconds since 1970}, the first one without a time."""
        kept = [{name: one[name] for name in ("name", "role", "made")} for one in self._kept]
        return [{"name": ROOT, "role": ADMIN, "made": 0}, *kept]

    def make(self, name: str, role: str) -> str:
        """The token."""
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"{name!r} is no name", hint="letters, digits and . _ @ -, 63 at most")
        if role not in ROLES:
            raise InvalidArgument(f"{role!r} is no role", hint=", ".join(ROLES))
        token = secrets.token_urlsafe(32)
        with self._lock:
            if name == ROOT or any(one["name"] == name for one in self._kept):
                raise AlreadyExists(f"there is a token of {name}", hint="revoke it first")
            if len(self._kept) >= MOST_TOKENS:
                raise ResourceExhausted(f"there are {MOST_TOKENS} tokens", hint="revoke some")
            made = {"name": name, "role": role, "made": time.time_ns(), "digest": digest(token).hex()}
            self._keep([*self._kept, made])
        return token

    def revoke(self, name: str) -> None:
        """Its sessions end with it."""
        with self._lock:
            rest = [one for one in self._kept if one["name"] != name]
            if len(rest) == len(self._kept):
                hint = "remove its file and start anew" if name == ROOT else None
                raise NotFound(f"there is no token of {name!r} that could be revoked", hint=hint)
            self._keep(rest)

    def _keep(self, kept: list[dict[str, Any]]) -> None:
        """Written whole, or not at all."""
        made = f"{self._path}.{secrets.token_hex(4)}"
        try:
            fd = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(fd, "w") as file:
                json.dump(kept, file)
                file.flush()
                os.fsync(fd)
            os.rename(made, self._path)
        except OSError as error:
            raise PyrunError(f"{self._path}: {reason(error)}") from None
        self._kept = kept
        self._known = self._digests()

    def _digests(self) -> dict[bytes, Who]:
        found = {bytes.fromhex(one["digest"]): Who(one["name"], one["role"]) for one in self._kept}
        return found | {self._token: Who(ROOT, ADMIN)}


def _load(path: str) -> list[dict[str, Any]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}") from None
    with open(fd) as file:
        try:
            kept = json.load(file)
            if all(_is_kept(one) for one in kept):
                return list(kept)
        except (ValueError, TypeError, RecursionError):
            pass
    raise PyrunError(f"{path} is no list of tokens", hint="without it all but the first token are gone")


def _is_kept(one: dict[str, Any]) -> bool:
    return (
        bool(_NAME.fullmatch(one.get("name", "")))
        and one.get("role") in ROLES
        and isinstance(one.get("made"), int)
        and len(bytes.fromhex(one.get("digest", ""))) == 32
    )
