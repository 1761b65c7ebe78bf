"""Whose name to ask in: credentials of a request, or those that `docker login` has kept.

They belong to one registry. Whoever asks for them names the host that they will be sent to, and gets none for another
(CVE-2020-15157). Helpers are programs by name only, found on PATH, with a deadline and a bound on what they say.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from pyrun.errors import InvalidArgument, PyrunError, reason

FILE_MOST = 1 << 20
HELPER_S = 30.0
HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
DOCKER_HUB = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")
TOKEN_USER = "<token>"


@dataclass(frozen=True)
class Auth:
    """As the CRI's AuthConfig. identity_token: is changed for a token at the registry's token server. registry_token:
    is sent as it is. server: the host that it is for; "" for the reference's."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""
    server: str = ""

    def __repr__(self) -> str:  # no secret in a log or a traceback
        return f"Auth(username={self.username!r}, server={self.server!r})"

    @property
    def basic(self) -> str:
        return base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def from_request(username: str, password: str, auth: str, server: str, identity: str, registry: str) -> Auth | None:
    """The credentials of a request; None where it has none. auth: base64 of `username:password`."""
    if auth and not username:
        username, password = split_basic(auth)
    if not (username or identity or registry):
        return None
    return Auth(username, password, identity, registry, host_of(server))


def split_basic(auth: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(auth, validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidArgument("credentials: auth is no base64 of username:password")
    username, colon, password = text.partition(":")
    if not colon:
        raise InvalidArgument("credentials: auth has no colon between username and password")
    return username, password.rstrip("\0")


def host_of(server: str) -> str:
    """The host of a server's address, which may be a URL."""
    host = server.partition("://")[2] or server
    return host.partition("/")[0].lower()


def same_host(left: str, right: str) -> bool:
    hub = {host_of(name) for name in DOCKER_HUB}
    left, right = left.lower(), right.lower()
    return left == right or (left in hub and right in hub)


def default_path() -> str:
    directory = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    return f"{directory}/config.json"


def find_auth(path: str, host: str, repository: str = "") -> Auth | None:
    """What docker's config.json has for a host. Raises PyrunError where the file or a helper is broken."""
    config = _load(path)
    if config is None:
        return None
    names = _names(host)
    helpers = _object(config, "credHelpers", path)
    for name in names:
        if isinstance(helper := helpers.get(name), str):
            return _ask(helper, name, host)
    if (found := _kept(_object(config, "auths", path), names, repository, host)) is not None:
        return found
    store = config.get("credsStore")
    if isinstance(store, str) and store:
        for name in names:
            if (found := _ask(store, name, host)) is not None:
                return found
    return None


def auth_among(auths: dict[str, Any], host: str, repository: str) -> Auth | None:
    """What the `auths` of a docker's config.json have for a host. PyrunError where they are no credentials."""
    return _kept(auths, _names(host), repository, host)


def _names(host: str) -> list[str]:
    return list(DOCKER_HUB) if same_host(host, "docker.io") else [host]


def _load(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_MOST + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}")
    try:
        made = json.loads(data[:FILE_MOST])
    except ValueError as error:
        raise PyrunError(f"{path}: no JSON: {error}")
    if not isinstance(made, dict):
        raise PyrunError(f"{path}: no JSON object")
    return made


def _object(config: dict[str, Any], name: str, path: str) -> dict[str, Any]:
    value = config.get(name) or {}
    if not isinstance(value, dict):
        raise PyrunError(f"{path}: {name}: it must be an object")
    return value


def _kept(auths: dict[str, Any], names: list[str], repository: str, host: str) -> Auth | None:
    """The entry with the longest path, as the kubelet has it (`q.io/team`): then the host's own."""
    best: tuple[int, dict[str, Any]] | None = None
    for key, entry in auths.items():
        if not isinstance(entry, dict):
            continue
        path = (key.partition("://")[2] or key).partition("/")[2].rstrip("/")
        path = "" if path in ("v1", "v2") else path
        fits = not path or repository == path or repository.startswith(f"{path}/")
        if fits and (key in names or host_of(key) in map(host_of, names)) and (best is None or len(path) > best[0]):
            best = len(path), entry
    if best is None:
        return None
    words = {
        name: best[1].get(name) or "" for name in ("username", "password", "auth", "identitytoken", "registrytoken")
    }
    if not all(isinstance(word, str) for word in words.values()):
        raise PyrunError(f"credentials of {host}: they must be strings")
    return from_request(
        words["username"], words["password"], words["auth"], host, words["identitytoken"], words["registrytoken"]
    )


def _ask(helper: str, name: str, host: str) -> Auth | None:
    if not HELPER_NAME.fullmatch(helper):
        raise PyrunError(f"credential helper {helper!r}: no name of a program")
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=name.encode(), capture_output=True, timeout=HELPER_S, check=False, close_fds=True
        )
    except subprocess.TimeoutExpired:
        raise PyrunError(f"{program}: no answer in {HELPER_S:.0f} s")
    except OSError as error:
        raise PyrunError(f"{program}: {reason(error)}", hint="docker's config.json names it; install it or take it out")
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()[:200]
        if "not found" in said:
            return None
        raise PyrunError(f"{program}: {said}")
    try:
        made = json.loads(done.stdout[:FILE_MOST])
        username, secret = str(made["Username"]), str(made["Secret"])
    except (ValueError, KeyError, TypeError):
        raise PyrunError(f"{program}: its answer is no credentials")
    if username == TOKEN_USER:
        return Auth(identity_token=secret, server=host)
    return Auth(username, secret, server=host)
