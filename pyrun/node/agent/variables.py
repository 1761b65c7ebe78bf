"""PURE: a container's environment. Source: kubernetes pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables.

envFrom first, in order, then env, each over those before it; a value may name what came before it by $(NAME).
Services' come before all; a node without an API server has none.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping

from ...kube.objects.containers import (
    Container,
    EnvFromSource,
    EnvVarSource,
    EphemeralContainer,
    FileKeySelector,
)
from ...kube.objects.pods import Pod
from ...kube.objects.volumes import ResourceFieldSelector
from ..downward import PodFacts, field_value, resource_value
from ..expansion import expand
from ..volumes import Objects, value_in
from .container_config import ConfigFault


def environment(
    c: Container | EphemeralContainer,
    pod: Pod,
    uid: str,
    objects: Objects,
    facts: PodFacts,
    texts: Mapping[tuple[str, str], str],
) -> dict[str, str]:
    """texts: (volume, path) → what files hold. ConfigFault names what is missing."""
    assert pod.metadata is not None
    namespace = pod.metadata.namespace or "default"
    found: dict[str, str] = dict(objects.variables)
    for source in c.envFrom or ():
        found.update(_all_of(source, namespace, objects))
    for variable in c.env or ():
        given = variable.valueFrom
        if given is None:
            found[variable.name] = expand(variable.value or "", found)
        elif given.fieldRef is not None:
            found[variable.name] = _field(pod, uid, given.fieldRef.fieldPath, facts)
        elif given.resourceFieldRef is not None:
            found[variable.name] = _resource(c, pod, given.resourceFieldRef, objects)
        elif given.fileKeyRef is not None:
            if (value := _of_file(given.fileKeyRef, texts)) is not None:
                found[variable.name] = value
        elif (value := _value_of(given, namespace, objects)) is not None:
            found[variable.name] = value
    return found


def _field(pod: Pod, uid: str, path: str, facts: PodFacts) -> str:
    try:
        return field_value(pod, uid, path, facts)
    except ValueError as error:
        raise ConfigFault(str(error)) from None


def _resource(c: Container | EphemeralContainer, pod: Pod, ref: ResourceFieldSelector, objects: Objects) -> str:
    assert pod.spec is not None
    every = {one.name: one for one in [*(pod.spec.initContainers or ()), *pod.spec.containers]}
    try:
        return resource_value(ref, every[ref.containerName or c.name], objects.allocatable)
    except (KeyError, ValueError) as error:
        raise ConfigFault(f"resourceFieldRef {ref.resource}: {error}") from None


def _of_file(ref: FileKeySelector, texts: Mapping[tuple[str, str], str]) -> str | None:
    """≠ a kubelet: an empty value is one, and optional is about the file as well, as the API has it."""
    where, text = f"file {ref.path} of volume {ref.volumeName}", texts.get((ref.volumeName, ref.path))
    try:
        value = None if text is None else value_in(text, ref.key)
    except ValueError as error:
        raise ConfigFault(f"{where}: {error}") from None
    if value is None and not ref.optional:
        raise ConfigFault(f"{where} is not there" if text is None else f"{where} has no {ref.key}")
    return value


def _values(objects: Objects, kind: str, namespace: str, name: str) -> dict[str, str] | None:
    """A secret's as text; what is not UTF-8 has replacement characters, as a kubelet's string has."""
    if kind == "configmap":
        config_map = objects.config_maps.get((namespace, name))
        return None if config_map is None else dict(config_map.data or {})
    secret = objects.secrets.get((namespace, name))
    if secret is None:
        return None
    values = {key: b64decode(value).decode(errors="replace") for key, value in (secret.data or {}).items()}
    return {**values, **(secret.stringData or {})}


def _all_of(source: EnvFromSource, namespace: str, objects: Objects) -> dict[str, str]:
    kind, ref = ("configmap", source.configMapRef) if source.configMapRef else ("secret", source.secretRef)
    assert ref is not None
    found = _values(objects, kind, namespace, ref.name or "")
    if found is None:
        if ref.optional:
            return {}
        raise ConfigFault(f'{kind} "{ref.name}" not found')
    return {f"{source.prefix or ''}{key}": value for key, value in found.items()}


def _value_of(source: EnvVarSource, namespace: str, objects: Objects) -> str | None:
    """None: the variable is left out."""
    kind, ref = ("configmap", source.configMapKeyRef) if source.configMapKeyRef else ("secret", source.secretKeyRef)
    assert ref is not None
    values = _values(objects, kind, namespace, ref.name or "")
    if values is not None and ref.key in values:
        return values[ref.key]
    if ref.optional:
        return None
    if values is None:
        raise ConfigFault(f'{kind} "{ref.name}" not found')
    raise ConfigFault(f"couldn't find key {ref.key} in {kind} {namespace}/{ref.name}")
