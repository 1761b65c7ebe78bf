"""`python -I -S …/pyrun/__main__.py`, as the launcher starts us, and `python -m pyrun`.

It is compiled anew each time, so it is short. Without `site` nothing has put our package on the path, nor those that
the big commands import (bin/site-packages leads to them). A verb of the runtime is over before collecting cycles would
pay (for the others main() turns it on again), and ends by `_exit`, since taking the interpreter apart costs
milliseconds.
"""

import gc
import marshal
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER


def load(here: str, verb: str) -> bool:
    """Whether what pyrun/cli/hot.py has kept of the verb's modules served."""
    path = f"{here}/__pycache__/{verb}.{sys.implementation.cache_tag}.hot"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        head = posix.read(fd, 8)
        if head[:4] != MAGIC_NUMBER:
            return False
        loader, rows = marshal.loads(posix.read(fd, int.from_bytes(head[4:], "little")))
        names = {"__name__": "pyrun.cli.hot"}
        exec(loader, names)
        served: bool = names["load"](rows, here, fd)  # type: ignore[operator]
        return served
    except (OSError, ValueError, EOFError, TypeError):
        return False
    finally:
        posix.close(fd)


gc.disable()
here = __file__.rpartition("/")[0]
if not __package__:
    sys.path.insert(0, here.rpartition("/")[0] or "/")
    sys.path.append(here + "/bin/site-packages")
GROUPS = ("cri", "image", "proxy", "dns", "node")  # `node run` is not `run`
verb = next((word for word in sys.argv if word in ("create", "run", "exec", "list", *GROUPS)), "")
if verb in GROUPS:
    verb = ""

try:
    missing = verb and here[:1] == "/" and not load(here, verb)
    if missing:
        from pyrun.cli.hot import finish, record

        record(here, verb)
    from pyrun.cli.main import end, main

    code = end(main(sys.argv[1:]))
    if missing and code == 0:
        finish()
except KeyboardInterrupt:  # before main() could take it for what it is
    code = 128 + 2
posix._exit(code)
