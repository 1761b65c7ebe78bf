"""Elasticsearch's bulk API: two lines of JSON a record, and an answer for each (elastic.co, "Bulk API"). Pure."""

from __future__ import annotations

import json

from ...errors import printable
from ..show import time_text
from .record import Again, Record, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

KIND = "application/x-ndjson"
INDEX = "pyrun-logs"
_ACTION = json.dumps({"create": {"_index": INDEX}})


def encode(records: Sequence[Record]) -> bytes:
    lines = []
    for one in records:
        fields = {"@timestamp": time_text(one.line.time), "message": one.text, **dict(one.labels)}
        lines += [_ACTION, json.dumps(fields, ensure_ascii=False, separators=(",", ":"))]
    return ("\n".join(lines) + "\n").encode()


def check(status: int, body: bytes, sent: int) -> None:
    """Each record has a status of its own. Again where one may be taken later: then all are sent once more, and those
    that were taken are there twice."""
    try:
        answer = json.loads(body)
    except ValueError:
        raise Again("the answer is no JSON") from None
    try:
        if not answer.get("errors"):
            return
        results = [result for item in answer.get("items", ()) for result in item.values()]
        failed = [result for result in results if result.get("status", 200) >= 300]
        busy = any(result["status"] == 429 or result["status"] >= 500 for result in failed)
    except (AttributeError, TypeError):
        raise Again(f"the answer is none of the bulk API: {printable(json.dumps(answer)[:200])}") from None
    if busy:
        raise Again("it has too much to do")
    if failed:
        raise Refused(printable(json.dumps(failed[0].get("error", ""))[:200]), len(failed))
