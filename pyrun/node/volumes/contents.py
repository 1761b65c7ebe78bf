"""PURE: which files a configMap, secret, downwardAPI or projected volume has.

Sources: kubernetes pkg/volume/{configmap,secret,downwardapi,projected} (MakePayload, CollectData, collectData), and
pkg/volume/util/atomic_writer.go (validatePayload).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...kube.defaults import FILE_MODE, TOKEN_SECONDS
from ...kube.objects.config import ConfigMap, Secret
from ...kube.objects.pods import Pod, PodSpec
from ...kube.objects.volumes import (
    ClusterTrustBundleProjection,
    DownwardAPIVolumeFile,
    KeyToPath,
    PodCertificateProjection,
    ProjectedVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
)
from ..downward import PodFacts, field_value, resource_value
from .errors import VolumeError
from .trust import Trust

LONGEST_PATH = 4096
OWN_MODE = 0o600
Key = tuple[str, str]  # (namespace, name)
Source = tuple[str, int]  # (name of a volume, number of a source in it)


class File(NamedTuple):
    """user: whose it is, None: root's."""

    data: bytes
    mode: int
    user: int | None = None


class Credential(NamedTuple):
    """Both in PEM. chain: the certificate, and those after it."""

    key: bytes
    chain: bytes


Payload = dict[str, File]  # by path below the volume


