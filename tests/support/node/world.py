"""A node on a fake clock: it carries out what `plan_pod` asks for, on programs, probes, hooks and registries that a
scenario describes, and writes down what happened when. Nothing of it is a kernel; the planner is the real one.

`log` has lines such as `0 run web 0`, `5 exit web 1`; `phases` each change of the phase with its time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import yaml

from pyrun.kube.objects.containers import Container, ResourceRequirements
from pyrun.kube.objects.pods import Pod
from pyrun.kube.objects.status import ContainerStatus, PodStatus
from pyrun.kube.validate.objects import read_object
from pyrun.node.plan import actions as act
from pyrun.node.plan.observed import Attempt, BackOff, Desired, Hook, NodeFacts, Observed, Sandbox
from pyrun.node.plan.pod import Decision, containers_of, plan_pod
from pyrun.node.plan.probes import fold, next_time, probe_of
from pyrun.node.plan.resize import allocation_of, failure, with_allocation
from pyrun.node.qos import container_limits, pod_limits

EPOCH = 1_800_000_000.0  # log and phases count from here
MOST_PLANS = 100  # at one moment: more is a planner that goes in circles


@dataclass(frozen=True)
class Program:
    """exits: seconds after its start, None for never. term: seconds that it takes to end after the stop signal, None
    for one that does not heed it; then its code is term_code. error: it can't be started."""

    exits: float | None = None
    code: int = 0
    term: float | None = 0.0
    term_code: int = 143
    error: str = ""


@dataclass(frozen=True)
class Work:
    """Of a hook, a pull or a sandbox: how long it takes, and what goes wrong."""

    takes: float = 0.0
    error: str = ""


