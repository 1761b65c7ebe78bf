"""`python -I -S …/pyrun/__main__.py`, as the launcher starts us, and `python -m pyrun`.

It is compiled anew each time, so it is short. Without `site` nothing has put our package on the path, nor those that
the big commands import (bin/site-packages leads to them). A command is over before collecting cycles would pay, and
ends by `_exit`, since taking the interpreter apart costs milliseconds.
"""

import gc
import posix
import sys

gc.disable()
if not __package__:
    here = __file__.rpartition("/")[0]
    sys.path.insert(0, here.rpartition("/")[0] or "/")
    sys.path.append(here + "/bin/site-packages")

try:
    from pyrun.cli.hot import load, save

    verb = load(sys.argv[1:])

    from pyrun.cli.main import end, main

    code = end(main(sys.argv[1:]))
    if verb and code == 0:
        save(verb)
except KeyboardInterrupt:  # before main() could take it for what it is
    code = 128 + 2
posix._exit(code)
