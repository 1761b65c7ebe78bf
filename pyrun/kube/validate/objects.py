"""The face: one object's faults, by its kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..defaults import default_deployment, default_pod
from ..objects.apps import Deployment
from ..objects.base import Object
from ..objects.config import ConfigMap, Secret
from ..objects.pods import Pod
from ..objects.services import Service
from ..strict import Fault, decode
from .apps import validate_deployment
from .meta import validate_config_map, validate_meta, validate_secret
from .names import service_name_fault, subdomain_fault
from .pod import validate_pod


def read_object(value: Any) -> tuple[Object | None, list[Fault]]:
    """A document's plain value as an object with its defaults, or all that is wrong with it.

    Rules are looked at when the types are right, as by an API server.
    """
    found, faults = decode(value)
    if found is None:
        return None, faults
    if isinstance(found, Pod):
        default_pod(found)
    elif isinstance(found, Deployment):
        default_deployment(found)
    faults = list(validate_object(found))
    return (None, faults) if faults else (found, [])


def validate_object(found: Object) -> Iterator[Fault]:
    match found:
        case Pod():
            yield from validate_pod(found)
        case Deployment():
            yield from validate_deployment(found)
        case ConfigMap():
            yield from validate_config_map(found)
        case Secret():
            yield from validate_secret(found)
        case _:
            fault = service_name_fault if isinstance(found, Service) else subdomain_fault
            yield from validate_meta(getattr(found, "metadata", None), fault)
