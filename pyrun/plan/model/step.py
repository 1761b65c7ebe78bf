"""What every step is: a name, an opcode and named operands; and where operands go in the wire record
(cffi_build/executor/wire.h)."""

from __future__ import annotations

from posix import O_DIRECTORY as O_DIRECTORY  # its number is the architecture's

IN0, IN1, IN2, OUT, A, B, C, D, S0, S1, S2 = range(11)
ANY = 0xFFFF  # an errno rule that matches every errno
NEXT = 0xFFFFFFFF
PID_MARK = "\x01" * 10  # ten characters that become the container's pid when the step runs
PID_DATA = 2  # WriteFile: write the pid, in place of data
PID_PREFIX = 1  # Openat2, WriteFile: put "PID/" in front of the path

PARENT, STAGE1, STAGE2, UNDO = range(4)
O_PATH = 0o10000000
O_PATH_DIRECTORY = O_PATH | O_DIRECTORY
LANE_NAMES = ("parent", "stage1", "stage2", "undo")


def slot_mark(slot: int) -> str:
    """What becomes the number of the descriptor in a slot when the step runs, where a step says that it has marks."""
    return f"\x02{slot:04x}"


class Label:
    """A place in a lane that an errno rule of an earlier step jumps to."""

    __slots__ = ("index", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = -1


class Step:
    """One step. Unknown operands raise KeyError when the plan is encoded."""

    __slots__ = ("args", "at", "on", "why")
    OP = 0
    FIELDS: dict[str, int] = {}

    def __init__(
        self, *, at: str | None = None, why: str = "", on: tuple[tuple[int, Label | None], ...] = (), **args: object
    ) -> None:
        self.args = args
        self.at = at
        self.why = why
        self.on = on

    def wire(self) -> dict[str, object]:
        """The operands as they are encoded."""
        return self.args
