"""PURE: one Service as the proxy explains it, and as a page shows it."""

from __future__ import annotations

from typing import Any

from .clean import clean

WORD = 300
# A page shows no more, and says so.
MOST_ENDPOINTS = 500
Value = dict[str, Any]


def plan_service(found: Value) -> Value:
    """{service, type, addresses, selector, skipped, endpoints: [{port, endpoint, pod, ready, local, gets, why}],
    count}. gets: of which connections it is given some, "" of none; count: how many endpoints there are."""
    endpoints = [
        {
            "port": _word(one["port"]),
            "endpoint": _word(one["endpoint"]),
            "pod": _word(one["pod"]),
            "ready": bool(one["ready"]),
            "local": bool(one["local"]),
            "gets": _word(", ".join(one["policies"])),
            "why": clean(one["why"], 2000),
        }
        for one in found["endpoints"]
    ]
    return {
        "service": _word(found["service"]),
        "type": _word(found["type"]),
        "addresses": [_word(one) for one in found["clusterIPs"]],
        "selector": {_word(name): _word(value) for name, value in found["selector"].items()},
        "skipped": clean(found["skipped"], 2000),
        "endpoints": endpoints[:MOST_ENDPOINTS],
        "count": len(endpoints),
    }


def _word(text: Any) -> str:
    return clean(str(text), WORD)
