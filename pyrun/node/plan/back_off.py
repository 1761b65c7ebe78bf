"""How long to wait before trying again. Source: kubernetes client-go util/flowcontrol/backoff.go, KEP-4603.

The first restart is at once; then 10 s, and twice as long each time, up to 300 s, counted from the end of the last try.
Who ran for ten minutes (twice the longest wait) begins anew.
"""

from __future__ import annotations

from .observed import BackOff

FIRST_S = 10.0
LONGEST_S = 300.0


def waits_until(found: BackOff | None, since: float, retried: float, now: float) -> float:
    """When the next try may be; `since`: when the last one ended. That is still to come only where the clock was set
    back meanwhile: then nobody knows how long ago it was, and the next try is at once."""
    if since > now:
        return now
    if found is None or retried > since or _is_old(found, since):
        return since
    return since + found.seconds


def after(found: BackOff | None, since: float, now: float, longest: float, retried: float = 0.0) -> BackOff:
    """What to remember when a try begins now."""
    first = min(FIRST_S, longest)
    if found is None or retried > since or _is_old(found, since):
        return BackOff(first, now)
    return BackOff(min(found.seconds * 2, longest), now)


def _is_old(found: BackOff, since: float) -> bool:
    return since - found.updated > 2 * LONGEST_S
