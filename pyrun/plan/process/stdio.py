"""The standard streams of a program whose caller gives it others than its own."""

from __future__ import annotations

from ..model.plan import Builder
from ..model.request import Request
from ..model.steps import PARENT, STAGE1, Close, Dup, Dup3

NAMES = ("stdin", "stdout", "stderr")


def plan_stdio(b: Builder, req: Request) -> None:
    """Stage 1's first steps: no process of the container sees what it had before, the caller's own."""
    for number, fd in enumerate(req.stdio or ()):
        slot = b.slot(NAMES[number], inherit=True)
        b.add(PARENT, Dup(fd=fd, out=slot, why=f"the program's {NAMES[number]}"))
        b.add(STAGE1, Dup3(fd=slot, number=number, why=f"its {NAMES[number]}"), Close(fd=slot))
