"""The container runtime's verbs and the options of all verbs: parse.py runs them, click_app.py explains and completes
them.

Every run of the runtime imports this, so it holds rows of plain data (options.py) and no row of another verb: these are
in table_*.py, and all together in verbs.py. Longer prose for `--help` is in texts.py. Names, short forms and meanings
are runc's, because engines call us by them.
"""

from __future__ import annotations

from pyrun.cli.options import (
    A_COMMAND,
    A_DIRECTORY,
    A_FILE,
    A_SIGNAL,
    A_VERB,
    AN_ID,
    CHOICE,
    DURATION,
    FOR_TOOLS,
    Argument,
    Option,
    Verb,
    choice,
    flag,
    number,
    size,
    text,
)

GLOBALS = (
    text(
        "root",
        "DIR",
        "where containers keep their state (default: /run/pyrun; $XDG_RUNTIME_DIR/pyrun if rootless)",
        completes=A_DIRECTORY,
    ),
    text("log", "FILE", "append errors and warnings to FILE as well (default: only stderr)", completes=A_FILE),
    choice("log-format", ("text", "json"), "how entries of --log are written"),
    flag("debug", "say more, and show tracebacks of errors that are bugs"),
    flag("systemd-cgroup", "let systemd make the cgroup; cgroupsPath is then slice:prefix:name"),
    choice(
        "cgroup-manager", ("cgroupfs", "systemd", "disabled"), "who makes the cgroup; disabled: it stays the caller's"
    ),
    Option(
        "rootless",
        CHOICE,
        "go on without cgroup permissions",
        metavar="auto|true|false",
        default="auto",
        choices=("auto", "true", "false"),
    ),
    text("criu", "FILE", "accepted and ignored: there is no checkpoint", hidden=True),
)

ID = Argument("id", completes=AN_ID)
NEW_ID = Argument("id")
FORMAT = choice("format", ("table", "json"), "how to print it", "f")
CONFIG = text("config", "FILE", "the config to take in place of BUNDLE/config.json", completes=A_FILE)
BUNDLE = text(
    "bundle", "DIR", "the bundle: a directory with config.json (default: the current one)", "b", completes=A_DIRECTORY
)
CONSOLE = text("console-socket", "SOCKET", "a unix socket that receives the terminal's master end", completes=A_FILE)
PIDFD = text("pidfd-socket", "SOCKET", "a unix socket that receives a pidfd of the process", completes=A_FILE)
PID_FILE = text("pid-file", "FILE", "write the pid of the process to FILE", completes=A_FILE)
PRESERVE = number("preserve-fds", "N", "hand on N descriptors after stdio and those of $LISTEN_FDS", default=0)
DETACH = flag("detach", "do not wait for the process to end", "d")
NO_PIVOT = flag("no-pivot", "refused: without pivot_root a container can reach the host's root")
NO_KEYRING = flag("no-new-keyring", "keep the caller's session keyring instead of a new one")

