"""`pyrun list`: all containers below --root. A damaged one is named on stderr and does not hide the others."""

from __future__ import annotations

import posix

from pyrun.cli.output import columns, write
from pyrun.errors import PyrunError
from pyrun.runtime.state import state_text
from pyrun.runtime.store import Missing, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrun.cli.main import Globals
    from pyrun.cli.parse import Options
    from pyrun.runtime.store import Container

TITLES = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def run(g: Globals, o: Options) -> int:
    store = Store(g.root)
    if g.root_given:
        _check_root(g.root)
    if o.quiet:
        write("".join([f"{name}\n" for name in store.ids()]))
        return 0
    if o.format == "json":
        write("[" + ",".join(_each(g, store, lambda c: _on_one_line(state_text(c)))) + "]\n")
    else:
        write(columns([TITLES, *_each(g, store, _row)]))
    return 0


def _check_root(root: str) -> None:
    """A root that was named and is not there is a mistake; the default one is made by the first create."""
    try:
        posix.stat(root)
    except FileNotFoundError:
        raise PyrunError(f"{root}: no such file or directory", hint="--root names where containers keep their state")


def _each(g: Globals, store: Store, show: Callable[[Container], Any]) -> list[Any]:
    found = []
    for name in store.ids():
        try:
            found.append(show(store.open(name)))
        except Missing:  # deleted meanwhile
            continue
        except PyrunError as error:
            g.warn(error.text)
    return found


def _row(container: Container) -> tuple[str, ...]:
    text = container.record.text
    return container.id, str(container.pid()), container.status(), text("bundle"), text("created"), text("owner")


def _on_one_line(json: str) -> str:
    """Strings in JSON hold no line breaks, so each line is a whole number of tokens."""
    return "".join([_without_space(line.strip()) for line in json.splitlines()])


def _without_space(line: str) -> str:
    """Without the one after a name: who looks for "id":"web1" finds it, as in what runc lists."""
    end = 1
    while line.startswith('"') and line[end] != '"':
        end += 2 if line[end] == "\\" else 1
    return line[: end + 1] + line[end + 1 :].replace(": ", ":", 1)
