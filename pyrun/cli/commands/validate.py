"""`pyrun validate`: every fault of a config.json at once, each with its place; exit status 1 where there is one."""

from __future__ import annotations

import os

from pyrun.cli.output import compact, write
from pyrun.errors import PyrunError
from pyrun.oci.load import read_file
from pyrun.oci.validate import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options


def run(g: Globals, o: Options) -> int:
    path = config_path(o)
    faults = validate(read_file(path))
    if o.format == "json":
        write("[" + ",\n ".join([compact({"pointer": at, "text": text}) for at, text in faults]) + "]\n")
    elif faults:
        write("".join([f"{path} {at or '/'}: {text}\n" for at, text in faults]))
    else:
        write(f"{path}: no faults\n")
    if faults and o.format == "text":
        count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
        raise PyrunError(f"{count} in {path}", hint="the places are JSON pointers (RFC 6901)")
    return 1 if faults else 0


def config_path(o: Options) -> str:
    """The config that the options mean; a file in place of the bundle is taken as the config itself."""
    if o.config:
        return str(o.config)
    bundle = o.bundle or "."
    return bundle if os.path.isfile(bundle) else os.path.join(bundle, "config.json")
