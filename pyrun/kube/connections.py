"""Connections to an API server: TLS, and credentials from files that others replace while we run.

A token or a certificate is read again when its file is another one (inode, size or time of change), which a look at the
file tells; so a token that a projected volume or a kubelet rotates is in use with the next request.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from urllib.parse import urlsplit

import urllib3

from ..errors import PyrunError, reason
from ..tls import load_certificate
from .certificates import load_pair
from .kubeconfig import Cluster

IDLE = 8  # connections that are kept
# A peer that is gone without a word is found in half a minute, also below a watch on which nothing comes.
KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000),
]
Mark = tuple[tuple[int, int, int], ...]


class Connections:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._pool_mark: Mark = ()
        self._token = cluster.token
        self._token_mark: Mark = ()
        self.rereads = cluster.token_file is not None

    def headers(self, anew: bool = False) -> list[tuple[str, str]]:
        """Who we are, as headers. PyrunError where the token's file can't be read and none was read before."""
        with self._lock:
            if self._cluster.token_file is not None:
                self._read_token(self._cluster.token_file, anew)
            mine = [("Authorization", f"Bearer {self._token}")] if self._token else []
            return [*mine, *self._cluster.headers]

    def _read_token(self, path: str, anew: bool) -> None:
        try:
            mark = _mark(path)
            if mark == self._token_mark and not anew:
                return
            with open(path) as file:
                self._token = file.read().strip()
            self._token_mark = mark
        except OSError as error:
            if not self._token:
                raise PyrunError(f"token {path}: {reason(error)}") from None

    def pool(self) -> urllib3.HTTPConnectionPool:
        """Connections by the certificates as their files are now; those that are in use end with their requests."""
        files = (self._cluster.ca_file, self._cluster.certificate_file, self._cluster.key_file)
        with self._lock:
            mark = _mark(*(path for path in files if path))
            if self._pool is None or mark != self._pool_mark:
                old, self._pool = self._pool, _make_pool(self._cluster)
                self._pool_mark = mark
                if old is not None:
                    old.close()
            return self._pool

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.close()
                self._pool = None


def _mark(*paths: str) -> Mark:
    """What tells a file from the one that was there before. What is not there has none, and is told of when it is
    read."""
    found = []
    for path in paths:
        try:
            at = os.stat(path)
        except OSError:
            continue
        found.append((at.st_ino, at.st_size, at.st_mtime_ns))
    return tuple(found)


def _make_pool(cluster: Cluster) -> urllib3.HTTPConnectionPool:
    url = urlsplit(cluster.server)
    assert url.hostname
    if url.scheme == "http":
        return urllib3.HTTPConnectionPool(url.hostname, url.port, maxsize=IDLE, socket_options=KEEPALIVE)
    if not cluster.verify:  # asked for by insecure-skip-tls-verify: a word of it before each request helps nobody
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return urllib3.HTTPSConnectionPool(
        url.hostname,
        url.port,
        maxsize=IDLE,
        socket_options=KEEPALIVE,
        ssl_context=_context(cluster),
        server_hostname=cluster.server_name,
        assert_hostname=None if cluster.verify else False,
    )


def _context(cluster: Cluster) -> ssl.SSLContext:
    context = ssl.create_default_context() if cluster.ca is None and cluster.ca_file is None else _own(cluster)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not cluster.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = cluster.certificate_file, cluster.key_file
    try:
        if cluster.certificate is not None:
            load_pair(context, cluster.certificate, cluster.key or b"")
        elif certificate is not None:
            load_certificate(context, certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise PyrunError(f"the client certificate {certificate or 'in the kubeconfig'}: {error}") from None
    return context


def _own(cluster: Cluster) -> ssl.SSLContext:
    """By the cluster's own authority."""
    try:
        return ssl.create_default_context(
            cafile=cluster.ca_file if cluster.ca is None else None,
            cadata=cluster.ca.decode("ascii") if cluster.ca is not None else None,
        )
    except (OSError, ValueError, ssl.SSLError) as error:
        raise PyrunError(f"the certificate authority {cluster.ca_file or 'in the kubeconfig'}: {error}") from None
