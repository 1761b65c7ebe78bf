"""A pod's probes, as its actor has them asked: once, or by pyrun-probe for as long as the answer is good."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from ...kube.objects.containers import Container, Probe
from ..plan.actions import RunProbe
from ..plan.observed import ProbeState
from ..plan.pod import containers_of
from ..plan.probes import fold, next_time, probe_of
from ..probes import Result, Target, Took, Watch, asked_of
from .kept import Kept

RESULTS = {True: "successful", False: "failed", None: "unknown"}
Key = tuple[str, ...]


class Probing:
    """states: by container id and kind. address: the pod's. None of it outlives the agent, but what record.py keeps."""

    def __init__(self, kept: Kept, address: Callable[[], str]) -> None:
        self._kept, self._address = kept, address
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._took: dict[tuple[str, str], Took] = {}
        self.states: dict[str, dict[str, ProbeState]] = {id: dict(p) for id, p in kept.record.probes.items()}
        self._watches: dict[Key, tuple[RunProbe, Watch]] = {}
        self._heard: dict[Key, tuple[float, Result]] = {}
        self._own: set[Key] = set()  # that pyrun-probe does not judge

    def counts(self) -> Counter[tuple[str, str, str]]:
        """How often a probe has said what, by container's name, kind and successful, failed or unknown."""
        for action, watch in self._watches.values():
            self._take(action, watch)
        return self._counts

    def durations(self) -> dict[tuple[str, str], Took]:
        """How long the probes took that succeeded, as with a kubelet, by container's name and kind."""
        for action, watch in self._watches.values():
            self._take(action, watch)
        return self._took

    def _took_of(self, action: RunProbe) -> Took:
        return self._took.setdefault((action.name, action.kind), Took())

    def forget_containers(self, alive: set[str]) -> None:
        for id in self.states.keys() - alive:
            del self.states[id]
        self._own = {key for key in self._own if key[1] in alive}
        self._heard = {key: heard for key, heard in self._heard.items() if key[1] in alive}

    # --- once ---

    async def run(self, action: RunProbe) -> float | None:
        """When it comes again; None where its result is to be planned for."""
        kept = self._kept
        probe, target = self._asked(action)
        begun, heard = self._heard.pop(action.key, (time.time(), None))
        from_ = time.monotonic()
        result = heard or await kept.host.prober.run(probe, target)
        if result.good and heard is None:  # of those that pyrun-probe asks it says itself how long they took
            self._took_of(action).add(time.monotonic() - from_)
        self._counts[action.name, action.kind, RESULTS[result.good]] += 1
        if kept.host.cri.pods.containers.get(action.id) is None:
            return None
        found = self.states.setdefault(action.id, {})
        before = found.get(action.kind)
        if result.good is None:
            state = found[action.kind] = replace(before or ProbeState(), last=begun, output=result.output)
            kept.events.add("Warning", "ProbeError", f"{action.kind} probe of {action.name}: {result.output}")
            return next_time(before, state, probe)
        state = found[action.kind] = fold(before, probe, result.good, begun, result.output)
        if state.verdict != (before.verdict if before else None):  # all else is found out again soon enough
            kept.record.probes.setdefault(action.id, {})[action.kind] = state
        if not result.good or result.warning:
            reason = "ProbeWarning" if result.good else "Unhealthy"
            text = f"{action.kind.capitalize()} probe {'warning' if result.good else 'failed'}: {result.output}"
            kept.events.add("Warning", reason, text)
        return next_time(before, state, probe)

    def _asked(self, action: RunProbe) -> tuple[Probe, Target]:
        c = containers_of(self._kept.record.desired())[action.name]
        probe = probe_of(c, action.kind)
        assert probe is not None and isinstance(c, Container)
        return probe, Target(action.id, c, self._address())

    # --- on and on ---

    def hand_over(self, action: RunProbe, at: float, look: Callable[[], None]) -> bool:
        """To pyrun-probe, where the last result was good and the verdict is. look: called when it is to be run here,
        with what has been heard, if anything. False: it can't be now."""
        state = self.states.get(action.id, {}).get(action.kind)
        if state is None or not state.verdict or not state.good or action.key in self._own:
            return False
        probe, target = self._asked(action)
        asked = asked_of(probe, target)
        if asked is None:
            return False

        def told(result: Result | None, begun: float) -> None:
            self._end(action)
            if result is None:
                self._own.add(action.key)
            elif result.good is not None:
                self._heard[action.key] = begun, result
            look()

        self._end(action)  # handed over while a plan waited for something
        watch = self._kept.host.prober.watch(asked, probe.periodSeconds or 10, at - time.time(), told)
        if watch is None:
            return False
        self._watches[action.key] = action, watch
        return True

    def take_back(self) -> None:
        """All of them: with what is known of them now, the plan decides."""
        for action, _ in list(self._watches.values()):
            self._end(action)

    def _end(self, action: RunProbe) -> None:
        if held := self._watches.pop(action.key, None):
            self._take(*held)
            held[1].close()

    def _take(self, action: RunProbe, watch: Watch) -> None:
        runs, last = watch.take()
        watch.take_durations(self._took_of(action))
        state = self.states.get(action.id, {}).get(action.kind)
        if runs and state is not None:
            self._counts[action.name, action.kind, RESULTS[True]] += runs
            self.states[action.id][action.kind] = replace(state, good=state.good + runs, bad=0, last=last)
