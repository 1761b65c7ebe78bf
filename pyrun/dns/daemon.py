"""`pyrun dns run`: keeps pyrun-dns' table like the objects, and asks other servers for it.

The order of a start: the program, or the one that an earlier daemon has left running, which goes on answering; the
table of last time; and only then the objects. So there is an answer before the sources have told of themselves, and
when they never do. The program's sockets are held here too: when it is killed, another one goes on with them, and with
what waited in them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TypeVar

from .. import inotify
from ..errors import PyrunError, reason
from ..kube.feed.store import Store
from ..listen import listen, only_one
from ..proxy.health import tcp
from . import wire
from .aside import Aside
from .directory import KINDS, Objects, all_faults, gather
from .encode import encode_table
from .exporter import Exporter, Page, Words
from .forward import FAILED_TTL_S, Forwarder
from .look import SOCKET, look_json, question_of
from .loop import Loop
from .metrics import render
from .objects import FAULTS_MOST, Faults
from .plan import Options, plan_dns
from .program import PROGRAM, end_program, listening_at, sockets_at, start
from .reply import NOTHING, Said, make_query
from .responder import Ended, Question, Responder
from .servers import Address, Servers, read_resolv_conf, read_searches, without
from .table import Table

T = TypeVar("T")
STILL_S = 0.05
RESTART_S = 1.0  # a program that ends at once is not started more often
RESTARTS = 10
TABLE_TRIES = 3  # of programs with a table of which they end
GRACE_S = 1.0  # for a program that is given a table: before a page says so, and before a stop ends it
LATER_S = (2.0, 60.0)  # before another try, where none can be started
LOOK_S = 5.0  # at resolv.conf, where the machine has no more inotify instances


@dataclass(frozen=True, slots=True)
class Settings:
    """state: directory of the control socket and the last table. listen: where to answer. upstreams: None to take
    resolv_conf. allow: who is answered, as (address, bits). rate: UDP replies a second for one source, 0: any number.
    stale_s: for which an answer of old is better than none. metrics: HOST:PORT of /metrics, None: nowhere.
    searches_of_file: whether pods try the domains of resolv_conf, in place of those of the options."""

    state: str
    listen: tuple[Address, ...]
    allow: tuple[tuple[bytes, int], ...]
    options: Options = Options()
    upstreams: Servers | None = None
    resolv_conf: str | None = None
    rate: int = 20_000
    cache_bytes: int = 16 << 20
    stale_s: int = 86_400
    metrics: str | None = None
    searches_of_file: bool = False


class Daemon:
    """store: of the objects, filled by others. say: a line for the log."""

    def __init__(self, settings: Settings, store: Store, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.store = store
        self.say = say
        self.loop = Loop()
        self.aside = Aside(self.loop)  # who waits for the program; nobody else speaks with it meanwhile
        self.forwarder = Forwarder(self.loop, self._said, say)
        self.control = os.path.join(settings.state, "control.sock")
        self.saved = os.path.join(settings.state, "table")
        self.sockets: list[socket.socket] = []
        self.table_bytes = b""
        self.faults: set[str] = set()
        self.searches = settings.options.searches
        self.pending = False
        self.asked: Responder | None = None  # aside: the program that is waited for
        self.started_at = 0.0
        self.is_down = False  # there is no program, and one is tried again by and by
        self.delay = LATER_S[0]
        self.killed = 0  # programs in a row that have ended of the table that they were started with
        self.watched: set[int] = set()
        self.leave = False
        self.watch: inotify.Watch | None = None
        self.file_faults: list[str] = []
        self.planned = 0  # generation of the table that the objects gave last
        self.exporter: Exporter | None = None
        self.metrics: socket.socket | None = None
        with contextlib.ExitStack() as stack:
            if settings.metrics:
                self.metrics = stack.enter_context(tcp("metrics", settings.metrics))
            os.makedirs(settings.state, 0o700, exist_ok=True)
            # Two would take the program from each other without end.
            stack.enter_context(only_one(settings.state, "pyrun dns"))
            self.responder = self._begin()
            self.held = stack.pop_all()

    # --- the program and its sockets ---

    def _begin(self) -> Responder:
        """Takes up the program that runs, where it is the one that is installed; starts one where there is none."""
        old = self._find()
        self._bind()
        if old is not None and old.is_known and _is_installed(old.pid) and old.sockets == len(self.sockets):
            self.say(f"pyrun-dns runs already, as process {old.pid}, and is kept")
            self._configure(old)
            if old.generation:
                self._load()
            return old
        new = self._start_again()
        if old is not None:
            with contextlib.suppress(PyrunError):
                old.stop()
            old.close()
            self.say(f"process {new.pid} has taken over from {old.pid}")
        return new

    def _find(self) -> Responder | None:
        """The program that runs, and its sockets; None where none does. One that is silent is of no use to anybody."""
        old = None
        try:
            old = Responder.connect(self.control)
            self.sockets = old.take_sockets()
            return old
        except PyrunError as error:
            silent = listening_at(self.control) if isinstance(error, Ended) else []
            if old is not None:
                old.close()
                silent = [old.pid]
            for pid in silent:
                self.say(f"{error.text}; process {pid} is ended")
                end_program(pid)
            return None

    def _bind(self) -> None:
        """Sockets for every address of the settings: those that are there, and new ones; others are closed."""
        have = {(one.type, one.getsockname()[:2]): one for one in self.sockets}
        wanted = []
        for address in self.settings.listen:
            kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
            found = [have.pop((kind, address), None) for kind in kinds]
            if all(found):
                wanted += [one for one in found if one]
                continue
            for one in found:
                if one:
                    one.close()
            wanted += sockets_at(*address)
        for one in have.values():
            one.close()
        self.sockets = wanted

    def _start(self) -> Responder:
        """A new program, with the last table that there was. Ended, where it does not live so long."""
        self.started_at = time.monotonic()
        pid, responder = start(self.control), None
        try:
            responder = self.asked = Responder.connect(self.control)
            if not responder.is_known:
                raise PyrunError(f"{PROGRAM} is of another version than this daemon", hint="./bootstrap build")
            self._configure(responder)
            if not self.table_bytes and self.killed < TABLE_TRIES:
                self._load()
            if self.table_bytes:
                self._put_last(responder)
            if self.table_bytes:
                responder.add_sockets(self.sockets)
        except PyrunError:
            if responder is not None:
                responder.close()
            end_program(pid)
            raise
        return responder

    def _put_last(self, responder: Responder) -> None:
        """One that is no good is given up: at once where the program says so, else once it has ended a few."""
        try:
            responder.put_table(self.table_bytes)
            self.killed = 0
        except Ended:
            self.killed += 1
            if self.killed >= TABLE_TRIES:
                self.say(f"{self.killed} programs in a row have ended of the last table; the next begins without it")
                self.table_bytes = b""
            raise
        except PyrunError as error:
            self.say(f"{self.saved}: {error.text}; it is not used")
            self.table_bytes, self.killed = b"", TABLE_TRIES

    def _configure(self, responder: Responder) -> None:
        settings = self.settings
        forwards = bool(settings.upstreams.zones if settings.upstreams is not None else settings.resolv_conf)
        responder.configure(settings.allow, rate=settings.rate, forwards=forwards, cache_bytes=settings.cache_bytes)

    def _load(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            try:
                with open(self.saved, "rb") as file:
                    self.table_bytes = file.read()
            except FileNotFoundError:
                raise
            except OSError as error:
                self.say(f"{self.saved}: {reason(error)}; the table of last time is not used")

    def _save(self, data: bytes) -> None:
        try:
            fd = os.open(self.saved + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(fd, "wb") as file:
                file.write(data)
            os.replace(self.saved + ".new", self.saved)
        except OSError as error:
            self.say(f"{self.saved}: {reason(error)}; the next start has no table of last time")

    # --- the loop ---

    def run(self, ready: Callable[[str], None] = lambda text: None) -> None:
        """Until stop(). PyrunError when it can't go on."""
        try:
            self.exporter = Exporter(self.loop, self._pages())
            if not self.aside.busy:
                self.loop.forget(self.responder.fileno())
                self.loop.read(self.responder.fileno(), self._questions)
            self.loop.read(self.store.fileno(), self._changed)
            self._use_servers()
            self._follow_resolv_conf()
            if self.store.is_whole():
                self._plan()
            self._changed()
            while not self.table_bytes and self.loop.running:
                self.loop.turn()  # queries wait in the sockets until there is a table
            ready(f"READY=1\nSTATUS=answering at {', '.join(a for a, _ in self.settings.listen)}")
            self.loop.run()
        finally:
            self._end()

    def stop(self, *, leave: bool = False) -> None:
        """leave: the program goes on without us."""
        self.leave = leave
        self.loop.stop()

    def _end(self) -> None:
        self.forwarder.close()
        if self.exporter:
            self.exporter.close()
        while not self.aside.finish(GRACE_S):  # a table, or a start, of which the program does not come back
            if self.asked is not None:
                self.asked.give_up()
        if not self.leave and not self.is_down:
            try:
                self.responder.stop()
            except PyrunError:
                end_program(self.responder.pid)
        self.responder.close()
        self.aside.close()
        for one in self.sockets:
            one.close()
        if self.watch:
            self.watch.close()
        self.loop.close()
        self.held.close()

    def _pages(self) -> list[tuple[socket.socket, dict[str, Page]]]:
        served: list[tuple[socket.socket, dict[str, Page]]] = []
        if self.metrics:
            pages: dict[str, Page] = {"/metrics": self._metrics, "/health": self._health, "/ready": self._is_ready}
            served.append((self.metrics, pages))
        try:
            served.append((listen(os.path.join(self.settings.state, SOCKET)), {"/query": self._look}))
        except PyrunError as error:
            self.say(f"`pyrun dns query` can't ask this server: {error.text}")
        return served

    def _settle(self) -> None:
        """Before the program is asked something. PyrunError while it has to do with a table, or there is none."""
        if not self.aside.finish(GRACE_S):
            raise PyrunError(f"pyrun-dns has been given a table {self.aside.seconds:.0f} s ago, and is silent since")

    def _status(self) -> dict[str, int]:
        self._settle()
        self.loop.after(0, self._questions)  # those that come while the program is waited for: nothing tells of them
        with self._watching() as responder:
            return responder.status()

    def _metrics(self, _: Words) -> str:
        upstreams = {str(server): server.counts() for server in self.forwarder.upstreams}
        return render(self._status(), upstreams, self.settings.listen)

    def _health(self, _: Words) -> str:
        """PyrunError where the program does not answer."""
        self._status()
        return "OK\n"

    def _is_ready(self, _: Words) -> str:
        """PyrunError as long as nothing is answered."""
        if not self._status()["generation"]:
            raise PyrunError("there is no table yet: not all objects have been read")
        return "OK\n" if self.store.is_whole() else "OK, by the table of last time: not all objects have been read\n"

    def _look(self, words: Words) -> str:
        """What a client would be answered, as JSON."""
        name, kind, client = question_of(words)
        self._settle()
        self.loop.after(0, self._questions)  # as in _status()
        with self._watching() as responder:
            looked = responder.look(make_query(0, name, kind), client)
        table = self.forwarder.table if looked.generation == self.planned else None
        servers = self.forwarder.in_order(looked.name) if looked.name else ()
        return json.dumps(look_json(looked, name, kind, client, table, servers)) + "\n"

    def _questions(self) -> None:
        if self.is_down or self.aside.busy:
            return
        try:
            for question in self.responder.ask():
                self.forwarder.ask(question)
        except EOFError:
            self._again()

    @contextlib.contextmanager
    def _watching(self) -> Iterator[Responder]:
        """The program, while a page asks it: one that turns out to be silent answers no client either."""
        asked = self.responder

        def follow() -> None:
            if self.responder is asked and not self.is_down and not self.aside.busy:
                self._again()

        try:
            yield asked
        except Ended:
            self.loop.after(0, follow)
            raise

    def _again(self) -> None:
        """The program has ended, or is silent. Another one goes on with its sockets, its table and what waits in
        them. Where it can't be started, nobody is answered, and it is tried again by and by: what waits may wait."""
        if not self.aside.busy:
            self._run_aside(self._replace, self._replaced)

    def _run_aside(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """work speaks with the program, then goes on with what came of it. Its questions wait meanwhile."""

        def follow(found: T) -> None:
            then(found)
            if not self.is_down and self.loop.running:
                self.loop.forget(self.responder.fileno())
                self.loop.read(self.responder.fileno(), self._questions)
                self.loop.after(0, self._questions)

        if not self.is_down:
            self.loop.forget(self.responder.fileno())
        self.aside.run(work, follow)

    def _replace(self) -> PyrunError | None:
        """Aside. Another program in place of this one, or why there is none."""
        pid = self.responder.pid
        if not self.is_down:
            self.responder.close()
            end_program(pid)
        try:
            self.responder = self._start_again()
        except PyrunError as error:
            return error
        self.say(f"pyrun-dns, process {pid}, has ended; process {self.responder.pid} goes on")
        return None

    def _replaced(self, error: PyrunError | None) -> None:
        was_down, self.is_down = self.is_down, error is not None
        if not self.loop.running:
            return
        if error is not None:
            self.say(f"nobody is answered, as pyrun-dns can't be started: {error}; again in {self.delay:.0f} s")
            self.loop.after(self.delay, self._again)
            self.delay = min(2 * self.delay, LATER_S[1])
            return
        self.delay = LATER_S[0]
        if was_down or not self.table_bytes:
            self._changed()

    def _start_again(self) -> Responder:
        """A program that ends at once is tried a few times."""
        for tries_left in reversed(range(RESTARTS)):
            if time.monotonic() - self.started_at < RESTART_S:
                time.sleep(RESTART_S)
            if not self.loop.running:
                break
            try:
                return self._start()
            except Ended:
                if not tries_left:
                    raise
        raise Ended("pyrun-dns is not started any more, as this daemon ends")

    def _said(self, question: Question, said: Said | None) -> None:
        """Tells the program what other servers have said."""
        failed = said is None or said.rcode not in (wire.NOERROR, wire.NXDOMAIN, wire.REFUSED)
        if said is None or failed:
            said = Said(wire.SERVFAIL, NOTHING, FAILED_TTL_S)
        stale = 0 if failed else self.settings.stale_s
        with contextlib.suppress(OSError):
            self.responder.answer(
                question, said.rcode, said.body, said.ttl, stale, generation=self.responder.generation, failed=failed
            )

    # --- objects ---

    def _changed(self) -> None:
        """Waits until it has been still for a moment, so that many changes are one table."""
        self.store.changes()
        if not self.pending and self.store.is_whole():
            self.pending = True
            self.loop.after(STILL_S, self._plan)

    def _plan(self) -> None:
        if self.aside.busy:
            self.loop.after(STILL_S, self._plan)
            return
        self.pending = False
        objects = gather(self.store.all(*KINDS))
        options = replace(
            self.settings.options,
            namespaces=tuple(objects.namespaces),
            serial=int(time.time()),
            searches=self.searches,
        )
        table = plan_dns(objects.services, objects.slices, objects.pods, options)
        faults = Faults()
        generation = self.responder.generation + 1
        data = encode_table(table, generation, faults)
        self._tell(objects, table, faults)
        if not self.is_down:  # who starts it again plans again
            self._run_aside(partial(self._give, data), partial(self._given, data, table, generation))

    def _give(self, data: bytes) -> tuple[str, PyrunError | None]:
        """Aside. Why the program does not take the table, "" where it answers from it; and why there is no program."""
        for _ in range(TABLE_TRIES):
            try:
                self.asked = self.responder
                self.responder.put_table(data)
                if not self.table_bytes:
                    self.responder.add_sockets(self.sockets)
                self.killed = 0
                return "", None
            except Ended:
                error = self._replace()
                if error is not None or not self.loop.running:
                    return "", error
            except PyrunError as error:
                return error.text, None
        return f"{PROGRAM} ends of it, or is silent", None

    def _given(self, data: bytes, table: Table, generation: int, came: tuple[str, PyrunError | None]) -> None:
        why, error = came
        if error is not None:
            self._replaced(error)
        elif why:
            self.say(f"the table of these objects is not used, and what was answered before goes on: {why}")
        elif self.loop.running or self.responder.generation == generation:
            self.forwarder.table, self.planned = table, generation
            self.table_bytes = data
            self._save(data)

    def _tell(self, objects: Objects, table: Table, faults: Faults) -> None:
        """Each fault once, as long as it is there."""
        named = all_faults(objects, [*table.refused, *faults], table.refused_more + faults.more)
        lines = {*named, *map(str, islice(self.store.faults(), FAULTS_MOST))}
        for line in sorted(lines - self.faults):
            self.say(line)
        self.faults = lines

    # --- other servers ---

    def _use_servers(self) -> None:
        servers = self.settings.upstreams
        if self.settings.resolv_conf:
            try:
                with open(self.settings.resolv_conf, encoding="utf-8", errors="replace") as file:
                    text = file.read()
            except OSError as error:
                self._tell_of_file([f"{reason(error)}; the servers stay as they were"])
                return
            found, faults = read_resolv_conf(text)
            self._tell_of_file(faults)
            self._use_searches(text)
            servers = Servers({wire.ROOT: tuple(found), **(servers.zones if servers else {})})
        kept, ours = without(servers or Servers(), self.settings.listen)
        for address in ours:
            self.say(f"{address[0]} port {address[1]} is this server itself, and is not asked")
        if kept != self.forwarder.servers:
            self.forwarder.use(kept)

    def _use_searches(self, text: str) -> None:
        if not self.settings.searches_of_file or self.searches == read_searches(text):
            return
        self.searches = read_searches(text)
        self._changed()

    def _tell_of_file(self, faults: list[str]) -> None:
        """What is wrong with resolv.conf, and was not a moment ago."""
        for line in faults:
            if line not in self.file_faults:
                self.say(f"{self.settings.resolv_conf}: {line}")
        self.file_faults = faults

    def _follow_resolv_conf(self) -> None:
        if self.settings.resolv_conf:
            try:
                self.watch = inotify.Watch()
            except PyrunError as error:
                self.say(f"{error}; {self.settings.resolv_conf} is looked at every {LOOK_S:.0f} s")
                self._look_at_resolv_conf()
                return
            self.loop.read(self.watch.fileno(), self._resolv_conf_changed)
            self._resolv_conf_changed()

    def _look_at_resolv_conf(self) -> None:
        self._use_servers()
        self.loop.after(LOOK_S, self._look_at_resolv_conf)

    def _resolv_conf_changed(self) -> None:
        if self.watch and self.settings.resolv_conf:
            self.watch.read()
            try:
                wanted = _watch_file(self.watch, self.settings.resolv_conf)
                for one in self.watched - wanted:
                    self.watch.remove(one)
                self.watched = wanted
            except PyrunError as error:
                self.say(f"{error.text}; changes of {self.settings.resolv_conf} may not be seen")
            self._use_servers()


def _watch_file(watch: inotify.Watch, path: str) -> set[int]:
    """Watches the directories of the file, and of where it leads to as a link; of one that is not there yet, as of a
    systemd-resolved that has not started, the next above it."""
    found = set()
    for one in {os.path.abspath(path), os.path.realpath(path)}:
        directory, missing = os.path.dirname(one), ""
        while not os.path.isdir(directory):
            directory, missing = os.path.dirname(directory), directory
        found.add(watch.add(directory, inotify.CHANGES))
        if missing and os.path.isdir(missing):  # it came before that was watched
            found |= _watch_file(watch, path)
    return found


def _is_installed(pid: int) -> bool:
    """Whether that process runs the program as it is now on disk."""
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/exe"), os.stat(PROGRAM))
    except OSError:
        return False


def catch_signals(daemon: Daemon) -> None:
    """SIGTERM and SIGINT end the daemon and the program, SIGUSR2 the daemon alone."""
    reader, writer = socket.socketpair()
    for one in (reader, writer):
        one.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)

    def took() -> None:
        got = reader.recv(64)
        daemon.stop(leave=got[-1] == signal.SIGUSR2)
        writer.close()

    daemon.loop.read(reader.fileno(), took)
