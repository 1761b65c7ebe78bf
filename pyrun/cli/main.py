"""From argv to an exit status: reads the command line, calls the verb's module, and tells what went wrong.

Every verb comes through here, so it imports little. Errors leave in one place, by the grammar of pyrun/errors.py:
on stderr, and in --log as one entry of level error that holds the whole message, since engines show the last one
that they find there.
"""

from __future__ import annotations

import gc
import posix
import sys
import time

from pyrun.cli.output import compact, write
from pyrun.cli.parse import Call, Options, parse
from pyrun.cli.root import checked_root, default_root
from pyrun.cli.table import RUNTIME
from pyrun.errors import PyrunError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from pyrun.executor import Replayed

    class Command(Protocol):
        def run(self, g: Globals, o: Options) -> int: ...


COMPLETE = b"_PYRUN_COMPLETE"
INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13


class Globals:
    """The global options, and the log.

    root: absolute. root_given: it was said with --root. rootless: True, False, or None to find out. log_fd: the
    open --log.
    """

    __slots__ = (
        "debug",
        "id",
        "log",
        "log_fd",
        "log_format",
        "no_cgroup",
        "root",
        "root_given",
        "rootless",
        "systemd_cgroup",
        "verb",
    )

    def __init__(
        self, root: str = "/run/pyrun", *, log: str | None = None, log_format: str = "text", debug: bool = False
    ) -> None:
        self.root = root
        self.root_given = False
        self.rootless: bool | None = None
        self.systemd_cgroup = False
        self.no_cgroup = False
        self.debug = debug
        self.log = log
        self.log_format = log_format
        self.log_fd = -1
        self.verb = ""
        self.id = ""

    def place(self) -> str:
        """What stands in front of a message: `pyrun: create web1: `."""
        return "".join([f"{word}: " for word in ("pyrun", f"{self.verb} {self.id}".strip()) if word])

    def warn(self, text: str) -> None:
        """Something that the user should know and that stops nothing: in the log, or without one on stderr."""
        self._note("warning", text)

    def trace(self, text: str) -> None:
        """With --debug, what is going on."""
        if self.debug:
            self._note("debug", text)

    def _note(self, level: str, text: str) -> None:
        if self.log_fd >= 0 or self.log_format == "json":
            self.enter(level, self.place() + text)
        else:
            say(f"{self.place()}{level}: {text}\n")

    def enter(self, level: str, message: str) -> None:
        """An entry as logrus writes it, in the log or on stderr."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if self.log_format == "json":
            line = compact({"level": level, "msg": message, "time": now})
        else:
            plain = message.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
            line = f'time="{now}" level={level} msg="{plain}"'
        say(line + "\n", self.log_fd if self.log_fd >= 0 else 2)

    def replayed(self) -> Replayed | None:
        """What the launcher's run of the plan that this command makes came to, if it ran one that failed."""
        words = posix.environ.pop(b"PYRUN_FAILED", None)
        if words is None:
            return None
        from pyrun.executor import Replayed

        return Replayed(words)

    def report(self, error: PyrunError) -> None:
        """Tells an error: to a reader on stderr, to a program in the log."""
        message = self.place() + "\n".join(error.lines())
        if self.log_fd >= 0:
            self.enter("error", message)
        if self.log_fd < 0 and self.log_format == "json":
            self.enter("error", message)
        elif self.log != "/dev/stderr":
            say(message + "\n")


def say(text: str, fd: int = 2) -> None:
    """Writes where nobody may be left to read it."""
    try:
        write(text, fd)
    except OSError:
        pass


def main(argv: list[str] | None = None) -> int:
    """Runs a command line (without the program's name; default: sys.argv) and returns its exit status. Raises
    nothing."""
    g = Globals()
    try:
        return _run(sys.argv[1:] if argv is None else argv, g)
    except PyrunError as error:
        g.report(error)
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except Exception as error:
        g.report(as_error(error))
        if g.debug:
            from traceback import format_exception

            say("".join(format_exception(error)))
        return 1


def end(code: int) -> int:
    """Flushes what print() has kept; the exit status."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # nobody reads it, or the descriptor was closed from the start
        pass
    return code


def program() -> None:
    """`pyrun` where pip has put it. The end of the interpreter would wait for threads that hang (pyrun/ending.py)."""
    posix._exit(end(main()))


def as_error(error: Exception) -> PyrunError:
    """An exception that nobody expected, as a message that names its place."""
    if isinstance(error, OSError) and error.errno and error.strerror:
        from errno import errorcode

        what = f"{error.filename}: " if error.filename is not None else ""
        name = errorcode.get(error.errno, str(error.errno))
        return PyrunError(f"{what}{name} {error.strerror[:1].lower()}{error.strerror[1:]}")
    if isinstance(error, MemoryError):
        return PyrunError("out of memory", hint="pyrun needs some 30 MB: raise `ulimit -v`, or the limit of its cgroup")
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    text = f"internal error: {type(error).__name__}: {error}".rstrip(": ").replace("\n", " ")
    hint = "this is a bug in pyrun; please report it with config.json and what the same command says with --debug"
    return PyrunError(f"{text}{place}", hint=hint)


def _run(argv: list[str], g: Globals) -> int:
    if not argv and COMPLETE in posix.environ:
        from pyrun.cli.click_app import complete

        return complete()
    call = Call()
    try:
        parse(argv, call)
    except UsageError:
        # A log that was asked for before the fault hears of it, if it can.
        _note_globals(g, call, quiet=True)
        raise
    if call.wants == "version":
        from pyrun.cli.version import version_text

        write(version_text())
        return 0
    if call.wants == "help" or call.verb is None:
        from pyrun.cli.click_app import show_help

        return show_help(call.verb.name if call.verb else None)
    _note_globals(g, call)
    if g.debug:
        _tell_all(g)
    if call.verb.name not in RUNTIME:
        gc.enable()  # it may last, and what asyncio leaves at each call are cycles
    name = "pyrun.cli.commands." + call.verb.name.replace(" ", "_").replace("-", "_")
    __import__(name)
    command: Command = sys.modules[name]
    return command.run(g, call.options)


def _tell_all(g: Globals) -> None:
    from pyrun import executor
    from pyrun.facts import collect_facts

    facts = collect_facts(g.rootless)
    version = ".".join(map(str, facts.kernel))
    g.trace(f"--root {g.root}, {'rootless' if facts.rootless else 'as root'}, uid {facts.euid}, Linux {version}")
    g.trace(f"cgroups at {facts.cgroup_mount}, ours {facts.cgroup_own}, with {' '.join(sorted(facts.controllers))}")
    executor.debug = g.trace


def _note_globals(g: Globals, call: Call, *, quiet: bool = False) -> None:
    given = call.globals
    g.verb = call.verb.name if call.verb else ""
    g.id = getattr(call.options, "id", None) or ""
    g.debug = given.debug
    g.log_format = given.log_format
    g.systemd_cgroup = given.systemd_cgroup or given.cgroup_manager == "systemd"
    g.no_cgroup = given.cgroup_manager == "disabled"
    g.rootless = None if given.rootless == "auto" else given.rootless == "true"
    g.root_given = "root" in given.given
    if given.log:
        g.log = given.log
        g.log_fd = _open_log(given.log, quiet)
    if not quiet:
        g.root = checked_root(given.root) if g.root_given else default_root()


def _open_log(path: str, quiet: bool) -> int:
    try:
        return posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_SYNC | posix.O_CLOEXEC, 0o644)
    except (OSError, ValueError) as error:
        if quiet:
            return -1
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise PyrunError(f"open {path}: {reason}", hint="--log names a file to append to; its directory must be there")
