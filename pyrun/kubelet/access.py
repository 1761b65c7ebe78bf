"""Which right a request needs, as the attributes of a SubjectAccessReview. Pure.

As a kubelet's, with one difference: who runs a command, attaches or forwards a port needs the verb `create`, whatever
the method. A WebSocket begins with GET, and with a kubelet who may `get nodes/proxy` runs commands by that.
"""

from __future__ import annotations

from dataclasses import dataclass

VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# A path or what is below it → the subresource of nodes; else it is proxy.
SUBRESOURCES = {"stats": "stats", "metrics": "metrics", "logs": "log", "checkpoint": "checkpoint"}
# Those that were part of nodes/proxy once: who has that has them, too.
FINER = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}
COMMANDS = ("exec", "attach", "run", "portForward")


@dataclass(frozen=True, slots=True)
class Right:
    """On nodes/SUBRESOURCE of this node."""

    verb: str
    subresource: str

    def __str__(self) -> str:
        return f"{self.verb} nodes/{self.subresource}"


def rights(method: str, path: str) -> tuple[Right, ...]:
    """Any one of them will do."""
    first = path.strip("/").split("/")[0]
    verb = VERBS.get(method, "*")
    if first in COMMANDS:
        return (Right("create", "proxy"),)
    if first in SUBRESOURCES:
        return (Right(verb, SUBRESOURCES[first]),)
    finer = (Right(verb, FINER[first]),) if first in FINER else ()
    return (*finer, Right(verb, "proxy"))
