"""`pyrun image pull`: an image from its registry, with a line for each layer that moves on a terminal."""

from __future__ import annotations

import os
import sys

from pyrun.cli.commands.image_ls import STORE_ROOT, as_json, open_store
from pyrun.cli.output import write
from pyrun.errors import UsageError
from pyrun.image.pull import Settings
from pyrun.image.registry.credentials import Auth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options

PASSWORD_MOST = 64 << 10


def run(g: Globals, o: Options) -> int:
    from pyrun.cli.layer_lines import LayerLines

    settings = Settings(certs_dirs=tuple(o.certs_dir)) if o.certs_dir else Settings()
    auth = _auth(o.user) if o.user else None
    with open_store(g, o.root or STORE_ROOT, settings, o.layers) as images:
        quiet = o.quiet or o.format == "json"
        with LayerLines(2, silent=quiet) as lines:
            image = images.pull(o.image, auth=auth, progress=lines.tell)
        write(as_json(image) + "\n" if o.format == "json" else f"{image.id}\n" if o.quiet else f"{image.name}\n")
    return 0


def _auth(user: str) -> Auth:
    if os.isatty(0):
        from getpass import getpass

        return Auth(user, getpass(f"Password of {user}: "))
    password = sys.stdin.buffer.read(PASSWORD_MOST).decode(errors="replace").rstrip("\r\n")
    if not password:
        raise UsageError("--user: there is no password on standard input")
    return Auth(user, password)
