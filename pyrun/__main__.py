"""`python -I -S …/pyrun/__main__.py`, as the launcher starts us, and `python -m pyrun`.

It is compiled anew each time, which takes ten microseconds a line, so it is short. Without `site` nothing has put our
package on the path, nor those that the big commands import (bin/site-packages leads to them). A verb of the runtime is
over before collecting cycles would pay (for the others main() turns it on again), and ends by `_exit`, since taking the
interpreter apart costs milliseconds.
"""

import gc
import posix
import sys
from _frozen_importlib_external import MAGIC_NUMBER
from marshal import loads

gc.disable()
here = __file__.rpartition("/")[0]
if not __package__:
    sys.path.insert(0, here.rpartition("/")[0] or "/")
    sys.path.append(here + "/bin/site-packages")
VERBS = ("create", "run", "exec", "list", "cri", "image", "proxy", "dns", "node")  # `node run` is not `run`
verb = next((word for word in sys.argv if word in VERBS), "")
missing = verb in VERBS[:4] and here[:1] == "/"
try:
    if missing:
        try:  # what pyrun/cli/hot.py has kept of the verb's modules
            with open(f"{here}/__pycache__/{verb}.{sys.implementation.cache_tag}.hot", "rb", 0) as file:
                if file.read(4) == MAGIC_NUMBER:
                    loader, rows = loads(file.read())
                    names = {"__name__": "pyrun.cli.hot"}
                    exec(loader, names)
                    missing = not names["load"](rows, here)  # type: ignore[operator]
        except (OSError, ValueError, EOFError, TypeError):
            pass
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
