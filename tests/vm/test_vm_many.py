"""Fifty containers at once in the guest (tests/bench/many.py --guest has the figures for 500): pyrun has no process but
their inits, and it is as quick with the last as with the first.
"""

from __future__ import annotations

import statistics
from pathlib import Path

from tests.bench.many import measure, prepare
from tests.support.container.runner import runtime_argv

COUNT, PART = 50, 10


def test_fifty_at_once(tmp_path: Path) -> None:
    many = prepare(tmp_path, COUNT, runtime_argv())
    try:
        figures = measure(many, lambda what: None)
    finally:
        many.runner.delete_all()
    for memory in figures["memory"]:
        assert memory["others"] == 0
        assert 0 < memory["init KiB"] < 300
    for verb in ("create", "start", "delete"):
        took = figures[verb]
        assert len(took) == COUNT
        first, last = statistics.median(took[1 : PART + 1]), statistics.median(took[-PART:])
        assert last < 3 * first + 50, f"{verb}: the more there are, the longer one takes: {first:.0f} and {last:.0f} ms"