CREATE = Verb(
    "create",
    "make a container from a bundle, up to its program",
    (NEW_ID,),
    (BUNDLE, CONSOLE, PIDFD, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE, CONFIG),
)
START = Verb("start", "let a created container's program go", (ID,))
RUN = Verb(
    "run",
    "create, start, wait, and delete",
    (NEW_ID,),
    (
        BUNDLE,
        CONSOLE,
        PIDFD,
        PID_FILE,
        DETACH,
        flag("keep", "do not delete the container when it has ended"),
        flag("no-subreaper", "do not adopt and reap processes that the container leaves behind"),
        NO_PIVOT,
        NO_KEYRING,
        PRESERVE,
        CONFIG,
        flag("trace", "print each step with the time that it took"),
    ),
)
EXEC = Verb(
    "exec",
    "run another program in a running container",
    (ID, Argument("command", required=False, many=True, completes=A_COMMAND)),
    (
        text("process", "FILE", "the process object of config.json, in place of COMMAND", "p", completes=A_FILE),
        flag("tty", "give it a terminal", "t"),
        CONSOLE,
        PIDFD,
        DETACH,
        PID_FILE,
        text("cwd", "DIR", "its working directory in the container"),
        text("env", "NAME=VALUE", "set a variable in its environment (repeatable)", "e", many=True),
        text("user", "UID[:GID]", "run it as this user, by number", "u"),
        number("additional-gids", "GID", "one more group (repeatable)", "g", many=True),
        text("cap", "CAP", "one more capability (repeatable)", "c", many=True),
        flag("no-new-privs", "no privileges gained by exec; =false lifts what config.json has", default=None),
        text("apparmor", "PROFILE", "its AppArmor profile"),
        text("process-label", "LABEL", "its SELinux label"),
        PRESERVE,
        flag("ignore-paused", "also in a paused container, where it then waits"),
        text("cgroup", "PATH", "a cgroup below the container's, which must exist", many=True),
    ),
    stops=True,
)
STATE = Verb("state", "print a container's state as JSON", (ID,))
KILL = Verb(
    "kill",
    "send a signal to a container's first process",
    (ID, Argument("signal", required=False, completes=A_SIGNAL)),
    (flag("all", "accepted for old callers; a stopped container is then no error", "a", hidden=True),),
    stops=True,
)
DELETE = Verb(
    "delete",
    "remove what a stopped container has left",
    (ID,),
    (flag("force", "kill it first if it still runs; a container that is not there is no error", "f"),),
)
LIST = Verb("list", "list containers", (), (FORMAT, flag("quiet", "only the ids", "q")))
PS = Verb(
    "ps",
    "list the processes in a container",
    (ID, Argument("ps-option", required=False, many=True)),
    (FORMAT,),
    stops=True,
)
PAUSE = Verb("pause", "freeze all processes of a container", (ID,))
RESUME = Verb("resume", "thaw a paused container", (ID,))
UPDATE = Verb(
    "update",
    "change a container's resource limits",
    (ID,),
    (
        text(
            "resources",
            "FILE",
            "linux.resources as JSON, - for stdin; other options are then ignored",
            "r",
            completes=A_FILE,
        ),
        number("blkio-weight", "WEIGHT", "weight of its block I/O, 10 to 1000"),
        number("cpu-period", "USEC", "period of the CPU quota"),
        number("cpu-quota", "USEC", "CPU time in each period, -1 for no limit"),
        number("cpu-burst", "USEC", "unused quota that may be saved up"),
        number("cpu-share", "SHARES", "CPU weight, 2 to 262144"),
        number("cpu-rt-period", "USEC", "refused: cgroup v2 has no real-time quota", hidden=True),
        number("cpu-rt-runtime", "USEC", "refused: cgroup v2 has no real-time quota", hidden=True),
        number("cpu-idle", "0|1", "1: run only when nothing else wants the CPU"),
        text("cpuset-cpus", "LIST", "CPUs that it may use, such as 0-2,7"),
        text("cpuset-mems", "LIST", "memory nodes that it may use"),
        size("memory", "memory limit, such as 512M; -1 for none"),
        size("memory-reservation", "memory that is protected (memory.low)"),
        size("memory-swap", "memory and swap together; -1 for no limit"),
        size("kernel-memory", "accepted and ignored", hidden=True),
        size("kernel-memory-tcp", "accepted and ignored", hidden=True),
        number("pids-limit", "N", "most processes at a time, -1 for no limit"),
        text("l3-cache-schema", "SCHEMA", "Intel RDT L3 cache schema"),
        text("mem-bw-schema", "SCHEMA", "Intel RDT memory bandwidth schema"),
    ),
)
EVENTS = Verb(
    "events",
    "print statistics and out-of-memory events, one JSON object a line",
    (ID,),
    (
        flag("stats", "print the statistics once and end"),
        Option(
            "interval",
            DURATION,
            "time between statistics, such as 500ms or 1m30s (default: 5s)",
            metavar="TIME",
            default=5.0,
        ),
    ),
)
SPEC = Verb(
    "spec",
    "write a config.json to start from",
    (),
    (
        text("bundle", "DIR", "where to write it (default: the current directory)", "b", completes=A_DIRECTORY),
        flag("rootless", "for a container that needs no root"),
    ),
)
FEATURES = Verb("features", "print what this runtime can do as JSON")
EXPLAIN = Verb(
    "explain",
    "print every step that create would take; needs no root",
    (Argument("bundle", required=False, completes=A_DIRECTORY),),
    (FOR_TOOLS, CONFIG),
)
VALIDATE = Verb(
    "validate",
    "print every fault of a config.json",
    (Argument("bundle", required=False, completes=A_DIRECTORY),),
    (FOR_TOOLS, CONFIG),
)
PLANNER = Verb("planner", "plan for other pyrun commands, which start faster then; ends when idle for a minute")
COMPLETION = Verb("completion", "print the completion script for a shell", (Argument("shell"),))
HELP = Verb("help", "explain a verb", (Argument("verb", required=False, many=True, completes=A_VERB),), hidden=True)

RUNTIME = {
    verb.name: verb
    for verb in (
        CREATE,
        START,
        RUN,
        EXEC,
        STATE,
        KILL,
        DELETE,
        LIST,
        PS,
        PAUSE,
        RESUME,
        UPDATE,
        EVENTS,
        SPEC,
        FEATURES,
        EXPLAIN,
        VALIDATE,
        PLANNER,
        COMPLETION,
        HELP,
    )
}
