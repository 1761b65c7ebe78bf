"""Starts the dashboard's two processes: what takes a privilege is opened first, then the web process gives all of them
up and this one becomes the reader."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import gzip
import logging
import os
import pwd
import resource
import secrets
import select
import signal
import socket
import ssl
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from typing import NoReturn

from ..errors import InvalidArgument, NotFound, PyrunError, reason
from ..http.server import Server
from ..listen import only_one, private_directory
from .acts import Acts
from .ask import Questions
from .audit import Audit
from .guard import Guard, digest, host_names
from .reader import Reader
from .tokens import Tokens
from .web import Page, Web

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
MOST_CONNECTIONS = 200
STALLED_S = 20.0
# A terminal in which nothing happens ends after so long.
IDLE_S = 1800.0
STOP_S = 5.0
BACKLOG = 128
SEND_BUFFER = 256 * 1024
SHORTEST_TOKEN = 32
KINDS = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
KINDS["svg"] = "image/svg+xml"


@dataclass(frozen=True, slots=True)
class Wanted:
    """cri: the runtime's socket. proxy: the state of `pyrun proxy`. logs: the directory of pods' logs. store: that of
    their past. state: ours. name: the node's. names: further hosts by which browsers call us. user: who the web process
    becomes. tls: certificate and key, in PEM."""

    cri: str
    proxy: str
    logs: str
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
        user = _user(wanted.user)
        listener = stack.enter_context(_listen(wanted.host, wanted.port))
        pages = load_pages()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        woken, wake = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.write(wake, b"."))
        gc.collect()
        gc.freeze()  # what both have stays shared: a collection would write into all of it
        pid = os.fork()
        if not pid:
            names, secure = host_names(wanted.host, wanted.names), tls is not None
            _be_web(theirs, listener, lambda asked: Web(asked, pages, names, secure=secure), tls, user)
        theirs.close()
        host, port = listener.getsockname()[:2]
        listener.close()
        ready(f"http{'s' if tls else ''}://{f'[{host}]' if ':' in host else host}:{port}/", path)
        try:
            acts = Acts(wanted.cri, wanted.proxy, Guard(tokens.known), tokens, Audit(wanted.state))
            stopped = Reader(wanted.cri, wanted.logs, wanted.store, wanted.name, acts).serve(ours, woken)
        finally:
            code = _end(pid)
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
        context.load_cert_chain(*paths)
    except OSError as error:
        text = f"--tls-cert {paths[0]}, --tls-key {paths[1]}: {reason(error)}"
        raise InvalidArgument(text, hint="a certificate and its key, both PEM") from None
    return context


def _user(name: str) -> pwd.struct_passwd | None:
    """None where we have no privilege that could be given up."""
    if os.geteuid() != 0:
        return None
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise NotFound(f"--user {name}: there is no such user", hint="useradd --system makes one") from None
    if user.pw_uid == 0:
        raise InvalidArgument(f"--user {name} is root", hint="what talks to browsers must not be")
    return user


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: who asks for much and reads nothing fills no more of the kernel's memory.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise PyrunError(f"{host}:{port}: {reason(error)}", hint="--address HOST:PORT has another") from None
    listener.setblocking(False)
    return listener


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
        keep = sorted((control.fileno(), listener.fileno()))
        for low, high in zip((2, *keep), (*keep, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), strict=True):
            os.closerange(low + 1, high)
        give_up_privileges(user)
        asyncio.run(_run_web(control, listener, make, tls))
        code = 0
    except BaseException as error:
        sys.stderr.write(f"pyrun: dashboard: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def give_up_privileges(user: pwd.struct_passwd | None) -> None:
    """For good: no capability is left, and no program can bring one back. user: None keeps who we are."""
    libc = ctypes.CDLL(None, use_errno=True)
    if user is not None:
        os.setgroups([])
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    for option, value in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chdir("/")
    if user is not None and 0 in (*os.getresuid(), *os.getresgid(), *os.getgroups()):
        raise PyrunError("root's privileges are still there")


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


def _end(pid: int) -> int:
    """Ends the web process. Its exit code."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], STOP_S)[0]:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
