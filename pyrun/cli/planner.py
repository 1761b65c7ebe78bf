"""A process that only plans: it answers the launcher's create, run and exec with an encoded plan.

An interpreter and its imports take ten times as long as a plan; here both are over. What is planned is what Python in
the caller's place would plan: the command line is read by the same parser, and what facts.py and exec ask of
/proc/self is asked of the caller's /proc/PID, anew each time. Callers are who we are: of our namespaces, root
directory, ids and capabilities, started from our own installation. Everything else gets no answer, and so does
whatever needs Python to be carried out, to warn or to complain: the launcher then starts Python, as without us.

cffi_build/launcher/planned.c is the other side. Nothing is kept from one request for another but what the very bytes
of a config.json mean, which is read again each time, and the programs that seccomp rules make.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from contextlib import suppress
from struct import Struct

from pyrun.cli.commands.exec import process_of, words_of
from pyrun.cli.deadline import Lane, Watch
from pyrun.cli.parse import Options, parse
from pyrun.cli.root import checked_root
from pyrun.cli.sources import Sources
from pyrun.facts import Facts, cgroup2_mount, collect_facts, read_text
from pyrun.oci.load import read_file
from pyrun.plan.create import warnings
from pyrun.plan.model.plan import Plan
from pyrun.plan.model.steps import Yield
from pyrun.plan.process.hooks import hooks_of
from pyrun.runtime.exec import own_namespaces, prepare_exec
from pyrun.runtime.prepare import Config, prepare
from pyrun.runtime.store import Store

NAME = ".planner~"  # beside the containers in the state directory; no id can be this
ASK, ANSWER = b"PYASK1\0", b"PYPLAN2\0"
HEAD = Struct("<8s6I")
PEER = Struct("3i")
WHOLE, FOREGROUND, FOREGROUND_THEN_DELETE = range(3)  # enum how
MOST = 1 << 18  # bytes of a request, of a file that it names, and of an answer
KEPT = 16  # config.json files
PATIENCE_S = 0.02  # for a request; who connects sends it at once
DEADLINE_S = 0.06  # for an answer, as ANSWER_MS of planned.c: nobody waits for a later one
MOST_HELD = 4  # threads that file systems hold up; who calls then is sent away at once
IDLE_S = 60.0


class Refused(Exception):
    """The caller has to plan by itself."""


class Caller:
    """Who asks: its pid, and its /proc/PID/status, read once."""

    __slots__ = ("pid", "status")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status = read_text(f"/proc/{pid}/status")


class Mounts:
    """Where cgroup2 is mounted in our mount namespace, looked up again when something was mounted there or unmounted
    (proc_pid_mountinfo(5))."""

    def __init__(self) -> None:
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._changes = select.poll()
        self._changes.register(self._file, select.POLLPRI)
        self._found = self._look()

    def cgroup2(self) -> str | None:
        if self._changes.poll(0):
            self._found = self._look()
        return self._found

    def _look(self) -> str | None:
        return cgroup2_mount(read_text("/proc/self/mountinfo", 8 << 20))


class Planner:
    """Answers on a listening socket (AF_UNIX, SOCK_SEQPACKET). launcher: the program that callers must be.

    Another program may have one in its loop: answer() when the listener is readable, and none of it any more when
    is_current() says no. why: the reason of the last refusal."""

    def __init__(self, listener: socket.socket, launcher: str | None = None) -> None:
        self.listener = listener
        self.why = ""
        self._launcher = _file(launcher or __file__.rpartition("/cli/")[0] + "/bin/pyrun")
        self._kinds = sorted(os.listdir("/proc/self/ns"))
        self._here = _place_of(Caller(os.getpid()), self._kinds)
        self._namespaces = own_namespaces()  # the caller's as well, by its place
        self._configs: dict[bytes, Config] = {}
        self._watch = Watch(DEADLINE_S)
        self._sources = Sources()
        self._mounts = Mounts()

    def serve(self, idle_s: float = IDLE_S) -> None:
        """Until nobody has called for that long, or our sources have changed. In a thread: a file system that does not
        answer holds up a request for its config.json, and nobody else's."""
        self.listener.settimeout(idle_s)
        self._watch.run(self._serve)

    def _serve(self, lane: Lane) -> None:
        while not lane.lost:
            try:
                if not self.answer(lane) and not self.is_current():
                    return
            except TimeoutError:
                return

    def is_current(self) -> bool:
        """Whether the sources are still those that we run."""
        return self._sources.are_current()

    def answer(self, lane: Lane | None = None) -> bool:
        """Takes the next caller and answers it, or hangs up. Raises TimeoutError where the listener has a timeout.
        lane: the thread's, whose deadline it then has."""
        connection, _ = self.listener.accept()
        with connection:
            if lane is None:
                return self._answer(connection)
            if self._watch.held() >= MOST_HELD:
                self.why = "all threads are held up by file systems"
                return False
            lane.begin(lambda: self._give_up(connection))
            try:
                return self._answer(connection)
            finally:
                lane.end()

    def _give_up(self, connection: socket.socket) -> None:
        self.why = "a file system, or the machine, is too slow"
        with suppress(OSError):  # its thread has closed it meanwhile
            connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, connection: socket.socket) -> bool:
        try:
            connection.settimeout(PATIENCE_S)
            connection.sendall(self._reply(connection))
            return True
        except Exception as error:  # whatever it is, Python in the caller's place will say it
            self.why = f"{type(error).__name__}: {error}"
            return False

    def _reply(self, connection: socket.socket) -> bytes:
        pid, uid, _ = PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        if uid != os.geteuid() or not pid or not self.is_current():
            raise Refused("another user, or a process that we don't see")
        caller = Caller(pid)
        if _file(f"/proc/{pid}/exe") != self._launcher or _place_of(caller, self._kinds) != self._here:
            raise Refused("another pyrun, or another place")
        request = connection.recv(MOST)
        if not (request.startswith(ASK) and request.endswith(b"\0")):
            raise Refused("not a request")
        root, *words = request[len(ASK) : -1].decode("utf-8", "surrogateescape").split("\0")
        return self._plan(caller, root, words)

    def _plan(self, caller: Caller, root: str, words: list[str]) -> bytes:
        call = parse(words)
        given, o = call.globals, call.options
        name = call.verb.name if call.verb is not None and call.wants == "run" else ""
        if given.debug or given.rootless != "auto" or given.systemd_cgroup or given.cgroup_manager != "cgroupfs":
            raise Refused("a rare option")
        store = Store(checked_root(_absolute_to(None, given.root if "root" in given.given else root)))
        if name == "exec":
            plan, how = self._exec(caller, store, o)
        elif name in ("create", "run"):
            plan, how = self._create(caller, store, o, name)
        else:
            raise Refused("not for us")
        if any(isinstance(step, Yield) for step in plan.steps):
            raise Refused("needs an answer in the middle")
        return _pack(how, given.log or "", store.root, o.id, plan.encode())

    def _create(self, caller: Caller, store: Store, o: Options, name: str) -> tuple[Plan, int]:
        if o.preserve_fds or o.no_pivot or o.config is not None or not os.path.isdir(store.root):
            raise Refused("a rare option, or the first container")
        detach = name == "create" or o.detach
        if name == "run" and (o.trace or (o.console_socket and not detach)):
            raise Refused("a rare option")
        bundle = os.path.normpath(_absolute_to(caller.pid, o.bundle or "."))
        self._check_file(bundle + "/config.json")
        made = prepare(
            store,
            o.id,
            bundle,
            self._config(bundle),
            facts=self._facts(caller),
            park=name == "create",
            console_socket=o.console_socket,
            pidfd_socket=o.pidfd_socket,
            pid_file=o.pid_file,
            keyring=not o.no_new_keyring,
            subreaper=not detach and not o.no_subreaper,
        )
        spec, facts = made.spec, made.facts
        if facts.rootless or warnings(spec, facts):
            raise Refused("without root, or with a warning")
        if any("self" in (ns.path or "") for ns in (spec.linux.namespaces if spec.linux else ())):
            raise Refused("a namespace that is named as the caller's own")
        if name == "run" and (
            hooks_of(spec, "startContainer") or hooks_of(spec, "poststart") or hooks_of(spec, "poststop")
        ):
            raise Refused("hooks behind it")
        return made.plan, WHOLE if detach else FOREGROUND if o.keep else FOREGROUND_THEN_DELETE

    def _exec(self, caller: Caller, store: Store, o: Options) -> tuple[Plan, int]:
        if o.preserve_fds or bool(o.process) == bool(o.command):
            raise Refused("a rare option")
        if o.process:
            o.__dict__["process"] = _absolute_to(caller.pid, o.process)
            self._check_file(o.process)
        container = store.open(o.id)
        spec = self._config(container.directory).spec
        process = process_of(spec, o)
        facts = self._facts(caller, making=False)
        planned = prepare_exec(container, spec, process, facts=facts, ours=self._namespaces, **words_of(o))
        if planned.facts.rootless or (process.terminal and not o.detach):
            raise Refused("without root, or with a terminal in the foreground")
        return planned.plan, WHOLE if o.detach else FOREGROUND

    def _facts(self, caller: Caller, *, making: bool = True) -> Facts:
        """Of who is to carry the plan out, and the host."""
        return collect_facts(pid=caller.pid, status=caller.status, mounts=self._mounts.cgroup2, making=making)

    def _config(self, directory: str) -> Config:
        data = read_file(directory + "/config.json")
        config = self._configs.get(data)
        if config is None:
            config = Config(data)
            if len(self._configs) >= KEPT:
                self._configs.clear()
            self._configs[data] = config
        return config

    def _check_file(self, path: str) -> None:
        """Refuses what is not a plain file, or another one for the caller: /proc/self is we here, wherever such a file
        system is mounted. Of its symlinks, and of hardly any other, the size is not the length of what they say."""
        at = ""
        parts = path.split("/")[1:]
        for _ in range(100):
            if not parts:
                break
            at, part = f"{at}/{parts[0]}", parts.pop(0)
            info = os.lstat(at)
            target = os.readlink(at) if stat.S_ISLNK(info.st_mode) else ""
            if (target and info.st_size != len(os.fsencode(target))) or part == "..":
                raise Refused("a path through /proc")
            if target:
                parts = target.strip("/").split("/") + parts
                at = "" if target.startswith("/") else at.rpartition("/")[0]
        if parts or not stat.S_ISREG(info.st_mode) or info.st_size > MOST:
            raise Refused("not a file of some size")


