"""Whether a container that has ended is run again."""

from __future__ import annotations

from ...kube.objects.containers import Container
from ...kube.objects.pods import PodSpec
from .observed import AnyContainer, Attempt, Desired

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
    for rule in c.restartPolicyRules or ():
        codes = rule.exitCodes
        if codes is not None and (code in (codes.values or ())) == (codes.operator == "In"):
            return rule.action == "Restart"
    policy = policy_of(c, spec, init=init)
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def is_changed(c: AnyContainer, last: Attempt) -> bool:
    """It has ended, or is about to, as the pod says something else of it: the next one comes at once, whatever the
    policy."""
    return last.asked != (c.image or "") or (last.stop is not None and last.stop.why == RESIZED)


def is_over(desired: Desired, c: Container, last: Attempt | None) -> bool:
    """An app container that has run and does not run again. One of which the pod says something else does."""
    if last is None or not last.ended:
        return False
    return not is_changed(c, last) and not restarts(c, desired.spec, last.code, init=False)