@dataclass(frozen=True, slots=True)
class Objects:
    """What volumes show, by namespace and name. allocatable: the node's, cpu in thousandths, all else as it is.

    tokens: of the pod's service account, by audience ("": the API server's own) and the seconds that were asked for.
    variables: of Services, for containers. trust: the cluster's bundles; None where there is no API server.
    certificates: of the pod, by volume and number of the source; or why there is none (yet)."""

    config_maps: Mapping[Key, ConfigMap] = field(default_factory=dict)
    secrets: Mapping[Key, Secret] = field(default_factory=dict)
    allocatable: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[tuple[str, int], str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    trust: Trust | None = None
    certificates: Mapping[Source, Credential | str] = field(default_factory=dict)


def user_of(spec: PodSpec) -> int | None:
    """As whom all its containers run, where that is one and the pod says so (FsUserFrom of pkg/volume/util)."""
    own = spec.securityContext.runAsUser if spec.securityContext else None
    users = set()
    for c in [*(spec.initContainers or ()), *spec.containers, *(spec.ephemeralContainers or ())]:
        given = c.securityContext.runAsUser if c.securityContext else None
        users.add(own if given is None else given)
    return users.pop() if len(users) == 1 else None


def payload_of(volume: Volume, pod: Pod, uid: str, objects: Objects) -> Payload:
    """All files of such a volume. VolumeError where an object or key is missing that is not optional."""
    view = _View(volume.name, pod, uid, objects)
    found: Payload = {}
    for given, file in view.files(volume):
        path = "/".join(part for part in given.split("/") if part not in ("", ".")) if given[:1] != "/" else given
        view.check(path, found)
        found[path] = file
    return found


class _View:
    def __init__(self, name: str, pod: Pod, uid: str, objects: Objects) -> None:
        assert pod.metadata is not None
        self.name, self.pod, self.uid, self.objects = name, pod, uid, objects
        self.namespace = pod.metadata.namespace or "default"

    def files(self, volume: Volume) -> Iterator[tuple[str, File]]:
        if (config := volume.configMap) is not None:
            yield from self.config_map(config.name or "", config, config.defaultMode)
        elif (secret := volume.secret) is not None:
            yield from self.secret(secret.secretName or "", secret, secret.defaultMode)
        elif (downward := volume.downwardAPI) is not None:
            yield from self.downward(downward.items or (), downward.defaultMode)
        elif volume.projected is not None:
            yield from self.projected(volume.projected)

    def projected(self, source: ProjectedVolumeSource) -> Iterator[tuple[str, File]]:
        """A later source's file takes the place of an earlier one's, as in a kubelet."""
        merged: Payload = {}
        for index, one in enumerate(source.sources or ()):
            if one.configMap is not None:
                merged.update(self.config_map(one.configMap.name or "", one.configMap, source.defaultMode))
            elif one.secret is not None:
                merged.update(self.secret(one.secret.name or "", one.secret, source.defaultMode))
            elif one.downwardAPI is not None:
                merged.update(self.downward(one.downwardAPI.items or (), source.defaultMode))
            elif (token := one.serviceAccountToken) is not None:
                merged[token.path] = self.token(token, source.defaultMode)
            elif (bundle := one.clusterTrustBundle) is not None:
                merged[bundle.path] = self.bundle(bundle, source.defaultMode)
            elif (certificate := one.podCertificate) is not None:
                merged.update(self.certificate(index, certificate, source.defaultMode))
        yield from merged.items()

    def config_map(self, name: str, source: Any, mode: int | None) -> Iterator[tuple[str, File]]:
        found = self.objects.config_maps.get((self.namespace, name))
        if found is None:
            self.missing(f'configmap "{name}" not found', source.optional)
            return
        data = {key: text.encode("utf-8", "surrogateescape") for key, text in (found.data or {}).items()}
        data |= {key: self.decoded(text, key) for key, text in (found.binaryData or {}).items()}
        yield from self.keyed(data, source, mode, "configmap references non-existent config key")

    def secret(self, name: str, source: Any, mode: int | None) -> Iterator[tuple[str, File]]:
        found = self.objects.secrets.get((self.namespace, name))
        if found is None:
            self.missing(f'secret "{name}" not found', source.optional)
            return
        data = {key: self.decoded(text, key) for key, text in (found.data or {}).items()}
        data |= {key: text.encode("utf-8", "surrogateescape") for key, text in (found.stringData or {}).items()}
        yield from self.keyed(data, source, mode, "references non-existent secret key")

    def keyed(self, data: dict[str, bytes], source: Any, mode: int | None, none: str) -> Iterator[tuple[str, File]]:
        usual = FILE_MODE if mode is None else mode
        items: Sequence[KeyToPath] | None = source.items
        if not items:
            yield from ((key, File(value, usual)) for key, value in sorted(data.items()))
            return
        for item in items:
            if item.key not in data:
                self.missing(f"{none}: {item.key}", source.optional)
            else:
                yield item.path, File(data[item.key], usual if item.mode is None else item.mode)

    def token(self, token: ServiceAccountTokenProjection, mode: int | None) -> File:
        found = self.objects.tokens.get((token.audience or "", token.expirationSeconds or TOKEN_SECONDS))
        if found is None:
            raise VolumeError(self.name, "tokens are not supported where there is no API server to give them out")
        return self.private(found.encode(), mode)

    def bundle(self, source: ClusterTrustBundleProjection, mode: int | None) -> File:
        if self.objects.trust is None:
            raise VolumeError(
                self.name, "trust bundles are not supported where there is no API server to give them out"
            )
        found = self.objects.trust.shown(source)
        if found is None:
            of_signer = "combination of signerName and labelSelector matched zero ClusterTrustBundles"
            self.missing(
                of_signer if source.name is None else f'clustertrustbundle "{source.name}" not found', source.optional
            )
        return self.private(found or b"", mode)

    def certificate(self, index: int, source: PodCertificateProjection, mode: int | None) -> Iterator[tuple[str, File]]:
        none = "certificates are not supported where there is no API server to sign them"
        found = self.objects.certificates.get((self.name, index), none)
        if isinstance(found, str):
            raise VolumeError(self.name, found)
        for path, data in (
            (source.credentialBundlePath, found.key + found.chain),
            (source.keyPath, found.key),
            (source.certificateChainPath, found.chain),
        ):
            if path:
                yield path, self.private(data, mode)

    def private(self, data: bytes, mode: int | None) -> File:
        """Where it is known who reads it, it is theirs alone."""
        assert self.pod.spec is not None
        user, context = user_of(self.pod.spec), self.pod.spec.securityContext
        if user is not None or (context is not None and context.fsGroup is not None):
            return File(data, OWN_MODE, user)
        return File(data, FILE_MODE if mode is None else mode)

    def downward(self, items: Sequence[DownwardAPIVolumeFile], mode: int | None) -> Iterator[tuple[str, File]]:
        for item in items:
            own = item.mode if item.mode is not None else mode if mode is not None else FILE_MODE
            yield item.path, File(self.shown(item).encode("utf-8", "surrogateescape"), own)

    def shown(self, item: DownwardAPIVolumeFile) -> str:
        assert self.pod.spec is not None
        try:
            if item.fieldRef is not None:
                return field_value(self.pod, self.uid, item.fieldRef.fieldPath, PodFacts())
            assert item.resourceFieldRef is not None
            wanted = item.resourceFieldRef.containerName
            all_ = [*self.pod.spec.containers, *(self.pod.spec.initContainers or ())]
            container = next((c for c in all_ if c.name == wanted), None)
            if container is None:
                raise ValueError(f"the pod has no container {wanted!r}")
            return resource_value(item.resourceFieldRef, container, self.objects.allocatable)
        except ValueError as error:
            raise VolumeError(self.name, str(error)) from None

    def missing(self, text: str, optional: bool | None) -> None:
        if not optional:
            raise VolumeError(self.name, text)

    def decoded(self, text: str, key: str) -> bytes:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise VolumeError(self.name, f"the value of {key} is not base64") from None

    def check(self, path: str, before: Payload) -> None:
        """Nothing may lie outside the volume or look like what the swap needs, and no file below another."""
        parts = path.split("/")
        if not path or len(path) > LONGEST_PATH or "\0" in path or any(p in ("", ".", "..") for p in parts):
            raise VolumeError(self.name, f"{path!r} is no path of a file in it")
        if parts[0].startswith(".."):
            raise VolumeError(self.name, f"{path!r} must not begin with ..")
        above = {"/".join(parts[:n]) for n in range(1, len(parts))}
        if other := next((p for p in before if p in above or p.startswith(f"{path}/")), None):
            raise VolumeError(self.name, f"{path} and {other} are in each other's way")