def _absolute_to(pid: int | None, path: str) -> str:
    """A path of the caller's, from its working directory on. pid None: it must be absolute."""
    if path.startswith("/"):
        return path
    if pid is None or not path:
        raise Refused("a path that is not absolute")
    return os.readlink(f"/proc/{pid}/cwd") + "/" + path


def _pack(how: int, log: str, root: str, container: str, plan: bytes) -> bytes:
    body, at = b"", []
    for text in (log, root, container):
        at.append(HEAD.size + len(body))
        body += text.encode("utf-8", "surrogateescape") + b"\0"
    body += bytes(-len(body) % 8)
    message = HEAD.pack(ANSWER, how, *at, HEAD.size + len(body), 0) + body + plan
    if len(message) > MOST:
        raise Refused("too long")
    return message


def _file(path: str) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_dev, info.st_ino


def _place_of(caller: Caller, kinds: list[str]) -> tuple[object, ...]:
    """Where a process is, and what it may: its namespaces by the kernel's ids, its root, its ids and capabilities."""
    proc = f"/proc/{caller.pid}"
    fd = os.open(proc + "/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        root, mount = os.fstat(fd), read_text(f"/proc/self/fdinfo/{fd}").partition("mnt_id:")[2].split()[0]
    finally:
        os.close(fd)
    lines = caller.status.splitlines()
    who = [line for line in lines if line.startswith(("Uid:", "Gid:", "CapEff:", "CapPrm:"))]
    return *(os.readlink(f"{proc}/ns/{kind}") for kind in kinds), root.st_dev, root.st_ino, mount, *who
