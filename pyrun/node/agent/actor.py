"""A pod's actor: one task, which plans anew after all that happens to its pod, and begins what the plan asks for.

It sleeps until somebody wakes it (the runtime tells of a container, something that was begun has ended, the pod is
deleted) or the plan's own time has come; it never looks round. What it has to remember is written down before anything
is begun that relies on it, so that an agent which is killed anywhere goes on from there.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Any

from ...errors import PyrunError
from ...kube.objects.pods import Pod
from ...kube.objects.status import PodStatus
from ...pod import container as life
from ...pod.records import CREATED, MAKING
from ..plan import actions as act
from ..plan.observed import KINDS, Attempt, Observed, ProbeState
from ..plan.pod import Decision, containers_of, plan_pod
from ..plan.probes import probe_of
from ..plan.resize import DEFERRED, IN_PROGRESS, PENDING, allocation_of
from ..plan.restart import RESTART_ALL
from ..plan.status import rfc3339, status_of
from ..probes import spread
from ..qos import GUARANTEED, qos_class
from ..shutdown import MESSAGE, REASON
from ..volumes import wanted
from .carry import Carrier
from .clock import Clock
from .host import Host
from .images import known_images, waits_for_import
from .kept import Kept
from .messages import read_message
from .observe import attempts_of, sandbox_of
from .record import Condition, Record
from .resizing import ask, know_resources, summary

FINAL = ("Succeeded", "Failed")
EVICTED, NOT_SUPPORTED = "Evicted", "NotSupported"
AGAIN_S = 5.0  # after something that should not fail has failed
IMPORT_S = 10.0  # an image that must not be pulled is looked for so often: nobody tells when it has been imported
LAST_S = 2.0  # beyond the planner's own kill


class Actor:
    """waiting: (reason, message) while the node has no room for it."""

    def __init__(self, host: Host, record: Record) -> None:
        self.host, self.record = host, record
        self.kept = Kept(host, record)
        self.events = self.kept.events
        self.waiting: tuple[str, str] | None = None
        self.ended = asyncio.Event()
        self.done = asyncio.Event()  # set when nothing of it runs or will
        self.cleared = asyncio.Event()  # set when an evicted pod has left the disk
        self.busy: set[tuple[str, ...]] = set()
        self.decision: Decision | None = None
        self._final: PodStatus | None = None  # of a pod that is over: its containers may be gone, and this stays
        self.carrier = Carrier(self.kept)
        self._clock = Clock()
        self._woken = asyncio.Event()
        self._clearing = False
        self._plans = 0
        self._probes: dict[tuple[str, ...], asyncio.TimerHandle] = {}  # to come
        self._tasks: set[asyncio.Task[None]] = set()
        know_resources(record, self.kept.sandboxes())

    @property
    def name(self) -> str:
        return "/".join(self.record.key)

    def wake(self) -> None:
        self._woken.set()

    def delete(self, grace: int | None = None) -> None:
        """Ends it, within the pod's own grace or less; asked again it can only become shorter."""
        spec = self.record.desired().spec
        own = spec.terminationGracePeriodSeconds or 0
        wanted = own if grace is None else grace
        now = self._follow_clock()
        if self.record.deleted is None:
            self.record.deleted, self.record.grace = now, wanted
            self.events.add("Normal", "Killing", f"the pod is deleted, with {wanted} s of grace")
        elif wanted < self.record.grace:
            self.record.grace = wanted
        self.wake()

    def _follow_clock(self) -> float:
        """Now; times that were noted before the clock was set go with it."""
        if step := self._clock.step():
            self.record.shift(step)
        return time.time()

    def update(self, pod: Pod, gates: dict[str, bool]) -> None:
        """The same pod, as it is in the API server or in its file now."""
        record = self.record
        if record.pod != pod:
            if allocation_of(record.pod) != allocation_of(pod):
                record.pending = None  # it is asked anew
                record.retried = time.time()  # more memory may be what it lacked
                self.ask_again()
            before, record.pod = record.pod.metadata, pod
            if before != pod.metadata:  # files may show labels and annotations
                self.begin(self.carrier.update_volumes())
        elif record.gates == gates:
            return
        record.gates = gates
        self.wake()

    def retry(self) -> None:
        """Tries what failed again now."""
        self.record.retried = time.time()
        self.wake()

    def objects_changed(self, changed: set[tuple[str, str, str]]) -> None:
        """ConfigMaps and Secrets are others: who waits for one tries again now, and files get the new words.

        changed: kind, namespace and name of each."""
        self._try_again()
        namespace, _ = self.record.key
        if any((kind, namespace, name) in changed for kind, name in wanted(self.record.pod)):
            self.begin(self.carrier.update_volumes())

    def refreshed(self) -> None:
        """Its tokens, certificates or trust bundles are others."""
        self._try_again()
        self.begin(self.carrier.update_volumes())

    def _try_again(self) -> None:
        self.carrier.news += 1
        if self.carrier.creations or self.carrier.sandbox_error:
            self.carrier.creations.clear()
            self.carrier.sandbox_error = None
            self.wake()

    @property
    def is_finished(self) -> bool:
        return self.decision is not None and self.decision.status.phase in FINAL

    def ask_again(self) -> None:
        """There may be room by now."""
        if self.waiting is not None:
            self.waiting = None
            self.busy.discard(("admit",))
            self.wake()

    def allocate(self) -> bool:
        """Asks whether the node gives the resources that the pod wants now."""
        before, given = self.record.pending, ask(self.kept)
        if given:
            self.carrier.resize_error = None
            self.begin(self.carrier.update_volumes())
            self.host.room()
        if before is None or before != self.record.pending:
            self.wake()
        return given

    @property
    def may_resize(self) -> bool:
        """It runs or will: of one that is over other words are another pod."""
        return self.record.failure is None and self.record.deleted is None and not self.is_finished

    @property
    def is_deferred(self) -> bool:
        pending = self.record.pending
        return pending is not None and pending[0] == DEFERRED and self.may_go

    @property
    def resize_order(self) -> tuple[int, bool, str]:
        """Among the deferred, as a kubelet has it: by priority, Guaranteed before others, who waits longest."""
        spec, since = self.record.desired().spec, self.record.conditions.get(PENDING)
        return -(spec.priority or 0), qos_class(spec) != GUARANTEED, since.since if since is not None else "~"

    # --- the loop ---

    async def run(self) -> None:
        """Until nothing of the pod is left, or it is cancelled: then the pod runs on."""
        try:
            taken_over = False
            while not self.ended.is_set():
                try:
                    if not taken_over:
                        await self._take_over()
                        self.begin(self._watch_limits())
                        taken_over = True
                    await self._sleep(await self._plan())
                except Exception as error:  # a fault of ours with one pod: it is not to be lost for it
                    self.host.warn(f"pod {self.name}: {type(error).__name__}: {error}")
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._forget_probes()  # before the tasks, as one that is told of begins one
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._forget_probes()

    async def _plan(self) -> float | None:
        """Begins what is to be done now. When to plan again although nothing happens."""
        self._woken.clear()
        self._plans += 1
        self._forget_probes()
        now = self._follow_clock()
        desired, carrier = self.record.desired(), self.carrier
        await known_images(self.host.cri.images, self.host.pulled, desired, carrier.images, carrier.may_use)
        self.decision = self._settled(plan_pod(desired, self.observe(), self.host.facts, now))
        await self._note(now)
        for action in self.decision.actions:
            self._begin(action, now)
        for later in self.decision.probes:
            self._begin_at(later.at, later.probe)
        if not waits_for_import(self.record.desired(), self.carrier.images):
            return self.decision.wake
        return min(self.decision.wake or now + IMPORT_S, now + IMPORT_S)

    def _settled(self, decision: Decision) -> Decision:
        """With the status that the pod had when it was over, but for its sandbox, which ends after that."""
        if self._final is None and decision.status.phase in FINAL:
            self._final = decision.status
        if self._final is not None:
            now = {c.type: c for c in decision.status.conditions or () if c.type == "PodReadyToStartContainers"}
            self._final.conditions = [now.get(c.type, c) for c in self._final.conditions or ()]
        return decision if self._final is None else replace(decision, status=self._final)

    async def _take_over(self) -> None:
        """What an agent before this one has left: a pod that has a sandbox was admitted, one of a file that ended with
        the node goes on, a container that was made and not started is made again, and hooks and signals of which nobody
        knows the end come again."""
        self._forgive_shutdown()
        pods = self.kept.sandboxes()
        if pods and self.record.admitted is None:
            self.record.admitted, self.record.started = True, pods[0].record.created / 1e9
        for pod in pods:
            for c in [c for c in pod.containers.values() if c.record.state in (CREATED, MAKING)]:
                try:
                    await life.remove(self.host.cri.pods, c)
                except PyrunError as error:
                    self.events.add("Warning", "FailedRemove", str(error))
        for hooks in self.record.hooks.values():
            for which in [which for which, hook in hooks.items() if hook.ended is None]:
                del hooks[which]
        for id, stop in self.record.stops.items():
            self.record.stops[id] = replace(stop, signalled=None, killed=None)
        for a in attempts_of(pods, self.record):
            if a.running:
                self._spread_probes(a)

    def _spread_probes(self, a: Attempt) -> None:
        """What they said stays, and when they ran last nobody knows."""
        c = containers_of(self.record.desired()).get(a.name)
        for kind in KINDS:
            probe = probe_of(c, kind) if c is not None else None
            if probe is not None:
                found = self.carrier.probing.states.setdefault(a.id, {})
                last = spread(probe, time.time(), self.host.started, random.random())
                found[kind] = replace(found.get(kind) or ProbeState(), last=last)

    async def _sleep(self, wake: float | None) -> None:
        await asyncio.sleep(0)
        patience = None if wake is None else max(0.0, wake - time.time())
        try:
            await asyncio.wait_for(self._woken.wait(), patience)
        except TimeoutError:
            pass

    def observe(self) -> Observed:
        record, carrier = self.record, self.carrier
        pods = self.kept.sandboxes()
        attempts = tuple(map(self._seen, attempts_of(pods, record)))
        probes = {(id, kind): state for id, found in carrier.probing.states.items() for kind, state in found.items()}
        return Observed(
            admitted=record.admitted,
            failure=record.failure,
            started=record.started,
            end_grace=record.end_grace,
            disrupted=record.disrupted,
            sandbox=sandbox_of(pods),
            sandbox_error=carrier.sandbox_error,
            attempts=attempts,
            images=carrier.images,
            pulls=carrier.pulls,
            creations=carrier.creations,
            restarts=record.restarts,
            conditions=record.gates,
            probes=probes,
            busy=frozenset(self.busy),
            all_restarted=record.all_restarted,
            given=record.given,
            pending=record.pending,
            resize_error=carrier.resize_error,
        )

    def _seen(self, a: Attempt) -> Attempt:
        """With what it left to say of its end, from the first time on that its end is seen: what is told of a pod that
        is over is told once."""
        messages, past = self.record.messages, self.record.past
        if not a.ended:
            return a
        if a.id in self.carrier.starting:  # that was the program, or why it can't be started: known when that is over
            return replace(a, started=None, finished=None)
        if a.id not in messages and a.id not in past:
            messages[a.id] = self._message(a)
            return replace(a, message=messages[a.id] or a.message)
        return a

    def _message(self, a: Attempt) -> str:
        known = containers_of(self.record.desired())
        c, file = known.get(a.name), self.kept.message_file(a.name, a.attempt)
        if c is None or a.reason == "StartError":
            return ""
        return read_message(file, c, a.code, self.kept.log_file(a.name, a.attempt), len(known))

    async def _watch_limits(self) -> None:
        """Of emptyDirs on disk: a pod that has written more than it may has failed."""
        while True:
            why, again = await asyncio.to_thread(self.host.volumes.over_limit, self.record.pod, self.record.uid)
            failure = self.record.failure
            over = failure is not None and failure[0] != REASON  # which may be called off
            if not again or over or self.record.deleted is not None:
                return
            if why and failure is None:
                self._fail(why)
            await asyncio.sleep(again)

    # --- making room ---

    @property
    def may_go(self) -> bool:
        """It was taken, and is not about to end."""
        record = self.record
        return bool(record.admitted) and record.failure is None and record.deleted is None and not self.is_finished

    @property
    def grace(self) -> float:
        return float(self.record.desired().spec.terminationGracePeriodSeconds or 0)

    def evict(self, why: str, grace: float) -> None:
        """For what the node is short of."""
        self.record.end_grace, self.record.disrupted = grace, "TerminationByKubelet"
        self._fail(why)

    def terminate(self, grace: float) -> None:
        """As the node shuts down."""
        if self.may_go:
            self.done.clear()  # of one that came again after a shutdown that was called off
            self.record.end_grace, self.record.disrupted = grace, "TerminationByKubelet"
            self._fail(MESSAGE, REASON)

    def go_on(self) -> None:
        """The node's shutdown was called off: a pod of a file that has ended for it, or is about to, comes again, as it
        does when the node is there again."""
        if self._forgive_shutdown() and self.record.deleted is None:
            self._final = None
            self.done.clear()
            self.wake()

    def _forgive_shutdown(self) -> bool:
        if self.record.failure is None or self.record.failure[0] != REASON or self.record.api:
            return False
        self.record.failure, self.record.end_grace, self.record.disrupted = None, None, ""
        return True

    def _fail(self, why: str, reason: str = EVICTED) -> None:
        self.record.failure = (reason, why)
        self.events.add("Warning", reason, why)
        self.wake()

    async def clear_ended(self) -> None:
        """Takes the containers of a pod that has ended away, and of an evicted one its volumes, too: what its status
        says of them is kept, and their logs are."""
        if not self.is_finished or self.record.deleted is not None:
            return
        for a in attempts_of(self.kept.sandboxes(), self.record):
            if a.ended:
                self.record.past[a.id] = a
        await self.kept.save()
        try:
            await self.carrier.clear_ended(
                volumes=self.record.failure is not None and self.record.failure[0] == EVICTED
            )
        except PyrunError as error:
            self.events.add("Warning", "FailedRemove", str(error))
        self.cleared.set()

    # --- what is told ---

    def status(self) -> PodStatus:
        """As of now, with when each condition became what it is."""
        if self._final is not None:
            return self._dated(self._final)
        return self._dated(status_of(self.record.desired(), self.observe(), self.host.facts, time.time()))

    def _dated(self, found: PodStatus) -> PodStatus:
        for condition in found.conditions or ():
            kept = self.record.conditions.get(condition.type)
            condition.lastTransitionTime = kept.since if kept and kept.status == condition.status else None
        if self.waiting is not None:
            found.reason, found.message = self.waiting
        return found

    async def _note(self, now: float) -> None:
        """Writes down what has changed."""
        assert self.decision is not None
        pods = self.kept.sandboxes()
        alive = {id for pod in pods for id in pod.containers}
        self.record.forget_containers(alive)
        self.carrier.forget_containers(alive)
        told = self.decision.status.conditions or ()
        for condition in told:
            kept = self.record.conditions.get(condition.type)
            if kept is None or kept.status != condition.status:
                self.record.conditions[condition.type] = Condition(condition.status, rfc3339(now))
        for type in (PENDING, IN_PROGRESS):
            if all(c.type != type for c in told) and self.record.conditions.pop(type, None) is not None:
                if type == IN_PROGRESS and not self.is_finished:
                    text = f"Pod resize completed: {summary(self.record.desired().pod)}"
                    self.events.add("Normal", "ResizeCompleted", text)
        await self.kept.save()
        self.host.told(self.record, self._dated(self.decision.status))
        if self.is_finished and not self.done.is_set():
            self.done.set()
            self.begin(self.carrier.release_sub_paths())
            self.host.room()
        self.host.planned()
        evicted = self.record.failure is not None and self.record.failure[0] == EVICTED
        if evicted and self.is_finished and not self._clearing:
            self._clearing = True
            self.begin(self.clear_ended())

    # --- what is done ---

    def _begin(self, action: act.Action, now: float) -> None:
        match action:
            case act.Admit():
                self._admit(now)
            case act.Allocate():
                self.allocate()
            case act.BeginStop():
                if action.id not in self.record.stops:
                    self.events.add("Normal", "Killing", f"Stopping container {action.name}: {action.stop.why}")
                self.record.stops[action.id] = action.stop
                self.wake()
            case act.RestartAll():
                self.record.all_restarted = dict(action.past)
                self.events.add("Normal", RESTART_ALL, f"All containers restart: {action.why}")
                self.wake()
            case act.Signal():
                self._signal(action, now)
            case act.Kill():
                self._kill(action, now)
            case act.Fail():
                self.record.failure = (action.reason, action.message)
                self.events.add("Warning", action.reason, action.message)
                self.wake()
            case _:
                self.busy.add(action.key)
                self.begin(self._carry_out(action))

    def _begin_at(self, at: float, action: act.RunProbe) -> None:
        """A probe without a plan of its own; the next plan decides anew."""

        def now() -> None:
            self._probes.pop(action.key)
            self._begin(action, time.time())

        if action.key not in self.busy:
            delay = max(0.0, at - time.time())
            self._probes[action.key] = asyncio.get_running_loop().call_later(delay, now)

    def _begin_again(self, at: float, action: act.RunProbe) -> None:
        """A probe that has said what it said before: by who asks on for us, or by ourselves."""
        if not self.carrier.probing.hand_over(action, at, lambda: self._begin(action, time.time())):
            self._begin_at(at, action)

    def _forget_probes(self) -> None:
        self.carrier.probing.take_back()
        for timer in self._probes.values():
            timer.cancel()
        self._probes.clear()

    def begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, action: act.Action) -> None:
        again, plans = None, self._plans
        try:
            again = await self.carrier.carry_out(action)
        except PyrunError as error:
            self.events.add("Warning", "FailedSync", f"{action}: {error}")
            await asyncio.sleep(AGAIN_S)
        except Exception as error:  # a fault of ours with one pod is not to end the others
            self.host.warn(f"pod {self.name}: {action}: {type(error).__name__}: {error}")
            self.events.add("Warning", "FailedSync", f"{action}: {type(error).__name__}: {error}")
            await asyncio.sleep(AGAIN_S)
        finally:
            self.busy.discard(action.key)
            if again is not None and plans == self._plans and isinstance(action, act.RunProbe):
                self._begin_again(again, action)
            else:
                self.wake()
            if self.kept.gone and not self.ended.is_set():
                self.ended.set()
                self.done.set()
                self.cleared.set()
                self.host.gone(self.record)

    def _admit(self, now: float) -> None:
        """A pod of a file that does not fit waits until there is room, and says why; one of an API server has failed,
        so that another node may have the next one. What this node can't do at all waits: the next would come here, too,
        and at once."""
        refused = self.host.refusal(self.record)
        if refused is None:
            self.record.admitted, self.record.started = True, now
            self.record.allocated = allocation_of(self.record.pod)
            self.wake()
            return
        if self.record.api and refused[0] != NOT_SUPPORTED:
            self.record.admitted, self.record.failure = False, refused
            self.events.add("Warning", refused[0], refused[1])
            self.wake()
            return
        self.waiting = refused
        self.busy.add(("admit",))
        self.wake()
        self.events.add("Warning", refused[0], refused[1])

    def _signal(self, action: act.Signal, now: float) -> None:
        stop = self.record.stops[action.id]
        deadline = max(stop.deadline - now, 0.0) + LAST_S
        self.record.stops[action.id] = replace(stop, signalled=now)
        self.begin(self._stop(action.id, deadline + LAST_S))
        self.wake()

    def _kill(self, action: act.Kill, now: float) -> None:
        stop = self.record.stops.get(action.id)
        if stop is not None:
            self.record.stops[action.id] = replace(stop, killed=now)
        key = action.key
        self.busy.add(key)
        self.begin(self._stop(action.id, 0, key))

    async def _stop(self, id: str, grace: float, key: tuple[str, ...] | None = None) -> None:
        """The runtime's own stop: the signal, and the end of patience as the planner has it."""
        try:
            c = self.host.cri.pods.containers.get(id)
            if c is not None:
                await life.stop(self.host.cri.pods, c, grace)
        except PyrunError as error:
            self.events.add("Warning", "FailedKillPod", str(error))
            await asyncio.sleep(AGAIN_S)
        finally:
            if key is not None:
                self.busy.discard(key)
            self.wake()
