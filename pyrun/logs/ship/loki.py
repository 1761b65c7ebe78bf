"""Loki's push API: JSON, a stream for each set of labels (grafana.com/docs/loki, "Ingest logs"). Pure."""

from __future__ import annotations

import json

from .record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KIND = "application/json"


def encode(records: Sequence[Record]) -> bytes:
    streams: dict[tuple[tuple[str, str], ...], list[tuple[str, str]]] = {}
    for one in records:
        streams.setdefault(one.labels, []).append((str(one.line.time), one.text))
    found = [{"stream": dict(labels), "values": values} for labels, values in streams.items()]
    return json.dumps({"streams": found}, ensure_ascii=False, separators=(",", ":")).encode()


def check(status: int, body: bytes, sent: int) -> None:
    """All is in the status."""
