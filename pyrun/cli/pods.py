"""A pod of the running node by its name, and which of its containers is meant."""

from __future__ import annotations

from pyrun.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "kubectl.kubernetes.io/default-container"


def pod_of(state: str, namespace: str, name: str) -> dict[str, Any]:
    """As the agent shows it. NotFound."""
    from pyrun.node.agent.ask import ask

    found = ask(state, "pods", namespace=namespace, name=name.removeprefix("pod/"))
    if not found:
        raise NotFound(f"there is no pod {namespace}/{name}", hint="pyrun node get -A has all")
    pod: dict[str, Any] = found[0]
    return pod


def containers_of(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """All of its three kinds; app containers come first, as they are mostly meant."""
    kinds = ("containers", "initContainers", "ephemeralContainers")
    return [c for kind in kinds for c in pod["spec"].get(kind) or ()]


def container_of(pod: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    """The one that is wanted, or the only one. NotFound, InvalidArgument where several could be meant."""
    every, name = containers_of(pod), pod["metadata"]["name"]
    names = [c["name"] for c in every]
    wanted = wanted or (pod["metadata"].get("annotations") or {}).get(DEFAULT)
    if wanted and wanted not in names:
        raise NotFound(f"pod {name} has no container {wanted}", hint=f"it has {', '.join(names)}")
    if not wanted and len(pod["spec"]["containers"]) > 1:
        raise InvalidArgument(f"pod {name} has several containers", hint=f"-c {' or '.join(names)}")
    return every[names.index(wanted)] if wanted else every[0]
