"""A container that somebody asks for, among the agent's pods."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ...errors import FailedPrecondition, NotFound
from ...logs.tree import BLOCKS, Container, default_store
from ..plan.observed import Attempt
from ..plan.pod import containers_of
from .actor import Actor
from .agent import Agent
from .observe import attempts_of


@dataclass(frozen=True, slots=True)
class Of:
    """uid: "" for whichever pod has the name now. container: "" where the pod is meant."""

    namespace: str
    pod: str
    uid: str = ""
    container: str = ""


def find_pod(agent: Agent, of: Of) -> Actor:
    actor = agent.actors.get((of.namespace, of.pod))
    if actor is None or of.uid not in ("", actor.record.uid):
        raise NotFound(f"pod {of.namespace}/{of.pod} does not exist")
    return actor


def find_sandbox(agent: Agent, of: Of) -> str:
    """The id of the one that is ready."""
    pods = find_pod(agent, of).kept.sandboxes()
    if not pods or not pods[-1].ready:
        raise FailedPrecondition(f"pod {of.namespace}/{of.pod} has no network: it does not run")
    return pods[-1].id


def find_running(agent: Agent, of: Of) -> Attempt:
    """Its container of that name that runs."""
    found = _attempts(find_pod(agent, of), of)
    if not found or not found[-1].running:
        raise FailedPrecondition(f"container {of.container} of pod {of.namespace}/{of.pod} does not run")
    return found[-1]


def find_log(agent: Agent, of: Of, *, previous: bool) -> tuple[Container, Attempt]:
    """Of the newest attempt that was started, or of the one before it."""
    actor = find_pod(agent, of)
    found = [a for a in _attempts(actor, of) if a.started is not None or a.ended]
    where = f"container {of.container} of pod {of.namespace}/{of.pod}"
    if previous:
        if len(found) < 2:
            raise FailedPrecondition(f"previous terminated {where} not found")
        found = found[:-1]
    if not found:
        raise FailedPrecondition(f"{where} is waiting to start: {_why(actor, of.container)}")
    above, one = actor.kept.log_directory, found[-1]
    store = default_store(actor.host.logs)
    sealed = os.path.join(store, BLOCKS, os.path.basename(above), of.container) if store else ""
    directory = os.path.join(above, of.container)
    return Container(of.namespace, of.pod, actor.record.uid, of.container, directory, sealed, one.attempt), one


def _attempts(actor: Actor, of: Of) -> list[Attempt]:
    """Oldest first. NotFound where the pod has no such container."""
    names = containers_of(actor.record.desired())
    if of.container not in names:
        raise NotFound(f"container {of.container} is not in pod {of.pod}", hint=f"it has {', '.join(names)}")
    return [a for a in attempts_of(actor.kept.sandboxes(), actor.record) if a.name == of.container]


def _why(actor: Actor, name: str) -> str:
    status = actor.status()
    every = [status.initContainerStatuses, status.containerStatuses, status.ephemeralContainerStatuses]
    for one in (one for some in every for one in some or ()):
        if one.name == name and one.state is not None and one.state.waiting is not None:
            return one.state.waiting.reason or "ContainerCreating"
    return "ContainerCreating"
