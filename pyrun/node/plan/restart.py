"""Whether a container that has ended is run again, and whether all others are with it."""

from __future__ import annotations

from ...kube.objects.containers import Container, ContainerRestartRule
from ...kube.objects.pods import PodSpec
from .observed import AnyContainer, Attempt, Desired, Observed

RESTART_ALL, RESTARTING_ALL = "RestartAllContainers", "RestartingAllContainers"
RESIZED = "its resources have changed, and its resizePolicy asks for a restart"


def is_sidecar(c: AnyContainer) -> bool:
    """An init container that is always restarted (KEP-753)."""
    return isinstance(c, Container) and c.restartPolicy == "Always"


def policy_of(c: Container, spec: PodSpec, *, init: bool) -> str:
    """Its own policy, else the pod's; an ordinary init container of a pod with Always is OnFailure."""
    policy = c.restartPolicy or spec.restartPolicy or "Always"
    return "OnFailure" if init and not is_sidecar(c) and policy == "Always" else policy


def restarts(c: Container, spec: PodSpec, code: int, *, init: bool) -> bool:
    """After an exit with that code: the first rule that matches, else the policy (KEP-5307)."""
    if rule_for(c, code) is not None:
        return True
    policy = policy_of(c, spec, init=init)
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def rule_for(c: Container, code: int) -> ContainerRestartRule | None:
    """The first that matches. Each has it run again, alone or with all others."""
    for rule in c.restartPolicyRules or ():
        codes = rule.exitCodes
        if codes is not None and (code in (codes.values or ())) == (codes.operator == "In"):
            return rule
    return None


def restarts_all(c: AnyContainer, a: Attempt) -> bool:
    """It ended with a code for which all containers of the pod run again, in the same sandbox (KEP-5532)."""
    rule = rule_for(c, a.code) if isinstance(c, Container) and a.ended else None
    return rule is not None and rule.action == RESTART_ALL


def may_restart_all(spec: PodSpec) -> bool:
    every = [*(spec.initContainers or ()), *spec.containers]
    return any(rule.action == RESTART_ALL for c in every for rule in c.restartPolicyRules or ())


def is_past(observed: Observed, a: Attempt) -> bool:
    """It is of before the last time that all containers were restarted."""
    return a.attempt <= observed.all_restarted.get(a.name, -1)


def who_restarts_all(desired: Desired, observed: Observed) -> Attempt | None:
    """One whose end asks for that, and which has not been heeded yet."""
    for c in [*(desired.spec.initContainers or ()), *desired.spec.containers]:
        a = observed.last(c.name)
        if a is not None and restarts_all(c, a) and not is_past(observed, a):
            return a
    return None


def is_changed(c: AnyContainer, last: Attempt) -> bool:
    """It has ended, or is about to, as the pod says something else of it: the next one comes at once, whatever the
    policy."""
    return last.asked != (c.image or "") or (last.stop is not None and last.stop.why == RESIZED)


def is_over(desired: Desired, observed: Observed, c: Container) -> bool:
    """An app container that has run and does not run again. One of which the pod says something else does."""
    last = observed.last(c.name)
    if last is None or not last.ended or is_past(observed, last):
        return False
    return not is_changed(c, last) and not restarts(c, desired.spec, last.code, init=False)
