"""Where a registry's images are asked for: its mirrors first, then itself, by containerd's certs.d/HOST/hosts.toml.

People have these files, so their meaning is containerd's: `server`, and a table [host."URL"] for each mirror, in their
order, with capabilities, ca, client, skip_verify, override_path, header. A directory with certificates alone (*.crt,
*.cert with *.key) is docker's form. A key that is not known is refused by name: a misspelt `skip_verfy` would otherwise
be told as a TLS error, and a misspelt `ca` not at all.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pyrun.errors import PyrunError, reason

CERTS_DIRS = ("/etc/pyrun/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d")
FILE_MOST = 1 << 20
SERVERS = {"docker.io": "registry-1.docker.io"}
PULL, RESOLVE, PUSH = "pull", "resolve", "push"
HOST_KEYS = frozenset({"capabilities", "ca", "client", "skip_verify", "override_path", "header"})


@dataclass(frozen=True)
class Endpoint:
    """One place that may have the images. base: `https://host:port/v2`, without a slash at its end. mirror: it is not
    the registry itself: credentials for that are not for it. ca: PEM files. client: (certificate, key) files."""

    base: str
    mirror: bool = False
    pull: bool = True
    resolve: bool = True
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def scheme(self) -> str:
        return self.base.partition(":")[0]

    @property
    def host(self) -> str:
        """With the port, if one is written."""
        return urlsplit(self.base).netloc


def endpoints(host: str, directories: Sequence[str] = CERTS_DIRS) -> tuple[Endpoint, ...]:
    """The places for a registry's name, in the order in which to ask them. Raises PyrunError, which names file and
    key."""
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    names = [host, f"{name}_{port}_" if name and port else host, "_default"]
    for directory in directories:
        for one in names:
            path = f"{directory}/{one}"
            if os.path.isdir(path):
                return _of_directory(host, path)
    return (_server(host),)


def _server(host: str) -> Endpoint:
    return Endpoint(f"{default_scheme(host)}://{SERVERS.get(host, host)}/v2")


def default_scheme(host: str) -> str:
    """Plain HTTP on this machine itself, where nobody can listen in; TLS to all others."""
    name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
    name = (name or port).strip("[]")
    if port == "443":
        return "https"
    try:
        return "http" if ipaddress.ip_address(name).is_loopback else "https"
    except ValueError:
        return "http" if name == "localhost" else "https"


def _of_directory(host: str, path: str) -> tuple[Endpoint, ...]:
    file = f"{path}/hosts.toml"
    try:
        with open(file, "rb") as opened:
            data = opened.read(FILE_MOST + 1)
    except FileNotFoundError:
        return (_with_certificates(_server(host), path),)
    except OSError as error:
        raise PyrunError(f"{file}: {reason(error)}")
    if len(data) > FILE_MOST:
        raise PyrunError(f"{file}: more than {FILE_MOST} bytes")
    try:
        top = tomllib.loads(data.decode())
    except (ValueError, UnicodeDecodeError) as error:
        raise PyrunError(f"{file}: {error}")
    return tuple(_read(host, top, file, path))


def _read(host: str, top: dict[str, Any], file: str, directory: str) -> list[Endpoint]:
    _check_keys(top, HOST_KEYS | {"server", "host"}, file, "")
    hosts = top.get("host", {})
    if not isinstance(hosts, dict):
        raise PyrunError(f'{file}: host: it must be tables such as [host."https://mirror.example.com"]')
    made = []
    for url, table in hosts.items():
        if not isinstance(table, dict):
            raise PyrunError(f"{file}: host.{url}: it must be a table")
        _check_keys(table, HOST_KEYS, file, f'host."{url}" ')
        made.append(_endpoint(url, table, f'{file}: host."{url}"', directory, mirror=True))
    own = {key: value for key, value in top.items() if key in HOST_KEYS}
    default = f"{default_scheme(host)}://{SERVERS.get(host, host)}"
    server = _endpoint(top.get("server", default), own, f"{file}: server", directory, mirror=False)
    # A mirror that is the registry itself, as people write it to give it a CA, is not foreign to it.
    made = [Endpoint(**{**one.__dict__, "mirror": one.host not in (server.host, host)}) for one in made]
    return [*made, server] if not any(one.base == server.base for one in made) else made


def _check_keys(table: dict[str, Any], known: frozenset[str], file: str, place: str) -> None:
    for key in table:
        if key not in known:
            raise PyrunError(f"{file}: {place}{key}: unknown key", hint=f"known are {', '.join(sorted(known))}")


def _endpoint(url: Any, table: dict[str, Any], place: str, directory: str, *, mirror: bool) -> Endpoint:
    if not isinstance(url, str):
        raise PyrunError(f"{place}: it must be a URL")
    parts = urlsplit(url if "://" in url else f"https://{url}")
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise PyrunError(
            f"{place}: {url!r} is no http or https URL of a host", hint="such as https://mirror.example.com"
        )
    host = SERVERS.get(parts.netloc, parts.netloc)
    path = parts.path.rstrip("/")
    if not _flag(table, "override_path", place) and not path.endswith("/v2"):
        path += "/v2"
    words = _strings(table.get("capabilities", [PULL, RESOLVE, PUSH]), f"{place} capabilities")
    if unknown := set(words) - {PULL, RESOLVE, PUSH}:
        raise PyrunError(f"{place} capabilities: {sorted(unknown)[0]!r} is none of pull, resolve, push")
    return Endpoint(
        f"{parts.scheme}://{host}{path}",
        mirror,
        PULL in words,
        RESOLVE in words,
        tuple(os.path.join(directory, one) for one in _strings(table.get("ca", []), f"{place} ca")),
        _client(table.get("client", []), place, directory),
        _flag(table, "skip_verify", place),
        _headers(table.get("header", {}), place),
    )


def _flag(table: dict[str, Any], name: str, place: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise PyrunError(f"{place} {name}: it must be true or false")
    return value


def _strings(value: Any, place: str) -> tuple[str, ...]:
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise PyrunError(f"{place}: it must be a string or a list of them")
    return tuple(value)


def _client(value: Any, place: str, directory: str) -> tuple[tuple[str, str], ...]:
    """A file with both, a list of such, or a list of pairs."""
    if isinstance(value, list) and all(isinstance(one, list) for one in value):
        pairs = [_strings(one, f"{place} client") for one in value]
    else:
        pairs = [(one,) for one in _strings(value, f"{place} client")]
    if not all(len(pair) in (1, 2) for pair in pairs):
        raise PyrunError(f"{place} client: each is a file, or a certificate's and a key's")
    return tuple((os.path.join(directory, pair[0]), os.path.join(directory, pair[-1])) for pair in pairs)


def _headers(value: Any, place: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise PyrunError(f"{place} header: it must be a table")
    made = []
    for name, words in value.items():
        for word in _strings(words, f"{place} header {name}"):
            if not name.isascii() or not word.isprintable() or not name.replace("-", "").isalnum():
                raise PyrunError(f"{place} header {name}: it can't be sent")
            made.append((name, word))
    return tuple(made)


def _with_certificates(server: Endpoint, path: str) -> Endpoint:
    names = sorted(os.listdir(path))
    ca = tuple(f"{path}/{name}" for name in names if name.endswith(".crt"))
    client = tuple(
        (f"{path}/{n}", f"{path}/{n[:-5]}.key") for n in names if n.endswith(".cert") and f"{n[:-5]}.key" in names
    )
    return Endpoint(**{**server.__dict__, "ca": ca, "client": client})
