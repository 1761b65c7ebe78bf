"""`pyrun create`: a container from a bundle, up to the moment before its program runs."""

from __future__ import annotations

import posix

from pyrun.cli.interrupts import Interrupts
from pyrun.errors import PyrunError
from pyrun.runtime.descriptors import listen_fds
from pyrun.runtime.prepare import Config, read_config, state_directory
from pyrun.runtime.runtime import Runtime
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


NO_PIVOT = "--no-pivot is not supported: without pivot_root a container can climb out of its root"


def run(g: Globals, o: Options) -> int:
    words, interrupts = request_words(g, o), Interrupts()
    words |= {"begin": interrupts.hold, "cancel": interrupts.cancel, "console_socket": o.console_socket}
    runtime_of(g).create(config_of(g, o), **words)
    return 0


def runtime_of(g: Globals) -> Runtime:
    return Runtime(g.root, warn=g.warn, rootless=g.rootless)


def config_of(g: Globals, o: Options) -> Config:
    """The config.json that create and run are given, once the id is known to be one."""
    state_directory(Store(g.root), o.id)
    return read_config(o.bundle or ".", o.config)


def request_words(g: Globals, o: Options) -> dict[str, Any]:
    """The options that create and run share, as Runtime.create() takes them."""
    if o.no_pivot:
        raise PyrunError(NO_PIVOT)
    return {
        "id": o.id,
        "bundle": o.bundle or ".",
        "pidfd_socket": o.pidfd_socket,
        "pid_file": o.pid_file,
        "keyring": not o.no_new_keyring,
        "preserve_fds": o.preserve_fds,
        "listen_fds": listen_fds(),
        "systemd": g.systemd_cgroup,
        "no_cgroup": g.no_cgroup,
        "replayed": g.replayed(),
        "notify": bool(posix.environ.get(b"NOTIFY_SOCKET")),
    }
