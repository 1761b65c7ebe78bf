"""One file for a whole node: pyrun.toml has the runtime's keys, and in its table [node] each option of `pyrun node run`
by its name with underscores. What is on the command line counts, then the file, then the default.

A list in the file is replaced by the option's values, not added to.
"""

from __future__ import annotations

import json
import os
import re
from typing import NamedTuple

from pyrun.cli.options import FLAG, NUMBER, SIZE, Option
from pyrun.cli.parse import convert, nearest
from pyrun.errors import InvalidArgument, PyrunError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrun.cli.parse import Options

DEFAULT = "/etc/pyrun/pyrun.toml"
TABLE = "node"
NOT_KEYS = ("config", "explain")  # of the command line alone
WIDTH = 116
_HEAD = re.compile(r"\s*\[([^\[\]]*)\]")


class Chosen(NamedTuple):
    """What an option is now. place: FILE:LINE, the option itself, or "" for its default."""

    option: Option
    value: Any
    place: str


def settle(o: Options, options: tuple[Option, ...], default: str = DEFAULT) -> list[Chosen]:
    """Gives `o` what the file says of options that were not given, and --config the file's name. InvalidArgument names
    file, line and key."""
    if o.config is None and os.path.exists(default):
        o.__dict__["config"] = default
    table, lines = _read(o.config) if o.config is not None else ({}, {})
    known = {option.attribute: option for option in options if option.name not in NOT_KEYS}
    for key, value in table.items():
        place = f"{o.config}:{lines.get(key, 1)}"
        option = known.get(key)
        if option is None:
            raise _unknown(place, key, list(known))
        found = _value(place, option, value)
        if option.name not in o.given:
            o.__dict__[key] = found
    chosen = []
    for key, option in known.items():
        place = f"--{option.name}" if option.name in o.given else ""
        if not place and key in table:
            place = f"{o.config}:{lines.get(key, 1)}"
        chosen.append(Chosen(option, o.__dict__[key], place))
    return chosen


def _read(path: str) -> tuple[dict[str, Any], dict[str, int]]:
    """The table, and the line of each of its keys. Who can write it is root on this node."""
    import tomllib

    try:
        with open(path, "rb") as file:
            at, data = os.fstat(file.fileno()), file.read()
    except OSError as error:
        raise InvalidArgument(f"{path}: {reason(error)}", hint="--config names a TOML file") from None
    try:
        text = data.decode()
        found = tomllib.loads(text).get(TABLE, {})
    except ValueError as error:
        raise InvalidArgument(f"{path}: {error}") from None
    if not isinstance(found, dict):
        raise InvalidArgument(f"{path}: {TABLE} must be a table", hint=f"[{TABLE}], and its keys in the lines below")
    if found and os.geteuid() == 0 and (at.st_uid != 0 or at.st_mode & 0o022):
        raise PyrunError(
            f"{path}: others than root may write it, and who may is root on this node",
            hint=f"chown root {path} && chmod go-w {path}",
        )
    return found, _lines(text)


def _lines(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if head := _HEAD.match(line):
            inside = head[1].strip().strip("\"'") == TABLE
        elif inside and (key := line.partition("=")[0].strip().strip("\"'")):
            found.setdefault(key, number)
    return found


def _unknown(place: str, key: str, known: list[str]) -> InvalidArgument:
    close = nearest(key.replace("-", "_"), known)
    hint = f"did you mean {close}?" if close else "pyrun node run --explain has all keys"
    if key.replace("-", "_") in NOT_KEYS:
        hint = "it is of the command line alone"
    return InvalidArgument(f"{place}: [{TABLE}] has no key {key}", hint=hint)


def _value(place: str, option: Option, value: Any) -> Any:
    def wrong(kind: str) -> InvalidArgument:
        return InvalidArgument(f"{place}: {option.attribute} must be {kind}")

    if option.kind == FLAG:
        if not isinstance(value, bool):
            raise wrong("true or false")
        return value
    if option.many:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise wrong("a list of strings")
        return tuple(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if option.kind == NUMBER:
        if not whole:
            raise wrong("a whole number")
        return value
    if not (isinstance(value, str) or (option.kind == SIZE and whole)):
        raise wrong("a size, such as 4096 or '10M'" if option.kind == SIZE else "a string")
    try:
        return convert(option, str(value))
    except ValueError as error:
        raise wrong(str(error)) from None


# --- what is told ---


def shown(chosen: list[Chosen]) -> tuple[tuple[str, str, str], ...]:
    """(key, value, place) of what is no default; a header's value may be a secret, and what is asked of a URL."""
    found = []
    for one in chosen:
        if one.place:
            value = one.value
            if one.option.name.endswith("-header"):
                value = [f"{word.partition(':')[0]}: …" for word in value]
            elif one.option.name.endswith("-url") and "?" in value:
                value = f"{value.partition('?')[0]}?…"
            found.append((one.option.attribute, written(value), one.place))
    return tuple(found)


def written(value: Any) -> str:
    """As TOML has it."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(written(one) for one in value)}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{written(key)} = {written(one)}' for key, one in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


def as_file(config: str | None, chosen: list[Chosen]) -> str:
    """The whole configuration as such a file, with comments: keys that are not set are comments, too."""
    import dataclasses

    from pyrun.cri.config import HELP, Configuration, load_configuration

    found = load_configuration(config)
    lines = ["# The configuration of this node, as it is now; what begins with # is a default.", ""]
    for item in dataclasses.fields(Configuration):
        value = getattr(found, item.name)
        default = item.default if item.default is not dataclasses.MISSING else {}
        if item.name != "runtimes":
            lines += [*_comment(HELP[item.name]), f"{'# ' if value == default else ''}{item.name} = {written(value)}"]
    for name, program in found.runtimes.items():
        lines += ["", f"[runtimes.{name}]", f"path = {written(program)}"]
    if not found.runtimes:
        lines += ["", *_comment(HELP["runtimes"]), "# [runtimes.runc]", '# path = "/usr/sbin/runc"']
    lines += ["", f"[{TABLE}]"]
    for option, value, place in chosen:
        lines += _comment(option.help.removesuffix(" (repeatable)"))
        if place:
            lines.append(f"{option.attribute} = {written(value)}  # {place}")
        else:
            lines.append(f"# {option.attribute} = {_default(option)}")
    return "\n".join(lines) + "\n"


def _default(option: Option) -> str:
    if option.many:
        return f'["{option.metavar}"]'
    return written(option.metavar if option.default is None else option.default)


def _comment(text: str) -> list[str]:
    import textwrap

    return ["", *(f"# {line}" for line in textwrap.wrap(text, WIDTH))]
