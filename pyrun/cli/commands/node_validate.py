"""`pyrun node validate`: every fault of files of objects at once, each with its place; exit status 1 where there is
one."""

from __future__ import annotations

from pyrun.cli.output import compact, write
from pyrun.errors import PyrunError, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    try:
        from pyrun.node.manifests import read_all
    except ModuleNotFoundError as error:
        raise missing_package(error)
    read, faults = read_all(o.file, o.node_name or "")
    if o.format == "json":
        write("[" + ",\n ".join([compact(f._asdict()) for f in faults]) + "]\n")
        return 1 if faults else 0
    if not faults:
        write(f"{len(read)} object{'s' if len(read) != 1 else ''}: no faults\n")
        return 0
    write("".join([printable(str(fault)) + "\n" for fault in faults]))
    count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
    raise PyrunError(f"{count} in {', '.join(sorted({f.file for f in faults}))}")


def missing_package(error: ModuleNotFoundError) -> Exception:
    """What to tell of a package that `pyrun[kube]` brings; the error itself where it is one of ours."""
    name = (error.name or "").partition(".")[0]
    if name not in ("yaml", "msgspec"):
        return error
    return PyrunError(f"the Python package {name} is not installed", hint="pip install 'pyrun[kube]' has it")
