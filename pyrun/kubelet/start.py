"""Starts the process without privileges. It is forked before the agent has threads; should it die, the agent starts
another one as a program. It ends with the agent."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import ipaddress
import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from ..errors import InvalidArgument, PyrunError, reason
from ..http.server import Server
from ..kube.certificates import Subject, read_pair
from ..listen import private_directory
from ..node.join.credentials import node_subject
from ..tls import load_certificate
from ..web.ask import Questions
from ..web.process import end, find_user, give_up_privileges, keep_only, listen_tcp
from .certificate import own_certificate
from .web import Web

PORT, HEALTHZ_PORT = 10250, 10248
PR_SET_PDEATHSIG = 1
MOST_PLAIN = 50
AGAIN_S, LONGEST_AGAIN_S = 0.5, 30.0
_RUN = "import json, sys; sys.path[:] = json.loads(sys.argv[1])['path']; from pyrun.kubelet.start import begin; begin()"


@dataclass(frozen=True, slots=True)
class Wanted:
    """directory: where a certificate of our own is kept. name, addresses: the node's. client_ca: a file of authorities
    in PEM. tls: certificate and key, files in PEM. user: who the process becomes. healthz_port, read_only_port: 0 for
    none. anonymous: who is not known is let in as system:anonymous. always_allow: who was let in may do
    anything. signed: an API server has a certificate signed for us."""

    directory: str
    name: str
    addresses: tuple[str, ...]
    host: str = "0.0.0.0"
    port: int = PORT
    healthz_port: int = HEALTHZ_PORT
    client_ca: str | None = None
    tls: tuple[str, str] | None = None
    user: str = "nobody"
    read_only_port: int = 0
    anonymous: bool = False
    always_allow: bool = False
    signed: bool = False

    @property
    def approved(self) -> str:
        """Where the certificate is that an API server has had signed, with its key."""
        return f"{self.directory}/approved.pem"

    def subject(self) -> Subject:
        """Of that one."""
        names, addresses = (self.name,), {str(ipaddress.ip_address(one)) for one in self.addresses}
        node = node_subject(self.name)
        return Subject(node.name, node.organizations, names, tuple(sorted(addresses)))

    def config(self) -> dict[str, Any]:
        """What of a KubeletConfiguration it comes to."""
        made: dict[str, Any] = {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "address": self.host,
            "port": self.port,
            "readOnlyPort": self.read_only_port,
            "healthzBindAddress": "127.0.0.1",
            "healthzPort": self.healthz_port,
            "authentication": {"anonymous": {"enabled": self.anonymous}},
            "authorization": {"mode": "AlwaysAllow" if self.always_allow else "Webhook"},
        }
        if self.client_ca:
            made["authentication"]["x509"] = {"clientCAFile": self.client_ca}
        return made


Doors = dict[str, socket.socket]  # "api", and "healthz" and "read-only" where they are wanted


@dataclass(slots=True)
class Door:
    """The process that was started, 0 where none is, and the socket on which it asks. theirs, doors: what it has, for
    the next one: who connects meanwhile waits."""

    wanted: Wanted
    control: socket.socket
    theirs: socket.socket
    doors: Doors
    pid: int = 0
    program: subprocess.Popen[bytes] | None = None  # one that nobody refers to is waited for by the next Popen()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.doors["api"].getsockname()[:2]
        return host, port

    def begin_again(self) -> None:
        """As a program of its own: we have threads now, of which a fork would keep the locks. OSError."""
        control, fds = self.theirs.fileno(), {name: one.fileno() for name, one in self.doors.items()}
        given = {"path": sys.path, "wanted": asdict(self.wanted), "control": control, "doors": fds}
        argv = [sys.executable, "-I", "-S", "-c", _RUN, json.dumps(given)]
        self.program = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(control, *fds.values()))
        self.pid = self.program.pid

    async def ended(self) -> int:
        """Its exit code, when it has one."""
        loop = asyncio.get_running_loop()
        pidfd, gone = os.pidfd_open(self.pid), asyncio.Event()
        try:
            loop.add_reader(pidfd, gone.set)
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    async def keep(self, warn: Callable[[str], None]) -> None:
        """Begins it again whenever it has ended, later each time where it does not last; until it is cancelled."""
        again = AGAIN_S
        while True:
            begun = time.monotonic()
            try:
                if not self.pid:
                    self.begin_again()
                told = f"ended with {await self.ended()}"
            except OSError as error:
                told = f"can't be started: {reason(error)}"
            if time.monotonic() - begun > LONGEST_AGAIN_S:
                again = AGAIN_S
            warn(f"the process that serves the kubelet's API {told}; it is started again in {again:g} s")
            await asyncio.sleep(again)
            again = min(again * 2, LONGEST_AGAIN_S)

    def close(self) -> None:
        if self.pid:
            end(self.pid)
        for one in (self.control, self.theirs, *self.doors.values()):
            one.close()


def open_door(wanted: Wanted) -> Door:
    """Before there is a thread. PyrunError where it can't start."""
    with ExitStack() as stack:
        user = find_user(wanted.user)
        tls = _tls(wanted)
        doors = {"api": stack.enter_context(listen_tcp(wanted.host, wanted.port, "--port"))}
        if wanted.healthz_port:
            doors["healthz"] = stack.enter_context(listen_tcp("127.0.0.1", wanted.healthz_port, "--healthz-port"))
        if wanted.read_only_port:
            port = wanted.read_only_port
            doors["read-only"] = stack.enter_context(listen_tcp(wanted.host, port, "--read-only-port"))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gc.freeze()  # pages are shared as long as nobody writes to them
        pid = os.fork()
        if not pid:
            _be_web(theirs, doors, tls, wanted.anonymous, user)
        stack.pop_all()
    return Door(wanted, ours, theirs, doors, pid)


