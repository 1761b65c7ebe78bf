"""Several things that are taken away: one that fails keeps none of the others from being tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import PyrunError


@contextmanager
def undoing() -> Iterator[Callable[..., None]]:
    """Gives a function that does what it is given, and goes on where that fails; the first failure is raised at the
    end."""
    problems: list[PyrunError] = []

    def undo(step: Callable[..., object], *operands: object) -> None:
        try:
            step(*operands)
        except PyrunError as error:
            problems.append(error)

    yield undo
    if problems:
        raise problems[0]
