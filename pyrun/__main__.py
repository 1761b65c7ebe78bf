"""`python -I -S …/pyrun/__main__.py`, as the launcher starts us, and `python -m pyrun`.

It is compiled anew each time, so it is short. Without `site` nothing has put our package on the path, nor those
that the big commands import (bin/site-packages leads to them). The end is `_exit`: taking the interpreter apart
costs milliseconds.
"""

import posix
import sys

if not __package__:
    here = __file__.rpartition("/")[0]
    sys.path.insert(0, here.rpartition("/")[0] or "/")
    sys.path.append(here + "/bin/site-packages")

from pyrun.cli.main import end, main

posix._exit(end(main(sys.argv[1:])))
