"""`pyrun image export`: images as an archive. A file is there whole or not at all."""

from __future__ import annotations

import os
import secrets
from typing import IO

from pyrun.cli.commands.image_ls import STORE_ROOT, open_store
from pyrun.errors import PyrunError, UsageError, reason
from pyrun.image.archive.write import export

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.image.store import Image, Images


def run(g: Globals, o: Options) -> int:
    if not o.image:
        raise UsageError("IMAGE is missing: pyrun image export IMAGE...", hint="pyrun image ls shows their names")
    if not o.output and os.isatty(1):
        raise UsageError("an archive is nothing for a terminal", hint="name a file by --output, or pipe it on")
    with open_store(g, o.root or STORE_ROOT) as images:
        wanted = list({image.id: image for image in map(images.find, o.image)}.values())
        if o.output:
            _to_file(images, wanted, o.output)
        else:
            with open(1, "wb", closefd=False) as out:
                export(images, wanted, out, _owner())
    return 0


def _owner() -> str:
    return f"export-{os.getpid()}-{secrets.token_hex(4)}"


def _to_file(images: Images, wanted: list[Image], path: str) -> None:
    """Written beside it, and renamed."""
    temporary = f"{path}.{secrets.token_hex(4)}.part"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as out:
            _write(images, wanted, out)
        os.rename(temporary, path)
    except OSError as error:
        raise PyrunError(f"{path}: {reason(error)}")
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)


def _write(images: Images, wanted: list[Image], out: IO[bytes]) -> None:
    export(images, wanted, out, _owner())
    out.flush()
    os.fsync(out.fileno())
