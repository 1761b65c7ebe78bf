"""PURE: the variables by which a container finds Services. Source: kubernetes pkg/kubelet/envvars.

The API server's own Service is told to all pods; the others of the pod's namespace where enableServiceLinks says so.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...kube.objects.services import Service

MASTER = ("default", "kubernetes")  # namespace, name


def service_variables(services: Mapping[tuple[str, str], Service], namespace: str, *, links: bool) -> dict[str, str]:
    """services: by namespace and name."""
    chosen = [services[MASTER]] if MASTER in services else []
    if links:
        chosen += [one for key, one in sorted(services.items()) if key[0] == namespace and key != MASTER]
    found: dict[str, str] = {}
    for one in chosen:
        found.update(_of(one))
    return found


def _of(service: Service) -> dict[str, str]:
    spec, meta = service.spec, service.metadata
    address = spec.clusterIP if spec is not None else None
    if meta is None or spec is None or not spec.ports or address in (None, "", "None"):
        return {}
    assert address is not None
    prefix = _word(meta.name or "")
    found = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(spec.ports[0].port)}
    for i, port in enumerate(spec.ports):
        if port.name:
            found[f"{prefix}_SERVICE_PORT_{_word(port.name)}"] = str(port.port)
        protocol = port.protocol or "TCP"
        url = f"{protocol.lower()}://{f'[{address}]' if ':' in address else address}:{port.port}"
        if i == 0:
            found[f"{prefix}_PORT"] = url
        one = f"{prefix}_PORT_{port.port}_{protocol}"
        found |= {one: url, f"{one}_PROTO": protocol.lower(), f"{one}_PORT": str(port.port), f"{one}_ADDR": address}
    return found


def _word(name: str) -> str:
    return name.upper().replace("-", "_")
