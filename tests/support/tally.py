"""A pytest plugin that says at the end what ran where, which tests took longest there, and what did not run and why.
Silent with -q.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest

from tests.support.vm.host import Plugin as Guests
from tests.support.vm.host import group_of, is_vm

SLOWEST = 20
WORTH_TELLING_S = 0.05
RESULTS = ("passed", "failed", "error", "xpassed", "xfailed", "skipped")
GUEST = "in guest "
UNIT = "unit tests and linters"
CONFORMANCE = "runtime-tools' validation programs"


class Tally:
    """Where each item belongs. The counts are pytest's own."""

    def __init__(self, guests: Guests | None) -> None:
        self._guests = guests
        self._tiers: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._tiers = {item.nodeid: self._tier_of(item) for item in session.items}

    def _tier_of(self, item: pytest.Item) -> str:
        if is_vm(item):
            return f"{GUEST}{group_of(item)}"
        if item.get_closest_marker("root") is None:
            return "tests that boot guests" if item.nodeid.startswith("tests/vm_host/") else UNIT
        return CONFORMANCE if item.nodeid.startswith("tests/conformance/") else self._host()

    @staticmethod
    def _host() -> str:
        how = "pure cgroup v2" if "PYRUN_VIEW" in os.environ else "no pure cgroup v2"
        who = "root" if os.geteuid() == 0 else "not root"
        return f"on this host (Linux {platform.release()}, {who}, {how})"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> Iterator[None]:
        """After all other sections, so that only pytest's last line follows."""
        yield
        if terminalreporter.verbosity < 0 or not self._tiers:
            return
        stats = terminalreporter.stats
        terminalreporter.write_sep("=", "what took longest")
        for line in self._lines_of_slowest(stats):
            terminalreporter.write_line(line)
        terminalreporter.write_sep("=", "what ran where")
        for line in [*self._lines_of_tiers(stats), *self._lines_of_gaps(stats)]:
            terminalreporter.write_line(line)

    def _lines_of_tiers(self, stats: dict[str, list[Any]]) -> Iterator[str]:
        counts: dict[str, Counter[str]] = {tier: Counter() for tier in self._tiers.values()}
        seconds: Counter[str] = Counter()
        for result, reports in stats.items():
            for report in reports:
                tier = self._tiers.get(getattr(report, "nodeid", ""))
                if tier is not None:
                    seconds[tier] += getattr(report, "duration", 0)
                    counts[tier][result] += 1
        for tier, count in counts.items():
            told = ", ".join(f"{count[result]} {result}" for result in RESULTS if count[result]) or "none"
            yield f"{self._title(tier)}: {told}; {seconds[tier]:.0f} s"

    def _lines_of_slowest(self, stats: dict[str, list[Any]]) -> Iterator[str]:
        """The tests of each tier that took longest: set-up, the test and teardown together. Seconds, and the name."""
        seconds: dict[str, Counter[str]] = {tier: Counter() for tier in self._tiers.values()}
        for report in chain.from_iterable(stats.values()):
            tier = self._tiers.get(getattr(report, "nodeid", ""))
            if tier is not None:
                seconds[tier][report.nodeid] += getattr(report, "duration", 0)
        for tier, took in seconds.items():
            longest = [(nodeid, s) for nodeid, s in took.most_common(SLOWEST) if s >= WORTH_TELLING_S]
            if longest:
                yield f"{tier}:"
                yield from (f"{s:7.1f} s  {nodeid}" for nodeid, s in longest)

    def _title(self, tier: str) -> str:
        group = self._guests.groups.get(tier.removeprefix(GUEST)) if self._guests else None
        if group is None:
            return tier
        facts = [f"Linux {group.kernel}" if group.kernel else "which did not come up"]
        if any("/engines/" in file for file in group.request["files"].values()):
            facts += [f"{name} {version}" for name, version in group.engines.items()]
        return f"{tier} ({', '.join(facts)})"

    def _lines_of_gaps(self, stats: dict[str, list[Any]]) -> Iterator[str]:
        """What did not run, by its reason."""
        seen = {report.nodeid for result in RESULTS for report in stats.get(result, ())}
        reasons = Counter(reason_of(report) for report in stats.get("skipped", ()))
        reasons["the run ended before it came to them"] += len(self._tiers.keys() - seen)
        reasons["not selected"] += len(stats.get("deselected", ()))
        gaps = [f"{count:6}  {reason}" for reason, count in reasons.most_common() if count]
        yield from ["did not run:", *gaps] if gaps else ["did not run: none"]


def reason_of(report: Any) -> str:
    """Why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return str(text).removeprefix("Skipped: ")


def install(config: pytest.Config) -> None:
    """To be called after the plugin for guests is registered."""
    config.pluginmanager.register(Tally(config.pluginmanager.get_plugin("pyrun-vm")), "pyrun-tally")
