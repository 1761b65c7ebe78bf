"""The proxy's numbers in Prometheus' text form, by kube-proxy's names where it has one. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/, and pkg/proxy/metrics of Kubernetes 1.37.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from ..kube.addresses import address_text
from .messages import Counters, State
from .rules import DROP, PROTOCOLS, Rules

SYNC_BUCKETS = tuple(0.001 * 2**power for power in range(15))
PROGRAMMING_BUCKETS = (0.25, 0.5, 1, 2, 3, 4, 5, 10, 20, 30, 60, 120, 180, 240, 300)
KIND = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[dict[str, str], float]


class Histogram:
    def __init__(self, buckets: tuple[float, ...]) -> None:
        self.buckets = buckets
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(self.buckets, seconds)] += 1
        self.sum += seconds


class Metrics:
    """What the daemon counts itself. Changed by one thread, read by others."""

    def __init__(self) -> None:
        self.sync = Histogram(SYNC_BUCKETS)
        self.programming = Histogram(PROGRAMMING_BUCKETS)
        self.last_sync = self.last_queued = 0.0  # seconds since 1970
        self.service_changes = self.endpoint_changes = 0
        self.failures = 0
        self.answers: dict[tuple[str, int], int] = {}  # (healthz or livez, code)

    def count_answer(self, path: str, code: int) -> None:
        self.answers[path, code] = self.answers.get((path, code), 0) + 1

    def render(self, rules: Rules, counters: Counters | None, state: State | None) -> str:
        out: list[str] = []
        p = "kubeproxy_"
        help = "Seconds that a change of the rules took."
        histogram(out, f"{p}sync_proxy_rules_duration_seconds", help, [({}, self.sync)])
        help = "Seconds from the change of a pod to its being in force here."
        histogram(out, f"{p}network_programming_duration_seconds", help, [({}, self.programming)])
        for name, help, value in (
            ("sync_proxy_rules_last_timestamp_seconds", "When the rules were changed last.", self.last_sync),
            ("sync_proxy_rules_last_queued_timestamp_seconds", "When a change was last heard of.", self.last_queued),
        ):
            family(out, p + name, "gauge", help, [({}, value)])
        for name, help, count in (
            ("sync_proxy_rules_service_changes_total", "Changes of Services.", self.service_changes),
            ("sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices.", self.endpoint_changes),
            ("sync_proxy_rules_nftables_sync_failures_total", "Changes that could not be carried out.", self.failures),
        ):
            family(out, p + name, "counter", help, [({}, count)])
        policies: list[Sample] = [
            ({"traffic_policy": policy}, count) for policy, count in no_local_endpoints(rules).items()
        ]
        family(
            out,
            f"{p}sync_proxy_rules_no_local_endpoints_total",
            "gauge",
            "Service ports of policy Local that have endpoints, but none on this node.",
            policies,
        )
        for path in ("healthz", "livez"):
            found: list[Sample] = [
                ({"code": str(code)}, count) for (of, code), count in sorted(self.answers.items()) if of == path
            ]
            family(out, f"{p}proxy_{path}_total", "counter", f"Answers of /{path} by code.", found)
        _own(out, rules, counters, state)
        return "\n".join(out) + "\n"


def no_local_endpoints(rules: Rules) -> dict[str, int]:
    """By the policy, internal or external, service ports whose packets are dropped for want of an endpoint here."""
    found: dict[str, set[str]] = {"internal": set(), "external": set()}
    for frontend in rules.frontends:
        for choice in frontend.choices:
            policy = choice.pointer.removeprefix("/spec/").removesuffix("TrafficPolicy")
            if choice.action == DROP and policy in found:
                found[policy].add(frontend.origin)
    return {policy: len(origins) for policy, origins in found.items()}


def _own(out: list[str], rules: Rules, counters: Counters | None, state: State | None) -> None:
    p = "pyrun_proxy_"
    sizes = (("frontends", len(rules.frontends)), ("endpoint_sets", len(rules.sets)), ("refusals", len(rules.refused)))
    for name, count in sizes:
        family(out, p + name, "gauge", f"Of the rules now: {name.replace('_', ' ')}.", [({}, count)])
    if state is not None:
        for name, help, value in (
            ("connections", "Connections that are open.", state.connections),
            ("udp_flows", "Flows of datagrams that are remembered.", state.flows),
        ):
            family(out, p + name, "gauge", help, [({}, value)])
        refused: list[Sample] = [({}, state.refused_by_limit)]
        family(out, f"{p}refused_by_limit_total", "counter", "Connections refused for a bound.", refused)
    if counters is None:
        return
    names = {one.key: one.name for one in rules.frontends}
    columns = (
        ("connections_accepted_total", "counter", "Connections and flows that were taken.", "accepted"),
        ("connections_failed_total", "counter", "Connections that no endpoint took.", "failed"),
        ("connections_refused_total", "counter", "Connections refused by a rule or a bound.", "refused"),
        ("endpoint_retries_total", "counter", "Endpoints that did not take a connection, so another did.", "retried"),
        ("received_bytes_total", "counter", "Bytes from clients.", "bytes_in"),
        ("sent_bytes_total", "counter", "Bytes to clients.", "bytes_out"),
        ("connections_active", "gauge", "Connections and flows that are open.", "active"),
    )
    for name, kind, help, attribute in columns:
        samples = []
        for one in counters.frontends:
            labels = {
                "service": names.get((one.protocol, one.address, one.port), ""),
                "address": address_text(one.address),
                "port": str(one.port),
                "protocol": PROTOCOLS[one.protocol],
            }
            samples.append((labels, getattr(one, attribute)))
        family(out, p + name, kind, help, samples)


def family(out: list[str], name: str, kind: str, help: str, samples: Iterable[Sample]) -> None:
    out += [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    out += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in samples]


def histogram(out: list[str], name: str, help: str, samples: Iterable[tuple[dict[str, str], Histogram]]) -> None:
    out += [f"# HELP {name} {help}", f"# TYPE {name} histogram"]
    for labels, one in samples:
        total = 0
        for bound, count in zip((*one.buckets, float("inf")), list(one.counts), strict=True):
            total += count
            text = "+Inf" if bound == float("inf") else f"{bound:g}"
            out.append(f"{name}_bucket{_labels({**labels, 'le': text})} {total}")
        out += [f"{name}_sum{_labels(labels)} {_number(one.sum)}", f"{name}_count{_labels(labels)} {total}"]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(round(value, 9))
