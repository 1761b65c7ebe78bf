"""What `--help` says of a verb, as a value."""

from __future__ import annotations

from typing import NamedTuple

USUAL = {"0": "done", "1": "not done; stderr says why"}


class Text(NamedTuple):
    """about: paragraphs. examples: (command, what it does). exits: status to meaning. see: links."""

    about: str
    examples: tuple[tuple[str, str], ...] = ()
    exits: dict[str, str] = USUAL
    see: tuple[str, ...] = ()
