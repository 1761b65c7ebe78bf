"""`pyrun planner`: serves the launcher with plans until nobody has asked for a minute. Nothing depends on it."""

from __future__ import annotations

import gc
import json
import os
import resource
import socket

from pyrun.cli.commands.spec import default_config
from pyrun.cli.planner import NAME, Planner
from pyrun.errors import PyrunError
from pyrun.facts import collect_facts
from pyrun.runtime.descriptors import listen_fds
from pyrun.runtime.exec import prepare_exec
from pyrun.runtime.prepare import Config, prepare
from pyrun.runtime.record import Record
from pyrun.runtime.store import Container, Store, boot_id, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

MOST_MEMORY = 1 << 29  # of addresses: what a config.json could ask for must not become the machine's
FEW = 20_000  # objects more than before, so that most answers are made without a look for garbage
# What planning imports where it needs it: in time, and not while a caller waits, and before it is noted of what version
# the sources are.
LATER = (
    "fcntl",
    "pyrun._seccomp",
    "pyrun.facts_rare",
    "pyrun.plan.cgroup.cgroup_owner",
    "pyrun.plan.cgroup.intelrdt",
    "pyrun.plan.namespace.netdevices",
    "pyrun.plan.process.special",
    "pyrun.runtime.systemd",
)


def run(g: Globals, o: Options) -> int:
    for name in LATER:
        __import__(name)
    _warm_up(g.root)
    given = listen_fds()
    listener = socket.socket(fileno=3) if given == 1 else _listen(g.root)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    gc.collect()
    gc.freeze()
    gc.set_threshold(FEW)
    gc.enable()
    path = "" if given else f"{g.root}/{NAME}"
    own = os.lstat(path).st_ino if path else 0
    try:
        Planner(listener).serve()
    finally:
        if path and os.lstat(path).st_ino == own:  # a later planner may have the name by now
            os.unlink(path)
    return 0


def _warm_up(root: str) -> None:
    """A create and an exec are planned for nobody: what a first plan takes longer, no caller waits for."""
    config = default_config()
    config["process"]["terminal"] = False
    facts = collect_facts()
    record = Record(pid=facts.pid, start=start_time(facts.pid), boot_id=boot_id())
    try:
        made = prepare(Store(root), "nobody", "/", Config(json.dumps(config).encode()), facts=facts, imagine=True)
        made.plan.encode()
        assert made.spec.process is not None
        prepare_exec(Container("nobody", root, record), made.spec, made.spec.process, facts=facts).plan.encode()
    except PyrunError:  # such as a user without a cgroup: whoever calls will hear of it
        pass


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
