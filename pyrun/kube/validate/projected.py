"""Sources of a projected volume: trust bundles, and certificates for the pod.

Source: kubernetes pkg/apis/core/validation (validateProjectionSources, names.go), pkg/apis/certificates/types.go.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..objects.volumes import ClusterTrustBundleProjection, PodCertificateProjection
from ..strict import Fault
from .meta import ANNOTATIONS
from .names import check, key_fault, label_fault, number_range, one_of, relative_path_fault, subdomain_fault
from .scheduling import validate_selector

KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
PATHS = ("credentialBundlePath", "keyPath", "certificateChainPath")
SHORTEST_S, LONGEST_S, OF_KUBERNETES_S = 3600, 91 * 86400, 86400  # of a certificate's life
LAST_USER = (1 << 31) - 1
LONGEST_SIGNER = 571


def validate_bundle(source: ClusterTrustBundleProjection, at: str) -> Iterator[Fault]:
    if source.name is None and source.signerName is None:
        yield Fault(at, "must have one of name and signerName")
    elif source.name is not None and source.signerName is not None:
        yield Fault(f"{at}/signerName", "must not be set beside name")
    elif source.name is not None:
        yield from check(bundle_name_fault(source.name), f"{at}/name")
        if source.labelSelector is not None:
            yield Fault(f"{at}/labelSelector", "is for signerName, and not for name")
    else:
        yield from check(signer_fault(source.signerName or ""), f"{at}/signerName")
        yield from validate_selector(source.labelSelector, f"{at}/labelSelector")
    yield from file_path(source.path, f"{at}/path")
    yield from number_range(source.user, 0, LAST_USER, f"{at}/user")


def validate_certificate(source: PodCertificateProjection, at: str) -> Iterator[Fault]:
    yield from check(signer_fault(source.signerName), f"{at}/signerName")
    yield from one_of(source.keyType, KEY_TYPES, f"{at}/keyType")
    host = source.signerName.partition("/")[0]
    longest = OF_KUBERNETES_S if host == "kubernetes.io" or host.endswith(".kubernetes.io") else LONGEST_S
    yield from number_range(source.maxExpirationSeconds, SHORTEST_S, longest, f"{at}/maxExpirationSeconds")
    if not any(getattr(source, field) for field in PATHS):
        yield Fault(at, f"must have one of {', '.join(PATHS)}")
    for field in PATHS:
        if path := getattr(source, field):
            yield from file_path(path, f"{at}/{field}")
    yield from _annotations(source.userAnnotations or {}, f"{at}/userAnnotations")
    yield from number_range(source.user, 0, LAST_USER, f"{at}/user")


def _annotations(found: dict[str, str], at: str) -> Iterator[Fault]:
    for key in found:
        fault = key_fault(key.lower())
        yield from check(fault if fault or "/" in key else f"{key!r} needs a domain before it, as in acme.io/foo", at)
    total = sum(len(key.encode()) + len(value.encode()) for key, value in found.items())
    if total > ANNOTATIONS:
        yield Fault(at, f"has {total} bytes; {ANNOTATIONS} are the most")


def file_path(path: str, at: str) -> Iterator[Fault]:
    """Of a file in a volume."""
    yield from check("is empty" if not path else relative_path_fault(path, may_be_dotdot_prefixed=False), at)


def bundle_name_fault(text: str) -> str | None:
    """A DNS name; that of a signer's has the signer before it, with : in place of /, and one more :."""
    signer, colon, name = text.rpartition(":")
    if colon and not signer:
        return f"{text!r} has no signer before its :"
    return subdomain_fault(name)


def signer_fault(text: str) -> str | None:
    """DOMAIN/NAME, with two labels of the domain at least."""
    domain, slash, name = text.partition("/")
    if not slash or "/" in name:
        return f"{text!r} must be like example.com/signer-name" if text else "is missing"
    labels = domain.split(".")
    if len(labels) < 2 or len(domain) > 253:
        return f"{domain!r} must be a domain of two parts at least, and of 253 characters at most"
    if len(text) > LONGEST_SIGNER:
        return f"is {len(text)} characters long; {LONGEST_SIGNER} are the most"
    faults = (*map(label_fault, labels), *map(subdomain_fault, name.split(".")))
    return next((f"{text!r}: a part of it {fault}" for fault in faults if fault), None)
