"""Looks whether the node is short of something, each ten seconds and when the kernel says that memory is, and ends pods
for it: one, then another look. Before a pod goes for the disk, dead containers and images do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...kube.resources import requests
from ...pod.pod import Pod as Sandbox
from ..admission import tolerates_memory_pressure
from ..eviction.plan import (
    HARD_GRACE_S,
    TRANSITION_S,
    Candidate,
    Pressure,
    Signal,
    State,
    is_critical,
    message,
    plan_pressure,
    rank,
    refuses,
    table,
)
from ..eviction.thresholds import DISK, HARD, MEMORY, PIDS, Threshold, parse_thresholds
from ..eviction.usage import container_usage, directory_usage, total
from ..plan.pod import containers_of
from ..qos import pod_requests, qos_class
from .actor import Actor
from .events import Events
from .garbage import ImageGarbage
from .record import Record

PERIOD_S = 10.0
END_S = 30.0  # for a pod that goes, beyond its grace
STALL = b"some 150000 1000000"  # 150 ms of a second in which somebody waited for memory
# Condition → the reasons of the node's events when it comes and when it goes.
_COMES = {MEMORY: "NodeHasInsufficientMemory", DISK: "NodeHasDiskPressure", PIDS: "NodeHasInsufficientPID"}
_GOES = {MEMORY: "NodeHasSufficientMemory", DISK: "NodeHasNoDiskPressure", PIDS: "NodeHasSufficientPID"}


@dataclass(frozen=True, slots=True)
class Eviction:
    """transition: seconds for which a condition outlasts its cause. most_grace: of a pod that goes for a soft
    threshold, in seconds."""

    thresholds: tuple[Threshold, ...] = parse_thresholds([HARD])
    transition: float = TRANSITION_S
    most_grace: float = 0.0


class Evictor:
    """spares: pods of files, as a kubelet does, where there are others. eased: told when there may be room again."""

    def __init__(
        self,
        settings: Eviction,
        read: Callable[[], dict[str, Signal]],
        actors: Callable[[], Iterable[Actor]],
        garbage: ImageGarbage,
        events: Events,
        eased: Callable[[], None],
        *,
        spares: bool,
    ) -> None:
        self._settings, self._read, self._actors, self._garbage = settings, read, actors, garbage
        self._events, self._eased, self._spares = events, eased, spares
        self._state = State()
        self.conditions: frozenset[str] = frozenset()

    async def for_ever(self) -> None:
        await self._garbage.heard.wait()
        with contextlib.ExitStack() as stack:
            stalled = stack.enter_context(stalls())
            while True:
                if not await self._looked():
                    stalled.clear()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stalled.wait(), PERIOD_S)

    async def _looked(self) -> bool:
        """The same; what goes wrong once, such as a record that a full disk does not take, is not the end of it."""
        try:
            return await self.look()
        except Exception as error:
            self._events.add("Warning", "EvictionFailed", f"{type(error).__name__}: {error}")
            return False

    async def look(self) -> bool:
        """Whether a pod went."""
        found, signals = await self._pressure()
        if not found.due:
            return False
        worst = found.due[0]
        self._events.add("Warning", "EvictionThresholdMet", f"Attempting to reclaim {worst.resource}")
        if worst.condition == DISK:
            for actor in list(self._actors()):
                await actor.clear_ended()
            await self._garbage.collect(all=True)
            found, signals = await self._pressure()
            if worst not in found.due:
                return False
        pods = [
            (actor, await asyncio.to_thread(self._candidate, actor, actor.kept.sandboxes()))
            for actor in list(self._actors())  # others come and go meanwhile
            if actor.may_go
        ]
        ranked = rank((candidate for _, candidate in pods), worst.resource)
        if not ranked:
            self._events.add("Warning", "EvictionFailed", f"There is no pod that could go for {worst.resource}")
            return False
        first = ranked[0]
        actor = next(actor for actor, candidate in pods if candidate is first)
        self._events.add("Warning", "Evicting", f"For {worst.resource}: {table(ranked, worst.resource)}")
        grace = HARD_GRACE_S if worst.grace is None else min(self._settings.most_grace, actor.grace)
        actor.evict(message(worst.resource, worst, signals.get(worst.signal), first), grace)
        await self._ended(actor, grace + END_S)
        return True

    async def limits(self) -> list[dict[str, object]]:
        """Each threshold in force, with what there is now: bytes, inodes or processes; None where it can't be read."""
        signals = await asyncio.to_thread(self._read)
        found: list[dict[str, object]] = []
        for one in self._settings.thresholds:
            now = signals.get(one.signal)
            row: dict[str, object] = {"signal": one.signal, "condition": one.condition, "grace": one.grace}
            row |= {"limit": one.limit.of(now.capacity) if now else None, "met": one in self._state.met}
            found.append(row | {"available": now.available if now else None})
        return found

    def refusal(self, record: Record) -> tuple[str, str] | None:
        """Why a pod is not taken now."""
        spec = record.desired().spec
        return refuses(
            self.conditions,
            qos=qos_class(spec),
            critical=self._is_critical(record),
            tolerates=tolerates_memory_pressure(spec),
        )

    async def _pressure(self) -> tuple[Pressure, dict[str, Signal]]:
        signals = await asyncio.to_thread(self._read)
        settings = self._settings
        found = plan_pressure(signals, settings.thresholds, self._state, time.monotonic(), settings.transition)
        self._state, before = found.state, self.conditions
        self.conditions = found.conditions
        changes = [_COMES[type] for type in sorted(found.conditions - before)]
        for told in [*changes, *(_GOES[type] for type in sorted(before - found.conditions))]:
            self._events.add("Normal", told, f"Node status is now: {told}")
        if before - found.conditions:
            self._eased()
        return found, signals

    def _is_critical(self, record: Record) -> bool:
        return is_critical(record.pod.spec) or (self._spares and not record.api)

    def _candidate(self, actor: Actor, sandboxes: Sequence[Sandbox]) -> Candidate:
        record = actor.record
        spec, kept = record.desired().spec, actor.kept
        known = containers_of(record.desired())
        parts, rows = [], []
        for pod in sandboxes:
            for c in list(pod.containers.values()):
                name = c.config.metadata.name
                usage = container_usage(c.record.cgroup if c.alive else None, f"{c.directory}/upper")
                parts.append(usage)
                wanted = known.get(name)
                if c.alive:
                    rows.append((name, usage, requests(wanted) if wanted is not None else {}))  # type: ignore[arg-type]
        # kept.directory: /etc/hosts and the messages of its containers, which write there as they like (CVE-2020-8557).
        directories = [kept.log_directory, kept.directory, f"{actor.host.volumes.disk}/{record.uid}"]
        parts.append(directory_usage(directories))
        return Candidate(
            "/".join(record.key),
            total(parts),
            pod_requests(spec),
            spec.priority or 0,
            self._is_critical(record),
            tuple(rows),
        )

    async def _ended(self, actor: Actor, patience: float) -> None:
        try:
            await asyncio.wait_for(actor.cleared.wait(), patience)
        except TimeoutError:
            self._events.add("Warning", "EvictionSlow", f"pod {actor.name} has not ended within {patience:.0f} s")


@contextlib.contextmanager
def stalls() -> Iterator[asyncio.Event]:
    """An event that is set when the kernel says that processes wait for memory (Documentation/accounting/psi.rst);
    where it has no PSI it never is."""
    stalled = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # no PSI in this kernel or its start, no right to it, no more descriptors
            fd = os.open("/proc/pressure/memory", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            os.write(fd, STALL + b"\0")
            poll = stack.enter_context(select.epoll())
            poll.register(fd, select.EPOLLPRI | select.EPOLLET)

            def told() -> None:
                poll.poll(0)
                stalled.set()

            loop.add_reader(poll.fileno(), told)
            stack.callback(loop.remove_reader, poll.fileno())
        yield stalled