def _tls(wanted: Wanted) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    pair = wanted.tls
    if pair is None:
        private_directory(wanted.directory)
        approved = read_pair(wanted.approved)
        if (
            wanted.signed
            and approved is not None
            and approved.subject == wanted.subject()
            and approved.ends > time.time()
        ):
            pair = (wanted.approved,) * 2
        else:
            pair = (f"{wanted.directory}/serving.pem",) * 2
            own_certificate(pair[0], wanted.name, wanted.addresses)
    try:
        load_certificate(context, *pair)
    except OSError as error:
        told = f"--tls-cert-file {pair[0]}, --tls-private-key-file {pair[1]}: {reason(error)}"
        raise InvalidArgument(told, hint="a certificate and its key, both PEM") from None
    if wanted.client_ca:
        try:
            context.load_verify_locations(wanted.client_ca)
        except OSError as error:
            raise InvalidArgument(f"--client-ca-file {wanted.client_ca}: {reason(error)}") from None
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def begin() -> NoReturn:
    """Of Door.begin_again()."""
    given = json.loads(sys.argv[1])
    wanted = Wanted(**given["wanted"])
    doors = {name: socket.socket(fileno=fd) for name, fd in given["doors"].items()}
    try:
        tls, user = _tls(wanted), find_user(wanted.user)
    except PyrunError as error:
        sys.exit("pyrun: kubelet: " + "; ".join(error.lines()))
    _be_web(socket.socket(fileno=given["control"]), doors, tls, wanted.anonymous, user)


def _be_web(control: socket.socket, doors: Doors, tls: ssl.SSLContext, anonymous: bool, user: Any) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all of us: the agent ends us
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        keep_only(control.fileno(), *(one.fileno() for one in doors.values()))
        give_up_privileges(user)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # another user's is reset: not before
        asyncio.run(_serve(control, doors, tls, anonymous))
        code = 0
    except BaseException as error:
        sys.stderr.write(f"pyrun: kubelet: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


async def _serve(control: socket.socket, doors: Doors, tls: ssl.SSLContext, anonymous: bool) -> None:
    logging.basicConfig(format="pyrun: kubelet: %(message)s")
    ended = asyncio.Event()
    web = Web(Questions(control), anonymous)
    servers = [Server(web.handle)]
    await servers[0].listen_on(doors["api"], tls)
    for name, handle in (("healthz", web.healthz), ("read-only", web.read_only)):
        if name in doors:
            servers.append(Server(handle, most=MOST_PLAIN))
            await servers[-1].listen_on(doors[name])
    following = asyncio.create_task(web.follow_certificate(tls))
    asyncio.get_running_loop().add_reader(control, ended.set)  # the agent says nothing on it: it is gone
    await ended.wait()
    following.cancel()
    for server in servers:
        await server.stop()
