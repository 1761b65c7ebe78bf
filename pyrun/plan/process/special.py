"""linux.personality and linux.memoryPolicy: properties of the process that are inherited, so set once in stage 2.

Before seccomp and the identity, because neither call is one that a profile has to allow.
"""

from __future__ import annotations

from ...oci import names
from ...oci.model import Linux
from ..model.plan import Builder
from ..model.steps import STAGE2, Personality, SetMempolicy
from .process import number_mask

MAX_NODES = 1024  # MAX_NUMNODES where it is largest


def plan_special(b: Builder, linux: Linux | None) -> None:
    """Stage 2, of create and of exec."""
    if linux is None:
        return
    if linux.personality is not None:
        at = "/linux/personality/domain"
        persona = names.PERSONALITY_DOMAINS[linux.personality.domain]
        b.add(STAGE2, Personality(persona=persona, at=at, why="what uname(2) tells, among others"))
    if linux.memory_policy is not None:
        policy = linux.memory_policy
        mode = names.MEMORY_POLICY_MODES[policy.mode]
        for flag in policy.flags:
            mode |= names.MEMORY_POLICY_FLAGS[flag]
        at, why = "/linux/memoryPolicy", "where its memory comes from"
        nodes = number_mask(policy.nodes, MAX_NODES, "memory node", f"{at}/nodes") if policy.nodes else b""
        most = len(nodes) * 8 + 1 if nodes else 0  # one more than the bits that set_mempolicy(2) reads
        b.add(STAGE2, SetMempolicy(mode=mode, nodes=nodes, maxnode=most, at=at, why=why))
