"""`pyrun node join`: this node's credentials in a cluster, by a bootstrap token."""

from __future__ import annotations

import os
import socket

from pyrun.cli.commands import cri
from pyrun.cli.output import write
from pyrun.errors import InvalidArgument, PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

PATIENCE_S = 300


def run(g: Globals, o: Options) -> int:
    from urllib.parse import urlsplit

    from pyrun.kube.certificates import needs_cryptography
    from pyrun.kube.discovery import HASH, parse_token
    from pyrun.kube.manifest import read
    from pyrun.node.join.join import Wanted, join

    needs_cryptography()
    url = urlsplit(o.server or "")
    if url.scheme != "https" or not url.hostname or url.query or url.fragment:
        raise UsageError(f"--server {o.server or ''}: must be https://HOST:PORT of the API server")
    if bool(o.token) == bool(o.token_file):
        raise UsageError("one of --token ID.SECRET and --token-file FILE says who we are until we have a certificate")
    token = o.token or read(o.token_file).decode("utf-8", "replace").strip()
    parse_token(token)
    if bool(o.ca_file) == bool(o.ca_hash):
        raise UsageError(
            "one of --ca-file FILE and --ca-hash sha256:HEX says which cluster it is",
            hint="kubeadm token create --print-join-command has the hash",
        )
    for hash in o.ca_hash:
        if not HASH.fullmatch(hash):
            raise InvalidArgument(f"--ca-hash {hash}: must be sha256: and 64 small hexadecimal digits")
    if o.timeout < 1:
        raise InvalidArgument(f"--timeout {o.timeout}: must be 1 second or more")
    if os.geteuid() != 0:
        raise PyrunError("pyrun node join needs root", hint="sudo pyrun node join")
    wanted = Wanted(
        o.root or (g.root if g.root_given else cri.ROOT),
        o.node_name or socket.gethostname().lower(),
        o.server.rstrip("/"),
        token,
        _authorities(o.ca_file) if o.ca_file else None,
        o.ca_hash,
        float(o.timeout),
    )
    join(wanted, lambda line: write(line + "\n"))
    return 0


def _authorities(path: str) -> bytes:
    from pyrun.kube.certificates import key_hashes
    from pyrun.kube.manifest import read

    data = read(path)
    try:
        key_hashes(data)
    except ValueError as error:
        raise InvalidArgument(f"--ca-file {path}: no certificate in PEM: {error}") from None
    return data
