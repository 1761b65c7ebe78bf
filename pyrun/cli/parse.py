"""Reads argv by the table, as runc's parser (urfave/cli) reads it, without click: its imports cost more than a
container.

`--option value`, `--option=value`, `-o value`; one dash also before a long name (`-bundle`), as Go programs take
it. A flag takes its value only behind `=`. Options and words may be mixed, but for verbs that stop after the id:
what follows it there belongs to another program. `--` ends the options. Global options come before the verb or,
where it has none of that name, after.
"""

from __future__ import annotations

from pyrun.cli.options import CHOICE, DURATION, FLAG, NUMBER, SIZE, Option, Verb
from pyrun.cli.table import GLOBALS, RUNTIME
from pyrun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TRUE = ("1", "t", "T", "TRUE", "true", "True")
FALSE = ("0", "f", "F", "FALSE", "false", "False")
# Go's time.ParseDuration.
UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class Options:
    """The values of a verb's options and arguments, by attribute: `--pid-file` is pid_file; absent ones have their
    default.

    `given` holds the names of the options that were on the command line.
    """

    given: frozenset[str]

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


class Call:
    """What a command line asks for. verb: None for none. wants: "run", "help" or "version"."""

    __slots__ = ("globals", "options", "verb", "wants")

    def __init__(self) -> None:
        self.globals = defaults(GLOBALS)
        self.verb: Verb | None = None
        self.options = Options()
        self.wants = "run"


def defaults(options: tuple[Option, ...]) -> Options:
    made = Options(given=frozenset())
    for option in options:
        made.__dict__[option.attribute] = option.default
    return made


def parse(argv: list[str], call: Call | None = None) -> Call:
    """The Call of argv (without the program's name). Raises UsageError; a given `call` then holds what was read so
    far."""
    call = call or Call()
    rest = _read(argv, 0, call, None, call.globals)
    if call.wants != "run" or not rest:
        return call
    call.verb = RUNTIME.get(rest[0]) or _find_other(rest)
    if call.verb is None:
        raise _unknown_verb(rest[0], rest[1:])
    used = call.verb.name.count(" ") + 1
    call.options = defaults(call.verb.options)
    words = _read(argv, len(argv) - len(rest) + used, call, call.verb, call.options)
    if call.wants == "run":
        _bind(call.verb, words, call.options)
    return call


def _find_other(words: list[str]) -> Verb | None:
    """A verb that is not the runtime's: of the first two words, or of the first."""
    from pyrun.cli.verbs import VERBS

    return VERBS.get(" ".join(words[:2])) or VERBS.get(words[0])


def _read(argv: list[str], at: int, call: Call, verb: Verb | None, into: Options) -> list[str]:
    """Reads options from argv[at:] into `into`; returns the words. Without a verb, the first word ends the reading."""
    words: list[str] = []
    while at < len(argv):
        word = argv[at]
        if words and verb is None:
            return words + argv[at:]
        if word == "--":
            return words + argv[at + 1 :]
        if words and verb is not None and verb.stops:
            return words + argv[at:]
        # "-", "-9" and "" are words. A number ends the options, since it is surely meant as a value.
        if len(word) < 2 or word[0] != "-" or not (word[1] == "-" or word[1].isalpha()):
            words.append(word)
            at += 1
            continue
        name, equals, value = word.partition("=")
        name = name[2:] if word[1] == "-" else name[1:]
        if name in ("help", "h"):
            call.wants = "help"
            return words
        if verb is None and name in ("version", "v"):
            call.wants = "version"
            return words
        option, target = _find(name, verb, into, call.globals)
        if option is None and word[1] != "-" and not equals and (flags := _flags(name, verb)):
            for one in flags:
                _set(into, one, "true", verb)
            at += 1
            continue
        if option is None:
            raise _unknown_option(word.partition("=")[0], verb)
        at += 1
        if option.kind == FLAG:
            value = value if equals else "true"
        elif not equals:
            if at == len(argv):
                raise _usage(f"option {word} needs a value: {option.metavar}", verb)
            value = argv[at]
            at += 1
        _set(target, option, value, verb)
    return words


def _find(name: str, verb: Verb | None, mine: Options, globals: Options) -> tuple[Option | None, Options]:
    if verb is not None:
        for option in verb.options:
            if name == option.name or name == option.short:
                return option, mine
    for option in GLOBALS:
        if name == option.name:
            return option, globals
    return None, mine


def _flags(name: str, verb: Verb | None) -> list[Option]:
    """-it for -i -t: short names of flags, a letter each. The runtime's verbs, as runc's, have none."""
    known = verb.options if verb is not None and " " in verb.name else ()
    short = {option.short: option for option in known if option.kind == FLAG}
    return [short[letter] for letter in name] if all(letter in short for letter in name) else []


def _set(target: Options, option: Option, word: str, verb: Verb | None) -> None:
    try:
        value = convert(option, word)
    except ValueError as error:
        raise _usage(f'option --{option.name}: "{word}" is not {error}', verb)
    values = target.__dict__
    values[option.attribute] = (*values[option.attribute], value) if option.many else value
    target.given |= {option.name}


