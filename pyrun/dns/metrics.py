"""The DNS' numbers in Prometheus' text form, by CoreDNS' names where it has one of the same meaning. Pure."""

from __future__ import annotations

from itertools import product

from ..proxy.metrics import Histogram, Sample, family, histogram
from .responder import KINDS, TIMES
from .wire import RCODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .servers import Address

_OURS = {
    "answers": "Replies that were sent.",
    "nxdomain": "Replies that there is no such name.",
    "nodata": "Replies that the name has nothing of this type.",
    "dropped_source": "Queries from addresses that are not answered.",
    "dropped_rate": "Queries beyond what one source may ask.",
    "malformed": "Messages that are no query.",
    "refused": "Queries that were refused.",
    "truncated": "Replies over UDP that were cut, so that who asked comes again over TCP.",
    "asked": "Questions to other servers.",
    "failed": "Queries that no other server answered.",
    "tcp_accepted": "Connections that were taken.",
    "tcp_refused": "Connections that were not, for a bound.",
    "send_failed": "Replies that could not be sent.",
    "shared": "Queries that waited for an answer that was asked for already.",
}
_NOW = {
    "connections": "Connections that are open.",
    "generation": "Of the table that is answered from.",
    "names": "Names in that table.",
    "cache_bytes": "What the kept answers of other servers take.",
    "waiting": "Queries that wait for another server.",
}


_UPSTREAM = {
    "asked": "Queries to another server.",
    "tcp": "Queries to it over TCP, because the answer did not fit or the letters came back changed.",
    "failed": "Queries to it that it did not answer, or not in a second.",
    "ignored": "Datagrams from its address that were no answer to a query.",
}


_BOUNDS = tuple(0.00025 * 2**place for place in range(TIMES - 1))
_DROPPED = "dropped"


def render(status: dict[str, int], upstreams: dict[str, dict[str, int]], listen: Sequence[Address]) -> str:
    """status: as Responder.status() has it. upstreams: for each other server's address its counts. listen: where it
    answers."""
    out: list[str] = []
    server = ",".join(f"dns://[{host}]:{port}" if ":" in host else f"dns://{host}:{port}" for host, port in listen)
    _requests(out, status, server)
    _responses(out, status, server)
    _durations(out, status, server)
    _cache(out, status, server)
    help = "Queries whose asker's search path was walked to a name that is there."
    family(out, "coredns_autopath_success_total", "counter", help, [({"server": server}, status["autopath"])])
    for key, help in _UPSTREAM.items():
        samples = [({"to": to}, counts[key]) for to, counts in upstreams.items()]
        if samples:
            family(out, f"pyrun_dns_upstream_{key}_total", "counter", help, samples)
    for key, help in _OURS.items():
        family(out, f"pyrun_dns_{key}_total", "counter", help, [({}, status[key])])
    for key, help in _NOW.items():
        family(out, f"pyrun_dns_{key}", "gauge", help, [({}, status[key])])
    return "\n".join(out) + "\n"


def _zone(kind: str) -> dict[str, str]:
    """CoreDNS' labels of a query of that kind: one that was not read is of no zone, and its type is not known."""
    if kind == _DROPPED:
        return {"zone": _DROPPED, "view": "", "type": "other"}
    return {"zone": ".", "view": "", "type": kind}


def _requests(out: list[str], status: dict[str, int], server: str) -> None:
    samples: list[Sample] = []
    for proto, number, kind in product(("udp", "tcp"), "12", KINDS):
        labels = {"server": server, "proto": proto, "family": number, **_zone(kind)}
        if count := status[f"queries_{proto}_{number}_{kind}"]:
            samples.append((labels, count))
    family(out, "coredns_dns_requests_total", "counter", "Queries that came.", samples)


def _responses(out: list[str], status: dict[str, int], server: str) -> None:
    samples: list[Sample] = []
    rcodes = enumerate((*RCODES, "BADVERS"))
    for (key, zone), (number, rcode) in product((("rcode", "."), ("unread_rcode", _DROPPED)), rcodes):
        samples.append(({"server": server, "zone": zone, "view": "", "rcode": rcode}, status[f"{key}_{number}"]))
    family(out, "coredns_dns_responses_total", "counter", "Replies, by their rcode.", samples)


def _durations(out: list[str], status: dict[str, int], server: str) -> None:
    """Of the types that were asked for."""
    samples: list[tuple[dict[str, str], Histogram]] = []
    for kind in KINDS:
        one = Histogram(_BOUNDS)
        one.counts = [status[f"time_{kind}_{place}"] for place in range(TIMES)]
        one.sum = status[f"time_ns_{kind}"] / 1e9
        if any(one.counts):
            samples.append(({"server": server, **_zone(kind)}, one))
    histogram(out, "coredns_dns_request_duration_seconds", "From a query's coming to its reply.", samples)


def _cache(out: list[str], status: dict[str, int], server: str) -> None:
    common = {"server": server, "zones": ".", "view": ""}
    hits = status["hits_success"] + status["hits_denial"]
    for what, kind, help in (
        ("hits_total", "counter", "Queries that an earlier answer of another server was for."),
        ("entries", "gauge", "Answers of other servers that are kept."),
    ):
        key = what.partition("_")[0]
        samples = [({**common, "type": type}, status[f"{key}_{type}"]) for type in ("success", "denial")]
        family(out, f"coredns_cache_{what}", kind, help, samples)
    for what, count, help in (
        ("requests", hits + status["misses"], "Queries of names that other servers have."),
        ("misses", status["misses"], "Queries that no earlier answer of another server was for."),
        ("served_stale", status["stale"], "Queries that an answer of old was for, as nobody had a new one."),
        ("prefetch", status["refreshed"], "Answers that were asked for anew before their time was over."),
    ):
        family(out, f"coredns_cache_{what}_total", "counter", help, [(common, count)])
