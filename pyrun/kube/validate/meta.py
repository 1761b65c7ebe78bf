"""Metadata, ConfigMaps and Secrets."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator

from ..objects.config import ConfigMap, Secret
from ..objects.meta import ObjectMeta
from ..strict import Fault, escaped
from .names import check, config_key_fault, key_fault, keys, label_fault, subdomain_fault

ANNOTATIONS = 256 << 10  # bytes of all of an object's
FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")  # those without a domain
DATA = 1 << 20  # of a ConfigMap's or Secret's

# The keys that a type of Secret must have.
SECRET_KEYS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def validate_meta(
    meta: ObjectMeta | None, name_fault: Callable[[str], str | None] = subdomain_fault, *, named: bool = True
) -> Iterator[Fault]:
    """named: a name (or generateName) is needed, as everywhere but in templates."""
    if meta is None:
        if named:
            yield Fault("/metadata/name", "is missing")
        return
    if meta.name:
        yield from check(name_fault(meta.name), "/metadata/name")
    elif meta.generateName:
        yield Fault("/metadata/generateName", "is for an API server; in a file give it a name")
    elif named:
        yield Fault("/metadata/name", "is missing")
    if meta.namespace:
        yield from check(label_fault(meta.namespace), "/metadata/namespace")
    yield from keys(meta.labels, "/metadata/labels", values=True)
    yield from keys(meta.annotations, "/metadata/annotations", values=False)
    for i, finalizer in enumerate(meta.finalizers or ()):
        fault = key_fault(finalizer)
        if fault is None and "/" not in finalizer and finalizer not in FINALIZERS:
            fault = f"{finalizer!r} must have a domain before it, such as example.com/{finalizer}"
        yield from check(fault, f"/metadata/finalizers/{i}")
    yield from _owners(meta)
    total = sum(len(k.encode()) + len(v.encode()) for k, v in (meta.annotations or {}).items())
    if total > ANNOTATIONS:
        yield Fault("/metadata/annotations", f"has {total} bytes; {ANNOTATIONS} are the most")


def _owners(meta: ObjectMeta) -> Iterator[Fault]:
    controllers = 0
    for i, owner in enumerate(meta.ownerReferences or ()):
        at = f"/metadata/ownerReferences/{i}"
        for field in ("apiVersion", "kind", "name", "uid"):
            if not getattr(owner, field):
                yield Fault(f"{at}/{field}", "is empty")
        controllers += bool(owner.controller)
        if owner.controller and controllers > 1:
            yield Fault(f"{at}/controller", "is true of another one already")


def validate_config_map(found: ConfigMap) -> Iterator[Fault]:
    yield from validate_meta(found.metadata)
    total = 0
    for field, data in (("data", found.data or {}), ("binaryData", found.binaryData or {})):
        for key, value in data.items():
            at = f"/{field}/{escaped(key)}"
            yield from check(config_key_fault(key), at)
            total += len(value.encode())
            if field == "binaryData":
                yield from _base64(value, at)
                if key in (found.data or {}):
                    yield Fault(at, "is in data as well")
    if total > DATA:
        yield Fault("/data", f"has {total} bytes; {DATA} are the most")


def validate_secret(found: Secret) -> Iterator[Fault]:
    yield from validate_meta(found.metadata)
    total = 0
    for key, value in (found.data or {}).items():
        yield from check(config_key_fault(key), f"/data/{escaped(key)}")
        yield from _base64(value, f"/data/{escaped(key)}")
        total += len(value) * 3 // 4
    for key in found.stringData or {}:
        yield from check(config_key_fault(key), f"/stringData/{escaped(key)}")
    if total > DATA:
        yield Fault("/data", f"has {total} bytes; {DATA} are the most")
    have = (found.data or {}).keys() | (found.stringData or {}).keys()
    for key in SECRET_KEYS.get(found.type or "", ()):
        if key not in have:
            yield Fault(f"/data/{key}", f"is missing; a Secret of type {found.type} has it")


def _base64(value: str, at: str) -> Iterator[Fault]:
    try:
        base64.b64decode(value.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        yield Fault(at, "is not base64" + ("; plain text goes into stringData" if at.startswith("/data") else ""))