def convert(option: Option, word: str) -> Any:
    """The value of an option's word. Raises ValueError with what it should have been."""
    kind = option.kind
    if kind == FLAG:
        if word not in TRUE and word not in FALSE:
            raise ValueError("true or false")
        return word in TRUE
    if kind == NUMBER:
        digits = word[1:] if word[:1] in ("-", "+") else word
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise ValueError("a whole number")
        return int(word)
    if kind == CHOICE:
        # Go's other words for true and false, too, as runc takes them for --rootless.
        known = "true" if word in TRUE else "false" if word in FALSE else word
        if (choice := known if "true" in option.choices else word) not in option.choices:
            raise ValueError(f"one of {', '.join(option.choices)}")
        return choice
    if kind == SIZE:
        return parse_size(word)
    return parse_duration(word) if kind == DURATION else word


def parse_size(word: str) -> int:
    """Bytes, as docker's units.RAMInBytes reads them: 512M, 1.5g, 100KiB, 4096b; and -1. Raises ValueError."""
    if word == "-1":
        return -1
    number = word.rstrip("bBiIkKmMgGtTpP ")
    unit = word[len(number) :].strip().lower().removesuffix("b").removesuffix("i")
    whole, _, part = number.partition(".")
    if unit not in POWERS or not whole or not (whole + part).isascii() or not (whole + part).isdigit():
        raise ValueError("a size in bytes, such as 512M or 1.5G, or -1")
    bytes = int(float(number) * 1024 ** POWERS[unit]) if part else int(whole) * 1024 ** POWERS[unit]
    if bytes >= 1 << 63:
        raise ValueError("less than 8 EiB")
    return bytes


def parse_duration(word: str) -> float:
    """Seconds, from Go's notation: 500ms, 1.5s, 1m30s. Raises ValueError when it is not that, or not above 0."""
    total, at = 0.0, 0
    while at < len(word):
        start = at
        while at < len(word) and (word[at] in "0123456789."):
            at += 1
        number, start = word[start:at], at
        while at < len(word) and word[at] not in "0123456789.":
            at += 1
        unit = UNITS.get(word[start:at])
        if unit is None or number.count(".") > 1 or not number.strip("."):
            break
        total += float(number) * unit
    else:
        if total > 0:
            return total
    raise ValueError("a time above 0, such as 500ms, 5s or 1m30s")


def _bind(verb: Verb, words: list[str], into: Options) -> None:
    values = into.__dict__
    for argument in verb.arguments:
        attribute = argument.name.replace("-", "_")
        if argument.many:
            values[attribute] = tuple(words)
            return
        if argument.required and not words:
            raise _usage(f"{argument.name.upper()} is missing: pyrun {verb.usage()}", verb)
        values[attribute] = words.pop(0) if words else None
    if words:
        raise _usage(f'"{words[0]}" is one word too many: pyrun {verb.usage()}', verb)


# --- what was wrong; only here may it cost something -----------------------------------------------------------------


def _usage(text: str, verb: Verb | None) -> UsageError:
    return UsageError(text, hint=f"pyrun {verb.name + ' ' if verb else ''}--help explains it")


def _unknown_verb(word: str, after: list[str]) -> UsageError:
    from pyrun.cli.verbs import VERBS

    shown = [verb.name for verb in VERBS.values() if not verb.hidden]
    below = [name for name in shown if name.startswith(word + " ")]
    if below:
        given = after[0] if after and not after[0].startswith("-") else ""
        close = nearest(f"{word} {given}", below) if given else None
        known = f"did you mean {close}?" if close else f"it has {', '.join(below)}"
        return UsageError(f'there is no verb "{word} {given}"' if given else f"{word} needs another word", hint=known)
    close = nearest(word, shown)
    known = f"did you mean {close}?" if close else f"the verbs are {' '.join(shown)}"
    if word in ("checkpoint", "restore"):
        known = "checkpoint and restore are not part of this runtime"
    return UsageError(f'there is no verb "{word}"', hint=known)


def _unknown_option(word: str, verb: Verb | None) -> UsageError:
    options = [*(verb.options if verb else ()), *GLOBALS]
    close = nearest(word.lstrip("-"), [option.name for option in options if not option.hidden])
    shorts = [option.short for option in options if option.short]
    if close:
        known = f"did you mean --{close}?"
    elif word[1] != "-" and all(letter in shorts for letter in word[1:]):
        known = f"short options stand apart: {' '.join('-' + letter for letter in word[1:])}"
    else:
        names = [f"--{option.name}" for option in (verb.options if verb else GLOBALS) if not option.hidden]
        known = f"it takes {' '.join(names)}" if names else "it takes none"
    place = f"{verb.name} has" if verb else "there is"
    return UsageError(f"{place} no option {word}", hint=known)


def nearest(word: str, known: list[str]) -> str | None:
    """The one of `known` that was probably meant."""
    from difflib import get_close_matches

    started = [name for name in known if len(word) > 2 and name.startswith(word)]
    close = started if len(started) == 1 else get_close_matches(word, known, 1)
    return close[0] if close else None
