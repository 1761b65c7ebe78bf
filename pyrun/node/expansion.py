"""PURE: $(NAME) in values, commands and paths of a pod. Source: Kubernetes' api/envvar-expansion.md: $$ is a dollar
sign, and what is no reference, or one to nothing, stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PART = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, variables: Mapping[str, str]) -> str:
    def put(match: re.Match[str]) -> str:
        return "$" if match[1] is None else variables.get(match[1], match[0])

    return _PART.sub(put, text)


def expand_strictly(text: str, variables: Mapping[str, str]) -> str:
    """ValueError names the first variable that is not there."""
    for match in _PART.finditer(text):
        if match[1] is not None and match[1] not in variables:
            raise ValueError(f"there is no variable {match[1]!r}")
    return expand(text, variables)
