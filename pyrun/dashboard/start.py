"""Starts the dashboard's two processes: what takes a privilege is opened first, then the web process gives all of them
up and this one becomes the reader."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import secrets
import signal
import socket
import ssl
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from typing import NoReturn

from ..errors import InvalidArgument, PyrunError, reason
from ..http.server import Server
from ..listen import only_one, private_directory
from ..tls import load_certificate
from ..web.ask import Questions
from ..web.process import end, find_user, give_up_privileges, keep_only, listen_tcp
from ..web.sharing import prepare_fork
from .acts import Acts
from .audit import Audit
from .guard import Guard, digest, host_names
from .reader import Reader
from .tokens import Tokens
from .web import Page, Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    import pwd
    from collections.abc import Callable

    from ..logs.tree import Logs

MOST_CONNECTIONS = 200
STALLED_S = 20.0
# A terminal in which nothing happens ends after so long.
IDLE_S = 1800.0
SHORTEST_TOKEN = 32
KINDS = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
KINDS["svg"] = "image/svg+xml"


@dataclass(frozen=True, slots=True)
class Wanted:
    """cri: the runtime's socket. proxy: the state of `pyrun proxy`. logs: where the logs of pods are. store: the
    directory of what they used. state: ours. name: the node's. names: further hosts by which browsers call us. user:
    who the web process becomes. tls: certificate and key, in PEM."""

    cri: str
    proxy: str
    logs: Logs
    store: str
    state: str
    name: str
    host: str
    port: int
    names: tuple[str, ...] = ()
    user: str = "nobody"
    tls: tuple[str, str] | None = None


def serve(wanted: Wanted, ready: Callable[[str, str], None]) -> int:
    """Until a signal. ready: told the URL and the file with the token. Raises PyrunError where it can't start."""
    with ExitStack() as stack:
        private_directory(wanted.state)
        stack.enter_context(only_one(wanted.state, "pyrun dashboard"))
        path = f"{wanted.state}/token"
        tokens = Tokens(wanted.state, digest(_token(path)))
        tls = _tls(wanted.tls)
        user = find_user(wanted.user)
        listener = stack.enter_context(listen_tcp(wanted.host, wanted.port))
        pages = load_pages()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        woken, wake = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.write(wake, b"."))
        prepare_fork()
        pid = os.fork()
        if not pid:
            names, secure = host_names(wanted.host, wanted.names), tls is not None
            _be_web(theirs, listener, lambda asked: Web(asked, pages, names, secure=secure), tls, user)
        theirs.close()
        host, port = listener.getsockname()[:2]
        listener.close()
        ready(f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/", path)
        try:
            stores = (wanted.store, wanted.logs.store)
            acts = Acts(wanted.cri, wanted.proxy, Guard(tokens.known), tokens, Audit(wanted.state), stores)
            stopped = Reader(wanted.cri, wanted.logs, wanted.store, wanted.name, acts).serve(ours, woken)
        finally:
            code = end(pid)
    if not stopped:
        raise PyrunError(f"the web process ended with {code}", hint="what it said before tells why")
    return 0


def _token(path: str) -> str:
    """Of the file, which is made at the first start."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        pass
    else:
        with open(fd, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd) as file:
        token = file.read(4096).strip()
    if len(token) < SHORTEST_TOKEN:
        raise PyrunError(f"{path}: a token has {SHORTEST_TOKEN} characters or more", hint="remove it to get a new one")
    return token


def _tls(paths: tuple[str, str] | None) -> ssl.SSLContext | None:
    if paths is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        load_certificate(context, *paths)
    except OSError as error:
        text = f"--tls-cert {paths[0]}, --tls-key {paths[1]}: {reason(error)}"
        raise InvalidArgument(text, hint="a certificate and its key, both PEM") from None
    return context


def load_pages() -> dict[str, Page]:
    """All of them, by path: nothing is looked up in a file system when somebody asks."""
    pages = {}
    for file in files("pyrun.dashboard").joinpath("page").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind:
            pages["/" if file.name == "index.html" else f"/{file.name}"] = (
                gzip.compress(file.read_bytes(), 9, mtime=0),
                kind,
            )
    return pages


def _be_web(
    control: socket.socket,
    listener: socket.socket,
    make: Callable[[Questions], Web],
    tls: ssl.SSLContext | None,
    user: pwd.struct_passwd | None,
) -> NoReturn:
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        keep_only(control.fileno(), listener.fileno())
        give_up_privileges(user)
        asyncio.run(_run_web(control, listener, make, tls))
        code = 0
    except BaseException as error:
        sys.stderr.write(f"pyrun: dashboard: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _run_web(
    control: socket.socket,
    listener: socket.socket,
    make: Callable[[Questions], Web],
    tls: ssl.SSLContext | None,
) -> None:
    logging.basicConfig(format="pyrun: dashboard: %(message)s")
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    web = make(Questions(control))
    server = Server(web.handle, most=MOST_CONNECTIONS, idle=IDLE_S, stalled=STALLED_S)
    loop.add_reader(control, ended.set)  # the reader says nothing on it: it is gone
    await server.listen_on(listener, tls)
    await ended.wait()
    await server.stop()
    await web.stop()
