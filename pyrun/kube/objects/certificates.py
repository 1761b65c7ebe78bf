"""Types of Kubernetes: whom pods trust, and who they are.

Generated from lightkube-models 1.37.0.8 by `make kube-objects`; do not edit.
"""

from __future__ import annotations

from .base import Object, Time
from .meta import Condition, ObjectMeta


class ClusterTrustBundleSpec(Object):
    trustBundle: str
    signerName: str | None = None


class ClusterTrustBundle(Object):
    spec: ClusterTrustBundleSpec
    apiVersion: str | None = None
    kind: str | None = None
    metadata: ObjectMeta | None = None


class PodCertificateRequestStatus(Object):
    beginRefreshAt: Time | None = None
    certificateChain: str | None = None
    conditions: list[Condition] | None = None
    notAfter: Time | None = None
    notBefore: Time | None = None
