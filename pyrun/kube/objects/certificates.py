"""Types of Kubernetes: whom pods trust.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import Object
from .meta import ObjectMeta


class ClusterTrustBundleSpec(Object):
    trustBundle: str
    signerName: str | None = None


class ClusterTrustBundle(Object):
    spec: ClusterTrustBundleSpec
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None
