"""GVariant's text form, in which annotations give properties of a unit: 'text', true, uint64 5, ['a', 'b'], @as [].

A value becomes (D-Bus signature, value), the signature as GLib infers it: a bare whole number is an int32, one with a
point or an exponent a double; a type word such as uint64, or @SIGNATURE, says another. Dictionaries, maybes and
handles are not read: no property of a unit takes them. What D-Bus can't carry is an error too: the bus would close the
connection. GLib's "GVariant Text Format".
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Value = tuple[str, object]

WORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x",
    "uint64": "t", "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
RANGES = {
    "y": (0, 8), "n": (15, 15), "q": (0, 16), "i": (31, 31), "u": (0, 32), "x": (63, 63), "t": (0, 64),
}  # fmt: skip
ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
SIMPLE = frozenset("bynqiuxtdsogv")
WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-._")
DEPTH = 16
LONGEST = 255  # signature that D-Bus can carry


def parse_variant(text: str) -> Value:
    """ValueError with what is wrong, and where."""
    reader = _Reader(text)
    value = reader.value(None, 0)
    if reader.peek():
        raise ValueError(f"{reader.text[reader.at :]!r} follows the value")
    return _carried(value)


class _Reader:
    """text, and how far it is read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def peek(self) -> str:
        """The next character that is no blank, "" at the end."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise ValueError(f"{wanted!r} is missing at character {self.at + 1}")
        self.at += 1

    def word(self) -> str:
        start = self.at
        while self.text[self.at : self.at + 1] in WORD and self.at < len(self.text):
            self.at += 1
        return self.text[start : self.at]

    def value(self, kind: str | None, depth: int) -> Value:
        """A value of this type, or of the one that it shows itself."""
        first = self.peek()
        if depth > DEPTH:
            raise ValueError("it is nested too deeply")
        if first == "@":
            return self.value(_checked(self.signature(), kind), depth + 1)
        if first in ("'", '"'):
            return _typed(kind or "s", self.string(first))
        if first == "[":
            return self.array(kind, depth)
        if first == "(":
            return self.tuple(kind, depth)
        if first == "<":
            self.at += 1
            inner = _carried(self.value(None, depth + 1))
            self.take(">")
            return _checked("v", kind), inner
        word = self.word()
        if word in WORDS:
            return self.value(_checked(WORDS[word], kind), depth + 1)
        if word in ("true", "false"):
            return _typed(kind or "b", word == "true")
        return _number(word, kind) if word else self.unexpected(first)

    def unexpected(self, first: str) -> Value:
        what = f"{first!r} can't begin a value" if first else "a value is missing"
        raise ValueError(f"{what}, at character {self.at + 1}; a text is written in quotes")

    def signature(self) -> str:
        """What follows an @: one complete type."""
        self.at += 1
        start = self.at
        self.at = _end_of_type(self.text, start, 0)
        return self.text[start : self.at]

    def string(self, quote: str) -> str:
        self.at += 1
        out = ""
        while (character := self.text[self.at : self.at + 1]) != quote:
            self.at += 1
            if not character:
                raise ValueError(f"the closing {quote} is missing")
            out += self.escape() if character == "\\" else character
        self.at += 1
        return out

    def escape(self) -> str:
        character = self.text[self.at : self.at + 1]
        self.at += 1
        size = {"u": 4, "U": 8}.get(character)
        if size is None:
            return ESCAPES.get(character, character)
        digits = self.text[self.at : self.at + size]
        self.at += size
        try:
            return chr(int(digits, 16))
        except (ValueError, OverflowError):
            raise ValueError(f"\\{character}{digits} is no character") from None

    def array(self, kind: str | None, depth: int) -> Value:
        if kind is not None and kind[0] != "a":
            raise ValueError(f"an array can't be of type {kind}")
        self.at += 1
        found: list[object] = []
        element = kind[1:] if kind else None
        while self.peek() != "]":
            if found:
                self.take(",")
            element, value = self.value(element, depth + 1)
            found.append(value)
        self.at += 1
        if element is None:
            raise ValueError("an empty array needs its type, such as @as []")
        return "a" + element, found

    def tuple(self, kind: str | None, depth: int) -> Value:
        if kind is not None and kind[0] != "(":
            raise ValueError(f"a tuple can't be of type {kind}")
        kinds = _types(kind[1:-1]) if kind else None
        self.at += 1
        found: list[Value] = []
        while self.peek() != ")":
            if found:
                self.take(",")
                if self.peek() == ")":  # (1,) is a tuple of one
                    break
            if kinds is not None and len(found) == len(kinds):
                raise ValueError("there are more values than the type has")
            found.append(self.value(kinds[len(found)] if kinds is not None else None, depth + 1))
        self.at += 1
        if not found:
            raise ValueError("a tuple of nothing can't be told to systemd")
        if kinds is not None and len(found) < len(kinds):
            raise ValueError("there are fewer values than the type has")
        return f"({''.join(k for k, _ in found)})", tuple(value for _, value in found)


def _end_of_type(text: str, at: int, depth: int) -> int:
    """Where the complete type ends that begins there. ValueError."""
    first = text[at : at + 1]
    if first in SIMPLE:
        return at + 1
    if first == "a" and depth < DEPTH:
        return _end_of_type(text, at + 1, depth + 1)
    if first != "(" or depth >= DEPTH:
        raise ValueError(f"no signature of a type, or too deep a one, at character {at + 1}")
    at = _end_of_type(text, at + 1, depth + 1)
    while text[at : at + 1] != ")":
        at = _end_of_type(text, at, depth + 1)
    return at + 1


def _types(signature: str) -> list[str]:
    """The complete types of a signature. ValueError."""
    at, found = 0, []
    while at < len(signature):
        end = _end_of_type(signature, at, 0)
        found.append(signature[at:end])
        at = end
    return found


def _carried(value: Value) -> Value:
    if len(value[0]) > LONGEST:
        raise ValueError(f"a type has at most {LONGEST} characters")
    return value


def _checked(kind: str, wanted: str | None) -> str:
    if wanted is not None and wanted != kind:
        raise ValueError(f"type {kind} stands where {wanted} is wanted")
    return kind


def _typed(kind: str, value: str | bool) -> Value:
    if kind in ("s", "o", "g") and isinstance(value, str):
        return kind, _text(kind, value)
    if kind == "b" and isinstance(value, bool):
        return kind, value
    raise ValueError(f"{value!r} can't be of type {kind}")


def _text(kind: str, value: str) -> str:
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ValueError("a text can hold neither a zero byte nor half a surrogate pair")
    if kind == "o" and value != "/" and (value[:1] != "/" or not all(map(_is_element, value[1:].split("/")))):
        raise ValueError(f"{value!r} is not the path of an object")
    if kind == "g":
        _carried(("".join(_types(value)), None))
    return value


def _is_element(name: str) -> bool:
    """Whether an object's path may have it between two slashes."""
    return name.isascii() and name.replace("_", "a").isalnum()


def _number(word: str, kind: str | None) -> Value:
    body = word.lstrip("+-")
    whole = body.isdigit() or body[:2].lower() == "0x"
    base = 8 if body[:1] == "0" and body.isdigit() else 0
    try:
        number: int | float = int(word, base) if whole else float(word)
        kind = kind or ("i" if whole else "d")
        number = float(number) if kind == "d" else number
    except OverflowError:
        raise ValueError(f"{word} is out of the range of type d") from None
    except ValueError:
        raise ValueError(f"{word!r} is no value; a text is written in quotes") from None
    if kind == "d":
        return kind, number
    if kind not in RANGES or not whole:
        raise ValueError(f"{word} can't be of type {kind}")
    below, above = RANGES[kind]
    if not -(1 << below if below else 0) <= number < 1 << above:
        more = "; write uint64 in front" if kind == "i" else ""
        raise ValueError(f"{word} is out of the range of type {kind}{more}")
    return kind, number
