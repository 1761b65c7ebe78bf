"""What the generated types are made of.

Attributes have Kubernetes' own names, and absent is None, as null is. Decoding by msgspec leaves out what it does not
know, as is right for what an API server sends; files are read by `kube/strict.py`.
"""

from __future__ import annotations

from msgspec import Struct


class Object(Struct, gc=False, omit_defaults=True, kw_only=True):
    """Trees without a way back, so nothing of them is ever garbage in a circle."""


Time = str  # RFC 3339, such as 2026-01-31T12:00:00Z
Quantity = str | int | float  # 100m, 1Gi, 0.5: kube/quantity.py reads it
IntOrString = int | str  # a port by number or name