class World:
    """programs: by container's name, one for each attempt, the last for all that follow. probes: by (name, kind), a
    function of the seconds since the scenario's start. hooks: by (name, which). pulls: by image, one for each try.
    room: by seconds, why the node does not give other resources. used: by seconds, bytes in each cgroup by name."""

    def __init__(
        self,
        text: str,
        *,
        programs: dict[str, list[Program]] | None = None,
        probes: dict[tuple[str, str], Callable[[float], bool]] | None = None,
        hooks: dict[tuple[str, str], Work] | None = None,
        pulls: dict[str, list[Work]] | None = None,
        sandboxes: list[Work] | None = None,
        admit: tuple[str, str] | None = None,
        node: NodeFacts | None = None,
        room: Callable[[float], tuple[str, str] | None] = lambda t: None,
        used: Callable[[float], dict[str, int]] = lambda t: {},
    ) -> None:
        self.room, self.used = room, used
        self.programs = programs or {}
        self.probes = probes or {}
        self.hooks = hooks or {}
        self.pulls = {image: list(works) for image, works in (pulls or {}).items()}
        self.sandboxes = list(sandboxes or [])
        self.admit = admit
        self.node = node or NodeFacts(addresses=("192.0.2.1",))
        self.desired = Desired(pod_of(text), "uid-1", EPOCH)
        self.observed = Observed()
        self.now = EPOCH
        self.log: list[str] = []
        self.phases: list[tuple[float, str]] = []
        self.ready: list[tuple[float, bool]] = []
        self.gone = False
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    # --- the clock

    def run(self, until: float) -> World:
        """Goes on until that many seconds after the start."""
        while not self.gone:
            self._settle()
            decision = self._plan()
            next = (decision.wake, self._events[0][0] if self._events else None, *(p.at for p in decision.probes))
            times = [t for t in next if t is not None]
            if not times or min(times) > EPOCH + until:
                break
            assert min(times) >= self.now, f"wake {min(times) - self.now} s ago"
            self.now = min(times)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
        self.now = max(self.now, EPOCH + until)
        if not self.gone:
            self._settle()
        return self

    def at(self, t: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (EPOCH + t, self._count, what))

    def set_clock(self, seconds: float) -> None:
        """Somebody sets it now, back or forward; what takes time takes no other."""
        self.now += seconds
        self._events = [(when + seconds, number, what) for when, number, what in self._events]

    def delete(self, t: float, grace: int | None = None) -> None:
        def now() -> None:
            seconds = self.desired.spec.terminationGracePeriodSeconds if grace is None else grace
            self.desired = replace(self.desired, deleted=self.now, grace=seconds or 0)

        self.at(t, now)

    def evict(self, t: float, grace: float) -> None:
        def now() -> None:
            failure = ("Evicted", "The node was low on resource: memory. ")
            self._see(failure=failure, end_grace=grace, disrupted="TerminationByKubelet")

        self.at(t, now)

    def change(self, t: float, text: str) -> None:
        self.at(t, lambda: setattr(self, "desired", replace(self.desired, pod=pod_of(text))))

    def resize(self, t: float, text: str) -> None:
        """Other resources are asked."""

        def now() -> None:
            asked = pod_of(text)
            given = with_allocation(asked, allocation_of(self.desired.pod))
            self.desired = replace(self.desired, pod=given, asked=asked if given is not asked else None)
            self._see(pending=None)

        self.at(t, now)

    def ask_again(self, t: float) -> None:
        """There may be room by now, as the agent finds."""
        self.at(t, lambda: self._see(pending=None))

    def lose_sandbox(self, t: float) -> None:
        def now() -> None:
            assert self.observed.sandbox is not None
            self._see(sandbox=replace(self.observed.sandbox, ready=False))
            for a in self.observed.attempts:
                if a.running:
                    self._exit(a.id, 255)

        self.at(t, now)

    # --- what a test asks

    @property
    def status(self) -> PodStatus:
        return plan_pod(self.desired, self.observed, self.node, self.now).status

    def container(self, name: str) -> ContainerStatus:
        found = self.status
        for kept in (found.initContainerStatuses, found.containerStatuses, found.ephemeralContainerStatuses):
            for c in kept or ():
                if c.name == name:
                    return c
        raise KeyError(name)

    def condition(self, type: str) -> str:
        return next(c.status for c in self.status.conditions or () if c.type == type)

    def reason(self, type: str) -> tuple[str | None, str | None] | None:
        """With the message; None where the pod does not have that condition."""
        return next(((c.reason, c.message) for c in self.status.conditions or () if c.type == type), None)

    def when(self, text: str) -> list[float]:
        """The times of what begins with the text."""
        return [float(line.split(" ", 1)[0]) for line in self.log if line.split(" ", 1)[1].startswith(text)]

    def order(self, *words: str) -> list[str]:
        """The log's lines that begin with one of the words, without times."""
        return [text for line in self.log if (text := line.split(" ", 1)[1]).startswith(words)]

    # --- carrying out

    def _plan(self) -> Decision:
        decision = plan_pod(self.desired, self.observed, self.node, self.now)
        phase = decision.status.phase or ""
        if not self.phases or self.phases[-1][1] != phase:
            self.phases.append((self.now - EPOCH, phase))
        ready = any(c.type == "Ready" and c.status == "True" for c in decision.status.conditions or ())
        if not self.ready or self.ready[-1][1] != ready:
            self.ready.append((self.now - EPOCH, ready))
        return decision

    def _settle(self) -> None:
        """Plans and carries out until nothing is asked for at this moment."""
        for _ in range(MOST_PLANS):
            decision = self._plan()
            if not decision.actions:
                return
            for action in decision.actions:
                assert action.key not in self.observed.busy
                self._note(str(action))
                self._do(action)
            if self.gone:
                return
        raise AssertionError(f"no end of actions at {self.now - EPOCH}: {self.log[-10:]}")

    def _note(self, text: str) -> None:
        self.log.append(f"{self.now - EPOCH:g} {text}")

    def _see(self, **changes: Any) -> None:
        self.observed = replace(self.observed, **changes)

    def _set(self, id: str, **changes: Any) -> None:
        self._see(attempts=tuple(replace(a, **changes) if a.id == id else a for a in self.observed.attempts))

    def _later(self, action: act.Action, takes: float, then: Callable[[], None]) -> None:
        """The action is busy for that long; in no time at all it is done at once."""

        def done() -> None:
            self._see(busy=self.observed.busy - {action.key})
            then()

        if takes == 0:
            then()
        else:
            self._see(busy=self.observed.busy | {action.key})
            self.at(self.now - EPOCH + takes, done)

    def _do(self, action: act.Action) -> None:
        match action:
            case act.Admit():
                self._see(admitted=self.admit is None, failure=self.admit, started=self.now)
            case act.Fail():
                self._see(failure=(action.reason, action.message))
            case act.RunSandbox():
                work = self.sandboxes.pop(0) if self.sandboxes else Work()
                self._later(action, work.takes, lambda: self._sandbox(action, work))
            case act.StopSandbox():
                assert self.observed.sandbox is not None
                self._see(sandbox=replace(self.observed.sandbox, ready=False))
            case act.Pull():
                works = self.pulls.get(action.image, [])
                work = works.pop(0) if works else Work()
                self._later(action, work.takes, lambda: self._pulled(action, work))
            case act.Run():
                self._run(action)
            case act.RunHook():
                self._hook(action)
            case act.RestartAll():
                self._see(all_restarted=action.past)
            case act.BeginStop():
                self._set(action.id, stop=action.stop)
            case act.Signal():
                self._signal(action)
            case act.Kill():
                if self._attempt(action.id).running:
                    self._exit(action.id, 137)
                else:
                    self._set(action.id, finished=self.now, code=137)
            case act.RunProbe():
                self._probe(action)
            case act.Allocate():
                self._allocate()
            case act.Resize():
                self._resize(action)
            case act.Remove():
                self._see(attempts=tuple(a for a in self.observed.attempts if a.id != action.id))
            case act.Forget():
                self.gone = True

    def _attempt(self, id: str) -> Attempt:
        return next(a for a in self.observed.attempts if a.id == id)

    def _sandbox(self, action: act.RunSandbox, work: Work) -> None:
        if work.error:
            before = self.observed.sandbox_error
            self._see(sandbox_error=BackOff(before.seconds * 2 if before else 10.0, self.now, self.now, work.error))
        else:
            self._see(given=pod_limits(self.desired.spec))
            self._see(sandbox=Sandbox(f"s{action.attempt}", action.attempt, self.now, True, ("10.0.0.2",)))

    def _allocate(self) -> None:
        assert self.desired.asked is not None
        refused = self.room(self.now - EPOCH)
        if refused is None:
            self.desired = replace(self.desired, pod=self.desired.asked, asked=None)
        self._see(pending=refused, resize_error=None)

    def _resize(self, action: act.Resize) -> None:
        """Each write is noted, and what the cgroups hold may never be beyond the pod's own."""
        used = self.used(self.now - EPOCH)
        low = [write.name for write in action.writes if write.above and used.get(write.name, 0) >= write.above]
        if low:
            self._see(resize_error=failure(f"used: {' '.join(low)}", self.now))
            return
        for write in action.writes:
            if write.limits is not None:
                self._see(given=write.limits)
            else:
                self._set(write.id, resources=write.resources)
            self._check_cgroups()
        self._see(resize_error=None)

    def _check_cgroups(self) -> None:
        pod = self.observed.given
        has = [container_limits(Container(name=a.name, resources=a.resources))
               for a in self.observed.attempts if a.running and a.resources]  # fmt: skip
        assert pod is not None
        if pod.memory is not None:
            assert all(one.memory is not None and one.memory <= pod.memory for one in has), (pod, has)
        if pod.quota:
            assert all(0 < one.quota <= pod.quota for one in has), (pod, has)

    def _pulled(self, action: act.Pull, work: Work) -> None:
        if work.error:
            failed = replace(action.back_off, failed=self.now, error=work.error)
            self._see(pulls={**self.observed.pulls, action.image: failed})
        else:
            self._see(images={**self.observed.images, action.image: f"sha256:{action.image}"})

    def _run(self, action: act.Run) -> None:
        all_ = self.programs.get(action.name, [Program()])
        program = all_[min(action.attempt, len(all_) - 1)]
        c = containers_of(self.desired)[action.name]
        id = f"{action.name}-{action.attempt}"
        has = c.resources or ResourceRequirements()
        made = Attempt(id, action.name, action.attempt, self.now, c.image or "", started=self.now, resources=has)
        if action.back_off is not None:
            self._see(restarts={**self.observed.restarts, action.name: action.back_off})
        self._see(attempts=(*self.observed.attempts, made))
        if program.error:
            self._set(id, finished=self.now, code=128, reason="StartError", message=program.error)
        elif program.exits is not None:
            self.at(self.now - EPOCH + program.exits, lambda: self._exit(id, program.code))

    def _exit(self, id: str, code: int) -> None:
        a = self._attempt(id)
        if a.running:
            self._note(f"exit {a.name} {code}")
            self._set(id, finished=self.now, code=code)

    def _signal(self, action: act.Signal) -> None:
        a = self._attempt(action.id)
        all_ = self.programs.get(a.name, [Program()])
        program = all_[min(a.attempt, len(all_) - 1)]
        assert a.stop is not None
        self._set(action.id, stop=replace(a.stop, signalled=self.now))
        if program.term == 0:
            self._exit(action.id, program.term_code)
        elif program.term is not None:
            self.at(self.now - EPOCH + program.term, lambda: self._exit(action.id, program.term_code))

    def _hook(self, action: act.RunHook) -> None:
        work = self.hooks.get((action.name, action.which), Work())
        field = "pre_stop" if action.which == "preStop" else "post_start"
        begun = self.now
        self._set(action.id, **{field: Hook(begun)})
        self._later(action, work.takes, lambda: self._set(action.id, **{field: Hook(begun, self.now, work.error)}))

    def _probe(self, action: act.RunProbe) -> None:
        probe = probe_of(containers_of(self.desired)[action.name], action.kind)
        assert probe is not None
        key = (action.id, action.kind)
        answers = self.probes.get((action.name, action.kind))
        good = answers is None or answers(self.now - EPOCH)
        before = self.observed.probes.get(key)
        state = fold(before, probe, good, self.now)
        planned = self._but_probes()
        self._see(probes={**self.observed.probes, key: state})
        if next_time(before, state, probe) is not None:
            assert self._but_probes() == planned, "an agent makes no plan after this"

    def _but_probes(self) -> tuple[Any, ...]:
        found = plan_pod(self.desired, self.observed, self.node, self.now)
        actions = [action for action in found.actions if not isinstance(action, act.RunProbe)]
        return actions, found.wake, found.status


def pod_of(text: str) -> Pod:
    """A pod from YAML of its spec, or of the whole."""
    value = yaml.safe_load(text)
    if "spec" not in value:
        value = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": value}
    for c in [*value["spec"]["containers"], *value["spec"].get("initContainers", [])]:
        c.setdefault("image", "i:1")
    for c in value["spec"].get("ephemeralContainers", []):
        c.setdefault("image", "i:1")
    found, faults = read_object(value)
    assert isinstance(found, Pod), faults
    return found
