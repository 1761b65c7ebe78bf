"""`pyrun create`: a container from a bundle, up to the moment before its program runs."""

from __future__ import annotations

from pyrun.errors import PyrunError
from pyrun.runtime.create import NO_PIVOT, create, hold_interrupts
from pyrun.runtime.descriptors import listen_fds
from pyrun.runtime.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    create(Store(g.root), o.id, o.bundle or ".", warn=g.warn, begin=hold_interrupts, **request_words(g, o))
    return 0


def request_words(g: Globals, o: Options) -> dict[str, Any]:
    """The options that create and run share, as runtime.create takes them."""
    if o.no_pivot:
        raise PyrunError(NO_PIVOT)
    return {
        "config": o.config,
        "console_socket": o.console_socket,
        "pidfd_socket": o.pidfd_socket,
        "pid_file": o.pid_file,
        "keyring": not o.no_new_keyring,
        "preserve_fds": o.preserve_fds,
        "listen_fds": listen_fds(),
        "systemd": g.systemd_cgroup,
        "no_cgroup": g.no_cgroup,
        "rootless": g.rootless,
    }
