"""All pods that there are, and those of one uid."""

from __future__ import annotations

from typing import Any

from pyrun import cri_api as v1
from pyrun.pod.pod import Pod
from pyrun.pod.records import MAKING, READY, PodRecord
from pyrun.pod.state import NodeState


def sandbox(id: str, uid: str, attempt: int) -> Pod:
    metadata = v1.PodSandboxMetadata(name="web", namespace="default", uid=uid, attempt=attempt)
    return Pod(PodRecord(id, v1.PodSandboxConfig(metadata=metadata).SerializeToString(), state=READY), "/r", "/s")


def test_the_sandboxes_of_a_pod() -> None:
    """Oldest first; one that is being made is nobody's yet."""
    nothing: Any = None
    state = NodeState("/r", "/s", nothing, nothing, nothing, nothing, nothing)
    made = {id: sandbox(id, uid, attempt) for id, uid, attempt in (("a", "u", 1), ("b", "v", 0), ("c", "u", 0))}
    for one in made.values():
        state.keep_pod(one)
    assert state.pods == made and state.pods_of("u") == [made["c"], made["a"]] and state.pods_of("w") == []
    made["c"].record.state = MAKING
    assert state.pods_of("u") == [made["a"]]
    for _ in range(2):  # whoever comes second finds it gone
        state.forget_pod(made["c"])
        state.forget_pod(made["b"])
    assert state.pods == {"a": made["a"]} and not state.pods_of("v") and set(state._by_uid) == {"u"}
