"""`pyrun collect`: one process, off the pods' path, that seals what was rotated, keeps it within bounds, and sends
lines to other stores. What is sent is read from the same files, so a slow target holds up no sealing."""

from __future__ import annotations

import sqlite3
import time
from contextlib import ExitStack

from ..errors import PyrunError
from ..listen import only_one, private_directory
from .seal import Sealer
from .store import Keep, LogStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .entry import Rule

# A look, also where nothing tells that something happened; and how often what is old is looked for.
LOOK = 5.0
DROP = 60.0
# For what is being sent when we end.
PATIENCE = 5.0


def collect(
    root: str,
    directory: str,
    keep: Keep,
    warn: Callable[[str], None],
    ended: Callable[[], bool],
    *,
    once: bool = False,
    targets: Sequence[str] = (),
    rule: Rule | None = None,
) -> None:
    """Until `ended`. root: the logs of pods; directory: the store's. targets: as parse_target takes them. rule: which
    lines are sent as one, None if each is sent by itself."""
    with ExitStack() as stack:
        private_directory(directory)
        stack.enter_context(only_one(directory, "pyrun collect", "--store"))
        store = LogStore(directory, keep)
        stack.callback(store.close)
        sealer = Sealer(root, store, warn)
        stack.callback(sealer.close)
        if targets:
            from .ship.shipper import Shipper  # TLS and HTTP clients, 7 MB
        for target in targets:
            shipper = Shipper(target, root, directory, warn, rule)
            stack.callback(shipper.stop, PATIENCE)
            shipper.start()
        dropped = 0.0
        while not ended():
            try:
                sealer.look()
                if once or time.monotonic() - dropped > DROP:
                    store.drop_old()
                    dropped = time.monotonic()
            except (PyrunError, OSError, sqlite3.Error) as error:  # such as a full disk: it is tried again
                warn(str(error))
            if once:
                return
            sealer.wait(LOOK)
