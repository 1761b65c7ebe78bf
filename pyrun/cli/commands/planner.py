"""`pyrun planner`: serves the launcher with plans until nobody has asked for a minute. Nothing depends on it."""

from __future__ import annotations

import gc
import os
import resource
import socket

from pyrun.cli.planner import NAME, Planner
from pyrun.errors import PyrunError
from pyrun.runtime.descriptors import listen_fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

MOST_MEMORY = 1 << 29  # of addresses: what a config.json could ask for must not become the machine's
# What planning imports where it needs it: in time, and not while a caller waits.
LATER = ("pyrun._seccomp", "pyrun.facts_rare", "pyrun.runtime.systemd", "pyrun.plan.cgroup.intelrdt")


def run(g: Globals, o: Options) -> int:
    for name in LATER:
        __import__(name)
    given = listen_fds()
    listener = socket.socket(fileno=3) if given == 1 else _listen(g.root)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    gc.collect()
    gc.freeze()
    gc.enable()
    path = "" if given else f"{g.root}/{NAME}"
    own = os.lstat(path).st_ino if path else 0
    try:
        Planner(listener).serve()
    finally:
        if path and os.lstat(path).st_ino == own:  # a later planner may have the name by now
            os.unlink(path)
    return 0


def _listen(root: str) -> socket.socket:
    """A socket in the state directory. It takes the name from what lies there: a planner that was killed leaves its
    own behind, and of two the later one serves."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = f"{root}/{NAME}"
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        listener.bind(f"{path}.{os.getpid()}")
        listener.listen(64)
        os.rename(f"{path}.{os.getpid()}", path)
    except OSError as error:
        raise PyrunError(f"{path}: {error.strerror or error}", hint="--root names where containers keep their state")
    return listener
