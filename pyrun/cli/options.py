"""What a verb, its options and its arguments are: table.py is made of these. Rows of plain data, importing nothing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a value is. parse.py turns the word into it; click_app.py has a click type for each.
FLAG, TEXT, NUMBER, SIZE, DURATION, CHOICE = "flag", "text", "number", "size", "duration", "choice"

# What a word stands for, for completion in the shell.
SHELLS = ("bash", "zsh", "fish")
A_FILE, A_DIRECTORY, AN_ID, A_SIGNAL, A_VERB, A_COMMAND = "file", "directory", "id", "signal", "verb", "command"


class Option:
    """One option. default: its value when it is not given; many: a tuple of all that are given; hidden: not in
    help."""

    __slots__ = (
        "attribute",
        "choices",
        "completes",
        "default",
        "help",
        "hidden",
        "kind",
        "many",
        "metavar",
        "name",
        "short",
    )

    def __init__(
        self,
        name: str,
        kind: str,
        help: str,
        *,
        short: str = "",
        metavar: str = "",
        default: Any = None,
        many: bool = False,
        hidden: bool = False,
        choices: tuple[str, ...] = (),
        completes: str = "",
    ) -> None:
        self.name = name
        self.attribute = name.replace("-", "_")
        self.kind = kind
        self.help = help
        self.short = short
        self.metavar = metavar or kind.upper()
        self.default = () if many else default
        self.many = many
        self.hidden = hidden
        self.choices = choices
        self.completes = completes


class Argument:
    """A word after the options. `many` takes all that is left, as a tuple."""

    __slots__ = ("completes", "many", "name", "required")

    def __init__(self, name: str, *, required: bool = True, many: bool = False, completes: str = "") -> None:
        self.name = name
        self.required = required
        self.many = many
        self.completes = completes


class Verb:
    """A verb; the name of one such as `cri status` has two words. `stops`: what follows the first argument belongs to
    another program and is not parsed."""

    __slots__ = ("arguments", "help", "hidden", "name", "options", "stops")

    def __init__(
        self,
        name: str,
        help: str,
        arguments: tuple[Argument, ...] = (),
        options: tuple[Option, ...] = (),
        *,
        stops: bool = False,
        hidden: bool = False,
    ) -> None:
        self.name = name
        self.help = help
        self.arguments = arguments
        self.options = options
        self.stops = stops
        self.hidden = hidden

    def usage(self) -> str:
        """The line that shows how it is called: `kill [OPTIONS] ID [SIGNAL]`."""
        words = [self.name, "[OPTIONS]"] if self.options else [self.name]
        for argument in self.arguments:
            word = argument.name.upper() + ("..." if argument.many else "")
            words.append(word if argument.required else f"[{word}]")
        return " ".join(words)


def flag(name: str, help: str, short: str = "", *, default: bool | None = False, hidden: bool = False) -> Option:
    return Option(name, FLAG, help, short=short, default=default, hidden=hidden)


def text(name: str, metavar: str, help: str, short: str = "", **more: Any) -> Option:
    return Option(name, TEXT, help, short=short, metavar=metavar, **more)


def number(name: str, metavar: str, help: str, short: str = "", **more: Any) -> Option:
    return Option(name, NUMBER, help, short=short, metavar=metavar, **more)


def size(name: str, help: str, *, hidden: bool = False) -> Option:
    return Option(name, SIZE, help, metavar="BYTES", hidden=hidden)


def choice(name: str, choices: tuple[str, ...], help: str, short: str = "") -> Option:
    return Option(name, CHOICE, help, short=short, metavar="|".join(choices), default=choices[0], choices=choices)


# What many verbs have.
FOR_TOOLS = choice("format", ("text", "json"), "how to print it")
LISTEN = text(
    "listen",
    "ADDRESS",
    "the socket (default: unix:///run/pyrun-cri/cri.sock, or cri.sock in --state)",
    completes=A_FILE,
)
