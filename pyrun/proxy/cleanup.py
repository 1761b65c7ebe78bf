"""`pyrun proxy cleanup`: takes away what a killed daemon has left in force, where no other one shall take it over."""

from __future__ import annotations

import contextlib
import os

from ..errors import PyrunError
from ..listen import only_one, private_directory
from .carriers import PLANE
from .client import DataPlane, Gone
from .nft.kernel import KernelRules
from .routes import Routes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def clean_up(state: str) -> None:
    """In the thread's network namespace. Everything is tried, whatever fails before; then the first PyrunError, and
    one where a daemon runs."""
    if os.geteuid() != 0:
        raise PyrunError("pyrun proxy needs root", hint="sudo pyrun proxy cleanup")
    private_directory(state)
    with only_one(state, "pyrun proxy"):
        failed: list[PyrunError] = []
        steps: list[Callable[[], None]] = [lambda: _end_plane(state), Routes.remove_all, _remove_rules]
        for step in steps:
            try:
                step()
            except PyrunError as error:
                failed.append(error)
        if failed:
            raise failed[0]


def _end_plane(state: str) -> None:
    """And with it what leads connections to it: nobody else holds the program at sk_lookup."""
    directory = os.path.join(state, PLANE)
    try:
        DataPlane.connect(directory).end()
    except Gone:
        pass
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, "sock"))


def _remove_rules() -> None:
    KernelRules().close(remove=True)
