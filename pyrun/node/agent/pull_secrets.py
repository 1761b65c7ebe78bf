"""PURE: whose name a pod's images are asked for in: its imagePullSecrets, as `kubectl create secret docker-registry`
makes them. Source: kubernetes pkg/credentialprovider/secrets.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from ...errors import PyrunError
from ...image.reference import parse_reference
from ...image.registry.credentials import Auth, auth_among
from ...kube.objects.config import Secret
from ...kube.objects.pods import Pod
from ..volumes import Objects
from .pulled import Login, login_of

CONFIG, OLD = ".dockerconfigjson", ".dockercfg"  # a docker's config.json, and what is under `auths` in one


def pull_auths(pod: Pod, objects: Objects, image: str) -> tuple[list[tuple[Auth, Login]], list[str]]:
    """(those for the image's registry, in the pod's order; secrets that are not there or hold none). PyrunError for one
    that is broken."""
    assert pod.spec is not None and pod.metadata is not None
    reference, namespace = parse_reference(image), pod.metadata.namespace or "default"
    found, missing = [], []
    for one in pod.spec.imagePullSecrets or ():
        secret = objects.secrets.get((namespace, one.name or ""))
        auths = None if secret is None else _auths(secret)
        if auths is None:
            missing.append(one.name or "")
        elif (auth := auth_among(auths, reference.host, reference.repository)) is not None:
            assert secret is not None
            found.append((auth, login_of(secret, auth)))
    return found, missing


def _auths(secret: Secret) -> dict[str, Any] | None:
    name = (secret.metadata and secret.metadata.name) or ""
    for key in (CONFIG, OLD):
        text = (secret.stringData or {}).get(key)
        data = (secret.data or {}).get(key)
        if text is None and data is None:
            continue
        try:
            value = json.loads(text if text is not None else base64.b64decode(data or "", validate=True))
            auths = value.get("auths") if key == CONFIG else value
        except (ValueError, binascii.Error, AttributeError):
            raise PyrunError(f'secret "{name}": its {key} is no JSON object') from None
        if not isinstance(auths, dict):
            raise PyrunError(f'secret "{name}": its {key} has no auths')
        return auths
    return None
