"""linux.personality and linux.memoryPolicy: properties of the process that are inherited, so set once in stage 2.

Before seccomp and the identity, because neither call is one that a profile has to allow.
"""

from __future__ import annotations

from ...errors import ConfigError
from ...oci import names
from ...oci.model import Linux, MemoryPolicy
from ..model.plan import Builder
from ..model.steps import STAGE2, Personality, SetMempolicy

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
        nodes, most = node_mask(policy)
        why = "where its memory comes from"
        b.add(STAGE2, SetMempolicy(mode=mode, nodes=nodes, maxnode=most, at="/linux/memoryPolicy", why=why))


def node_mask(policy: MemoryPolicy) -> tuple[bytes, int]:
    """nodes as set_mempolicy(2) takes them: the mask, in whole longs, and maxnode, one more than the bits read."""
    at = "/linux/memoryPolicy/nodes"
    mask = 0
    for part in (policy.nodes or "").split(","):
        if not part.strip():
            continue
        low, _, high = part.strip().partition("-")
        if not (low.isdigit() and (high or low).isdigit()):
            raise ConfigError([(at, f"not a list of memory nodes: {policy.nodes!r}")], hint="write it as 0-3,7")
        first, last = int(low), int(high or low)
        if not first <= last < MAX_NODES:
            raise ConfigError([(at, f"memory nodes out of range: {part.strip()!r}")])
        mask |= (1 << last + 1) - (1 << first)
    size = (mask.bit_length() + 63) // 64 * 8
    return mask.to_bytes(size, "little"), size * 8 + 1 if size else 0
