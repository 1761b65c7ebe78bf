"""PURE: a container's environment. Source: kubernetes pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables.

envFrom first, in order, then env, each over those before it; a value may name what came before it by $(NAME).
enableServiceLinks asks for variables of the namespace's Services, and a node without an API server has none.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import NamedTuple

from ...kube.objects.config import ConfigMap, Secret
from ...kube.objects.containers import Container, EnvFromSource, EnvVarSource, EphemeralContainer
from ..expansion import expand
from .container_config import ConfigFault

Name = tuple[str, str]  # namespace and name


class Objects(NamedTuple):
    """What pods refer to."""

    config_maps: Mapping[Name, ConfigMap]
    secrets: Mapping[Name, Secret]

    def values(self, kind: str, namespace: str, name: str) -> dict[str, str] | None:
        """A secret's as text; what is not UTF-8 has replacement characters, as a kubelet's string has."""
        if kind == "configmap":
            config_map = self.config_maps.get((namespace, name))
            return None if config_map is None else dict(config_map.data or {})
        secret = self.secrets.get((namespace, name))
        if secret is None:
            return None
        values = {key: b64decode(value).decode(errors="replace") for key, value in (secret.data or {}).items()}
        return {**values, **(secret.stringData or {})}


def environment(c: Container | EphemeralContainer, namespace: str, objects: Objects) -> dict[str, str]:
    """ConfigFault names what is missing."""
    found: dict[str, str] = {}
    for source in c.envFrom or ():
        found.update(_all_of(source, namespace, objects))
    for variable in c.env or ():
        if variable.valueFrom is None:
            found[variable.name] = expand(variable.value or "", found)
        elif (value := _value_of(variable.valueFrom, namespace, objects)) is not None:
            found[variable.name] = value
    return found


def _all_of(source: EnvFromSource, namespace: str, objects: Objects) -> dict[str, str]:
    kind, ref = ("configmap", source.configMapRef) if source.configMapRef else ("secret", source.secretRef)
    assert ref is not None
    found = objects.values(kind, namespace, ref.name or "")
    if found is None:
        if ref.optional:
            return {}
        raise ConfigFault(f'{kind} "{ref.name}" not found')
    return {f"{source.prefix or ''}{key}": value for key, value in found.items()}


def _value_of(source: EnvVarSource, namespace: str, objects: Objects) -> str | None:
    """None: the variable is left out."""
    kind, ref = ("configmap", source.configMapKeyRef) if source.configMapKeyRef else ("secret", source.secretKeyRef)
    assert ref is not None
    values = objects.values(kind, namespace, ref.name or "")
    if values is not None and ref.key in values:
        return values[ref.key]
    if ref.optional:
        return None
    if values is None:
        raise ConfigFault(f'{kind} "{ref.name}" not found')
    raise ConfigFault(f"couldn't find key {ref.key} in {kind} {namespace}/{ref.name}")
