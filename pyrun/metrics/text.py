"""Prometheus' text format, version 0.0.4 (prometheus.io, "Exposition formats"). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import accumulate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KIND = "text/plain; version=0.0.4; charset=utf-8"
COUNTER, GAUGE = "counter", "gauge"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*\Z")


@dataclass(slots=True)
class Family:
    """Samples of one name. values: label values, in the order of `labels`, → the number as it is printed; of two with
    equal labels the later one is taken, for a text with both is refused as a whole."""

    name: str
    help: str
    type: str
    labels: tuple[str, ...] = ()
    values: dict[tuple[str, ...], int | float] = field(default_factory=dict)

    def is_valid(self) -> bool:
        """Whether its names are such as Prometheus takes. A faulty one would cost the whole text."""
        return bool(_NAME.match(self.name)) and all(map(_LABEL.match, self.labels))


@dataclass(slots=True)
class Histogram:
    """values: label values → (how many are in each bucket, with those above the last bound; their sum)."""

    name: str
    help: str
    labels: tuple[str, ...]
    bounds: list[float]
    values: dict[tuple[str, ...], tuple[list[int], float]] = field(default_factory=dict)


def render(families: Iterable[Family | Histogram]) -> str:
    """Families without a sample are left out."""
    return "".join(line for family in families if family.values for line in _lines(family))


def _lines(family: Family | Histogram) -> Iterable[str]:
    kind = family.type if isinstance(family, Family) else "histogram"
    yield f"# HELP {family.name} {_escaped(family.help)}\n# TYPE {family.name} {kind}\n"
    if isinstance(family, Family):
        yield from _samples(family)
        return
    # A bucket counts all that is not larger than its bound.
    buckets = Family(f"{family.name}_bucket", "", "", (*family.labels, "le"))
    sums, counts = (Family(f"{family.name}_{word}", "", "", family.labels) for word in ("sum", "count"))
    for labels, (found, total) in family.values.items():
        running = list(accumulate(found))
        for bound, count in zip((*map(str, family.bounds), "+Inf"), running, strict=True):
            buckets.values[*labels, bound] = count
        sums.values[labels], counts.values[labels] = total, running[-1]
    for part in (buckets, sums, counts):
        yield from _samples(part)


def _samples(family: Family) -> Iterable[str]:
    heads = tuple(f'{label}="' for label in family.labels)
    for labels, value in family.values.items():
        shown = ",".join([head + _quoted(text) + '"' for head, text in zip(heads, labels, strict=True)])
        yield f"{family.name}{{{shown}}} {value}\n" if shown else f"{family.name} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
