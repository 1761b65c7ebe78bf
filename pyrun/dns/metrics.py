"""The DNS' numbers in Prometheus' text form, by CoreDNS' names where it has one of the same meaning. Pure."""

from __future__ import annotations

from ..proxy.metrics import family
from .wire import RCODES

_COREDNS = {
    "queries": ("coredns_dns_requests_total", "Queries that came."),
    "cache_hits": ("coredns_cache_hits_total", "Queries that an earlier answer of another server was for."),
    "stale": ("coredns_cache_served_stale_total", "Queries that an answer of old was for, as nobody had a new one."),
    "autopath": (
        "coredns_autopath_success_total",
        "Queries whose asker's search path was walked to a name that is there.",
    ),
    "misses": ("coredns_cache_misses_total", "Queries that no earlier answer of another server was for."),
    "refreshed": ("coredns_cache_prefetch_total", "Answers that were asked for anew before their time was over."),
    "cache_entries": ("coredns_cache_entries", "Answers of other servers that are kept."),
}
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


def render(status: dict[str, int], upstreams: dict[str, dict[str, int]]) -> str:
    """status: as Responder.status() has it. upstreams: for each other server's address its counts."""
    out: list[str] = []
    rcodes = [({"rcode": text}, status[f"rcode_{number}"]) for number, text in enumerate(RCODES)]
    family(out, "coredns_dns_responses_total", "counter", "Replies, by their rcode.", rcodes)
    for key, help in _UPSTREAM.items():
        samples = [({"to": to}, counts[key]) for to, counts in upstreams.items()]
        if samples:
            family(out, f"pyrun_dns_upstream_{key}_total", "counter", help, samples)
    for key, (name, help) in _COREDNS.items():
        family(out, name, "counter" if name.endswith("_total") else "gauge", help, [({}, status[key])])
    for key, help in _OURS.items():
        family(out, f"pyrun_dns_{key}_total", "counter", help, [({}, status[key])])
    for key, help in _NOW.items():
        family(out, f"pyrun_dns_{key}", "gauge", help, [({}, status[key])])
    return "\n".join(out) + "\n"
