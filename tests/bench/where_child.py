"""Stands in for pyrun/__main__.py under `python -I -S` and notes when it gets where; tests/bench/where.py starts it.

As short as the original, and it imports no more than that before the first note.
"""

import gc
import marshal
import posix
import sys
import time

begun = time.monotonic_ns()
gc.disable()
here = __file__.rpartition("/tests/")[0]
sys.path.insert(0, here)
sys.path.append(here + "/pyrun/bin/site-packages")

verb = sys.argv[sys.argv.index("--root") + 2]
with open(f"{here}/pyrun/__pycache__/{verb}.{sys.implementation.cache_tag}.hot", "rb", 0) as file:
    file.read(4)
    loader, rows = marshal.loads(file.read())
names = {"__name__": "pyrun.cli.hot"}
exec(loader, names)
if not names["load"](rows, here + "/pyrun"):  # type: ignore[operator]
    raise RuntimeError("these are not the modules that a command would have")

from pyrun.cli.main import end, main  # noqa: E402

__import__("pyrun.cli.commands." + verb)
imported = time.monotonic_ns()

from tests.bench.where_notes import Notes  # noqa: E402

notes = Notes(begun, imported)
notes.write_before_launcher(sys.argv[1])
code = end(main(sys.argv[2:]))
notes.write(sys.argv[1])
posix._exit(code)
