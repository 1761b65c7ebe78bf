"""PURE: the first probes after the agent's start are spread over their period."""

from __future__ import annotations

from ...kube.objects.containers import Probe


def spread(probe: Probe, now: float, started: float, random: float) -> float | None:
    """What to take as the time of the last probe where it is not known: some part of a period ago, while the agent is
    younger than a period; None: the probe is due. random: 0 to 1.

    Source: kubernetes pkg/kubelet/prober/worker.go, run(): a restart must not probe all containers at one moment."""
    period = probe.periodSeconds or 10
    return now - period * random if now - started < period else None
