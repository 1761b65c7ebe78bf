"""Exception types and the grammar of every message that a person reads.

A leaf: it imports nothing, because each verb may need it. A message has one line of what went wrong, then, where they
are known, the place in config.json (``from``) and a way out (``hint``). Nothing else formats errors; the command line
adds ``pyrun: VERB ID: ``.
"""

from __future__ import annotations


def reason(error: OSError) -> str:
    """What the system says of it, as messages have it: in small letters, which engines look for."""
    return (error.strerror or str(error)).lower()


def printable(line: str) -> str:
    """The line as a terminal may have it. What comes of an image, a bundle or a hook can hold sequences that take the
    terminal over, turn the direction of what follows, or begin a line of their own: such characters, and bytes that are
    no UTF-8, become \\x1b or \\u202e."""
    if line.isprintable():
        return line
    return "".join([c if c.isprintable() or c == "\t" else _escaped(ord(c)) for c in line])


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode() of a byte
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class PyrunError(Exception):
    """An error that a user can act on.

    text: one line, no trailing stop. pointer: JSON pointer into config.json. hint: the way out. code: the exit status.
    """

    def __init__(self, text: str, *, pointer: str | None = None, hint: str | None = None, code: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.pointer = pointer
        self.hint = hint
        self.code = code

    def lines(self) -> list[str]:
        """The message by the grammar, as lines without the ``pyrun: VERB ID: `` in front."""
        out = [self.text]
        if self.pointer is not None:
            out.append(f"  from config.json {self.pointer}")
        if self.hint:
            out.append(f"  hint: {self.hint}")
        return [printable(line) for line in out]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class ConfigError(PyrunError):
    """Faults in config.json: (JSON pointer, text) pairs, every one of them, in the order of the document."""

    def __init__(self, faults: list[tuple[str, str]], *, file: str = "config.json", hint: str | None = None) -> None:
        self.faults = faults
        self.file = file
        first = faults[0]
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{file} {first[0] or '/'}: {first[1]}{more}", hint=hint)

    def lines(self) -> list[str]:
        if len(self.faults) == 1:
            return super().lines()
        out = [f"{self.file}: {len(self.faults)} faults"]
        out += [f"  {pointer or '/'}: {text}" for pointer, text in self.faults[:50]]
        if len(self.faults) > 50:
            out.append(f"  and {len(self.faults) - 50} more")
        if self.hint:
            out.append(f"  hint: {self.hint}")
        return [printable(line) for line in out]


class UsageError(PyrunError):
    """The command line itself is wrong: which word, and what is taken in its place."""


# What a client of a daemon tells apart, as gRPC has them: pyrun/rpc/status.py has the number of each. On the command
# line they are errors like others.
class NotFound(PyrunError):
    """There is no such thing. The kubelet takes it as gone; told otherwise it would ask again for ever."""


class AlreadyExists(PyrunError):
    """The name is taken by another."""


class InvalidArgument(PyrunError):
    """The request is wrong, and will be wrong the next time."""


class FailedPrecondition(PyrunError):
    """Not in this state: a container that must run does not, an image is in use."""


class Unavailable(PyrunError):
    """It may work later: the other side is down, or this one is about to end."""


class DeadlineExceeded(PyrunError):
    """It did not come about in the time that was given."""


class ResourceExhausted(PyrunError):
    """A bound of ours or of the machine's is reached."""


class Aborted(PyrunError):
    """Another request got in between, such as a removal."""


class Unimplemented(PyrunError):
    """Not in pyrun, or not with this option."""
