"""PURE: trust anchors of ClusterTrustBundles, as a volume shows them, and certificates in PEM.

Source: kubernetes pkg/kubelet/clustertrustbundle (normalizeTrustAnchors), pkg/kubelet/podcertificate
(cleanCertificateChain); RFC 7468.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...kube.objects.certificates import ClusterTrustBundle
from ...kube.objects.meta import LabelSelector
from ...kube.objects.volumes import ClusterTrustBundleProjection

_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")
LINE = 64


@dataclass(frozen=True, slots=True)
class Trust:
    """bundles: all of the cluster, by name. order: random bytes of this agent, so that nobody comes to rely on which
    anchor is the first; while they stay equal, so does the order."""

    bundles: Mapping[str, ClusterTrustBundle]
    order: bytes = b""

    def shown(self, source: ClusterTrustBundleProjection) -> bytes | None:
        """Each anchor once, in PEM. None where no bundle is meant."""
        found = [one for name, one in self.bundles.items() if refers(source, name, one)]
        if not found:
            return None
        anchors = {der for one in found for der in certificates(one.spec.trustBundle.encode())}
        return b"".join(map(pem, sorted(anchors, key=lambda der: hashlib.blake2b(der, key=self.order).digest())))


def refers(source: ClusterTrustBundleProjection, name: str, bundle: ClusterTrustBundle) -> bool:
    """Whether it is one of those that the source means."""
    if source.name is not None:
        return source.name == name
    labels = (bundle.metadata and bundle.metadata.labels) or {}
    return (bundle.spec.signerName or "") == source.signerName and selects(source.labelSelector, labels)


def selects(selector: LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """None selects nothing, and an empty one everything."""
    if selector is None or any(labels.get(key) != value for key, value in (selector.matchLabels or {}).items()):
        return False
    for one in selector.matchExpressions or ():
        value = labels.get(one.key)
        given = value in (one.values or ()) if one.operator in ("In", "NotIn") else value is not None
        if given != (one.operator in ("In", "Exists")):
            return False
    return True


def certificates(text: bytes) -> Iterator[bytes]:
    """In DER, each that is in the text; what is between them is left out, and what is no base64."""
    for block in _BLOCK.finditer(text):
        try:
            yield base64.b64decode(b"".join(block[1].split()), validate=True)
        except binascii.Error:
            continue


def pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + LINE] for at in range(0, len(text), LINE)]
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))
